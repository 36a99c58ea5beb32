"""`python -m daemonkit` is the command `daemonkit`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="daemonkit")
