"""Is a checkpoint somebody else's? Then the room that converts it is looked up, and only then.

The rooms that load checkpoints may not import `convert/`; they ask here by name. A name on the hub
is looked up here as well: of somebody else's checkpoint weights, configuration and tokenizer are
fetched, never code.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .checkpoint import read_json

OWN = "unidiff"
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.th", "*.ckpt")
PICKLE_ADVICE = (  # of every message about weights in pickles
    "files that can hold code: to read the tensors in them, and nothing else, pass "
    "use_safetensors=False to from_pretrained, allow_pickle=True to load_image_tokenizer, or "
    "--allow-pickle to unidiff convert and unidiff verify"
)
_SAFE = "*.safetensors"
_FILES = ("*.json", "*.jinja", "*.model", "*.txt", _SAFE)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ROOM = "unidiff.convert"


def is_foreign(folder: Path) -> bool:
    """Whether a local folder holds a checkpoint of another format.

    Raises:
        ValueError: if its `config.json` is damaged.
    """
    path = folder / "config.json"
    return path.is_file() and _says_foreign(path)


def local_folder(
    source: str | Path, subfolder: str = "", more: Sequence[str] = (), **options: Any
) -> Path:
    """The folder of a checkpoint, which of somebody else's on the hub is a snapshot in the cache.

    Args:
        source: a folder, or a name on the hub such as "GSAI-ML/LLaDA-8B-Instruct".
        subfolder: of the checkpoint in it.
        more: patterns of further files to fetch, such as `PICKLES`.
        options: of `HUB_OPTIONS`, for the download.

    Returns:
        The folder. What is neither a folder nor somebody else's on the hub comes back as it is,
        for transformers to look up.

    Raises:
        OSError: if the hub refuses, or cannot be reached.
        ValueError: if the `config.json` there is damaged, or the weights are pickles that were not
            asked for.
    """
    folder = Path(source, subfolder)
    if folder.is_dir() or not _HUB_NAME.fullmatch(str(source)):
        return folder
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RepositoryNotFoundError,
    )

    name = str(source)
    try:
        found = hf_hub_download(name, "config.json", subfolder=subfolder or None, **options)
    except GatedRepoError:  # its message says what to do
        raise
    except (EntryNotFoundError, RepositoryNotFoundError):  # an adapter, or nothing of that name
        return folder
    if not _says_foreign(Path(found)):
        return folder
    within = f"{subfolder}/" if subfolder else ""
    wanted = [f"{within}{pattern}" for pattern in (*_FILES, *more)]
    deeper = f"{within}*/*"  # other formats of the same weights
    snapshot = snapshot_download(name, allow_patterns=wanted, ignore_patterns=deeper, **options)
    folder = Path(snapshot, subfolder)
    readable = (_SAFE, *PICKLES)  # of the latter some may have been fetched before
    if not set(PICKLES) & set(more) and not any(any(folder.glob(one)) for one in readable):
        raise ValueError(
            f"{name} has no {_SAFE} on the hub: its weights, if it has any, are pickles "
            f"({', '.join(PICKLES)}), {PICKLE_ADVICE}"
        )
    return folder


def hub_options(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `from_pretrained`'s keywords that are for the download."""
    return {name: keywords[name] for name in HUB_OPTIONS if keywords.get(name) is not None}


def is_own(folder: Path) -> bool:
    """Whether a local folder holds one of our models; raises ValueError as `is_foreign`."""
    path = folder / "config.json"
    return path.is_file() and str(read_json(path).get("model_type")).startswith(OWN)


def converting(name: str, module: str = "loading") -> Any:
    """A function of the room that converts."""
    return getattr(import_module(f"{_ROOM}.{module}"), name)


def _says_foreign(path: Path) -> bool:
    """Whether a `config.json` is of another format; ours always says what it is."""
    config = read_json(path)
    kind = config.get("model_type") or config.get("_class_name")  # the latter is diffusers'
    return not str(kind).startswith(OWN)
