"""What guidance's weaker branches last said at each canvas position, for steps that do not ask."""

# Shapes: B rows, C weaker branches, K canvas, N positions, M positions held, V ids.

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad


class HeldLogits:
    """The weaker branches' last logits at the positions of every row's canvas.

    Attributes:
        logits_CMV: (C, M, V) float over the ids from `first_id` on, 0 at ids that were not asked
            for; some lines may be nobody's.
        first_id: id of the first column.
        line_BK: (B, K) int64 line of each position, -1 where nothing is held.
    """

    def __init__(self, num_branches: int, device: torch.device) -> None:
        """Nothing held, of no rows."""
        self.logits_CMV = torch.zeros(num_branches, 0, 0, device=device)
        self.first_id = 0
        self.line_BK = torch.zeros(0, 0, dtype=torch.int64, device=device)

    @property
    def is_held_BK(self) -> Tensor:
        """(B, K) bool, positions at which the weaker branches were read."""
        return self.line_BK >= 0

    def join(self, num_rows: int, width: int) -> None:
        """Make room for further rows, of at most `width` columns."""
        wider = max(0, width - self.line_BK.shape[1])
        self.line_BK = pad(self.line_BK, (0, wider, 0, num_rows), value=-1)

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.line_BK.device)
        self.line_BK = self.line_BK[index]

    def forget(self, row: int) -> None:
        """Hold nothing of a row any more."""
        self.line_BK[row] = -1

    def keep(self, row_N: Tensor, column_N: Tensor, logits_CNV: Tensor, first_id: int) -> None:
        """Hold a new reading; positions that it leaves out keep theirs.

        Args:
            row_N: (N,) int64 rows of the positions.
            column_N: (N,) int64 their columns in the canvas.
            logits_CNV: (C, N, V) float, copied.
            first_id: id of the first of the V columns.
        """
        self.line_BK[row_N, column_N] = -1
        older_BK = self.is_held_BK
        older_CMV = self.logits_CMV[:, self.line_BK[older_BK]].to(logits_CNV)
        num_older, stop = older_CMV.shape[1], first_id + logits_CNV.shape[2]
        start = first_id
        if num_older:
            start = min(start, self.first_id)
            stop = max(stop, self.first_id + older_CMV.shape[2])
        parts = (older_CMV, self.first_id), (logits_CNV, first_id)
        self.logits_CMV = torch.cat([_over(part, first, start, stop) for part, first in parts], 1)
        self.first_id = start
        device = row_N.device
        self.line_BK[older_BK] = torch.arange(num_older, device=device)
        self.line_BK[row_N, column_N] = num_older + torch.arange(len(row_N), device=device)

    def at(self, row_N: Tensor, column_N: Tensor, first_id: int, num_ids: int) -> Tensor:
        """(C, N, num_ids) logits held at positions, over the ids from `first_id` on.

        Of ids outside the range that was read they are 0. No position may take such an id: a range
        spans the modalities of all positions that it was asked for.
        """
        lines_CNV = self.logits_CMV[:, self.line_BK[row_N, column_N]]
        return _over(lines_CNV, self.first_id, first_id, first_id + num_ids)


def _over(logits_CNV: Tensor, first_id: int, start: int, stop: int) -> Tensor:
    """A copy whose columns are the ids [start, stop), 0 where there were none."""
    low, high = max(first_id, start), min(first_id + logits_CNV.shape[2], stop)
    wanted = logits_CNV.new_zeros(*logits_CNV.shape[:2], stop - start)
    if low < high:
        wanted[..., low - start : high - start] = logits_CNV[..., low - first_id : high - first_id]
    return wanted
