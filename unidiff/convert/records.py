"""What a converted folder remembers of where it came from, and what can be made of that.

`foreign.json` says the family and the names of the tensors, the folder `foreign/` keeps the small
files, and `foreign.safetensors` the tensors that ours has no place for.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from unidiff.model.checkpoint import pickles_in
from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.checkpoint import IMAGE_TOKENIZER_FOLDER, check_exists, read_json
from unidiff.tokens.image_tokenizer import ImageTokenizer
from unidiff.tokens.processor import UniDiffProcessor

from .families import named_family
from .family import ForeignFolder
from .keys import converted
from .loading import Converted, processor_of
from .pickles import PICKLED_INDEX, safe_name
from .tensors import by_name, tensor_files
from .weight_writing import write_file

RECORD_FILE = "foreign.json"
KEPT_FOLDER = "foreign"
KEPT_FILE = "foreign.safetensors"
_WEIGHTS = (".safetensors", ".gguf", ".msgpack", ".h5")  # files of weights besides pickles


@dataclass(frozen=True)
class ForeignRecord:
    """What a converted checkpoint was.

    Attributes:
        family: its name.
        files: file -> names of its tensors and their shapes.
        metadata: file -> what its header says beside them.
    """

    family: str
    files: dict[str, dict[str, tuple[int, ...]]]
    metadata: dict[str, dict[str, str]]


def write_record(folder: Path, opened: Converted) -> None:
    """What the checkpoint was, every small file of it, and what the way back would not give."""
    files = {
        safe_name(file.path.name): {name: tensor.shape for name, tensor in file.tensors.items()}
        for file in opened.files
    }
    metadata = {safe_name(file.path.name): file.metadata for file in opened.files}
    record = asdict(ForeignRecord(opened.family.name, files, metadata))
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    rules = opened.family.rules(opened.folder, opened.config)
    back, _ = converted(opened.tensors, rules, backwards=True)
    lost = {n: tensor for n, tensor in by_name(opened.files).items() if n not in back}
    if lost:
        write_file(folder / KEPT_FILE, lost)
    kept = folder / KEPT_FOLDER
    kept.mkdir()
    source = opened.folder.path
    weights = {source / PICKLED_INDEX, *pickles_in(source)}
    for path in source.iterdir():
        if path.is_file() and path not in weights and path.suffix not in _WEIGHTS:
            shutil.copy2(path, kept)


def read_record(folder: Path) -> ForeignRecord:
    """The record of a converted checkpoint; raises FileNotFoundError where there is none."""
    path = folder / RECORD_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: only what `unidiff convert` wrote knows the format that it came "
            "from"
        )
    check_exists(folder / KEPT_FOLDER / "config.json")
    return ForeignRecord(**read_json(path))


def reopened(folder: Path) -> Converted:
    """A converted checkpoint, or one of the same weights trained further, in our format.

    Its small files are the foreign ones that were kept, its files of weights are ours.

    Raises:
        FileNotFoundError: if it has no record of what it was.
    """
    record = read_record(folder)
    shapes = {name: shape for file in record.files.values() for name, shape in file.items()}
    files = tensor_files(folder)
    return Converted(
        folder=ForeignFolder.at(folder / KEPT_FOLDER, shapes),
        files=files,
        family=named_family(record.family),
        config=UniDiffConfig.from_pretrained(folder),
        tensors=by_name(files),
    )


def processor_with_pictures(
    folder: Path,
    image_tokenizer: ImageTokenizer,
    cls: type[UniDiffProcessor] = UniDiffProcessor,
) -> UniDiffProcessor:
    """The processor of a folder that was converted without what codes its pictures.

    It is made anew of the files that were kept; `save_pretrained` into the folder keeps it there.

    Args:
        folder: of `convert_checkpoint`.
        image_tokenizer: what codes its pictures.
        cls: the class of the processor.

    Raises:
        ValueError: if the folder has one, was not converted, has no rows for pictures, or has
            another number of them than the image tokenizer has codes.
    """
    if (folder / IMAGE_TOKENIZER_FOLDER).is_dir() or not (folder / RECORD_FILE).is_file():
        raise ValueError(
            f"{folder} is a checkpoint of ours, which has its image tokenizer with it if it knows "
            "pictures: leave image_tokenizer out, or set processor.image_tokenizer. Only a folder "
            "that `unidiff convert` wrote without one can get one"
        )
    return processor_of(reopened(folder), cls, image_tokenizer)
