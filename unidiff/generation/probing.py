"""What the model says of the open positions of every canvas, under the rules of the request."""

# Shapes: B rows, K canvas, N positions asked for, V ids.

import torch
from torch import Tensor

from .constraints import (
    apply_processors,
    limit_to_modality,
    shared_id_range,
    suppress_ends,
)
from .denoiser import Run
from .predictions import Predictions
from .ruled import limit_to_rules
from .stretching import Stretching


class Probing(Stretching):
    """The forward over all live canvases, and the block borders that it decides."""

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
        logits_NV = self._limit_stretching(Predictions(logits_NV, row_N, column_N, first_id))
        logits_NV = limit_to_rules(
            Predictions(logits_NV, row_N, column_N, first_id), self.rows, canvases
        )
        if policy.processors:
            logits_NV = apply_processors(policy.processors, logits_NV, row_N, self._known_ids())
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
        guidance = self.policy.guidance
        if guidance.num_branches == 1:
            return logits_NV
        guided_N = torch.tensor(self.takes_part, device=row_N.device)[row_N]
        if guidance.refresh > 1:
            first_id = id_range[0] if id_range else 0
            logits_NV = self._with_held(logits_NV, row_N, column_N, guided_N, first_id)
            guided_N = self._is_guided_B[row_N]
        return guidance.mix_where(logits_NV, guided_N, self.canvases.progress[row_N])

    def _with_held(
        self, logits_NV: Tensor, row_N: Tensor, column_N: Tensor, is_read_N: Tensor, first_id: int
    ) -> Tensor:
        """(N + C G, V) the whole prompt's logits, then the weaker branches' last at guided places.

        Args:
            logits_NV: (N + C R, V) float, the weaker branches' at the R places read now.
            row_N: (N,) int64 rows of the places.
            column_N: (N,) int64 their columns.
            is_read_N: (N,) bool, True at the R.
            first_id: id of the first of the V columns.
        """
        num_places, num_ids = len(row_N), logits_NV.shape[1]
        row_R, column_R = row_N[is_read_N], column_N[is_read_N]
        if len(row_R):
            weaker_CRV = logits_NV[num_places:].view(-1, len(row_R), num_ids)
            self.held.keep(row_R, column_R, weaker_CRV, first_id)
        is_guided_N = self._is_guided_B[row_N]
        place_G = row_N[is_guided_N], column_N[is_guided_N]
        weaker_CGV = self.held.at(*place_G, first_id, num_ids)
        return torch.cat([logits_NV[:num_places], weaker_CGV.flatten(0, 1)])

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
