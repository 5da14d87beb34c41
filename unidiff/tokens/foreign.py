"""Is a checkpoint somebody else's? Then the room that converts it is looked up, and only then.

The rooms that load checkpoints may not import `convert/`; they ask here by name.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from .checkpoint import read_json

OWN = "unidiff"
_ROOM = "unidiff.convert"


def is_foreign(folder: Path) -> bool:
    """Whether a local folder holds a checkpoint of another format.

    Raises:
        ValueError: if its `config.json` is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        return False
    kind = read_json(path).get("model_type")
    return kind is not None and not str(kind).startswith(OWN)


def is_own(folder: Path) -> bool:
    """Whether a local folder holds one of our models; raises ValueError as `is_foreign`."""
    path = folder / "config.json"
    return path.is_file() and str(read_json(path).get("model_type")).startswith(OWN)


def converting(name: str, module: str = "loading") -> Any:
    """A function of the room that converts."""
    return getattr(import_module(f"{_ROOM}.{module}"), name)
