"""Classifier-free guidance with any number of conditions, its strength constant or by the step.

The branches of a row form a chain from the weakest condition to the whole prompt, and each link
has a scale: l = l_0 + sum_j s_j (l_j - l_{j-1}). One link is ordinary guidance, or a negative
prompt; two links are editing with a scale for the picture and one for the words. Mixing comes
before the modality limits, or -inf would meet -inf (DESIGN decision 19).
"""

# Shapes: N positions, V ids, C links.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .confidence import working_dtype

# Share of a scale's distance from 1 that applies at a progress in [0, 1].
GUIDANCE_SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": torch.ones_like,
    "rising": lambda progress: progress,
    "falling": lambda progress: 1.0 - progress,
}


@dataclass(frozen=True)
class Guidance:
    """How the branches of each row are mixed.

    Attributes:
        scales: one for each link, the weakest condition's first; 1 leaves the stronger branch.
        schedule: name in `GUIDANCE_SCHEDULES`.
        interval: first and last progress at which it applies; outside, a row is unguided and its
            weaker branches are not read.
        refresh: steps between readings of the weaker branches; in between, what they last said of
            each position is mixed with what the whole prompt says now.

    Source: classifier-free guidance, arXiv 2207.12598, with a scale of 1 + its w, on the logits of
        masked tokens as in Muse, arXiv 2301.00704; two links as in InstructPix2Pix, arXiv
        2211.09800, equation 3; rising scales as in UniDisc, arXiv 2503.20853; the interval as in
        arXiv 2404.07724; leaving out the weaker branch in some steps as in FasterCache, arXiv
        2410.19355, which corrects what it reuses by frequency: logits of masked tokens are held as
        they are, our own form.
    """

    scales: tuple[float, ...] = ()
    schedule: str = "constant"
    interval: tuple[float, float] = (0.0, 1.0)
    refresh: int = 1

    @property
    def num_branches(self) -> int:
        """Forwards of each row: the whole prompt's, and one for each weaker condition."""
        return 1 + len(self.scales)

    def share(self, progress: Tensor) -> Tensor:
        """Share of each scale's distance from 1 at a progress in [0, 1]; any shape."""
        start, stop = self.interval
        inside = (progress >= start) & (progress <= stop)
        return torch.where(inside, GUIDANCE_SCHEDULES[self.schedule](progress), 0.0)

    def applies(self, progress: Tensor) -> Tensor:
        """Bool of the same shape: whether the weaker branches matter at a progress."""
        return self.share(progress).ne(0.0) & bool(self.scales)

    def mix_where(self, logits_NV: Tensor, guided_N: Tensor, progress_N: Tensor) -> Tensor:
        """(N, V) logits of which only some are guided.

        Args:
            logits_NV: (N + C G, V) float, the whole prompt's at all positions, then the weaker
                conditions' at the G guided ones, in the order of the scales.
            guided_N: (N,) bool.
            progress_N: (N,) float in [0, 1].
        """
        if not self.scales:
            return logits_NV
        logits_NV = logits_NV.to(working_dtype(logits_NV))
        strongest_NV, weaker_NV = logits_NV[: len(guided_N)], logits_NV[len(guided_N) :]
        mixed_NV = self.mix(torch.cat([strongest_NV[guided_N], weaker_NV]), progress_N[guided_N])
        return strongest_NV.masked_scatter(guided_N[:, None], mixed_NV)

    def mix(self, logits_NV: Tensor, progress_N: Tensor | None = None) -> Tensor:
        """(N, V) logits of the guided law.

        Args:
            logits_NV: ((C + 1) N, V) float, the whole prompt's first, then the weaker conditions'
                in the order of the scales.
            progress_N: (N,) float in [0, 1], 0 at a block's first step; None: 1.
        """
        if not self.scales:
            return logits_NV
        logits_NV = logits_NV.to(working_dtype(logits_NV))
        strongest_NV, *chain = logits_NV.chunk(self.num_branches)
        share_N = torch.ones_like(strongest_NV[:, 0])
        if progress_N is not None:
            share_N = self.share(progress_N).to(share_N)
        mixed_NV = chain[0]
        for scale, weaker_NV, stronger_NV in zip(
            self.scales, chain, [*chain[1:], strongest_NV], strict=True
        ):
            scale_N1 = (1.0 + (scale - 1.0) * share_N)[:, None]
            mixed_NV = mixed_NV + scale_N1 * (stronger_NV - weaker_NV)
        return mixed_NV


def guidance_of(options: Mapping[str, Any]) -> Guidance:
    """The guidance that the options ask for; no links when every scale is 1."""
    scales = options["guidance_scale"]
    scales = tuple(scales) if isinstance(scales, (list, tuple)) else (scales,)
    if all(scale == 1.0 for scale in scales):
        return Guidance()
    start, stop = options["guidance_interval"]
    return Guidance(
        tuple(float(scale) for scale in scales),
        options["guidance_schedule"],
        (float(start), float(stop)),
        options["guidance_refresh"],
    )
