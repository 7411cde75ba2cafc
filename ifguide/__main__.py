"""`python -m ifguide` is the command `ifguide`."""

from ifguide.cli import main

if __name__ == "__main__":
    main()
