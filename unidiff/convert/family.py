"""What the package knows of a family of checkpoints, and what lies in one's folder."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.image_utils import PILImageResampling

from unidiff.model.configuration import UniDiffConfig
from unidiff.tokens.checkpoint import check_exists, read_json
from unidiff.tokens.sentencepiece_text import MODEL_FILE, num_pieces
from unidiff.tokens.soft_prompts import SoftPrompts

from .keys import Rule
from .wrong_values import blamed_on

Configuration = TypeVar("Configuration", bound=PreTrainedConfig)

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
# Special tokens that end a turn, whatever a checkpoint's config.json calls its end.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|role_end|>", "<|dlm_pad|>")
_BRACKETED = re.compile(r"\[[A-Z]+\]").fullmatch  # a special token in a list of words


@dataclass(frozen=True)
class ForeignFolder:
    """A checkpoint of somebody else's on the disk: its small files, and what its weights are.

    Attributes:
        path: of the folder.
        config: its `config.json`.
        shapes: size of every tensor along each dimension, by name.
    """

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def at(cls, path: str | Path, shapes: Mapping[str, tuple[int, ...]]) -> "ForeignFolder":
        """The checkpoint of a folder.

        Raises:
            FileNotFoundError: if there is no `config.json`.
            ValueError: if it is damaged.
        """
        path = Path(path)
        check_exists(path / "config.json")
        return cls(path, read_json(path / "config.json"), shapes)

    @cached_property
    def decoding(self) -> Mapping[str, Any]:
        """Its `generation_config.json`; empty where it has none."""
        return self._file("generation_config.json") or {}

    @cached_property
    def special_ids(self) -> Mapping[str, int]:
        """Ids of the special tokens by their text, read from the tokenizer's files."""
        decoder = self._named.get("added_tokens_decoder", {}).items()
        added = (self._tokenizer or {}).get("added_tokens", [])
        listed = {word: index for index, word in enumerate(self._words) if _BRACKETED(word)}
        return {
            **listed,
            **{token["content"]: int(index) for index, token in decoder},
            **{token["content"]: int(token["id"]) for token in added},
            **(self._file("added_tokens.json") or {}),
        }

    @cached_property
    def num_ids(self) -> int | None:
        """Ids of the tokenizer, added tokens included; None where there is no tokenizer."""
        ids: Iterable[int]
        if self._tokenizer is not None:
            words = self._tokenizer.get("model", {}).get("vocab", {})
            ids = words.values() if isinstance(words, Mapping) else [len(words) - 1]
        elif self.sentencepiece_model is not None:
            ids = [num_pieces(self.sentencepiece_model) - 1]
        elif self._words:
            ids = [len(self._words) - 1]
        else:
            return None
        return max([*ids, *self.special_ids.values()]) + 1

    @property
    def sentencepiece_model(self) -> Path | None:
        """File of a tokenizer that has no `tokenizer.json`; None where it has one."""
        path = self.path / MODEL_FILE
        return path if path.is_file() and self._tokenizer is None else None

    def named_token(self, name: str) -> int | None:
        """Id of a token that `tokenizer_config.json` names, such as "mask_token"."""
        token = self._named.get(name)
        text = token.get("content") if isinstance(token, Mapping) else token
        return self.special_ids.get(text) if isinstance(text, str) else None

    @cached_property
    def end_ids(self) -> list[int]:
        """Ids that end an answer: the files' own, and the ends of a turn that the tokenizer has."""
        found: list[int | None] = []
        for named in (self.decoding.get("eos_token_id"), self.config.get("eos_token_id")):
            found += named if isinstance(named, list) else [named]
        found += [self.named_token("eos_token"), *map(self.special_ids.get, TURN_ENDS)]
        return list(dict.fromkeys(one for one in found if one is not None))

    @cached_property
    def _tokenizer(self) -> Mapping[str, Any] | None:
        """`tokenizer.json`; several megabytes of a large vocabulary, so read once."""
        return self._file("tokenizer.json")

    @cached_property
    def _words(self) -> list[str]:
        """The words that are a BERT's tokenizer; none where there is no list or a newer file."""
        path = self.path / "vocab.txt"
        if self._tokenizer is not None or not path.is_file():
            return []
        return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")

    @cached_property
    def _named(self) -> Mapping[str, Any]:
        """`tokenizer_config.json`; empty where there is none."""
        return self._file("tokenizer_config.json") or {}

    def _file(self, name: str) -> Mapping[str, Any] | None:
        """A JSON file of the folder; None where there is none."""
        path = self.path / name
        return read_json(path) if path.is_file() else None

    def with_defaults(self, defaults: Mapping[str, Any]) -> "ForeignFolder":
        """The folder with the published class's values where `config.json` leaves fields out."""
        return replace(self, config={**defaults, **self.config})

    def wants(self, name: str, *values: Any) -> None:
        """Raise ValueError unless a field of `config.json` is absent or has one of these values."""
        found = self.config.get(name, values[0])
        if found not in values:
            raise ValueError(
                f"{self.path / 'config.json'} has {name} = {found!r}; what can be loaded is "
                f"{' or '.join(map(repr, values))}"
            )

    def square_side(self, name: str, default: int | None = None) -> int:
        """Codes along each side of a picture, of a field that counts all of them.

        Raises:
            KeyError: if it is absent and there is no default.
            ValueError: if it is no square.
        """
        number = self.config[name] if default is None else self.config.get(name, default)
        side = math.isqrt(number)
        if side < 1 or side**2 != number:
            raise ValueError(
                f"{self.path / 'config.json'} has {name} = {number}; what can be loaded is the "
                "square of a number of codes along each side of a picture"
            )
        return side


