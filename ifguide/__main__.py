"""`python -m ifguide` is the command `ifguide`."""

from ifguide.cli.main import main

if __name__ == "__main__":
    main()
