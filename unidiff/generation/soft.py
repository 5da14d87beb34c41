"""Soft positions: prompt positions where a feature of a picture stands in place of an embedding.

Ids stay plain: every such position has the layout's `soft_token_id`, and the k-th of a row takes
the row's k-th feature. What a feature is, and where it came from, is the denoiser's business.
"""

# Shapes: N soft positions of a row, D width of a feature, L tokens.

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from unidiff.tokens.layout import TokenLayout

if TYPE_CHECKING:
    from .context import Context


def check_soft(ids: Sequence[int], soft: Tensor | None, layout: TokenLayout, name: str) -> None:
    """Raise ValueError unless a prompt has one soft position for each of its features.

    Args:
        ids: of the prompt, real tokens only.
        soft: (N, D) features; None: there are none.
        layout: says which id is a soft position.
        name: of the prompt, for the message.
    """
    token = layout.soft_token_id
    places = 0 if token is None else list(ids).count(token)
    found = 0 if soft is None else len(soft)
    if places != found:
        raise ValueError(
            f"{name} has {places} positions for features of pictures (id {token}) and its pictures "
            f"have {found}: pass generate() the pixel_values, or a session the `soft` features, "
            "with the input_ids that the processor made of both"
        )


def soft_for(ids: Sequence[int], soft: Tensor | None, layout: TokenLayout) -> Tensor | None:
    """A row's features where a prompt of it has a place for any, else None."""
    return soft if layout.soft_token_id in ids else None


def give_soft(cache: Any, contexts: Sequence["Context"]) -> None:
    """Tell a cache the features of its rows, given their contexts in the cache's order."""
    if any(context.soft is not None for context in contexts):
        cache.soft = [context.soft for context in contexts]


def same_features(
    ids_L: np.ndarray, token: int | None, one: Tensor | None, other: Tensor | None
) -> np.ndarray:
    """(L,) bool, True where a token is no soft position or both rows have the same feature there.

    Args:
        ids_L: (L,) ids that both rows begin with.
        token: id of a soft position; None: there is none.
        one: (N, D) features of a row, a place for each of which may lie behind these ids.
        other: those of the other row.
    """
    is_soft_L = np.zeros(len(ids_L), dtype=bool) if token is None else ids_L == token
    same_L = ~is_soft_L
    if one is None or other is None or one.shape[1:] != other.shape[1:]:
        return same_L
    count = min(int(is_soft_L.sum()), len(one), len(other))
    equal_N = (one[:count] == other[:count].to(one.device)).all(1).cpu().numpy()
    same_L[np.flatnonzero(is_soft_L)[:count]] = equal_N
    return same_L
