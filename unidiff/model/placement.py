"""Where the new tokens of one forward stand among the slots of a cache.

A row's new tokens follow its committed ones without a gap: first the run to commit, then the
canvas. So what a token may see is one number, how many leading slots: see `masks.decode_mask`.
"""

# Shapes: B rows, T tokens to commit, K canvas tokens, Q = T + K new tokens, N real ones of them.

from dataclasses import dataclass

import torch
from torch import Tensor

_FEWEST_SLOTS = 255  # of a static placement, less one


@dataclass(frozen=True)
class Placement:
    """Slots of the new tokens of one forward; the same in every layer.

    Attributes:
        committed_B: (B,) int64, tokens that each row has committed before.
        run_B: (B,) int64, tokens of each row that are being committed.
        canvas_B: (B,) int64, canvas tokens of each row.
        widths: (T, K), padded widths of run and canvas.
        num_slots: slots that the forward sees.
        first: slot of every row's first new token, if no row has padding and all start together.
        row_N: (N,) row of each real new token; empty where `first` says it all.
        token_N: (N,) its place among the Q new ones.
        slot_N: (N,) its slot.
        is_static: whether shapes are kept from changing: `num_slots` is a power of two, and
            padding is stored too, in a slot behind them.
    """

    committed_B: Tensor
    run_B: Tensor
    canvas_B: Tensor
    widths: tuple[int, int]
    num_slots: int
    first: int | None
    row_N: Tensor
    token_N: Tensor
    slot_N: Tensor
    is_static: bool = False

    @property
    def num_stored(self) -> int:
        """Slots that a store needs."""
        return self.num_slots + self.is_static

    @classmethod
    def static(
        cls, committed_B: Tensor, run_B: Tensor, canvas_B: Tensor, widths: tuple[int, int]
    ) -> "Placement":
        """The same in shapes that seldom change, for `torch.compile`."""
        longest = int((committed_B + run_B + canvas_B).max()) if len(committed_B) else 0
        num_slots = 1 << max(longest, _FEWEST_SLOTS).bit_length()
        slot_BQ, real_BQ = _slots(committed_B, run_B, canvas_B, widths)
        slot_N = torch.where(real_BQ, slot_BQ, num_slots).flatten()
        row_BQ = torch.arange(len(slot_BQ), device=slot_N.device)[:, None].expand_as(slot_BQ)
        token_BQ = torch.arange(sum(widths), device=slot_N.device).expand_as(slot_BQ)
        where = row_BQ.flatten(), token_BQ.flatten(), slot_N
        return cls(committed_B, run_B, canvas_B, widths, num_slots, None, *where, is_static=True)

    @classmethod
    def of(
        cls, committed_B: Tensor, run_B: Tensor, canvas_B: Tensor, widths: tuple[int, int]
    ) -> "Placement":
        """Placement of rows with the given numbers of tokens."""
        facts = torch.stack([committed_B, run_B, canvas_B]).tolist()  # one question to the device
        num_slots = max(map(sum, zip(*facts, strict=True)), default=0)
        is_even = all(len(set(counts)) == 1 for counts in facts)
        is_full = (facts[1][:1], facts[2][:1]) == ([widths[0]], [widths[1]])
        nothing = committed_B.new_zeros(0)
        first, row_N, token_N, slot_N = None, nothing, nothing, nothing
        if is_even and is_full:
            first = facts[0][0]
        else:
            slot_BQ, real_BQ = _slots(committed_B, run_B, canvas_B, widths)
            row_N, token_N = torch.nonzero(real_BQ, as_tuple=True)
            slot_N = slot_BQ[row_N, token_N]
        return cls(committed_B, run_B, canvas_B, widths, num_slots, first, row_N, token_N, slot_N)


def _slots(
    committed_B: Tensor, run_B: Tensor, canvas_B: Tensor, widths: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """((B, Q) slot of each new token, (B, Q) bool whether it is real)."""
    run_T = torch.arange(widths[0], device=run_B.device)
    canvas_K = torch.arange(widths[1], device=run_B.device)
    slot_BT = committed_B[:, None] + run_T
    slot_BK = (committed_B + run_B)[:, None] + canvas_K
    real_BT, real_BK = run_T < run_B[:, None], canvas_K < canvas_B[:, None]
    return torch.cat([slot_BT, slot_BK], dim=1), torch.cat([real_BT, real_BK], dim=1)
