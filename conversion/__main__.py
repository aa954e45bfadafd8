"""`python -m vidformers.conversion` is the command `vidformers`."""

from vidformers.commands.cli import main


if __name__ == "__main__":
    main()
