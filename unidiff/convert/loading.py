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
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.sentencepiece_text import SentencePieceText

from .families import family_of
from .family import Family, ForeignFolder
from .keys import converted
from .pickles import weight_files
from .tensors import LazyTensor, TensorFile, by_name


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
        config = self.config
        return UniDiffGenerationConfig(
            **self.family.decoding,
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
        )


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
    check_complete(folder, config, tensors, unknown)
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
    weights = {name: _Slice(tensor) for name, tensor in opened.tensors.items()}
    result = cls.from_pretrained(None, config=config, state_dict=weights, **kwargs)
    model = result[0] if isinstance(result, tuple) else result  # with output_loading_info
    model.name_or_path = str(path)
    if model.can_generate():
        model.generation_config = opened.generation_config
    return result


def load_foreign_processor(
    path: str | Path,
    cls: type[UniDiffProcessor] = UniDiffProcessor,
    allow_pickle: bool = False,
) -> UniDiffProcessor:
    """The processor of a foreign checkpoint: its own tokenizer and chat template.

    It reads and writes text. What codes pictures is published elsewhere, and set by who has it.

    Raises:
        FileNotFoundError, ValueError: as `open_foreign`, or if the tokenizer cannot be read.
    """
    return processor_of(open_foreign(path, allow_pickle), cls)


def processor_of(
    opened: Converted, cls: type[UniDiffProcessor] = UniDiffProcessor
) -> UniDiffProcessor:
    """`load_foreign_processor` of a checkpoint that is open."""
    path = opened.folder.path
    if opened.folder.sentencepiece_model is None:
        tokenizer = AutoTokenizer.from_pretrained(
            path, config=opened.config, trust_remote_code=False
        )
    else:
        tokenizer = SentencePieceText.from_pretrained(path)
    template = tokenizer.chat_template or opened.family.template
    if isinstance(template, Mapping):  # several by name
        template = template["default"]
    layout = opened.config.layout
    layout = replace(layout, ranges={"text": layout.range_of("text")})
    return cls(tokenizer=tokenizer, chat_template=template, token_layout=layout)


def check_complete(
    folder: ForeignFolder,
    config: UniDiffConfig,
    tensors: Mapping[str, LazyTensor],
    unknown: Sequence[str],
) -> None:
    """Raise ValueError unless the tensors are exactly those of the configuration."""
    with torch.device("meta"):
        expected = UniDiffForBlockDiffusion(config).state_dict()
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    missing = set(expected) - set(tensors)
    unknown = [*unknown, *(set(tensors) - set(expected))]
    if missing or unknown:
        raise ValueError(
            f"the weights in {folder.path} are not those that its config.json says: "
            f"{some(missing)} missing, {some(unknown)} not expected"
        )
    for name, tensor in tensors.items():
        wanted = tuple(expected[name].shape)
        if tensor.shape != wanted:
            raise ValueError(
                f"{folder.path}: {name} has the shape {tensor.shape}, and by config.json {wanted}"
            )


class _Slice:
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
