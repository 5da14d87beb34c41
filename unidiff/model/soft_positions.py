"""Features of pictures at the soft positions of rows: which picture is whose, and embeddings.

The k-th soft position of a row, counted from its first real token, holds the row's k-th feature.
"""

# Shapes: B rows, T tokens, N soft positions, D width.

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def soft_mask(ids: Tensor, token: int | None) -> Tensor:
    """Bool tensor of the same shape: the ids of soft positions; none where there is no such id."""
    return torch.zeros_like(ids, dtype=torch.bool) if token is None else torch.eq(ids, token)


def embedded(
    embed: Callable[[Tensor], Tensor],
    ids_BT: Tensor,
    is_soft_BT: Tensor,
    soft: Sequence[Tensor | None],
    before_B: Sequence[int] | None = None,
) -> Tensor:
    """(B, T, D) embeddings, with features in place of those of soft positions.

    Args:
        embed: gives the embeddings of ids.
        ids_BT: (B, T) int64.
        is_soft_BT: (B, T) bool, soft positions; of those behind a row's last feature nothing is
            changed, for padding may look like one.
        soft: (N, D) features of each row, None for a row without.
        before_B: features of each row that stand before its first token here; None: none.
    """
    hidden_BTD = embed(ids_BT).clone()
    order_BT = is_soft_BT.long().cumsum(1) - 1
    for row, features_ND in enumerate(soft):
        if features_ND is None:
            continue
        number_T = order_BT[row] + (0 if before_B is None else before_B[row])
        at_T = is_soft_BT[row] & (number_T < len(features_ND))
        hidden_BTD[row, at_T] = features_ND[number_T[at_T]].to(hidden_BTD)
    return hidden_BTD


def pictures_of_rows(places_B: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Numbers of the pictures of each row; pictures follow each other through the batch.

    Args:
        places_B: soft positions of each row.
        sizes: features of each picture, row by row in the order of their places.

    Raises:
        ValueError: if a row's places are not those of whole pictures, or pictures are left over.
    """
    rows: list[list[int]] = []
    taken = 0
    for count in places_B:
        own: list[int] = []
        while taken < len(sizes) and sum(sizes[one] for one in own) < count:
            own.append(taken)
            taken += 1
        rows.append(own)
    if taken < len(sizes) or any(
        sum(sizes[one] for one in own) != count for own, count in zip(rows, places_B, strict=True)
    ):
        raise ValueError(
            f"input_ids have {list(places_B)} positions for features of pictures in their rows, "
            f"and the {len(sizes)} pictures of pixel_values have {list(sizes)} features: rows "
            "do not get whole pictures; pass input_ids and pixel_values of one processor call, all "
            "pictures in the order of their places"
        )
    return rows
