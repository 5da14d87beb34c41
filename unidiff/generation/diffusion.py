"""The block-diffusion decode loop: probe every canvas, reveal positions, close finished blocks.

`LockStep.run` repeats `step` until no row is left; a row takes as many steps as its block needs and
as many blocks as its response needs. What a step is made of is one small room each.
"""

# Shapes: B rows, K canvas, N positions asked for.

from .probing import Probing
from .revealing import Revealing
from .revising import Revising


class BlockDiffusion(Probing, Revealing, Revising):
    """Rows whose canvases are denoised in lock step, each at its own block and step."""

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
        self._stretch()
        self.canvases.step_B = self.canvases.step_B + (self.canvases.length_B > 0)
        self._close_blocks()
