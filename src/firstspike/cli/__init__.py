"""The `firstspike` command. Verbs parse, call one public function, print and save."""

from __future__ import annotations

import os
import sys


def main(arguments: list[str] | None = None) -> None:
    """Run the command, by default that of this process.

    Expected errors end it with one message and exit status 2.
    """
    from firstspike.cli.app import app

    try:
        app(args=arguments)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("FIRSTSPIKE_DEBUG"):
            raise
        own = isinstance(error, OSError) and error.filename is None  # ours: leave out its number
        said = getattr(error, "strerror", None) if own else None
        print(f"firstspike: error: {said or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, RecursionError) as error:
        what = "more memory than there is" if isinstance(error, MemoryError) else "too deep a nest"
        print(
            f"firstspike: error: the command needs {what}. Files are as they were; use smaller "
            "batches, fewer samples or a smaller model.",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(
            "firstspike: interrupted. Files are whole: what was finished is kept, and the same "
            "command goes on from there (a training from its last checkpoint).",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
