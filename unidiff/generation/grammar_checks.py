"""Checks of the options that describe a grammar; what they say is read later, in `grammar.py`."""

from typing import Any


def check_regex(name: str, value: Any) -> None:
    """Raise TypeError unless the value is a text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {value!r}")


def check_schema(name: str, value: Any) -> None:
    """Raise TypeError unless the value is a JSON text or a dictionary."""
    if not isinstance(value, (str, dict)):
        raise TypeError(f"{name} must be JSON text or a dictionary, got {value!r}")


def check_choices(name: str, value: Any) -> None:
    """Raise an error unless the value is a list of texts, or of such lists and None."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of texts, got {value!r}")
    if not value:
        raise ValueError(f"{name} must hold at least one text, got {value!r}")
    rows = [value] if isinstance(value[0], str) else [row for row in value if row is not None]
    for row in rows:
        if not isinstance(row, (list, tuple)) or not all(isinstance(text, str) for text in row):
            raise TypeError(f"{name} must be texts, or one list of texts per row, got {value!r}")
        if not row or not all(row):
            raise ValueError(f"{name} must hold at least one text, and no empty one; got {value!r}")
