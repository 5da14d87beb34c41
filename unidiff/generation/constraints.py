"""Rules on logits: which ids a position may take, end tokens, the caller's logits processors."""

# Shapes: N positions, V ids.

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unidiff.tokens.layout import TokenLayout

from .confidence import working_dtype

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]


def shared_id_range(modality_N: Tensor, layout: TokenLayout) -> tuple[int, int] | None:
    """(start, stop) of the ids when all positions are of one modality, else None."""
    kinds = modality_N.unique().tolist()
    if len(kinds) != 1:
        return None
    id_range = layout.range_of(layout.modalities[kinds[0]])
    return id_range.start, id_range.stop


def limit_to_modality(
    logits_NV: Tensor,
    modality_N: Tensor,
    layout: TokenLayout,
    vocab_size: int,
    id_range: tuple[int, int] | None,
) -> Tensor:
    """The logits, with -inf written at ids that a position's modality may not take.

    The mask id is among them.

    Args:
        logits_NV: (N, V) float over the whole vocabulary, or over `id_range`; changed in place.
        modality_N: (N,) int64 index into `layout.modalities`.
        layout: the ids of each modality.
        vocab_size: ids of the whole vocabulary.
        id_range: (start, stop) that V covers; None: all of `vocab_size`.
    """
    first, stop = id_range or (0, vocab_size)
    kinds = modality_N.unique().tolist()
    for kind in kinds:
        column = layout.forbidden_columns(layout.modalities[kind], first, stop).to(logits_NV.device)
        if len(kinds) == 1:
            logits_NV.index_fill_(1, column, -torch.inf)
        else:
            (line,) = torch.nonzero(modality_N == kind, as_tuple=True)
            logits_NV[line] = logits_NV[line].index_fill_(1, column, -torch.inf)
    return logits_NV


def suppress_ends(logits_NV: Tensor, end_ids_NE: Tensor, early_N: Tensor, first_id: int) -> Tensor:
    """Logits with -inf at the end tokens of positions where a row may not end yet.

    Args:
        logits_NV: (N, V) float over the ids from `first_id` on.
        end_ids_NE: (N, E) int64 end ids of each position's row, -1 for none.
        early_N: (N,) bool, positions at which no end token may stand.
        first_id: id of the first column.
    """
    column_NE = end_ids_NE - first_id
    applies_NE = early_N[:, None] & (column_NE >= 0) & (column_NE < logits_NV.shape[1])
    banned_NV = torch.zeros_like(logits_NV, dtype=torch.bool)
    line_NE = torch.arange(len(logits_NV), device=logits_NV.device)[:, None].expand_as(column_NE)
    banned_NV[line_NE[applies_NE], column_NE[applies_NE]] = True
    return logits_NV.masked_fill(banned_NV, -torch.inf)


def reject_early_ends(
    confidence_N: Tensor, is_end_N: Tensor, progress_N: Tensor, least: float
) -> Tensor:
    """Confidences with those of end tokens held back at first: the factor rises from `least` to 1.

    Args:
        confidence_N: (N,) float.
        is_end_N: (N,) bool, positions whose likeliest id ends the row.
        progress_N: (N,) float, 0 at a block's first step and 1 at its last.
        least: factor at the first step.

    Source: EOS early rejection, row 4 of systems/001.md; the straight line is ours.
    """
    factor_N = least + (1.0 - least) * progress_N
    return torch.where(is_end_N, confidence_N * factor_N.to(confidence_N), confidence_N)


def apply_processors(
    processors: Sequence[LogitsProcessor],
    logits_NV: Tensor,
    row_N: Tensor,
    known_ids: Sequence[Sequence[int]],
) -> Tensor:
    """Logits after the caller's processors, which see one flat row per position in float32.

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
    logits_NV = logits_NV.to(working_dtype(logits_NV))
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


def check_scores(logits_NV: Tensor, certainty_N: Tensor, processed: bool) -> None:
    """Raise ValueError if a position has no id to take, or scores that are no numbers.

    Args:
        logits_NV: (N, V) float after every rule.
        certainty_N: (N,) any function of each law, which is NaN where there is no law.
        processed: whether the caller's processors had a hand in them.
    """
    if not bool(certainty_N.isnan().any()):
        return
    if bool((logits_NV.amax(-1) == -torch.inf).any()):
        raise ValueError(
            "logits_processor left a position without any id of its modality: allow at least one"
        )
    whose = "logits_processor returned" if processed else "the model returned"
    raise ValueError(
        f"{whose} NaN scores: damaged weights, an overflow in half precision, or a processor that "
        "divides by zero"
    )
