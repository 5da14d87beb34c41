"""What a forward said: distributions at some positions of the canvases."""

# Shapes: B rows, K canvas, N positions asked for, V ids.

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Predictions:
    """Distributions at positions of one step.

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

    def only(self, chosen_N: Tensor) -> "Predictions":
        """Those at the chosen positions, given as (N,) bool."""
        return Predictions(
            self.logits_NV[chosen_N], self.row_N[chosen_N], self.column_N[chosen_N], self.first_id
        )


@dataclass(frozen=True)
class Opinion:
    """What the model now says of tokens that it can see.

    Attributes:
        present_BK: (B, K) float64 probability of the visible token.
        likeliest_BK: (B, K) int64 id that it finds likeliest.
        likeliest_prob_BK: (B, K) float64 its probability.
    """

    present_BK: Tensor
    likeliest_BK: Tensor
    likeliest_prob_BK: Tensor


def opinion_of(visible: Predictions, ids_BK: Tensor) -> Opinion:
    """Opinion on visible tokens; zeros at positions without a prediction.

    Args:
        visible: predictions at visible positions.
        ids_BK: (B, K) int64 tokens of the canvases.
    """
    place = visible.row_N, visible.column_N
    prob_NV = visible.logits_NV.to(torch.float64).softmax(-1)
    present_BK = torch.zeros(ids_BK.shape, dtype=torch.float64, device=ids_BK.device)
    likeliest_prob_BK, likeliest_BK = present_BK.clone(), torch.zeros_like(ids_BK)
    present_BK[place] = prob_NV.gather(1, (ids_BK[place] - visible.first_id)[:, None])[:, 0]
    likeliest_prob_BK[place] = prob_NV.amax(-1)
    likeliest_BK[place] = prob_NV.argmax(-1) + visible.first_id
    return Opinion(present_BK, likeliest_BK, likeliest_prob_BK)
