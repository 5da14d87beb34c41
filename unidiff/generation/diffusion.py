"""The block-diffusion decode loop: probe every canvas, reveal positions, close finished blocks."""

# Shapes: B rows, K canvas, N positions asked for, V ids.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform

from .canvases import Canvases
from .constraints import (
    apply_processors,
    check_scores,
    guide,
    limit_to_modality,
    shared_id_range,
)
from .denoiser import Denoiser, Run
from .lockstep import LockStep, Policy
from .order import DRAW_TOKEN, StepView
from .rows import Row
from .sampling import choose_tokens
from .streaming import Delivery


@dataclass(frozen=True)
class Predictions:
    """Distributions at the open positions of one step.

    Attributes:
        logits_NV: (N, V) float, -inf at ids that the position may not take.
        row_N: (N,) int64 row of the batch.
        column_N: (N,) int64 position in the canvas.
        first_id: id that the first of the V columns stands for.
    """

    logits_NV: Tensor
    row_N: Tensor
    column_N: Tensor
    first_id: int


class BlockDiffusion(LockStep):
    """Rows whose canvases are denoised in lock step, each at its own block and step."""

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
        first = [
            row.first_canvas(policy.block_length, self._num_settled(row), self.is_whole)
            for row in self.rows
        ]
        width = max(policy.block_length, *(len(canvas.ids) for canvas in first))
        self.canvases = Canvases.empty(len(self.rows), width, denoiser.device)
        for index, (row, canvas) in enumerate(zip(self.rows, first, strict=True)):
            self.canvases.open(index, canvas, denoiser.layout.mask_token_id)
            self._place_twin(index, row, canvas.modality.tolist())

    @property
    def is_whole(self) -> bool:
        """Whether prompt and response are one canvas (`full` attention)."""
        return self.denoiser.attention_pattern == "full"

    def step(self) -> None:
        """One probe, the reveals it leads to, and the blocks that these complete."""
        found = self._predict()
        self._reveal(found)
        self._close_blocks()

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
        """Positions of the row's canvas behind its unconditional context."""
        if row.twin is not None:
            positions = torch.from_numpy(row.twin.next_positions(modality))
            self.canvases.twin_position_B3K[index, :, : len(modality)] = positions

    def _predict(self) -> Predictions:
        """Forward over all live canvases, with the blocks that await their commit."""
        canvases, policy = self.canvases, self.policy
        width = int(canvases.length_B.max())
        open_BK = canvases.is_open[:, :width]
        row_N, column_N = torch.nonzero(open_BK, as_tuple=True)
        modality_N = canvases.modality_BK[row_N, column_N]
        layout = self.denoiser.layout
        id_range = None if policy.processors else shared_id_range(modality_N, layout)
        logits_NV = self.denoiser.probe(
            self.cache,
            self._canvas_run(width),
            logits_at_BK=open_BK.repeat(2, 1) if self.is_guided else open_BK,
            commit=self.pending_run([None] * len(self.contexts)),
            id_range=id_range,
        )
        for index in self.live:
            self.rows[index].num_forwards += len(self.rows[index].contexts)
        if self.is_guided:
            logits_NV = guide(logits_NV, policy.guidance_scale)
        vocab_size = self.denoiser.vocab_size
        logits_NV = limit_to_modality(logits_NV, modality_N, layout, vocab_size, id_range)
        if policy.processors:
            logits_NV = apply_processors(policy.processors, logits_NV, row_N, self._known_ids())
        check_scores(logits_NV, bool(policy.processors))
        return Predictions(logits_NV, row_N, column_N, id_range[0] if id_range else 0)

    def _canvas_run(self, width: int) -> Run:
        """The canvases as a run of tokens, followed by their twins."""
        canvases = self.canvases
        position_3BK = canvases.position_B3K[:, :, :width].transpose(0, 1)
        if not self.is_guided:
            return Run(canvases.ids_BK[:, :width], position_3BK, canvases.length_B)
        twin_3BK = canvases.twin_position_B3K[:, :, :width].transpose(0, 1)
        return Run(
            canvases.ids_BK[:, :width].repeat(2, 1),
            torch.cat([position_3BK, twin_3BK], dim=1),
            canvases.length_B.repeat(2),
        )

    def _known_ids(self) -> list[list[int]]:
        """Prompt, finished blocks and revealed canvas tokens of each row, in order."""
        canvases = self.canvases
        revealed_BK = ~canvases.masked_BK
        known = []
        for index, row in enumerate(self.rows):
            length = int(canvases.length_B[index])
            canvas = canvases.ids_BK[index, :length][revealed_BK[index, :length]]
            known.append(row.context.ids + canvas.tolist())
        return known

    def _reveal(self, found: Predictions) -> None:
        """Fix the tokens that the strategy chooses; count the step."""
        canvases, policy, tensors = self.canvases, self.policy, self.tensors
        confidence_N = policy.confidence(found.logits_NV)
        confidence_BK = confidence_N.new_zeros(canvases.ids_BK.shape)
        confidence_BK[found.row_N, found.column_N] = confidence_N
        view = StepView(
            confidence_BK=confidence_BK,
            masked_BK=canvases.is_open,
            step_B=canvases.step_B,
            budget_B=canvases.budget_B,
            total_B=canvases.total_B,
            threshold_B=tensors.threshold_B,
            index_BK=canvases.row_index,
            seed_B=tensors.seed_B,
        )
        chosen_N = policy.strategy(view)[found.row_N, found.column_N]
        row, column = found.row_N[chosen_N], found.column_N[chosen_N]
        logits = found.logits_NV[chosen_N]
        index = canvases.row_index[row, column]
        token = choose_tokens(
            logits,
            tensors.temperature_B[row],
            uniform(tensors.seed_B[row], DRAW_TOKEN, index, canvases.step_B[row]),
            policy.top_k,
            policy.top_p,
        )
        if policy.keeps_log_probs:
            log_prob = logits.log_softmax(-1).gather(-1, token[:, None])[:, 0]
            canvases.log_prob_BK[row, column] = log_prob.to(torch.float64)
        canvases.ids_BK[row, column] = token + found.first_id
        canvases.masked_BK[row, column] = False
        canvases.step_B = canvases.step_B + (canvases.length_B > 0)
        if self.out.wants_drafts:
            self._show_draft(found, found.logits_NV.argmax(-1))

    def _show_draft(self, found: Predictions, best_N: Tensor) -> None:
        """Show the streamed row's canvas, likeliest tokens standing in for what is masked."""
        draft_BK = self.canvases.ids_BK.clone()
        draft_BK[found.row_N, found.column_N] = best_N + found.first_id
        draft_BK = torch.where(self.canvases.masked_BK, draft_BK, self.canvases.ids_BK)
        stop = int(self.canvases.window_stop_B[0])
        self.out.put_draft(draft_BK[0, self.rows[0].num_delivered : stop].tolist())

    def _close_blocks(self) -> None:
        """Deliver the windows without masks, and the rows that have reached an end token."""
        end_B = self.canvases.first_end(self.tensors.end_ids_BE)
        is_done_B = ~self.canvases.is_open.any(1)
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
        elif self.is_whole:
            stop = min(stop + self.policy.block_length, int(canvases.length_B[index]))
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
        if row.twin is not None:
            positions = canvases.twin_position_B3K[index, :, :length].cpu().numpy()
            row.twin.extend(ids, modality, positions)
        canvas = row.next_canvas(self.policy.block_length)
        canvases.open(index, canvas, self.denoiser.layout.mask_token_id)
        self._place_twin(index, row, canvas.modality.tolist())

    def _finish(self, index: int, reason: str) -> None:
        """End a row; its canvas leaves the forwards."""
        self.rows[index].finish_reason = reason
        self.canvases.close(index)
