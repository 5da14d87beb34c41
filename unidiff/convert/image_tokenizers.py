"""Other people's image tokenizers as ours, converted while they are read."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedConfig

from unidiff.model.checkpoint import WEIGHTS_FILE, pickles_in, refuse_pickles
from unidiff.tokens.checkpoint import read_json
from unidiff.tokens.image_tokenizer import ImageTokenizer

from .family import ForeignFolder, own_configuration, said_settings
from .image_families import ImageFamily, image_family_of
from .image_names import MAGVIT_BUFFERS
from .keys import converted
from .loading import LazySlice, check_tensors
from .pickles import read_pickle
from .seed_voken import averaged
from .tensors import LazyTensor, by_name, tensor_files
from .wrong_values import blamed_on

# What files of weights are called: by transformers, diffusers, and Show-o.
_WEIGHTS = (WEIGHTS_FILE, "diffusion_pytorch_model.safetensors", "pytorch_model.safetensors")


@dataclass(frozen=True)
class OpenedImageTokenizer:
    """An image tokenizer of others in our format; its tensors are read when they are wanted.

    Attributes:
        family: what it is.
        config: our configuration.
        tensors: ours by name, each as large as the configuration says.
    """

    family: ImageFamily
    config: PreTrainedConfig
    tensors: Mapping[str, LazyTensor]


def open_image_tokenizer(path: str | Path, *, allow_pickle: bool = False) -> OpenedImageTokenizer:
    """An image tokenizer of others; names and shapes are checked, no weight is read.

    Args:
        path: its folder, a file of weights, or the folder of a model that holds one.
        allow_pickle: whether weights may be read that are no safetensors.

    Raises:
        FileNotFoundError: if there are no weights.
        ValueError: if a file is damaged or a pickle, the layout unknown, or names or shapes do not
            fit.
    """
    path = Path(path)
    theirs = averaged(path, _stored(path, allow_pickle))
    has_config = (path / "config.json").is_file()
    config = read_json(path / "config.json") if has_config else {}
    folder = ForeignFolder(path, config, {name: one.shape for name, one in theirs.items()})
    family = image_family_of(folder)
    theirs = _within(theirs, family.prefixes)
    folder = replace(folder, shapes={name: one.shape for name, one in theirs.items()})
    settings = said_settings(family, folder)
    with blamed_on(family.name, path), torch.device("meta"):
        ours = own_configuration(family.model.config_class, folder, settings)
        expected = family.model(ours).state_dict()
    tensors, unknown = converted(theirs, family.rules(folder))
    check_tensors(path, expected, tensors, unknown)
    if family.name == "magvit-v2":
        _check_digits(path, theirs)
    return OpenedImageTokenizer(family, ours, tensors)


def load_foreign_image_tokenizer(path: str | Path, *, allow_pickle: bool = False) -> ImageTokenizer:
    """The image tokenizer of others, in float32, to be used; arguments and errors as above."""
    opened = open_image_tokenizer(path, allow_pickle=allow_pickle)
    weights = {name: LazySlice(tensor) for name, tensor in opened.tensors.items()}
    model: ImageTokenizer = opened.family.model.from_pretrained(
        None, config=opened.config, state_dict=weights, dtype=torch.float32
    )
    model.name_or_path = str(path)
    return model.eval().requires_grad_(False)


def _stored(path: Path, allow_pickle: bool) -> dict[str, LazyTensor]:
    """Every tensor of a folder or of one file, by their names."""
    if path.is_file() and path.suffix != ".safetensors":
        return _pickled(path, allow_pickle)
    if path.is_file():
        return by_name(tensor_files(path.parent, path.name))
    for name in _WEIGHTS:
        if (path / name).is_file() or (path / f"{name}.index.json").is_file():
            return by_name(tensor_files(path, name))
    pickles = pickles_in(path)
    if len(pickles) == 1:
        return _pickled(pickles[0], allow_pickle)
    raise FileNotFoundError(
        f"expected one of {_WEIGHTS} in {path}, whole or in shards with an index; it has "
        f"{sorted(one.name for one in path.glob('*'))[:12]}"
    )


def _pickled(path: Path, allow_pickle: bool) -> dict[str, LazyTensor]:
    """Every tensor of a pickle; raises ValueError if it may not be read."""
    if not allow_pickle:
        refuse_pickles([path])
    return dict(read_pickle(path).tensors)


def _within(tensors: Mapping[str, LazyTensor], prefixes: tuple[str, ...]) -> dict[str, LazyTensor]:
    """The tensors behind the first prefix that there is, without it."""
    starts = (one for one in prefixes if any(name.startswith(one) for name in tensors))
    found = next(starts, prefixes[0])
    return {name[len(found) :]: one for name, one in tensors.items() if name.startswith(found)}


def _check_digits(path: Path, theirs: Mapping[str, LazyTensor]) -> None:
    """Raise ValueError unless MAGVIT-v2's codes count their digits from the highest."""
    if MAGVIT_BUFFERS[1] not in theirs:
        return
    powers = theirs[MAGVIT_BUFFERS[1]].read().tolist()
    if powers != [1 << place for place in reversed(range(len(powers)))]:
        raise ValueError(
            f"{path}: {MAGVIT_BUFFERS[1]} is {powers}; what can be loaded counts the digits of a "
            "code from the highest to the lowest, as every published checkpoint does"
        )
