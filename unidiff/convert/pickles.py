"""Weights in PyTorch's own files (`.bin`, `.pt`), read only where the user allows it.

A pickle can run code when it is read. `weights_only=True` reads tensors and plain values and
refuses everything else, so no code of a file runs even then.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unidiff.model.checkpoint import INDEX_FILE, WEIGHTS_FILE, pickles_in, refuse_pickles
from unidiff.tokens.checkpoint import REMEDY, some

from .tensors import TensorFile, shards, tensor_files

PICKLED_INDEX = "pytorch_model.bin.index.json"
_SHARD = re.compile(r"\d+-of-\d+$")
_WRAPPERS = ("state_dict", "model")  # keys under which trainers keep a state dictionary


@dataclass(frozen=True)
class PickledTensor:
    """A tensor in a pickle, mapped from the disk where the file's format allows it.

    Attributes:
        stored: the tensor as the file has it.
    """

    stored: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size along each dimension."""
        return tuple(self.stored.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of its numbers."""
        return self.stored.dtype

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        return self.stored.clone()


def weight_files(folder: Path, allow_pickle: bool = False) -> list[TensorFile]:
    """What a checkpoint's files of weights hold: safetensors, or pickles where there are none.

    Args:
        folder: of the checkpoint.
        allow_pickle: whether pickles may be read.

    Raises:
        FileNotFoundError: if there are no weights, or a shard is missing.
        ValueError: if a file is damaged, or a pickle is not allowed or holds more than tensors.
    """
    pickles = pickles_in(folder)
    has_safe = (folder / WEIGHTS_FILE).is_file() or (folder / INDEX_FILE).is_file()
    if has_safe or not pickles:
        return tensor_files(folder)
    if not allow_pickle:
        refuse_pickles(pickles)
    if (folder / PICKLED_INDEX).is_file():
        return shards(folder, PICKLED_INDEX, read_pickle)
    if len(pickles) > 1:
        raise ValueError(
            f"{folder} holds {some(path.name for path in pickles)} and no {PICKLED_INDEX}: leave "
            "the one file that is the checkpoint there"
        )
    return [read_pickle(pickles[0])]


def safe_name(file: str) -> str:
    """The name under which a file of weights is written: pickles become safetensors."""
    if file.endswith(".safetensors"):
        return file
    numbered = _SHARD.search(Path(file).stem)
    return WEIGHTS_FILE if numbered is None else f"model-{numbered[0]}.safetensors"


def read_pickle(path: Path) -> TensorFile:
    """The tensors of one pickle.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged, cut short, or holds something else than tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {REMEDY}")
    try:
        loaded = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors, or is damaged, and is not read: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or cut short ({error}): {REMEDY}") from error
    for key in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} must hold tensors by name, got {type(loaded).__name__}")
    if others := [str(name) for name, one in loaded.items() if not isinstance(one, Tensor)]:
        raise ValueError(f"{path} holds more than tensors: {some(others)}")
    return TensorFile(path, {name: PickledTensor(one) for name, one in loaded.items()}, {})
