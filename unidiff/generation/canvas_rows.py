"""Rows that each hold a canvas: where it opens, when it closes, and what moves into the context."""

# Shapes: B rows, K canvas.

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .canvases import Canvases
from .denoiser import Denoiser
from .lockstep import LockStep, Policy
from .rows import Row
from .streaming import Delivery


class CanvasRows(LockStep):
    """Rows whose canvases open, are delivered window by window, and become context."""

    def __init__(
        self,
        denoiser: Denoiser[Any],
        policy: Policy,
        rows: Sequence[Row],
        cache: Any,
        out: Delivery,
    ) -> None:
        """Open every row's first canvas; prompts move into it where the pattern asks so."""
        super().__init__(denoiser, policy, rows, cache, out)
        opened = None if self.is_whole else policy.blocks.opened
        first = [row.first_canvas(opened, self._num_settled(row), self.window) for row in self.rows]
        width = max(policy.blocks.opened, *(len(canvas.ids) for canvas in first))
        num_twins = policy.guidance.num_branches - 1
        self.canvases = Canvases.empty(len(self.rows), width, denoiser.device, num_twins)
        for index, (row, canvas) in enumerate(zip(self.rows, first, strict=True)):
            self.canvases.open(index, canvas, denoiser.layout.mask_token_id)
            self._place_twin(index, row, canvas.modality.tolist())

    @property
    def is_whole(self) -> bool:
        """Whether prompt and response are one canvas (`full` attention)."""
        return self.denoiser.attention_pattern == "full"

    @property
    def window(self) -> int | None:
        """Text positions revealed before the next ones when a canvas opens; None: all."""
        blocks = self.policy.blocks
        return blocks.opened if self.is_whole else blocks.sub_length

    def select(self, rows: Sequence[int]) -> None:
        """Keep the canvases of these rows only."""
        self.canvases = self.canvases.select(rows)

    def _num_settled(self, row: Row) -> int:
        """Prompt tokens that are context; the rest become a pinned prefix of the first canvas."""
        if self.is_whole:
            return 0
        if self.denoiser.attention_pattern == "block_causal":
            return len(row.context) // self.denoiser.canvas_length * self.denoiser.canvas_length
        return len(row.context)

    def _place_twin(self, index: int, row: Row, modality: Sequence[int]) -> None:
        """Positions of the row's canvas behind the contexts of its weaker branches."""
        for branch, twin in enumerate(row.twins):
            positions = torch.from_numpy(twin.next_positions(modality))
            self.canvases.twin_position_BC3K[index, branch, :, : len(modality)] = positions

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
                self._finish(index, "stop")
            elif is_done:
                self._close_window(index, stop)

    def _close_window(self, index: int, stop: int) -> None:
        """Deliver a window without masks and open what comes next, if anything does."""
        row, canvases = self.rows[index], self.canvases
        if self._deliver(index, stop):
            self._finish(index, "stop")
        elif row.given is not None:
            self._finish(index, "canvas")
        elif row.room <= 0:
            self._finish(index, "length")
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
        return self.out.take(row, ids, self.canvases.log_prob_BK[index, new].tolist())

    def _open_next(self, index: int) -> None:
        """Move a finished block into the context, to be committed, and open the next canvas."""
        row, canvases = self.rows[index], self.canvases
        length = int(canvases.length_B[index])
        ids = canvases.ids_BK[index, :length].tolist()
        modality = canvases.modality_BK[index, :length].tolist()
        row.context.extend(ids, modality, canvases.position_B3K[index, :, :length].cpu().numpy())
        for branch, twin in enumerate(row.twins):
            positions = canvases.twin_position_BC3K[index, branch, :, :length].cpu().numpy()
            twin.extend(ids, modality, positions)
        canvas = row.next_canvas(self.policy.blocks.opened, self.window)
        canvases.open(index, canvas, self.denoiser.layout.mask_token_id)
        self._place_twin(index, row, canvas.modality.tolist())

    def _finish(self, index: int, reason: str) -> None:
        """End a row; its canvas leaves the forwards."""
        self.rows[index].finish_reason = reason
        self.canvases.close(index)
