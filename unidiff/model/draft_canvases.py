"""Several canvases in one forward, each behind another token of the run that is being committed.

Self-speculation reads a draft and drafts anew in the same forward: whichever of its tokens turns
out to be the last right one, the canvas behind that token is there already.
"""

# Shapes: B rows, T tokens of the run, K canvas tokens, Q = T + K, S slots, D width.

import torch
from torch import Tensor

from .masks import num_seen
from .placement import Placement


def branch_mask(placement: Placement, behind_BK: Tensor, prefix_B: Tensor | None = None) -> Tensor:
    """Mask of one forward: [run to commit ; canvases behind its tokens].

    A token of the run sees the slots up to its own. A canvas token sees those up to the run's token
    that it stands behind, and the canvas tokens behind the same one.

    Args:
        placement: where the new tokens stand.
        behind_BK: (B, K) int64, index in the run of the token that a canvas token stands behind.
        prefix_B: as `masks.num_seen`.

    Returns:
        (B, 1, T + K, S) bool, True = attends. Padding sees its row's first slot only.
    """
    width, canvas_width = placement.widths
    canvas_K = torch.arange(canvas_width, device=behind_BK.device)
    slot_S = torch.arange(placement.num_slots, device=behind_BK.device)
    real_BK = canvas_K < placement.canvas_B[:, None]
    mask_BQS = slot_S < num_seen(placement, None, behind_BK, prefix_B)[:, :, None]
    mask_BQS[:, width:] |= _same_canvas(placement, behind_BK, slot_S) & real_BK[:, :, None]
    return mask_BQS.unsqueeze(1)


def _same_canvas(placement: Placement, behind_BK: Tensor, slot_S: Tensor) -> Tensor:
    """(B, K, S) bool, True where a slot holds a canvas token behind the same one."""
    if not behind_BK.shape[1]:
        return behind_BK.new_zeros(*behind_BK.shape, len(slot_S), dtype=torch.bool)
    index_BS = slot_S - (placement.committed_B + placement.run_B)[:, None]
    is_canvas_BS = (index_BS >= 0) & (index_BS < placement.canvas_B[:, None])
    branch_BS = behind_BK.gather(1, index_BS.clamp(0, behind_BK.shape[1] - 1))
    return (branch_BS[:, None] == behind_BK[:, :, None]) & is_canvas_BS[:, None]


def shifted_branches(hidden_BTD: Tensor, hidden_BKD: Tensor, behind_BK: Tensor) -> Tensor:
    """(B, K, D) hidden states of the token before each canvas token, in the run or the canvas."""
    row_B1 = torch.arange(len(behind_BK), device=behind_BK.device)[:, None]
    before_BKD = hidden_BKD.roll(1, dims=1)
    is_first_BK = behind_BK != behind_BK.roll(1, dims=1)
    is_first_BK[:, :1] = True
    return torch.where(is_first_BK[:, :, None], hidden_BTD[row_B1, behind_BK], before_BKD)
