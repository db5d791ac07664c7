"""`python -m truesweep`."""

from truesweep.commands import main

if __name__ == "__main__":
    main()
