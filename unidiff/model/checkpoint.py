"""The model's files in a checkpoint folder: are they all there and whole?

Reads JSON files and the headers of the weights; the weights themselves are left to transformers.
"""

from collections.abc import Iterable
from pathlib import Path

from unidiff.tokens.checkpoint import REMEDY, check_exists, check_weights, read_json, some

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"


def check_model_folder(folder: Path) -> None:
    """Raise an error that names the first missing or damaged file of the model.

    `generation_config.json` may be missing. Weights in files of other names are not looked at.

    Args:
        folder: a local checkpoint folder.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is cut short or is no JSON.
    """
    check_exists(folder / "config.json")
    read_json(folder / "config.json")
    if (folder / "generation_config.json").exists():
        read_json(folder / "generation_config.json")
    if (folder / WEIGHTS_FILE).is_file():
        check_weights(folder / WEIGHTS_FILE)
    elif (folder / INDEX_FILE).is_file():
        for name in sorted(set(weight_map(folder).values())):
            check_weights(folder / name)
    elif not [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.gguf")]:
        raise FileNotFoundError(f"{folder / WEIGHTS_FILE} is missing: {REMEDY}")


def weight_map(folder: Path, index: str = INDEX_FILE) -> dict[str, str]:
    """Weight -> the shard that holds it, by the folder's index; raises ValueError without any."""
    placed = read_json(folder / index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ValueError(f"{folder / index} holds no 'weight_map': {REMEDY}")
    return placed


def check_complete(missing: Iterable[str], source: Path) -> None:
    """Raise ValueError if weights are missing, which transformers would fill with random numbers.

    Args:
        missing: names of weights that no file held.
        source: folder or repository of the checkpoint.
    """
    if names := list(missing):
        raise ValueError(f"the checkpoint {source} lacks the weights {some(names)}: {REMEDY}")
