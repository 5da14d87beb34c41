"""Rules on logits: which ids a position may take, guidance, the caller's logits processors.

Guidance mixes first and the modality limits come after, or -inf would meet -inf (DESIGN decision
19).
"""

# Shapes: N positions, V ids.

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unidiff.tokens.layout import MODALITIES, TokenLayout

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]


def shared_id_range(modality_N: Tensor, layout: TokenLayout) -> tuple[int, int] | None:
    """(start, stop) of the ids when all positions are of one modality, else None."""
    kinds = modality_N.unique().tolist()
    if len(kinds) != 1:
        return None
    id_range = layout.range_of(MODALITIES[kinds[0]])
    return id_range.start, id_range.stop


def limit_to_modality(
    logits_NV: Tensor,
    modality_N: Tensor,
    layout: TokenLayout,
    vocab_size: int,
    id_range: tuple[int, int] | None,
) -> Tensor:
    """Logits with -inf at ids that a position's modality may not take, the mask id among them.

    Args:
        logits_NV: (N, V) float over the whole vocabulary, or over `id_range`.
        modality_N: (N,) int64 index into `MODALITIES`.
        layout: the ids of each modality.
        vocab_size: ids of the whole vocabulary.
        id_range: (start, stop) that V covers; None: all of `vocab_size`.

    Returns:
        (N, V) float32, or float64 if that came in.
    """
    if logits_NV.dtype not in (torch.float32, torch.float64):
        logits_NV = logits_NV.float()
    ids = slice(*id_range) if id_range is not None else slice(0, vocab_size)
    for kind in modality_N.unique().tolist():
        allowed_V = layout.allowed_ids(MODALITIES[kind], vocab_size)[ids].to(logits_NV.device)
        of_kind_N1 = (modality_N == kind)[:, None]
        logits_NV = logits_NV.masked_fill(of_kind_N1 & ~allowed_V, -torch.inf)
    return logits_NV


def guide(logits_NV: Tensor, scale: float) -> Tensor:
    """Conditional logits moved away from the unconditional ones: u + scale (c - u).

    Args:
        logits_NV: (2 N, V) float, the conditional half first.
        scale: 1 gives the conditional logits back.

    Returns:
        (N, V) float.

    Source: classifier-free guidance, arXiv 2207.12598, with `scale` = 1 + its w, on the logits of
        masked tokens as in Muse, arXiv 2301.00704.
    """
    conditional_NV, unconditional_NV = logits_NV.chunk(2)
    return unconditional_NV + scale * (conditional_NV - unconditional_NV)


def apply_processors(
    processors: Sequence[LogitsProcessor],
    logits_NV: Tensor,
    row_N: Tensor,
    known_ids: Sequence[Sequence[int]],
) -> Tensor:
    """Logits after the caller's processors, which see one flat row per position.

    Args:
        processors: transformers' logits processors, in order.
        logits_NV: (N, V) over the whole vocabulary.
        row_N: (N,) int64 row of each position, in ascending order.
        known_ids: tokens known so far of each row: prompt, finished blocks, revealed tokens.

    Raises:
        ValueError: if a processor returns something else than scores of its input's shape.
    """
    if not processors:
        return logits_NV
    parts = []
    for row in row_N.unique().tolist():
        part = logits_NV[row_N == row]
        ids = torch.tensor(known_ids[row], dtype=torch.int64, device=part.device)
        ids = ids.expand(part.shape[0], -1)
        for processor in processors:
            processed = processor(ids, part)
            if not isinstance(processed, Tensor) or processed.shape != part.shape:
                shape = getattr(processed, "shape", None)
                raise ValueError(
                    f"logits_processor must return scores of shape {tuple(part.shape)}, got "
                    f"{type(processed).__name__}" + (f" of {tuple(shape)}" if shape else "")
                )
            part = processed
        parts.append(part)
    return torch.cat(parts)


def check_scores(logits_NV: Tensor, processed: bool) -> None:
    """Raise ValueError if a position has no id to take, or scores that are no numbers.

    Args:
        logits_NV: (N, V) float after every rule.
        processed: whether the caller's processors had a hand in them.
    """
    best_N = logits_NV.amax(-1)
    if bool(best_N.isnan().any()):
        whose = "logits_processor returned" if processed else "the model returned"
        raise ValueError(
            f"{whose} NaN scores: damaged weights, an overflow in half precision, or a processor "
            "that divides by zero"
        )
    if bool((best_N == -torch.inf).any()):
        raise ValueError(
            "logits_processor left a position without any id of its modality: allow at least one"
        )
