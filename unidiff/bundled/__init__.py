"""The small trained checkpoint and the example photographs that ship with the package.

Knows where files lie; knows nothing of what they mean.
"""

from importlib.resources import files
from pathlib import Path

CHECKPOINT_FOLDER = "checkpoint"
PHOTOGRAPH_FOLDER = "photographs"
PHOTOGRAPHS = ("bag", "boot", "dress", "sneaker")


def bundled_checkpoint() -> Path:
    """Folder of the packaged checkpoint, ready for `from_pretrained`.

    Raises:
        FileNotFoundError: if this installation holds no checkpoint, or only part of one.
    """
    folder = _folder(CHECKPOINT_FOLDER)
    missing = [
        name for name in ("config.json", "model.safetensors") if not (folder / name).exists()
    ]
    if missing:
        raise FileNotFoundError(
            f"the bundled checkpoint needs {missing} in {folder}, and they are not there. Install "
            "unidiff from its wheel or a complete clone, or make one with "
            "`unidiff train --recipe bundled`."
        )
    return folder


def bundled_photograph(name: str) -> Path:
    """PNG file of a photograph that no training has seen, 28 x 28 grey (Fashion-MNIST, test split).

    Args:
        name: one of `PHOTOGRAPHS`.

    Raises:
        ValueError: if there is no photograph of that name.
        FileNotFoundError: if this installation lacks its file.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"the bundled photographs are {PHOTOGRAPHS}, got {name!r}")
    path = _folder(PHOTOGRAPH_FOLDER) / f"{name}.png"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: install unidiff from its wheel or a complete clone"
        )
    return path


def _folder(name: str) -> Path:
    """A folder of this package."""
    return Path(str(files(__name__))) / name
