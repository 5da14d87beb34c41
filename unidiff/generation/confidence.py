"""How certain a model is of a masked position: one number in [0, 1] for each distribution.

All but `sampled_probability` read the distribution before a token is drawn from it: ranking by the
probability of a token already drawn is biased even with a perfect model (DESIGN decision 12).
"""

# Shapes: N positions, V ids.

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

_MOST_ELEMENTS = 2**23  # of a float32 copy of logits held at once: 32 MB

Measure = Callable[[Tensor], Tensor]


def working_dtype(logits: Tensor) -> torch.dtype:
    """float64 for float64 logits, float32 for all others."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def in_parts(measure: Measure) -> Measure:
    """A measure of (N, V) logits computed some rows at a time, so that its copies stay small."""

    @wraps(measure)
    def measured(logits_NV: Tensor) -> Tensor:
        rows = max(1, _MOST_ELEMENTS // max(logits_NV.shape[-1], 1))
        if len(logits_NV) <= rows:
            return measure(logits_NV)
        return torch.cat([measure(part) for part in logits_NV.split(rows)])

    return measured


@in_parts
def max_probability(logits_NV: Tensor) -> Tensor:
    """(N,) probability of the likeliest id."""
    return logits_NV.softmax(-1, dtype=working_dtype(logits_NV)).amax(-1)


@in_parts
def probability_margin(logits_NV: Tensor) -> Tensor:
    """(N,) likeliest probability less the second; 1 where only one id is possible."""
    if logits_NV.shape[-1] == 1:
        return torch.ones_like(logits_NV[:, 0], dtype=working_dtype(logits_NV))
    top_N2 = logits_NV.softmax(-1, dtype=working_dtype(logits_NV)).topk(2, dim=-1).values
    return top_N2[:, 0] - top_N2[:, 1]


@in_parts
def entropy(logits_NV: Tensor) -> Tensor:
    """(N,) entropy in nats."""
    log_prob_NV = logits_NV.log_softmax(-1, dtype=working_dtype(logits_NV))
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
    return log_probability(logits_NV, token_N).exp()


def log_probability(logits_NV: Tensor, token_N: Tensor) -> Tensor:
    """(N,) log-probability in nats of an id at each position."""
    chosen_N = logits_NV.gather(-1, token_N[:, None])[:, 0].to(working_dtype(logits_NV))
    return chosen_N - _log_mass(logits_NV)


@in_parts
def _log_mass(logits_NV: Tensor) -> Tensor:
    """(N,) logarithm of the sum of the exponentials."""
    return logits_NV.to(working_dtype(logits_NV)).logsumexp(-1)


SAMPLED = "sampled_prob"  # the metric that needs the drawn token
CONFIDENCES: dict[str, Measure] = {
    "prob": max_probability,
    "margin": probability_margin,
    "entropy": inverse_perplexity,
}
