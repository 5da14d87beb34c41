"""The block-diffusion decode loop: probe every canvas, reveal positions, close finished blocks."""

# Shapes: B rows, K canvas, N positions asked for, V ids.

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform

from .branches import Branches, num_settled
from .canvases import Canvas, Canvases
from .confidence import CONFIDENCES, SAMPLED, sampled_probability
from .constraints import (
    apply_processors,
    check_scores,
    limit_to_modality,
    reject_early_ends,
    shared_id_range,
    suppress_ends,
)
from .denoiser import Denoiser, Run
from .lockstep import LockStep, Policy
from .order import DRAW_TOKEN, StepView
from .predictions import Predictions, opinion_of
from .revision import RevisionView
from .rows import Row
from .sampling import choose_tokens
from .streaming import Delivery


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
        opened = None if self.is_whole else policy.blocks.opened
        first = [
            row.first_canvas(opened, num_settled(denoiser, row.context), self.window)
            for row in self.rows
        ]
        width = max(policy.blocks.opened, *(len(canvas.ids) for canvas in first))
        self.canvases = Canvases.empty(len(self.rows), width, denoiser.device)
        prefixes = [len(t) - num_settled(denoiser, t) for row in self.rows for t in row.twins]
        num_twins, width = policy.guidance.num_branches - 1, width + max(prefixes, default=0)
        self.branches = Branches(len(self.rows), num_twins, width, denoiser.device)
        for index, canvas in enumerate(first):
            self._open(index, canvas)

    @property
    def is_whole(self) -> bool:
        """Whether prompt and response are one canvas (`full` attention)."""
        return self.denoiser.attention_pattern == "full"

    @property
    def window(self) -> int | None:
        """Text positions revealed before the next ones when a canvas opens; None: all."""
        blocks = self.policy.blocks
        return blocks.opened if self.is_whole else blocks.sub_length

    def step(self) -> None:
        """One probe, the reveals it leads to, and the blocks that these complete."""
        masked, visible = self._predict(), None
        if self._reads_visible:
            is_open_N = self.canvases.is_open[masked.row_N, masked.column_N]
            masked, visible = masked.only(is_open_N), masked.only(~is_open_N)
        if self.policy.blocks.is_adaptive:
            masked = self._end_blocks(masked)
        view, had_masks_B = self._revision_view(visible), self.canvases.is_open.any(1)
        self._reveal(masked)
        if view is not None:
            self._revise(view, had_masks_B)
        self.canvases.step_B = self.canvases.step_B + (self.canvases.length_B > 0)
        self._close_blocks()

    def select(self, rows: Sequence[int]) -> None:
        """Keep the canvases of these rows only."""
        self.canvases = self.canvases.select(rows)
        self.branches.select(rows)

    @property
    def uses_branches(self) -> list[bool]:
        """Rows whose weaker branches are read by the next forward."""
        applies_B = self.policy.guidance.applies(self.canvases.progress)
        return (applies_B & (self.canvases.length_B > 0)).tolist()

    def _open(self, index: int, canvas: Canvas) -> None:
        """Give a row and its weaker branches a new canvas."""
        row, num_own = self.rows[index], self.rows[index].num_delivered
        self.canvases.open(index, canvas, self.denoiser.layout.mask_token_id)
        self.branches.num_own_B[index] = num_own
        settled = [num_settled(self.denoiser, twin) for twin in row.twins]
        self.branches.open(index, row.twins, settled, canvas.modality[num_own:].tolist())

    def _predict(self) -> Predictions:
        """Forward over all live canvases, with the blocks that await their commit."""
        canvases, policy = self.canvases, self.policy
        width = int(canvases.length_B.max())
        asked_BK = canvases.is_open[:, :width]
        if self._reads_visible:
            asked_BK = asked_BK | self._revisable[:, :width]
        row_N, column_N = torch.nonzero(asked_BK, as_tuple=True)
        modality_N = canvases.modality_BK[row_N, column_N]
        layout = self.denoiser.layout
        id_range = None if policy.processors else shared_id_range(modality_N, layout)
        run = self._canvas_run(width)
        if self.seats_branches:
            takes_part_B = torch.tensor(self.takes_part, device=run.length_B.device)
            run, asked_BK = self.branches.beside(run, asked_BK, takes_part_B)
        logits_NV = self.denoiser.probe(
            self.cache,
            run,
            logits_at_BK=asked_BK,
            commit=self.pending_run(self.commit_limits),
            id_range=id_range,
        )
        for index in self.live:
            self.rows[index].num_forwards += self.num_contexts(index)
        logits_NV = self._mix(logits_NV, row_N, column_N, id_range)
        vocab_size = self.denoiser.vocab_size
        logits_NV = limit_to_modality(logits_NV, modality_N, layout, vocab_size, id_range)
        first_id = id_range[0] if id_range else 0
        if policy.suppress_eos_before:
            place_N = canvases.row_index[row_N, column_N] - self.tensors.num_prompt_B[row_N]
            early_N = place_N < policy.suppress_eos_before
            logits_NV = suppress_ends(logits_NV, self.tensors.end_ids_BE[row_N], early_N, first_id)
        if policy.processors:
            logits_NV = apply_processors(policy.processors, logits_NV, row_N, self._known_ids())
        check_scores(logits_NV, bool(policy.processors))
        return Predictions(logits_NV, row_N, column_N, first_id)

    def _canvas_run(self, width: int) -> Run:
        """The canvases as a run of tokens."""
        canvases = self.canvases
        position_3BK = canvases.position_B3K[:, :, :width].transpose(0, 1)
        return Run(canvases.ids_BK[:, :width], position_3BK, canvases.length_B)

    def _mix(
        self,
        logits_NV: Tensor,
        row_N: Tensor,
        column_N: Tensor,
        id_range: tuple[int, int] | None,
    ) -> Tensor:
        """(N, V) guided logits of positions from their own and their weaker branches'."""
        del column_N, id_range
        if self.policy.guidance.num_branches == 1:
            return logits_NV
        takes_part_B = torch.tensor(self.takes_part, device=row_N.device)
        progress_N = self.canvases.progress[row_N]
        return self.policy.guidance.mix_where(logits_NV, takes_part_B[row_N], progress_N)

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

    def _end_blocks(self, found: Predictions) -> Predictions:
        """Cut blocks before their first step to the length that their delimiters ask for."""
        canvases, blocks = self.canvases, self.policy.blocks
        given = torch.tensor([row.given is not None for row in self.rows])
        is_new_B = (
            canvases.is_fresh_B & (canvases.length_B > 0) & ~given.to(canvases.length_B.device)
        )
        start_B = torch.tensor([row.num_delivered for row in self.rows], device=is_new_B.device)
        new = found.only(is_new_B[found.row_N])
        place_N = new.column_N - start_B[new.row_N]
        length_B = blocks.lengths(new.logits_NV, new.row_N, place_N, new.first_id, len(start_B))
        for index in torch.nonzero(is_new_B)[:, 0].tolist():
            stop = min(int(start_B[index] + length_B[index]), int(canvases.length_B[index]))
            if not self.is_whole:
                canvases.shorten(index, stop)
                stop = min(stop, int(start_B[index]) + (blocks.sub_length or stop))
            canvases.open_window(index, stop, self.rows[index].settings.max_denoising_steps)
        canvases.is_fresh_B[:] = False
        return found.only(canvases.is_open[found.row_N, found.column_N])

    def _reveal(self, found: Predictions) -> None:
        """Fix the tokens that the strategy chooses."""
        canvases, policy = self.canvases, self.policy
        drawn_N = None
        if policy.confidence_metric == SAMPLED:
            drawn_N = self._draw(found)
            confidence_N = sampled_probability(found.logits_NV, drawn_N)
        else:
            confidence_N = CONFIDENCES[policy.confidence_metric](found.logits_NV)
        chosen_N = self._chosen(found, confidence_N)
        revealed = found.only(chosen_N)
        token = self._draw(revealed) if drawn_N is None else drawn_N[chosen_N]
        place = revealed.row_N, revealed.column_N
        if policy.keeps_log_probs:
            log_prob = revealed.logits_NV.log_softmax(-1).gather(-1, token[:, None])[:, 0]
            canvases.log_prob_BK[place] = log_prob.to(torch.float64)
        canvases.ids_BK[place] = token + found.first_id
        if policy.keeps_trace:
            self._note(revealed, token, confidence_N[chosen_N])
        canvases.masked_BK[place] = False
        canvases.confidence_BK[place] = confidence_N[chosen_N].to(torch.float64)
        if self.out.wants_drafts:
            self._show_draft(found, found.logits_NV.argmax(-1))

    def _chosen(self, found: Predictions, confidence_N: Tensor) -> Tensor:
        """(N,) bool, positions that take a token now."""
        reveal_BK = self.policy.strategy(self._view(found, confidence_N))
        return reveal_BK[found.row_N, found.column_N]

    def _note(self, revealed: Predictions, token_N: Tensor, confidence_N: Tensor) -> None:
        """Write reveals into the traces of their rows."""
        row_N, column_N = revealed.row_N, revealed.column_N
        index_N = self.canvases.row_index[row_N, column_N] - self.tensors.num_prompt_B[row_N]
        facts = (row_N, index_N, token_N + revealed.first_id, confidence_N)
        for row, index, token, confidence in zip(*(f.tolist() for f in facts), strict=True):
            self.rows[row].trace.note(self.rows[row].num_forwards, index, token, confidence)

    def _draw(self, found: Predictions) -> Tensor:
        """(N,) a token for each position, as a column of its logits."""
        row_N, tensors = found.row_N, self.tensors
        index_N = self.canvases.row_index[row_N, found.column_N]
        return choose_tokens(
            found.logits_NV,
            tensors.temperature_B[row_N],
            uniform(tensors.seed_B[row_N], DRAW_TOKEN, index_N, self.canvases.step_B[row_N]),
            self.policy.top_k,
            self.policy.top_p,
        )

    def _view(self, found: Predictions, confidence_N: Tensor) -> StepView:
        """What the strategy sees."""
        canvases, tensors = self.canvases, self.tensors
        least = self.policy.eos_early_rejection
        if least is not None:
            end_ids_NE = tensors.end_ids_BE[found.row_N]
            likeliest_N = found.logits_NV.argmax(-1) + found.first_id
            confidence_N = reject_early_ends(
                confidence_N,
                (likeliest_N[:, None] == end_ids_NE).any(1),
                canvases.progress[found.row_N],
                least,
            )
        confidence_BK = confidence_N.new_zeros(canvases.ids_BK.shape)
        confidence_BK[found.row_N, found.column_N] = confidence_N
        return StepView(
            confidence_BK=confidence_BK,
            masked_BK=canvases.is_open,
            step_B=canvases.step_B,
            budget_B=canvases.budget_B,
            total_B=canvases.total_B,
            threshold_B=tensors.threshold_B,
            index_BK=canvases.row_index,
            seed_B=tensors.seed_B,
            logits_NV=found.logits_NV,
        )

    @property
    def _revisable(self) -> Tensor:
        """(B, K) bool, positions that a revision may change."""
        delivered = [row.num_delivered for row in self.rows]
        return self.canvases.revisable(torch.tensor(delivered, device=self.denoiser.device))

    @property
    def _reads_visible(self) -> bool:
        """Whether a revision wants to know what the model says of visible tokens."""
        return self.policy.revision is not None and self.policy.revision.reads_visible

    def _revision_view(self, visible: Predictions | None) -> RevisionView | None:
        """What a revision sees before this step's reveals; None without one."""
        canvases = self.canvases
        if self.policy.revision is None:
            return None
        return RevisionView(
            ids_BK=canvases.ids_BK.clone(),
            revisable_BK=self._revisable,
            step_B=canvases.step_B,
            budget_B=canvases.budget_B,
            confidence_BK=canvases.confidence_BK.clone(),
            opinion=None if visible is None else opinion_of(visible, canvases.ids_BK),
            index_BK=canvases.row_index,
            seed_B=self.tensors.seed_B,
        )

    def _revise(self, view: RevisionView, had_masks_B: Tensor) -> None:
        """Give back or rewrite what the revision says.

        Args:
            view: what it sees.
            had_masks_B: (B,) bool, rows that began the step with masks. A block stays open for more
                edits while a step had masks or changed a token.
        """
        canvases, revision = self.canvases, self.policy.revision
        assert revision is not None
        revised = revision(view)
        remask_BK = revised.remask_BK & view.revisable_BK
        canvases.masked_BK |= remask_BK
        canvases.ids_BK[remask_BK] = self.denoiser.layout.mask_token_id
        canvases.log_prob_BK[remask_BK] = 0.0
        rewritten_B = torch.zeros_like(canvases.is_fresh_B)
        if revised.rewrite_BK is not None and view.opinion is not None:
            rewrite_BK = revised.rewrite_BK & view.revisable_BK
            prob_N = view.opinion.likeliest_prob_BK[rewrite_BK]
            canvases.ids_BK[rewrite_BK] = view.opinion.likeliest_BK[rewrite_BK]
            canvases.confidence_BK[rewrite_BK] = prob_N
            canvases.log_prob_BK[rewrite_BK] = prob_N.log()
            rewritten_B = rewrite_BK.any(1)
        canvases.post_B = canvases.post_B + ~had_masks_B
        changed_B = had_masks_B | rewritten_B
        canvases.is_restless_B = changed_B & (canvases.post_B < revision.max_post_steps)

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
            twin.extend(*self.branches.block(index, branch, ids, modality))
        self._open(index, row.next_canvas(self.policy.blocks.opened, self.window))

    def _finish(self, index: int, reason: str) -> None:
        """End a row; its canvas leaves the forwards."""
        self.rows[index].finish_reason = reason
        self.canvases.close(index)
