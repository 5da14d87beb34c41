"""`python -m unidiff`: the same as the command `unidiff`."""

from unidiff.cli import main

if __name__ == "__main__":
    main()
