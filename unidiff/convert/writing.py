"""Checkpoints written in the other format, one tensor in memory at a time.

`convert_checkpoint` writes a foreign one in ours, with a record of what it was;
`export_checkpoint` writes that back: names, files and bits as they came.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unidiff.model.checkpoint import INDEX_FILE, WEIGHTS_FILE
from unidiff.tokens.foreign import PICKLES, is_own, local_folder
from unidiff.tokens.image_loading import load_image_tokenizer
from unidiff.tokens.image_tokenizer import ImageTokenizer
from unidiff.tokens.whole_folder import whole_folder

from .keys import converted
from .loading import open_foreign, processor_of
from .records import (
    KEPT_FILE,
    KEPT_FOLDER,
    processor_with_pictures,
    read_record,
    reopened,
    write_record,
)
from .tensors import LazyTensor, num_bytes, read_header, write_file

SHARD_BYTES = 5_000_000_000
Progress = Callable[[int, int], None]


def convert_checkpoint(
    source: str | Path,
    target: str | Path,
    *,
    image_tokenizer: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
    on_progress: Progress | None = None,
    allow_pickle: bool = False,
    **options: Any,
) -> Path:
    """Write a foreign checkpoint in our format: weights, processor, decoding, and the record.

    A folder that was converted without what codes its pictures is copied, and gets it.

    Args:
        source: its folder, or its name on the hub; or such a folder.
        target: a new folder; it is there whole or not at all.
        image_tokenizer: where what codes its pictures is, which is published elsewhere; it is
            written into the new folder too.
        shard_bytes: most bytes of a file of weights.
        on_progress: called with (bytes written, bytes of all weights).
        allow_pickle: whether weights, those of the image tokenizer too, may be pickles.
        options: of the hub, such as `revision`; see `tokens.foreign.HUB_OPTIONS`.

    Raises:
        FileExistsError: if the target is there.
        FileNotFoundError, ValueError: as `open_foreign` and `load_image_tokenizer`, or if the
            source is ours and no image tokenizer is missing or given.
    """
    target = Path(target)
    folder = local_folder(source, more=PICKLES if allow_pickle else (), **options)
    pictures = None
    if image_tokenizer is not None:
        pictures = load_image_tokenizer(image_tokenizer, allow_pickle=allow_pickle)
    if is_own(folder):
        return _with_pictures(folder, target, pictures)
    opened = open_foreign(folder, allow_pickle)
    processor = processor_of(opened, image_tokenizer=pictures)
    _refuse_existing(target)
    with whole_folder(target) as partial:
        partial.mkdir(parents=True)
        opened.config.architectures = ["UniDiffForBlockDiffusion"]
        opened.config.save_pretrained(partial)
        opened.generation_config.save_pretrained(partial)
        processor.save_pretrained(partial)
        write_shards(partial, opened.tensors, shard_bytes, on_progress)
        write_record(partial, opened)
    return target


def export_checkpoint(
    source: str | Path, target: str | Path, *, on_progress: Progress | None = None
) -> Path:
    """Write a converted checkpoint in the format that it came from.

    Weights that were trained further keep their names and places. Where nothing was changed, the
    files of weights are those that were converted, bit for bit; pickles come back as safetensors.

    Args:
        source: folder of `convert_checkpoint`, or of the same weights trained further.
        target: a new folder; it is there whole or not at all.
        on_progress: called with (bytes written, bytes of all weights).

    Raises:
        FileExistsError: if the target is there.
        FileNotFoundError: if the source has no record of what it was.
        ValueError: if it lacks a tensor of the foreign format.
    """
    source, target = Path(source), Path(target)
    record, opened = read_record(source), reopened(source)
    rules = opened.family.rules(opened.folder, opened.config)
    tensors, _ = converted(opened.tensors, rules, backwards=True)
    if (source / KEPT_FILE).is_file():
        tensors |= read_header(source / KEPT_FILE).tensors
    if missing := sorted(set(opened.folder.shapes) - set(tensors)):
        raise ValueError(f"{source} lacks what {missing[:3]} are made of: convert it again")
    _refuse_existing(target)
    files = {file: {n: tensors[n] for n in names} for file, names in record.files.items()}
    with whole_folder(target) as partial:
        shutil.copytree(source / KEPT_FOLDER, partial)
        write_files(partial, files, record.metadata, on_progress)
        if not (partial / INDEX_FILE).exists():
            write_index(partial, files)
    return target


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


def _with_pictures(source: Path, target: Path, pictures: ImageTokenizer | None) -> Path:
    """Copy a converted folder, with the image tokenizer that it lacks."""
    if pictures is None:
        raise ValueError(
            f"{source} is in UniDiff's format already; convert it again only to give it the image "
            "tokenizer that it lacks: --image-tokenizer PATH"
        )
    processor = processor_with_pictures(source, pictures)
    _refuse_existing(target)
    with whole_folder(target) as partial:
        shutil.copytree(source, partial)
        processor.save_pretrained(partial)
    return target


def _refuse_existing(target: Path) -> None:
    """Raise FileExistsError if the target is there."""
    if target.exists():
        raise FileExistsError(f"{target} is there already: name a new folder")
