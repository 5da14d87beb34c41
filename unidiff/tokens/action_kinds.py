"""Which tokenizers of actions there are: the one place that knows them by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from .action_tokenizer import DEFAULT_KIND, ActionTokenizer, read_action_file
from .actions import BinTokenizer
from .dct import DctTokenizer, checked_chunks
from .fast import FastTokenizer

ACTION_TOKENIZERS: dict[str, type[ActionTokenizer]] = {
    one.kind: one for one in (BinTokenizer, DctTokenizer, FastTokenizer)
}


def action_tokenizer(values: Mapping[str, Any]) -> ActionTokenizer:
    """Tokenizer of any kind from its `to_dict`; without "kind" they are bins.

    Raises:
        ValueError: if the kind is unknown, or a key missing or unknown.
    """
    return _class_of(values.get("kind", DEFAULT_KIND)).from_dict(values)


def load_action_tokenizer(folder: str | Path) -> ActionTokenizer:
    """Tokenizer of any kind that `save_pretrained` wrote into the folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged or the kind unknown.
    """
    return action_tokenizer(read_action_file(folder))


def fit_action_tokenizer(kind: str, chunks: ArrayLike, **options: Any) -> ActionTokenizer:
    """Tokenizer of a kind, fitted to a data set.

    Args:
        kind: "bins", "dct" or "fast".
        chunks: (N, T, D) finite numbers.
        options: those of the class's `fit`; the horizon is that of the chunks.

    Raises:
        ValueError: if the kind is unknown or the chunks cannot be fitted to.
    """
    found = _class_of(kind)
    array = checked_chunks(chunks)
    if found is BinTokenizer:
        return BinTokenizer.fit(array, horizon=array.shape[1], **options)
    fitted: ActionTokenizer = found.fit(array, **options)  # type: ignore[attr-defined]
    return fitted


def _class_of(kind: str) -> type[ActionTokenizer]:
    """Class of a kind; raises ValueError naming those there are."""
    if kind not in ACTION_TOKENIZERS:
        raise ValueError(f"kind must be one of {tuple(ACTION_TOKENIZERS)}, got {kind!r}")
    return ACTION_TOKENIZERS[kind]
