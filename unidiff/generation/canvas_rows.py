"""Rows that each hold a canvas: where it opens, when it closes, and what moves into the context."""

# Shapes: B rows, K canvas.

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .branches import Branches, num_settled
from .canvases import Canvas, Canvases
from .confidence import Workspace
from .denoiser import WHOLE_PATTERNS, Denoiser
from .held import HeldLogits
from .lockstep import LockStep, Policy
from .rows import Row


class CanvasRows(LockStep):
    """Rows whose canvases open, are delivered window by window, and become context."""

    def __init__(self, denoiser: Denoiser[Any], policy: Policy) -> None:
        """Start without rows."""
        super().__init__(denoiser, policy)
        self.workspace = Workspace()
        self.canvases = Canvases.empty(0, 0, denoiser.device)
        num_weaker = policy.guidance.num_branches - 1
        self.branches = Branches(0, num_weaker, 0, denoiser.device)
        self.held = HeldLogits(num_weaker, denoiser.device)

    def join(self, rows: Sequence[Row]) -> None:
        """Open the rows' first canvases; prompts move into them where the pattern asks so."""
        opened = None if self.is_whole else self.policy.blocks.opened
        settled = [num_settled(self.denoiser, row.context) for row in rows]
        first = [
            row.first_canvas(opened, length, self.window)
            for row, length in zip(rows, settled, strict=True)
        ]
        width = max(len(canvas.ids) for canvas in first)
        start = len(self.canvases.ids_BK)
        new = Canvases.empty(len(rows), width, self.denoiser.device)
        self.canvases = Canvases.concatenate([self.canvases, new])
        ends = [len(twin) - num_settled(self.denoiser, twin) for row in rows for twin in row.twins]
        self.branches.join(len(rows), width + max(ends, default=0))
        self.held.join(len(rows), width)
        for index, canvas in enumerate(first, start):
            self._open(index, canvas)

    @property
    def is_whole(self) -> bool:
        """Whether the response is one canvas, to which under `full` the prompt belongs as well."""
        return self.denoiser.attention_pattern in WHOLE_PATTERNS

    @property
    def window(self) -> int | None:
        """Text positions revealed before the next ones when a canvas opens; None: all."""
        blocks = self.policy.blocks
        return blocks.opened if self.is_whole else blocks.sub_length

    def select(self, rows: Sequence[int]) -> None:
        """Keep the canvases of these rows only."""
        self.canvases = self.canvases.select(rows)
        self.branches.select(rows)
        self.held.select(rows)

    @property
    def uses_branches(self) -> list[bool]:
        """Rows whose weaker branches are read by the next forward.

        Between refreshes those of which something is asked that has not been read yet.
        """
        canvases, refresh = self.canvases, self.policy.guidance.refresh
        is_read_B = self._is_guided_B
        if refresh > 1:
            lacks_B = (canvases.is_open & ~self.held.is_held_BK).any(1)
            is_read_B = is_read_B & ((canvases.step_B % refresh == 0) | lacks_B)
        return is_read_B.tolist()

    @property
    def _is_guided_B(self) -> Tensor:
        """(B,) bool, rows to which guidance applies in this step."""
        applies_B = self.policy.guidance.applies(self.canvases.progress)
        return applies_B & (self.canvases.length_B > 0)

    def _open(self, index: int, canvas: Canvas) -> None:
        """Give a row and its weaker branches a new canvas."""
        row, num_own = self.rows[index], self.rows[index].num_delivered
        self.canvases.open(index, canvas, self.denoiser.layout.mask_token_id)
        self.held.forget(index)
        self.branches.num_own_B[index] = num_own
        settled = [num_settled(self.denoiser, twin) for twin in row.twins]
        self.branches.open(index, row.twins, settled, canvas.modality[num_own:].tolist())

    @property
    def _revisable(self) -> Tensor:
        """(B, K) bool, positions that a revision may change."""
        delivered = [row.num_delivered for row in self.rows]
        return self.canvases.revisable(torch.tensor(delivered, device=self.denoiser.device))

    @property
    def _reads_visible(self) -> bool:
        """Whether a revision wants to know what the model says of visible tokens."""
        return self.policy.revision is not None and self.policy.revision.reads_visible

    def _close_blocks(self) -> None:
        """Deliver the windows without masks, and the rows that have reached an end token."""
        end_B = self.canvases.first_end(self.tensors.end_ids_BE)
        is_done_B = ~self.canvases.is_open.any(1) & ~self.canvases.is_restless_B
        if self.policy.revision is not None:  # an end token may still change
            end_B = torch.where(is_done_B, end_B, -1)
        facts = torch.stack([end_B, is_done_B.long(), self.canvases.window_stop_B]).tolist()
        for index, (end, is_done, stop) in enumerate(zip(*facts, strict=True)):
            if self.rows[index].finish_reason is not None:
                continue
            if end >= 0:
                self._deliver(index, end + 1)
                self.finish(index, "stop")
            elif is_done:
                self._close_window(index, stop)

    def _close_window(self, index: int, stop: int) -> None:
        """Deliver a window without masks and open what comes next, if anything does."""
        row, canvases = self.rows[index], self.canvases
        if self._deliver(index, stop):
            self.finish(index, "stop")
        elif row.given is not None:
            self.finish(index, "canvas")
        elif row.room <= 0:
            self.finish(index, "length")
        elif stop < int(canvases.length_B[index]):
            canvases.is_fresh_B[index] = self.is_whole
            assert self.window is not None
            stop = min(stop + self.window, int(canvases.length_B[index]))
            canvases.open_window(index, stop, row.settings.max_denoising_steps)
        else:
            self._open_next(index)

    def _deliver(self, index: int, stop: int) -> bool:
        """Hand over the new canvas tokens before `stop`; True if a stopping criterion was met."""
        row = self.rows[index]
        new = slice(row.num_delivered, stop)
        ids = self.canvases.ids_BK[index, new].tolist()
        row.num_delivered = stop
        return row.take(ids, self.canvases.log_prob_BK[index, new].tolist())

    def _open_next(self, index: int) -> None:
        """Move a finished block into the context, to be committed, and open the next canvas."""
        row, canvases = self.rows[index], self.canvases
        length = int(canvases.length_B[index])
        ids = canvases.ids_BK[index, :length].tolist()
        modality = canvases.modality_BK[index, :length].tolist()
        row.context.extend(ids, modality, canvases.position_B3K[index, :, :length].cpu().numpy())
        for branch, twin in enumerate(row.twins):
            twin.extend(*self.branches.block(index, branch, ids, modality))
        self._open(index, row.next_canvas(self.policy.blocks.opened, self.window))

    def finish(self, index: int, reason: str) -> None:
        """End a row; its canvas leaves the forwards."""
        self.rows[index].finish_reason = reason
        self.canvases.close(index)
