"""Which masked positions are fixed in a step, and to which tokens."""

# Shapes: B rows, K canvas, N positions asked for, V ids.

from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform

from .canvas_rows import CanvasRows
from .confidence import CONFIDENCES, SAMPLED, log_probability, sampled_probability
from .constraints import check_scores, reject_early_ends
from .order import DRAW_TOKEN, StepView
from .predictions import Predictions
from .ruled import draw_under_rules
from .sampling import MEDIAN, choose_tokens, greedy_tokens, likeliest


class Revealing(CanvasRows):
    """Ranks positions by the certainty of their distributions, then draws the chosen ones."""

    def _reveal(self, found: Predictions) -> None:
        """Fix the tokens that the strategy chooses."""
        canvases, policy = self.canvases, self.policy
        drawn_N = None
        if policy.confidence_metric == SAMPLED:
            drawn_N = self._draw(found)
            confidence_N = sampled_probability(found.logits_NV, drawn_N)
        else:
            confidence_N = CONFIDENCES[policy.confidence_metric](found.logits_NV, self.workspace)
        check_scores(found.logits_NV, confidence_N, bool(policy.processors))
        chosen_N = self._chosen(found, confidence_N)
        revealed = found.only(chosen_N)
        if any(row.rule is not None for row in self.rows):
            certainty_N = confidence_N[chosen_N]
            revealed, token = draw_under_rules(
                revealed, certainty_N, self.rows, canvases, self._draw
            )
        else:
            token = self._draw(revealed) if drawn_N is None else drawn_N[chosen_N]
        place = revealed.row_N, revealed.column_N
        if policy.keeps_log_probs:
            log_prob = log_probability(revealed.logits_NV, token)
            canvases.log_prob_BK[place] = log_prob.to(torch.float64)
        canvases.ids_BK[place] = token + found.first_id
        if policy.keeps_trace:
            self._note(revealed, token, confidence_N[chosen_N])
        canvases.masked_BK[place] = False
        canvases.confidence_BK[place] = confidence_N[chosen_N].to(torch.float64)
        shown = [index for index in self.live if self.rows[index].out.wants_drafts]
        if shown:
            self._show_drafts(shown, found, likeliest(found.logits_NV))

    def _chosen(self, found: Predictions, confidence_N: Tensor) -> Tensor:
        """(N,) bool, positions that take a token now."""
        reveal_BK = self.policy.strategy(self._view(found, confidence_N))
        return reveal_BK[found.row_N, found.column_N]

    def _view(self, found: Predictions, confidence_N: Tensor) -> StepView:
        """What the strategy sees."""
        canvases, tensors = self.canvases, self.tensors
        least = self.policy.eos_early_rejection
        if least is not None:
            end_ids_NE = tensors.end_ids_BE[found.row_N]
            likeliest_N = likeliest(found.logits_NV) + found.first_id
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
            position_B3K=canvases.position_B3K,
            seed_B=tensors.seed_B,
            logits_NV=found.logits_NV,
        )

    def _draw(self, found: Predictions) -> Tensor:
        """(N,) a token for each position, as a column of its logits."""
        row_N, tensors = found.row_N, self.tensors
        choice, modality_N = self.policy.greedy_choice, None
        if choice == MEDIAN:
            modality_N = self.canvases.modality_BK[row_N, found.column_N]
        greedy_N = greedy_tokens(found.logits_NV, modality_N, choice)
        if tensors.is_greedy:
            return greedy_N
        index_N = self.canvases.row_index[row_N, found.column_N]
        return choose_tokens(
            found.logits_NV,
            tensors.temperature_B[row_N],
            uniform(tensors.seed_B[row_N], DRAW_TOKEN, index_N, self.canvases.step_B[row_N]),
            self.policy.top_k,
            self.policy.top_p,
            greedy_N,
        )

    def _note(self, revealed: Predictions, token_N: Tensor, confidence_N: Tensor) -> None:
        """Write reveals into the traces of their rows."""
        row_N, column_N = revealed.row_N, revealed.column_N
        index_N = self.canvases.row_index[row_N, column_N] - self.tensors.num_prompt_B[row_N]
        facts = (row_N, index_N, token_N + revealed.first_id, confidence_N)
        for row, index, token, confidence in zip(*(f.tolist() for f in facts), strict=True):
            self.rows[row].trace.note(self.rows[row].num_forwards, index, token, confidence)

    def _show_drafts(self, rows: Sequence[int], found: Predictions, best_N: Tensor) -> None:
        """Show the rows' canvases, likeliest tokens standing in for what is masked."""
        draft_BK = self.canvases.ids_BK.clone()
        draft_BK[found.row_N, found.column_N] = best_N + found.first_id
        draft_BK = torch.where(self.canvases.masked_BK, draft_BK, self.canvases.ids_BK)
        for index in rows:
            shown = slice(self.rows[index].num_delivered, int(self.canvases.window_stop_B[index]))
            self.rows[index].out.keep_draft(draft_BK[index, shown].tolist())
