"""Who attends to whom: boolean masks for training, prefill, probes and commits.

One rule for each attention pattern, on absolute token indices counted from a row's first real
token:

    causal_context  a context token sees context up to itself; a canvas token sees the context
                    before its block and its whole block
    block_causal    the same, and a context token also sees the rest of its own block of the grid
    full            every token of a row sees every token of that row

Source: DESIGN decision 4; the concatenated mask follows BD3-LM (arXiv 2503.09573, section 3.2 and
appendix B.6). Checked in tests/model/test_masks.py (printed matrices) and test_invariances.py.
"""

# Shapes: B batch, L context tokens, K canvas tokens, S slots, T tokens to commit, Q = T + K.

from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import additive_mask
from .placement import Placement


@dataclass(frozen=True)
class Stream:
    """Tokens of one kind in a batch of packed rows: whose they are and where they stand.

    Attributes:
        sample_BL: (B, L) int64, sample each token belongs to; negative for padding.
        index_BL: (B, L) int64, index of the token inside its sample.
        block_BL: (B, L) int64, block of a canvas token, -1 for context.
        first_BL: (B, L) int64, index of the first token of the token's block.
    """

    sample_BL: Tensor
    index_BL: Tensor
    block_BL: Tensor
    first_BL: Tensor


def _same_sample(query: Stream, key: Stream) -> Tensor:
    """(B, Q, S) bool, True where both tokens are real and of one sample."""
    same = query.sample_BL[:, :, None] == key.sample_BL[:, None, :]
    return same & (query.sample_BL >= 0)[:, :, None]


def context_mask(context: Stream, grid: int | None) -> Tensor:
    """(B, L, L) bool mask among context tokens; `grid` is the block length under block_causal."""
    query, key = context.index_BL[:, :, None], context.index_BL[:, None, :]
    if grid is not None:
        query, key = query // grid, key // grid
    return _same_sample(context, context) & (key <= query)


def concatenated_mask(context: Stream, canvas: Stream, grid: int | None) -> Tensor:
    """Mask of the [context ; canvas] training pass.

    Args:
        context: clean tokens, (B, L).
        canvas: noisy tokens, (B, K).
        grid: block length under block_causal, None under causal_context.

    Returns:
        (B, 1, L + K, L + K) bool, True = attends. A padding row attends to itself only.
    """
    before = canvas.first_BL[:, :, None] > context.index_BL[:, None, :]
    sees_context = _same_sample(canvas, context) & before
    same_block = canvas.block_BL[:, :, None] == canvas.block_BL[:, None, :]
    sees_canvas = _same_sample(canvas, canvas) & same_block
    top_left = context_mask(context, grid)
    nothing = top_left.new_zeros(top_left.shape[0], top_left.shape[1], canvas.index_BL.shape[1])
    top = torch.cat([top_left, nothing], dim=2)
    mask = torch.cat([top, torch.cat([sees_context, sees_canvas], dim=2)], dim=1)
    return keep_diagonal(mask).unsqueeze(1)


def prefix_mask(context: Stream, prefix_B: Tensor) -> Tensor:
    """(B, L, L) bool, True where both tokens are of the first `prefix_B` of their row."""
    inside_BL = context.index_BL < prefix_B[:, None]
    return _same_sample(context, context) & inside_BL[:, :, None] & inside_BL[:, None, :]


def decode_mask(
    placement: Placement,
    grid: int | None,
    additive: torch.dtype | None = None,
    prefix_B: Tensor | None = None,
) -> Tensor | None:
    """Mask of one decoding forward: [run to commit ; canvas] behind what the cache holds.

    A canvas token sees all slots of its row, a token of the run those up to itself, under a grid
    those up to the end of its block.

    Args:
        placement: where the new tokens stand.
        grid: block length under block_causal, None under causal_context.
        additive: dtype of a mask to be added to scores, for `attention.matmul_attention`: it leaves
            out the leading slots that every token sees. None: a bool mask of all slots.
        prefix_B: as `num_seen`.

    Returns:
        (B, 1, T + K, S) bool, True = attends; or (B, 1, T + K, at most S) to be added to the scores
        of the last slots. None where every token sees every slot, unless the placement is static.
        Padding sees its row's first slot only.
    """
    seen_BQ = num_seen(placement, grid, prefix_B=prefix_B)
    if not placement.is_static and bool((seen_BQ == placement.num_slots).all()):
        return None
    first = 0
    if additive is not None and not placement.is_static:
        first = int(seen_BQ.min())
    slot_S = torch.arange(first, placement.num_slots, device=seen_BQ.device)
    mask = (slot_S < seen_BQ[:, :, None]).unsqueeze(1)
    return mask if additive is None else additive_mask(mask, additive)


def num_seen(
    placement: Placement,
    grid: int | None,
    behind_BK: Tensor | None = None,
    prefix_B: Tensor | None = None,
) -> Tensor:
    """(B, T + K) int64, how many leading slots of its row each new token sees.

    Args:
        placement: where the new tokens stand.
        grid: block length under block_causal, None under causal_context.
        behind_BK: (B, K) int64, index in the run of the token that a canvas token stands behind;
            None: behind the whole run, with its canvas.
        prefix_B: (B,) int64, leading slots whose tokens see each other, all in the run; None: no
            row has any.
    """
    committed_B1, run_B1 = placement.committed_B[:, None], placement.run_B[:, None]
    canvas_B1 = placement.canvas_B[:, None]
    run_T = torch.arange(placement.widths[0], device=run_B1.device)
    canvas_K = torch.arange(placement.widths[1], device=run_B1.device)
    seen_BT = committed_B1 + run_T + 1
    if grid is not None:
        seen_BT = torch.minimum((seen_BT - 1) // grid * grid + grid, committed_B1 + run_B1)
    if prefix_B is not None:
        seen_BT = torch.maximum(seen_BT, prefix_B[:, None])
    seen_BT = torch.where(run_T < run_B1, seen_BT, 1)
    last_BK = run_B1 + canvas_B1 if behind_BK is None else behind_BK + 1
    seen_BK = torch.where(canvas_K < canvas_B1, committed_B1 + last_BK, 1)
    return torch.cat([seen_BT, seen_BK], dim=1)


def _blocks(query_BQ: Tensor, keys: list[Tensor]) -> Tensor:
    """(B, Q, S) bool: every real query sees every real key."""
    return query_BQ[:, :, None] & torch.cat(keys, dim=1)[:, None, :]


def full_mask(attention_mask_BL: Tensor) -> Tensor:
    """(B, 1, L, L) bool: every real token sees every real token of its row."""
    real_BL = attention_mask_BL.bool()
    return keep_diagonal(_blocks(real_BL, [real_BL])).unsqueeze(1)


def keep_diagonal(mask_BQQ: Tensor) -> Tensor:
    """The mask with every token attending to itself, so that no softmax is empty."""
    eye = torch.eye(mask_BQQ.shape[-1], dtype=torch.bool, device=mask_BQQ.device)
    return mask_BQQ | eye
