"""Pack a run's network into the zoo: python scripts/add_to_zoo.py RUN NAME "LICENCE" "ORIGIN"."""

import sys
from pathlib import Path

from firstspike.zoo import add

if __name__ == "__main__":
    run, name, licence, origin = sys.argv[1:]
    folder = Path(__file__).parent.parent / "src" / "firstspike" / "zoo"
    result = add(run, name, folder, licence=licence, origin=origin)["result"]
    print(f"{name}: {100 * result['accuracy']:.2f} % on {result['samples']:,} test images")
