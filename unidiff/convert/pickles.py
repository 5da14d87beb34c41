"""Weights in files of torch's own format, such as `.bin`, `.pt` and `.ckpt`: only on demand.

They are pickles, which can run code. They are read by torch's reader that builds tensors and plain
containers only, and even so only where the caller says that the file may be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.tokens.checkpoint import REMEDY, check_exists

from .tensors import LazyTensor

SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_WITHIN = ("model", "state_dict")  # where training loops keep the weights in what they save


@dataclass(frozen=True)
class MappedTensor:
    """A tensor whose numbers stay in its file until they are read.

    Attributes:
        tensor: mapped into memory.
    """

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size along each dimension."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its numbers."""
        return self.tensor.dtype

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        return self.tensor.detach().clone()


def read_pickle(path: Path, *, allow_pickle: bool) -> dict[str, LazyTensor]:
    """The tensors of a file by name.

    Args:
        path: of the file.
        allow_pickle: whether it may be read at all.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it may not be read, is damaged, or holds anything but tensors by name.
    """
    check_exists(path)
    if not allow_pickle:
        raise ValueError(
            f"{path} is a pickle, which can run code: say allow_pickle=True (--allow-pickle) if "
            "you trust where it came from, or get the weights as safetensors"
        )
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zip's, pickle's and torch's errors share no class
        raise ValueError(
            f"{path} is damaged, or holds more than tensors, or has torch's format of before "
            f"version 1.6 ({error}): {REMEDY}"
        ) from error
    found = _weights(held)
    if not found:
        raise ValueError(f"{path} holds no tensors by name; it has {_kinds(held)}")
    return {name: MappedTensor(tensor) for name, tensor in found.items()}


def _weights(held: Any) -> dict[str, Tensor]:
    """The named tensors among what a file holds; nothing where there are none."""
    within = [held[name] for name in _WITHIN if isinstance(held, Mapping) and name in held]
    weights = within[0] if within else held
    if not isinstance(weights, Mapping):
        return {}
    return {name: one for name, one in weights.items() if isinstance(one, Tensor)}


def _kinds(held: Any) -> Any:
    """What a file holds, in a few words."""
    return sorted(map(str, held))[:5] if isinstance(held, Mapping) else type(held).__name__
