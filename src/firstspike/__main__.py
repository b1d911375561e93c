"""`python -m firstspike`: the command line."""

from firstspike.cli import main

if __name__ == "__main__":
    main()
