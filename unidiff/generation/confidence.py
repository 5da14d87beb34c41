"""How certain a model is of a masked position: one number in [0, 1] for each distribution.

All but `sampled_probability` read the distribution before a token is drawn from it: ranking by the
probability of a token already drawn is biased even with a perfect model (DESIGN decision 12).
"""

# Shapes: N positions, V ids.

from collections.abc import Callable

import torch
from torch import Tensor


def max_probability(logits_NV: Tensor) -> Tensor:
    """(N,) probability of the likeliest id."""
    return (logits_NV.amax(-1) - logits_NV.logsumexp(-1)).exp()


def probability_margin(logits_NV: Tensor) -> Tensor:
    """(N,) likeliest probability less the second; 1 where only one id is possible."""
    if logits_NV.shape[-1] == 1:
        return torch.ones_like(logits_NV[:, 0])
    top_N2 = logits_NV.topk(2, dim=-1).values
    prob_N2 = (top_N2 - logits_NV.logsumexp(-1, keepdim=True)).exp()
    return prob_N2[:, 0] - prob_N2[:, 1]


def entropy(logits_NV: Tensor) -> Tensor:
    """(N,) entropy in nats."""
    log_prob_NV = logits_NV.log_softmax(-1)
    # An impossible id adds 0 times the lowest finite number, not 0 times -inf.
    finite_NV = log_prob_NV.clamp(min=torch.finfo(log_prob_NV.dtype).min)
    return -(log_prob_NV.exp() * finite_NV).sum(-1)


def inverse_perplexity(logits_NV: Tensor) -> Tensor:
    """(N,) exp(-entropy): 1 where certain, 1 / n where n ids are equally likely."""
    return (-entropy(logits_NV)).exp()


def sampled_probability(logits_NV: Tensor, token_N: Tensor) -> Tensor:
    """(N,) probability of the id that was drawn at each position.

    Source: the ranking of LLaDA's and Dream's published samplers; kept to repeat their numbers. Its
        bias is shown in tests/generation/test_exact_denoiser.py.
    """
    chosen_N = logits_NV.gather(-1, token_N[:, None])[:, 0]
    return (chosen_N - logits_NV.logsumexp(-1)).exp()


SAMPLED = "sampled_prob"  # the metric that needs the drawn token
CONFIDENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "prob": max_probability,
    "margin": probability_margin,
    "entropy": inverse_perplexity,
}
