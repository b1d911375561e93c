"""The `firstspike` command. Verbs parse, call one public function, print and save."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command; expected errors end it with one message and exit status 2."""
    from firstspike.cli.app import app

    try:
        app()
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("FIRSTSPIKE_DEBUG"):
            raise
        print(f"firstspike: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("firstspike: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
