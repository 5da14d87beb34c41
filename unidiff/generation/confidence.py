"""How certain a model is of a masked position: one number in [0, 1] for each distribution.

All but `sampled_probability` read the distribution before a token is drawn from it: ranking by the
probability of a token already drawn is biased even with a perfect model (DESIGN decision 12).
"""

# Shapes: N positions, V ids.

from collections.abc import Callable
from functools import wraps
from typing import Protocol

import torch
from torch import Tensor

_MOST_ELEMENTS = 2**22  # of a float32 copy of logits held at once: 16 MB


class Workspace:
    """Memory for a tensor that every step makes anew: touching fresh pages costs more than sums."""

    def __init__(self) -> None:
        """Nothing yet; it grows with what is asked for."""
        self._memory = torch.empty(0)

    def take(self, like: Tensor, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor of a shape; the one taken before is lost."""
        held = self._memory
        if held.numel() < like.numel() or (held.dtype, held.device) != (dtype, like.device):
            self._memory = torch.empty(like.numel(), dtype=dtype, device=like.device)
        return self._memory[: like.numel()].view(like.shape)


Measure = Callable[[Tensor, Workspace | None], Tensor]


class PartedMeasure(Protocol):
    """A measure of (N, V) logits: one number for each position."""

    def __call__(self, logits_NV: Tensor, workspace: Workspace | None = None) -> Tensor:
        """(N,) measures; a workspace spares the memory of a step's copy."""
        ...


def working_dtype(logits: Tensor) -> torch.dtype:
    """float64 for float64 logits, float32 for all others."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def in_parts(measure: Measure) -> PartedMeasure:
    """A measure of (N, V) logits computed some rows at a time, so that its copies stay small."""

    @wraps(measure)
    def measured(logits_NV: Tensor, workspace: Workspace | None = None) -> Tensor:
        rows = max(1, _MOST_ELEMENTS // max(logits_NV.shape[-1], 1))
        if len(logits_NV) <= rows:
            return measure(logits_NV, workspace)
        return torch.cat([measure(part, workspace) for part in logits_NV.split(rows)])

    return measured


def _probabilities(logits_NV: Tensor, workspace: Workspace | None) -> Tensor:
    """(N, V) softmax, in the workspace if there is one."""
    dtype = working_dtype(logits_NV)
    if workspace is None:
        return logits_NV.softmax(-1, dtype=dtype)
    return torch.softmax(logits_NV, -1, dtype=dtype, out=workspace.take(logits_NV, dtype))


@in_parts
def max_probability(logits_NV: Tensor, workspace: Workspace | None) -> Tensor:
    """(N,) probability of the likeliest id."""
    return _probabilities(logits_NV, workspace).amax(-1)


@in_parts
def probability_margin(logits_NV: Tensor, workspace: Workspace | None) -> Tensor:
    """(N,) likeliest probability less the second; 1 where only one id is possible."""
    if logits_NV.shape[-1] == 1:
        return torch.ones_like(logits_NV[:, 0], dtype=working_dtype(logits_NV))
    top_N2 = _probabilities(logits_NV, workspace).topk(2, dim=-1).values
    return top_N2[:, 0] - top_N2[:, 1]


@in_parts
def entropy(logits_NV: Tensor, workspace: Workspace | None) -> Tensor:
    """(N,) entropy in nats."""
    del workspace
    log_prob_NV = logits_NV.log_softmax(-1, dtype=working_dtype(logits_NV))
    # An impossible id adds 0 times the lowest finite number, not 0 times -inf.
    finite_NV = log_prob_NV.clamp(min=torch.finfo(log_prob_NV.dtype).min)
    return -(log_prob_NV.exp() * finite_NV).sum(-1)


def inverse_perplexity(logits_NV: Tensor, workspace: Workspace | None = None) -> Tensor:
    """(N,) exp(-entropy): 1 where certain, 1 / n where n ids are equally likely."""
    return (-entropy(logits_NV, workspace)).exp()


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
def _log_mass(logits_NV: Tensor, workspace: Workspace | None) -> Tensor:
    """(N,) logarithm of the sum of the exponentials."""
    del workspace
    return logits_NV.to(working_dtype(logits_NV)).logsumexp(-1)


SAMPLED = "sampled_prob"  # the metric that needs the drawn token
CONFIDENCES: dict[str, PartedMeasure] = {
    "prob": max_probability,
    "margin": probability_margin,
    "entropy": inverse_perplexity,
}
