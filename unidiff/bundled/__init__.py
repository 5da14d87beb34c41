"""The small trained checkpoint that ships with the package, and where it lies.

Knows a folder's place; knows nothing of what the files mean.
"""

from importlib.resources import files
from pathlib import Path

CHECKPOINT_FOLDER = "checkpoint"


def bundled_checkpoint() -> Path:
    """Folder of the packaged checkpoint, ready for `from_pretrained`.

    Raises:
        FileNotFoundError: if this installation holds no checkpoint, or only part of one.
    """
    folder = Path(str(files(__name__))) / CHECKPOINT_FOLDER
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
