"""Weights written as safetensors files, one tensor in memory at a time.

One file, or shards and their index. Knows files and bytes; knows nothing of models.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidiff.model.checkpoint import INDEX_FILE, WEIGHTS_FILE

from .tensors import DTYPES, HEADER_SIZE_BYTES, LazyTensor

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(_CODES)}
Progress = Callable[[int, int], None]


def write_shards(
    folder: Path,
    tensors: Mapping[str, LazyTensor],
    shard_bytes: int,
    on_progress: Progress | None = None,
) -> None:
    """Write weights into one file, or several and their index."""
    shards: list[dict[str, LazyTensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + num_bytes(tensor) > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += num_bytes(tensor)
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    files = dict(zip([WEIGHTS_FILE] if len(shards) == 1 else names, shards, strict=True))
    write_files(folder, files, {file: {"format": "pt"} for file in files}, on_progress)
    write_index(folder, files)


def write_index(folder: Path, files: Mapping[str, Mapping[str, LazyTensor]]) -> None:
    """Write the index of files of weights; nothing where the one file is found without."""
    if list(files) == [WEIGHTS_FILE]:
        return
    total = sum(num_bytes(tensor) for tensors in files.values() for tensor in tensors.values())
    places = {name: file for file, tensors in files.items() for name in tensors}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_files(
    folder: Path,
    files: Mapping[str, Mapping[str, LazyTensor]],
    metadata: Mapping[str, Mapping[str, str]],
    on_progress: Progress | None = None,
) -> None:
    """Write files of weights one after the other.

    Args:
        folder: that they are written into.
        files: file -> its tensors.
        metadata: file -> what its header says beside them.
        on_progress: called after each with (bytes written, bytes of all).
    """
    sizes = {file: sum(map(num_bytes, tensors.values())) for file, tensors in files.items()}
    done = 0
    for file, tensors in files.items():
        write_file(folder / file, tensors, metadata.get(file))
        done += sizes[file]
        if on_progress is not None:
            on_progress(done, sum(sizes.values()))


def write_file(
    path: Path, tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, reading one tensor at a time.

    Tensors are ordered as safetensors orders them (by type, wide ones first, then by name), so that
    the same tensors and metadata give the same bytes.

    Args:
        path: of the file; it is there whole or not at all.
        tensors: name -> tensor.
        metadata: name -> text.

    Raises:
        ValueError: if a tensor has numbers of a type that safetensors has no name for.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _CODES:
            raise ValueError(f"{name!r} holds {tensor.dtype}, which safetensors cannot store")
    names = sorted(tensors, key=lambda name: (_ORDER[tensors[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + num_bytes(tensor)
        header[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(HEADER_SIZE_BYTES, "little"))
        file.write(text)
        for name in names:
            file.write(_bytes_of(tensors[name].read()))
    os.replace(partial, path)


def num_bytes(tensor: LazyTensor) -> int:
    """Bytes of a tensor's numbers."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def _bytes_of(tensor: Tensor) -> memoryview:
    """The numbers of a tensor as they stand in a file."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
