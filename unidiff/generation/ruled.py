"""Decoding under the rows' rules: logits limited to what may stand there, tokens drawn in turn.

Positions revealed in one step are drawn one after the other, the most certain first, each under
what the ones before it leave possible: together they always fit the row's grammar.
"""

# Shapes: B rows, K canvas, N positions, V ids.

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .canvases import Canvases
from .confidence import max_probability
from .constraints import check_scores
from .predictions import Predictions
from .rows import Row


def limit_to_rules(found: Predictions, rows: Sequence[Row], canvases: Canvases) -> Tensor:
    """(N, V) logits with -inf at ids that the rows' rules do not allow.

    Args:
        found: predictions of one step, row by row.
        rows: the batch.
        canvases: their canvases as they stand; the rules take them in.
    """
    if all(row.rule is None for row in rows):
        return found.logits_NV
    _see(rows, canvases)
    return _limited(found, rows)


def draw_under_rules(
    found: Predictions,
    confidence_N: Tensor,
    rows: Sequence[Row],
    canvases: Canvases,
    draw: Callable[[Predictions], Tensor],
) -> tuple[Predictions, Tensor]:
    """What the positions to be revealed were drawn from, and their tokens.

    Args:
        found: predictions at the positions that are revealed now.
        confidence_N: (N,) float, ranks the positions of each row.
        rows: the batch.
        canvases: their canvases before the reveal.
        draw: (n,) tokens for n predictions, as columns of their logits.

    Returns:
        The predictions under the rules, and (N,) int64 tokens as columns of their logits.
    """
    _see(rows, canvases)
    turn_N = _turns(found, confidence_N, rows)
    logits_NV = found.logits_NV.clone()
    token_N = torch.zeros_like(found.row_N)
    for turn in range(int(turn_N.max(initial=-1)) + 1):
        now_N = torch.from_numpy(turn_N == turn).to(logits_NV.device)
        part = found.only(now_N)
        limited_NV = _limited(part, rows)
        check_scores(limited_NV, max_probability(limited_NV), processed=True)
        part = Predictions(limited_NV, part.row_N, part.column_N, part.first_id)
        logits_NV[now_N] = limited_NV
        token_N[now_N] = draw(part)
        places = part.row_N.tolist(), part.column_N.tolist(), token_N[now_N].tolist()
        for row, column, token in zip(*places, strict=True):
            rule = rows[row].rule
            if rule is not None:
                rule.fix(column, token + found.first_id)
    return Predictions(logits_NV, found.row_N, found.column_N, found.first_id), token_N


def limit_next(logits_NV: Tensor, rows: Sequence[Row], drafts: Sequence[Sequence[int]]) -> Tensor:
    """(N, V) logits of left-to-right decoding with -inf at ids that the rows' rules do not allow.

    A line behind a draft that broke the rule stays as it is: no law reaches it.

    Args:
        logits_NV: (N, V) float over the whole vocabulary.
        rows: row of each line.
        drafts: tokens between the row's known ones and the line's place.
    """
    if all(row.rule is None for row in rows):
        return logits_NV
    logits_NV = logits_NV.clone()
    for line, (row, draft) in enumerate(zip(rows, drafts, strict=True)):
        grammar = None if row.rule is None else row.rule.grammar
        allowed_V = None if grammar is None else grammar.allowed_behind(row.generated, draft)
        if allowed_V is not None:
            banned_V = torch.from_numpy(~allowed_V).to(logits_NV.device)
            logits_NV[line].masked_fill_(banned_V, -torch.inf)
    return logits_NV


def _see(rows: Sequence[Row], canvases: Canvases) -> None:
    """Show every rule its row's canvas."""
    ids_BK, masked_BK = canvases.ids_BK.cpu().numpy(), canvases.masked_BK.cpu().numpy()
    facts = torch.stack([canvases.first_index_B, canvases.length_B]).tolist()
    for index, (row, first, length) in enumerate(zip(rows, *facts, strict=True)):
        if row.rule is not None and length:
            place = first - len(row.prompt)
            ids_K, masked_K = ids_BK[index, :length], masked_BK[index, :length]
            row.rule.see(place, ids_K, masked_K, row.generated)


def _limited(found: Predictions, rows: Sequence[Row]) -> Tensor:
    """(N, V) logits under the rules, which have seen the canvases."""
    logits_NV = found.logits_NV
    ids = slice(found.first_id, found.first_id + logits_NV.shape[1])
    lines, masks = [], []
    pairs = zip(found.row_N.tolist(), found.column_N.tolist(), strict=True)
    for line, (row, column) in enumerate(pairs):
        rule = rows[row].rule
        allowed_V = None if rule is None else rule.allowed(column)
        if allowed_V is not None:
            lines.append(line)
            masks.append(~allowed_V[ids])
    if not lines:
        return logits_NV
    banned_NV = torch.from_numpy(np.stack(masks)).to(logits_NV.device)
    logits_NV = logits_NV.clone()
    logits_NV[lines] = logits_NV[lines].masked_fill(banned_NV, -torch.inf)
    return logits_NV


def _turns(found: Predictions, confidence_N: Tensor, rows: Sequence[Row]) -> np.ndarray:
    """(N,) int64 turn in which each position is drawn: rank by confidence within its row.

    Rows without a grammar draw all their positions in the first turn. Ties go to the left.
    """
    row_N, column_N = found.row_N.cpu().numpy(), found.column_N.cpu().numpy()
    order_N = np.lexsort((column_N, -confidence_N.double().cpu().numpy(), row_N))
    sorted_N = row_N[order_N]
    first_N = np.searchsorted(sorted_N, sorted_N)
    turn_N = np.zeros(len(row_N), dtype=np.int64)
    turn_N[order_N] = np.arange(len(row_N)) - first_N
    has_grammar = np.array([row.rule is not None and row.rule.grammar is not None for row in rows])
    return np.where(has_grammar[row_N], turn_N, 0)
