"""Other people's checkpoints as our model, converted while they are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel

from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.checkpoint import some
from unidiff.tokens.image_processing import UniDiffImageProcessor
from unidiff.tokens.image_tokenizer import ImageTokenizer
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.sentencepiece_text import SentencePieceText

from .families import family_of
from .family import Family, ForeignFolder
from .keys import converted
from .pickles import weight_files
from .tensors import LazyTensor, TensorFile, by_name
from .wrong_values import blamed_on

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)


@dataclass(frozen=True)
class Converted:
    """A foreign checkpoint in our format; its tensors are read when they are wanted.

    Attributes:
        folder: where it lies.
        files: headers of its weights.
        family: what it is.
        config: our configuration.
        tensors: ours by name, each as large as the configuration says.
    """

    folder: ForeignFolder
    files: list[TensorFile]
    family: Family
    config: UniDiffConfig
    tensors: Mapping[str, LazyTensor]

    @property
    def generation_config(self) -> UniDiffGenerationConfig:
        """Its authors' way to decode, and its special ids."""
        return UniDiffGenerationConfig.with_ids_of(self.config, **self.family.decoding)


def open_foreign(path: str | Path, allow_pickle: bool = False) -> Converted:
    """A foreign checkpoint; headers are read and everything is checked, no weight is.

    Args:
        path: of its folder.
        allow_pickle: whether its weights may be pickles, see `pickles.py`.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is damaged, the family unknown, names or shapes do not fit, or the
            tokenizer disagrees with the configuration.
    """
    if not Path(path).is_dir():
        raise FileNotFoundError(
            f"{path} is neither a folder nor a checkpoint that the hub or its cache has"
        )
    files = weight_files(Path(path), allow_pickle)
    theirs = by_name(files)
    folder = ForeignFolder.at(path, {name: tensor.shape for name, tensor in theirs.items()})
    family = family_of(folder)
    config = family.configuration(folder)
    tensors, unknown = converted(theirs, family.rules(folder, config))
    check_complete(family, folder, config, tensors, unknown)
    return Converted(folder, files, family, config, tensors)


def load_foreign(
    path: str | Path,
    cls: type[PreTrainedModel] = UniDiffForBlockDiffusion,
    allow_pickle: bool = False,
    **kwargs: Any,
) -> Any:
    """The model of a foreign checkpoint.

    Args:
        path: of its folder.
        cls: the class of the model.
        allow_pickle: whether its weights may be pickles.
        kwargs: of transformers' `from_pretrained`, such as dtype, device_map, quantization_config.

    Raises:
        FileNotFoundError, ValueError: as `open_foreign`.
    """
    opened = open_foreign(path, allow_pickle)
    config = kwargs.pop("config", None) or opened.config
    weights = {name: LazySlice(tensor) for name, tensor in opened.tensors.items()}
    result = cls.from_pretrained(None, config=config, state_dict=weights, **kwargs)
    model = result[0] if isinstance(result, tuple) else result  # with output_loading_info
    model.name_or_path = str(path)
    if model.can_generate():
        model.generation_config = opened.generation_config
    return result


def load_foreign_processor(
    path: str | Path,
    cls: type[UniDiffProcessor] = UniDiffProcessor,
    image_tokenizer: ImageTokenizer | None = None,
    allow_pickle: bool = False,
) -> UniDiffProcessor:
    """The processor of a foreign checkpoint: its own tokenizer and chat template.

    Args:
        path: of its folder.
        cls: the class of the processor.
        image_tokenizer: what codes pictures, which is published elsewhere; without it the processor
            reads and writes text.
        allow_pickle: whether the checkpoint's weights, whose shapes are read, may be pickles.

    Raises:
        FileNotFoundError, ValueError: as `open_foreign`, or if the tokenizer cannot be read, or the
            image tokenizer does not fit.
    """
    return processor_of(open_foreign(path, allow_pickle), cls, image_tokenizer)


