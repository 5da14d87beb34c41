"""Tensors of a checkpoint on the disk: what is there, read one at a time.

Reads safetensors files without mapping them into memory, so that a tensor costs its own size once;
`weight_writing.py` writes them. Knows files and bytes; knows nothing of models.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from unidiff.model.checkpoint import WEIGHTS_FILE, weight_map
from unidiff.tokens.checkpoint import REMEDY, check_exists

HEADER_SIZE_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000  # safetensors' own limit
# Code in a header -> type, in the order in which safetensors writes them.
DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class LazyTensor(Protocol):
    """A tensor that is not in memory yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size along each dimension."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of its numbers."""

    def read(self) -> Tensor:
        """The tensor."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file.

    Attributes:
        path: of the file.
        start: its first byte in the file.
        shape: size along each dimension.
        dtype: of its numbers.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """The tensor, in memory of its own; raises ValueError if the file became shorter."""
        return _read_bytes(self.path, self.start, self.shape, self.dtype)

    def rows(self, start: int, stop: int) -> "StoredTensor":
        """The part of it from one index along its first dimension to another."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        shape = (stop - start, *self.shape[1:])
        return StoredTensor(self.path, self.start + start * size, shape, self.dtype)


@dataclass(frozen=True)
class DerivedTensor:
    """A tensor made of others when it is read.

    Attributes:
        sources: what it is made of.
        make: sources, read -> the tensor.
        shape: of the result.
        dtype: of the result.
    """

    sources: tuple[LazyTensor, ...]
    make: Callable[..., Tensor]
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """The tensor; its sources are let go."""
        made = self.make(*(source.read() for source in self.sources))
        assert tuple(made.shape) == self.shape, (made.shape, self.shape)
        return made


@dataclass(frozen=True)
class StackedTensor:
    """Tensors of the same shape and type, one behind the other along a new first dimension.

    Attributes:
        parts: at least one.
    """

    parts: tuple[LazyTensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size along each dimension."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> torch.dtype:
        """Type of its numbers."""
        return self.parts[0].dtype

    def read(self) -> Tensor:
        """The tensor; beside it one part is in memory at a time."""
        stack = torch.empty(self.shape, dtype=self.dtype)
        for row, part in zip(stack, self.parts, strict=True):
            row.copy_(part.read())
        return stack


def rows_of(tensor: LazyTensor, start: int, stop: int) -> LazyTensor:
    """Some rows of a tensor; of a safetensors file nothing else is read."""
    if isinstance(tensor, StoredTensor):
        return tensor.rows(start, stop)
    shape = (stop - start, *tensor.shape[1:])
    return DerivedTensor((tensor,), lambda whole: whole[start:stop].clone(), shape, tensor.dtype)


@dataclass(frozen=True)
class TensorFile:
    """What a file of weights holds, by the header of a safetensors file.

    Attributes:
        path: of the file.
        tensors: name -> tensor, in the file's order.
        metadata: name -> text, as the file has it.
    """

    path: Path
    tensors: Mapping[str, LazyTensor]
    metadata: dict[str, str]


def read_header(path: Path) -> TensorFile:
    """The header of a safetensors file.

    Raises:
        FileNotFoundError: if it is missing.
        ValueError: if it is damaged, cut short, or holds numbers of an unknown type.
    """
    check_exists(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_SIZE_BYTES), "little")
        if size < HEADER_SIZE_BYTES or length > min(size, _MOST_HEADER_BYTES):
            raise ValueError(f"{path} is no whole safetensors file ({size} bytes): {REMEDY}")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"the header of {path} is damaged ({error}): {REMEDY}") from error
    first = HEADER_SIZE_BYTES + length
    metadata = header.pop("__metadata__", {})
    tensors = {name: _stored(path, name, entry, first, size) for name, entry in header.items()}
    ordered = dict(sorted(tensors.items(), key=lambda pair: pair[1].start))
    return TensorFile(path, ordered, metadata)


def tensor_files(folder: Path, weights: str = WEIGHTS_FILE) -> list[TensorFile]:
    """The headers of a checkpoint's weights: one file, or every shard of the index.

    Args:
        folder: that they lie in.
        weights: name of the one file; the index is called the same, with `.index.json` behind it.

    Raises:
        FileNotFoundError: if there are no safetensors, or a shard is missing.
        ValueError: if a file is damaged, or a shard lacks a tensor that the index places there.
    """
    index = f"{weights}.index.json"
    if (folder / weights).is_file():
        return [read_header(folder / weights)]
    if not (folder / index).is_file():
        raise FileNotFoundError(
            f"expected {weights} or {index} in {folder}; it has "
            f"{sorted(path.name for path in folder.glob('*'))[:12]}: {REMEDY}"
        )
    return shards(folder, index, read_header)


def shards(folder: Path, index: str, read: Callable[[Path], TensorFile]) -> list[TensorFile]:
    """Every file that an index names; raises ValueError if one lacks a tensor placed there."""
    placed = weight_map(folder, index)
    files = [read(folder / name) for name in sorted(set(placed.values()))]
    held = {name: file.path.name for file in files for name in file.tensors}
    for name, place in placed.items():
        if held.get(name) != place:
            raise ValueError(
                f"{index} places {name!r} in {place}, which does not hold it: {REMEDY}"
            )
    return files


def by_name(files: Iterable[TensorFile]) -> dict[str, LazyTensor]:
    """Every tensor of some files; raises ValueError if two hold one of the same name."""
    holders: dict[str, TensorFile] = {}
    for file in files:
        for name in file.tensors:
            if name in holders:
                raise ValueError(f"both {holders[name].path} and {file.path} hold {name!r}")
            holders[name] = file
    return {name: file.tensors[name] for name, file in holders.items()}


def _stored(path: Path, name: str, entry: Any, first: int, size: int) -> StoredTensor:
    """A tensor of the header, checked against the file's size."""
    try:
        dtype, shape = DTYPES[entry["dtype"]], tuple(int(one) for one in entry["shape"])
        start, stop = (first + int(one) for one in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} describes {name!r} in an unknown way ({entry})") from error
    if stop - start != math.prod(shape) * dtype.itemsize or start < first:
        raise ValueError(f"{path} gives {name!r} of shape {shape} {stop - start} bytes: {REMEDY}")
    if stop > size:
        raise ValueError(f"{path} is cut short: {name!r} ends at byte {stop} of {size}: {REMEDY}")
    return StoredTensor(path, start, shape, dtype)


def _read_bytes(path: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Numbers at a place of a file."""
    tensor = torch.empty(shape, dtype=dtype)
    if tensor.numel() == 0:
        return tensor
    view = tensor.reshape(-1).view(torch.uint8).numpy().data
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        done = 0
        while done < len(view):
            count = file.readinto(view[done:])
            if not count:
                raise ValueError(f"{path} became shorter while it was read: {REMEDY}")
            done += count
    return tensor
