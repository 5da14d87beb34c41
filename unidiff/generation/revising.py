"""How a revision's verdict changes the canvases."""

# Shapes: B rows, K canvas, N positions.

from dataclasses import replace

import torch
from torch import Tensor

from .canvas_rows import CanvasRows
from .predictions import Predictions, opinion_of
from .revision import RevisionView


class Revising(CanvasRows):
    """Gives back or rewrites revealed positions that nobody has been given yet."""

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
            num_returns_B=canvases.num_returns_B,
            full_BK=torch.zeros_like(canvases.masked_BK),  # nobody knows before the reveals
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
        full_BK = self._revisable & ~canvases.is_open.any(1)[:, None] & self._counts
        view = replace(view, confidence_BK=canvases.confidence_BK.clone(), full_BK=full_BK)
        revised = revision(view)
        remask_BK = revised.remask_BK & (view.revisable_BK | full_BK)
        canvases.num_returns_B = canvases.num_returns_B + remask_BK.any(1)
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

    @property
    def _counts(self) -> Tensor:
        """(B, K) bool, positions that no end token cuts off."""
        end_B1 = self.canvases.first_end(self.tensors.end_ids_BE)[:, None]
        offset_K = torch.arange(self.canvases.ids_BK.shape[1], device=end_B1.device)
        return (end_B1 < 0) | (offset_K <= end_B1)
