"""The model's files in a checkpoint folder: are they all there and whole?

Reads JSON files and the headers of the weights; the weights themselves are left to transformers.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from unidiff.tokens.checkpoint import REMEDY, check_exists, check_weights, read_json, some
from unidiff.tokens.foreign import PICKLE_ADVICE, PICKLES

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
_TRAINERS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")


def check_model_folder(folder: Path, allow_pickle: bool = False) -> None:
    """Raise an error that names the first missing or damaged file of the model.

    `generation_config.json` may be missing. Weights in files of other names are not looked at.

    Args:
        folder: a local checkpoint folder.
        allow_pickle: whether weights may be pickles.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is cut short, is no JSON, or is a pickle that is not allowed.
    """
    check_exists(folder / "config.json")
    read_json(folder / "config.json")
    if (folder / "generation_config.json").exists():
        read_json(folder / "generation_config.json")
    if files := weight_files(folder):
        for path in files:
            check_weights(path)
    elif not [*folder.glob("*.safetensors"), *folder.glob("*.gguf")]:
        if not (pickles := pickles_in(folder)):
            raise FileNotFoundError(f"{folder / WEIGHTS_FILE} is missing: {REMEDY}")
        if not allow_pickle:
            refuse_pickles(pickles)


def weight_files(folder: Path) -> list[Path]:
    """The model's weights under their usual names: one file, or the shards of an index; or none."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        return [folder / name for name in sorted(set(weight_map(folder).values()))]
    return []


def weight_map(folder: Path, index: str = INDEX_FILE) -> dict[str, str]:
    """Weight -> the shard that holds it, by an index; raises ValueError if it places nothing."""
    placed = read_json(folder / index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ValueError(f"{folder / index} holds no 'weight_map': {REMEDY}")
    return placed


def pickles_in(folder: Path) -> list[Path]:
    """PyTorch's own files in a folder that may hold weights, sorted; not a Trainer's."""
    found = [path for pattern in PICKLES for path in folder.glob(pattern)]
    return sorted(path for path in found if not path.stem.startswith(_TRAINERS))


def refuse_pickles(pickles: Sequence[Path]) -> NoReturn:
    """Raise the ValueError for weights in pickles that nobody has allowed."""
    raise ValueError(
        f"{pickles[0].parent} has its weights in pickles "
        f"({some(path.name for path in pickles)}), {PICKLE_ADVICE}"
    )


def check_complete(missing: Iterable[str], source: Path) -> None:
    """Raise ValueError if weights are missing, which transformers would fill with random numbers.

    Args:
        missing: names of weights that no file held.
        source: folder or repository of the checkpoint.
    """
    if names := list(missing):
        raise ValueError(f"the checkpoint {source} lacks the weights {some(names)}: {REMEDY}")
