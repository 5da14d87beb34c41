"""The command `unidiff`: every task from the shell.

Knows terminals and files; what a task means is decided in the rooms below.
"""


def main() -> None:
    """Run the command line; the console script `unidiff`."""
    from .app import app

    app(prog_name="unidiff")


__all__ = ["main"]
