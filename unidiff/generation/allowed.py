"""Ids that the caller allows at each position of a canvas."""

# Shapes: B rows, K canvas columns, V ids.

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.tokens.layout import TokenLayout

from .rows import GivenCanvas

DIGITS = "0123456789"


def token_ids_of(tokenizer: Any, texts: Sequence[str] = DIGITS) -> list[int]:
    """Ids of texts that are one token each, by default the ten digits.

    `canvas_allowed_ids=[token_ids_of(tokenizer)] * 4` asks for four digits.

    Raises:
        ValueError: if a text is not one token.
    """
    found = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    wrong = [text for text, ids in zip(texts, found, strict=True) if len(ids) != 1]
    if wrong:
        raise ValueError(
            f"each text must be one token, but {wrong} are not: use choices= for longer ones"
        )
    return [ids[0] for ids in found]


def allowed_masks(value: Any, canvases: Sequence[GivenCanvas], vocab_size: int) -> list[np.ndarray]:
    """(k, V) bool of each row, True at the ids that its canvas positions may take.

    Args:
        value: (B, K, V) or (K, V) bool tensor; or a list with, for each position, a list of ids, or
            None where every id may be; or one such list for each row.
        canvases: the rows' canvases, k positions each; what stands behind a short one is not read.
        vocab_size: V.

    Raises:
        TypeError: if the value is neither.
        ValueError: if its shape does not fit the canvases, or an id lies outside the vocabulary.
    """
    widest = max(len(canvas.ids) for canvas in canvases)
    if isinstance(value, (Tensor, np.ndarray)):
        masks = _from_tensor(torch.as_tensor(value), len(canvases), widest, vocab_size)
    elif isinstance(value, (list, tuple)):
        masks = _from_lists(value, canvases, vocab_size)
    else:
        raise TypeError(
            "canvas_allowed_ids must be a bool tensor (K, V) or (B, K, V), or a list of ids for "
            f"each position; got {type(value).__name__}"
        )
    return [mask[: len(canvas.ids)] for mask, canvas in zip(masks, canvases, strict=True)]


def check_allowed(
    allowed_KV: np.ndarray, canvas: GivenCanvas, layout: TokenLayout, row: int
) -> None:
    """Raise ValueError if a token given is not allowed, or a position to fill has no id left."""
    vocab_size = allowed_KV.shape[1]
    given_K = canvas.pinned | canvas.drafted
    for place, (token, is_given) in enumerate(zip(canvas.ids, given_K, strict=True)):
        if is_given and not allowed_KV[place, token]:
            raise ValueError(
                f"row {row}: canvas position {place} is given as id {token}, which "
                "canvas_allowed_ids does not allow there: allow it, or give another token"
            )
        modality = layout.modalities[canvas.modality[place]]
        possible_V = layout.allowed_ids(modality, vocab_size).numpy()
        if not canvas.pinned[place] and not (allowed_KV[place] & possible_V).any():
            raise ValueError(
                f"row {row}: canvas_allowed_ids leaves canvas position {place} without any "
                f"{modality} id: allow at least one"
            )


def _from_tensor(mask: Tensor, num_rows: int, width: int, vocab_size: int) -> list[np.ndarray]:
    """(K, V) bool of each row from one tensor."""
    if mask.dtype != torch.bool:
        raise TypeError(f"canvas_allowed_ids must be bool or lists of ids, got {mask.dtype}")
    if mask.ndim == 2:
        mask = mask.expand(num_rows, *mask.shape)
    if tuple(mask.shape) != (num_rows, width, vocab_size):
        raise ValueError(
            f"canvas_allowed_ids must have shape {(num_rows, width, vocab_size)} or "
            f"{(width, vocab_size)}, got {tuple(mask.shape)}"
        )
    return list(mask.cpu().numpy())


def _from_lists(
    value: Sequence[Any], canvases: Sequence[GivenCanvas], vocab_size: int
) -> list[np.ndarray]:
    """(k, V) bool of each row from lists of ids, one list for each position."""
    is_per_row = any(
        isinstance(part, (list, tuple, type(None)))
        for item in value
        if isinstance(item, (list, tuple))
        for part in item
    )
    rows = list(value) if is_per_row else [value] * len(canvases)
    if len(rows) != len(canvases):
        raise ValueError(f"canvas_allowed_ids has {len(rows)} rows, the canvas has {len(canvases)}")
    masks = []
    for index, (row, canvas) in enumerate(zip(rows, canvases, strict=True)):
        if len(row) != len(canvas.ids):
            raise ValueError(
                f"row {index}: canvas_allowed_ids has {len(row)} positions, the canvas has "
                f"{len(canvas.ids)}"
            )
        mask_KV = np.zeros((len(row), vocab_size), dtype=bool)
        for place, ids in enumerate(row):
            mask_KV[place, _checked(ids, vocab_size)] = True
        masks.append(mask_KV)
    return masks


def _checked(ids: Any, vocab_size: int) -> Any:
    """An index of the ids; None stands for all."""
    if ids is None:
        return slice(None)
    if not isinstance(ids, (list, tuple)) or any(
        isinstance(token, bool) or not isinstance(token, int) for token in ids
    ):
        raise TypeError(f"canvas_allowed_ids needs a list of ids or None, got {ids!r}")
    if any(not 0 <= token < vocab_size for token in ids):
        raise ValueError(f"canvas_allowed_ids must lie in [0, {vocab_size}), got {list(ids)}")
    return list(ids)
