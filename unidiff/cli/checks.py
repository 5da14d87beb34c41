"""Checks of arguments that need no model, made before one is loaded."""

from collections.abc import Sequence
from pathlib import Path


def check_files(paths: Sequence[Path]) -> None:
    """Raise FileNotFoundError that names the first missing file."""
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is no file")


def check_text(text: str, name: str) -> None:
    """Raise ValueError if a text has nothing in it."""
    if not text.strip():
        raise ValueError(f"the {name} is empty: say something")
