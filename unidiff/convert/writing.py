"""Checkpoints written in the other format, one tensor in memory at a time.

`convert_checkpoint` writes a foreign one in ours, with a record of what it was;
`export_checkpoint` writes that back: names, files and bits as they came.
"""

import shutil
from pathlib import Path
from typing import Any

from unidiff.model.checkpoint import INDEX_FILE
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
from .tensors import read_header
from .weight_writing import Progress, write_files, write_index, write_shards

SHARD_BYTES = 5_000_000_000


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