def processor_of(
    opened: Converted,
    cls: type[UniDiffProcessor] = UniDiffProcessor,
    image_tokenizer: ImageTokenizer | None = None,
) -> UniDiffProcessor:
    """`load_foreign_processor` of a checkpoint that is open."""
    tokenizer = tokenizer_of(opened)
    template = _template_of(opened, tokenizer)
    layout = opened.config.layout
    if image_tokenizer is None:
        text = {"text": layout.range_of("text")}
        around = {name: pair for name, pair in layout.delimiters.items() if name in text}
        layout = replace(
            layout,
            ranges=text,
            delimiters=around,
            closes_canvas=False,
            canvas_end_token_id=None,
            opens_canvas=False,
            has_bare_pictures=False,
            row_end_token_id=None,
        )
        pictures = opened.family.pictures
        if pictures is not None and opened.family.prompts is not None:
            template = opened.family.prompts(opened.folder, tokenizer, template or "")
        return cls(
            tokenizer=tokenizer,
            chat_template=template,
            token_layout=layout,
            soft_prompts=None if pictures is None else pictures(opened.folder, opened.config),
        )
    if "image" not in layout.ranges:
        raise ValueError(
            f"{opened.folder.path} has no rows for pictures: {opened.family.name} knows text only"
        )
    if opened.family.prompts is not None:
        template = opened.family.prompts(opened.folder, tokenizer, template or "")
    return cls(
        image_processor=_image_processor(opened, image_tokenizer),
        tokenizer=tokenizer,
        chat_template=template,
        token_layout=layout,
        image_model=image_tokenizer,
    )


def _template_of(opened: Converted, tokenizer: Any) -> str | None:
    """The tokenizer's chat template, the "default" or only one of several, or the family's.

    Raises:
        ValueError: if there are several and none is called "default".
    """
    found = tokenizer.chat_template or opened.family.template
    if not isinstance(found, Mapping):
        return None if found is None else str(found)
    if "default" not in found and len(found) > 1:
        raise ValueError(
            f"the tokenizer of {opened.folder.path} has the chat templates {some(found)}, and "
            'none is called "default": write the one for conversations into chat_template.jinja '
            "there, and leave the others out of tokenizer_config.json"
        )
    return str(found.get("default") or next(iter(found.values())))


def _image_processor(opened: Converted, model: ImageTokenizer) -> UniDiffImageProcessor:
    """Pictures as others prepare them: the shorter side fitted, the rest of the longer cut off."""
    grid = opened.config.layout.image_grid
    height, width = (side * model.config.downsample_factor for side in grid)
    return UniDiffImageProcessor(
        size={"height": height, "width": width},
        crop_to_size=True,
        resample=opened.family.resample,
    )


def tokenizer_of(opened: Converted) -> Any:
    """The folder's own tokenizer, or where there is none the one that its authors name.

    Raises:
        FileNotFoundError: if that one is not on this machine and cannot be had.
    """
    path, published = opened.folder.path, opened.family.tokenizer
    if opened.folder.sentencepiece_model is not None:
        return SentencePieceText.from_pretrained(path)
    if published is None or any((path / name).is_file() for name in _TOKENIZER_FILES):
        return AutoTokenizer.from_pretrained(path, config=opened.config, trust_remote_code=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(published)
    except OSError as error:
        raise FileNotFoundError(
            f"{path} has no tokenizer, and that of {published!r}, which {opened.family.name} was "
            "trained with, could not be had: put its files into the folder"
        ) from error
    tokenizer.add_tokens(list(opened.family.added_tokens), special_tokens=True)
    return tokenizer


def check_complete(
    family: Family,
    folder: ForeignFolder,
    config: UniDiffConfig,
    tensors: Mapping[str, LazyTensor],
    unknown: Sequence[str],
) -> None:
    """Raise ValueError unless the tensors are exactly those of the configuration."""
    with blamed_on(family.name, folder.path), torch.device("meta"):
        expected = UniDiffForBlockDiffusion(config).state_dict()
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    check_tensors(folder.path, expected, tensors, unknown)


def check_tensors(
    path: Path,
    expected: Mapping[str, torch.Tensor],
    tensors: Mapping[str, LazyTensor],
    unknown: Sequence[str],
) -> None:
    """Raise ValueError unless the tensors are those expected, and none is left over.

    Args:
        path: of the checkpoint.
        expected: a model's, on the device "meta".
        tensors: those that were found, by our names.
        unknown: names that no rule knows.
    """
    missing = set(expected) - set(tensors)
    unknown = [*unknown, *(set(tensors) - set(expected))]
    if missing or unknown:
        raise ValueError(
            f"the weights in {path} are not those that its config.json says: "
            f"{some(missing)} missing, {some(unknown)} not expected"
        )
    for name, tensor in tensors.items():
        wanted = tuple(expected[name].shape)
        if tensor.shape != wanted:
            raise ValueError(
                f"{path}: {name} has the shape {tensor.shape}, and by config.json {wanted}"
            )


class LazySlice:
    """A tensor as transformers' loader takes it from a file: read when it is indexed."""

    def __init__(self, tensor: LazyTensor) -> None:
        self._tensor = tensor
        self.dtype = tensor.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._tensor.read()[index]

    def get_shape(self) -> list[int]:
        """As safetensors has it."""
        return list(self._tensor.shape)

    def is_floating_point(self) -> bool:
        """As a tensor has it."""
        return self.dtype.is_floating_point
