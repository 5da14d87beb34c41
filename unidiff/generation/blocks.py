"""Where a block ends: at a fixed length, or at a delimiter that the first step is sure of.

Adaptive blocks end where a thought ends. They need weights without a trained grid: under
`causal_context` the canvas is cut short, under `full` the window of positions revealed together.
"""

# Shapes: B rows, K canvas, N positions, V ids.

from dataclasses import dataclass

import torch
from torch import Tensor

from .confidence import max_probability
from .sampling import likeliest


@dataclass(frozen=True)
class Blocks:
    """How long blocks of text are.

    Attributes:
        length: positions of a block.
        sub_length: positions of it revealed before the next ones; None: all.
        delimiters: ids at which a block may end early; empty: fixed blocks.
        threshold: least probability of such a delimiter.
        lookahead: positions among which it may stand.

    Source: AdaBlock, arXiv 2509.26432 (delimiters, threshold, window); sub-blocks are those of
        Fast-dLLM v2 (arXiv 2509.26328). Checked in tests/generation/test_blocks.py.
    """

    length: int
    sub_length: int | None = None
    delimiters: tuple[int, ...] = ()
    threshold: float = 0.3
    lookahead: int | None = None

    @property
    def is_adaptive(self) -> bool:
        """Whether the first step of a block decides its length."""
        return bool(self.delimiters)

    @property
    def opened(self) -> int:
        """Positions that a canvas opens with."""
        if not self.is_adaptive:
            return self.length
        return max(self.length, self.lookahead or self.length)

    def lengths(
        self, logits_NV: Tensor, row_N: Tensor, place_N: Tensor, first_id: int, num_rows: int
    ) -> Tensor:
        """(B,) length that each row's new block should have, by its first predictions.

        Args:
            logits_NV: (N, V) float scores at the masked positions of the new blocks.
            row_N: (N,) int64 row of each.
            place_N: (N,) int64 place in the block, from 0.
            first_id: id of the first column.
            num_rows: B.
        """
        likeliest_N = likeliest(logits_NV) + first_id
        ids_D = torch.tensor(self.delimiters, device=likeliest_N.device)
        prob_N = max_probability(logits_NV).to(torch.float64)
        may_end_N = (likeliest_N[:, None] == ids_D).any(1) & (prob_N >= self.threshold)
        may_end_N &= place_N < self.opened
        score_BK = prob_N.new_full((num_rows, self.opened), -1.0)
        score_BK[row_N[may_end_N], place_N[may_end_N]] = prob_N[may_end_N]
        best_B = score_BK.amax(1)
        return torch.where(best_B >= 0, score_BK.argmax(1) + 1, self.length)