@dataclass(frozen=True)
class Family:
    """Checkpoints of one layout.

    Attributes:
        name: of the family, as `unidiff info` shows it.
        settings: the fields of `UniDiffConfig` that a folder's files say.
        rules: the names of its tensors, for a folder and our configuration of it.
        decoding: keywords of `generate()` by which its authors decode.
        template: chat template, where the tokenizer's files have none.
        prompts: the template with what pictures need around it, from a folder, its tokenizer and
            the template of conversations without; None where they need nothing.
        tokenizer: repository of the tokenizer, where checkpoints are published without one.
        pictures: how a folder's pictures are read as features, by our configuration of it; None
            where they are not.
        added_tokens: special tokens that its authors add to that one, in the order of their ids.
        resample: filter by which its authors scale pictures.
        own_inputs: what the published class must be given beside ids to read a row of a length
            under the pattern; for `unidiff verify`.
        own_settings: fields of `config.json` that it needs for that and is published without.
        own_class: transformers' class that its language model is, made by our configuration, and
            what its names have before that one's; where `config.json` names no class.
        own_code: repository of the published class, where checkpoints come without it.
    """

    name: str
    settings: Callable[[ForeignFolder], dict[str, Any]]
    rules: Callable[[ForeignFolder, UniDiffConfig], Sequence[Rule]]
    decoding: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None
    prompts: Callable[[ForeignFolder, PreTrainedTokenizerBase, str], str] | None = None
    tokenizer: str | None = None
    pictures: Callable[[ForeignFolder, UniDiffConfig], SoftPrompts] | None = None
    added_tokens: tuple[str, ...] = ()
    resample: PILImageResampling = PILImageResampling.BICUBIC
    own_inputs: Callable[[int, UniDiffConfig], Mapping[str, Any]] = lambda length, config: {}
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    own_class: Callable[[UniDiffConfig], tuple[Any, str]] | None = None
    own_code: str | None = None

    def configuration(self, folder: ForeignFolder) -> UniDiffConfig:
        """Our configuration of a folder.

        Raises:
            ValueError: if it has something that the model does not, or contradicts itself.
        """
        settings = said_settings(self, folder)
        with blamed_on(self.name, folder.path):
            check_ids(folder, settings)
            return own_configuration(UniDiffConfig, folder, settings)


class Settled(Protocol):
    """A family, of models or of image tokenizers."""

    @property
    def name(self) -> str:
        """Of the family."""

    @property
    def settings(self) -> Callable[[ForeignFolder], dict[str, Any]]:
        """The fields of our configuration that a folder's files say."""


def said_settings(family: Settled, folder: ForeignFolder) -> dict[str, Any]:
    """A family's settings of a folder; raises ValueError where its files lack or misstate one."""
    with blamed_on(family.name, folder.path):
        try:
            return family.settings(folder)
        except KeyError as error:
            raise ValueError(
                f"{folder.path} lacks {error} in its config.json or among its weights, which "
                f"{family.name} needs"
            ) from error


def own_configuration(
    kind: type[Configuration], folder: ForeignFolder, settings: Mapping[str, Any]
) -> Configuration:
    """Our configuration of some fields; raises ValueError where they contradict each other."""
    try:
        return kind(**settings)
    except StrictDataclassError as error:
        raise ValueError(f"the config.json of {folder.path} contradicts itself: {error}") from error


def check_ids(folder: ForeignFolder, settings: Mapping[str, Any]) -> None:
    """Raise ValueError unless every id has a row, and files agree on the mask.

    Args:
        folder: of the checkpoint.
        settings: fields of our configuration.
    """
    rows, size = settings["vocab_size"], folder.num_ids
    if size is not None and size > rows:
        raise ValueError(
            f"the tokenizer in {folder.path} has {size} ids and the embedding {rows} rows: they "
            "belong to different checkpoints"
        )
    for name in ("mask", "pad", "bos", "eos"):
        named = settings.get(f"{name}_token_id")
        ids = named if isinstance(named, list) else [named]
        if outside := [one for one in ids if one is not None and not 0 <= one < rows]:
            raise ValueError(
                f"{folder.path}: the {name} id {outside[0]} lies outside the {rows} rows of the "
                "embedding; config.json, tokenizer and weights belong to different checkpoints"
            )
    said, named = folder.config.get("mask_token_id"), folder.named_token("mask_token")
    if None not in (said, named) and said != named:
        raise ValueError(
            f"{folder.path}: the tokenizer's mask_token has the id {named}, and config.json says "
            f"{said}: they belong to different checkpoints"
        )
