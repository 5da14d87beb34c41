"""Which token a revealed position takes: the likeliest, or one drawn by inverse CDF in float64.

One uniform number decides a token, whatever the size of the vocabulary; a float32 Gumbel trick
would silently lower the temperature (DESIGN decision 13).
"""

# Shapes: N positions, V ids.

import torch
from torch import Tensor

from unidiff.tokens.layout import MODALITY_IDS

MEDIAN = "median"
_ORDERED = [MODALITY_IDS["action"], MODALITY_IDS["state"]]
_MOST_ELEMENTS = 2**20  # of a float64 copy of logits held at once: 8 MB


def keep_top_k(logits_NV: Tensor, top_k: int | None) -> Tensor:
    """Logits with all but the `top_k` highest at -inf; ties with the last one kept stay."""
    if not top_k or top_k >= logits_NV.shape[-1]:
        return logits_NV
    lowest_N1 = logits_NV.topk(top_k, dim=-1).values[:, -1:]
    return logits_NV.masked_fill(logits_NV < lowest_N1, -torch.inf)


def keep_top_p(logits_NV: Tensor, top_p: float) -> Tensor:
    """Logits of the smallest set of likeliest ids whose mass reaches `top_p`, others -inf."""
    if top_p >= 1.0:
        return logits_NV
    order_NV = torch.sort(logits_NV, dim=-1, descending=True, stable=True)
    prob_NV = order_NV.values.softmax(-1)
    before_NV = prob_NV.cumsum(-1) - prob_NV
    dropped_NV = torch.zeros_like(before_NV, dtype=torch.bool)
    dropped_NV.scatter_(-1, order_NV.indices, before_NV >= top_p)
    return logits_NV.masked_fill(dropped_NV, -torch.inf)


def inverse_cdf(prob_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """(N,) index of the first id whose cumulative probability exceeds the uniform number.

    Args:
        prob_NV: (N, V) float64 >= 0, not necessarily of sum 1; an id of probability 0 is never
            drawn.
        uniform_N: (N,) float64 in (0, 1).
    """
    cdf_NV = prob_NV.cumsum(-1)
    target_N1 = uniform_N[:, None] * cdf_NV[:, -1:]
    # A float64 below 1 times the total stays below the total, so the index is always possible.
    return (cdf_NV <= target_N1).sum(-1)


def likeliest(logits_NV: Tensor) -> Tensor:
    """(N,) index of the highest score, the lower one in a tie."""
    # On a CPU argmax of bfloat16 takes five times as long.
    return logits_NV.max(-1).indices


def greedy_tokens(logits_NV: Tensor, modality_N: Tensor | None, choice: str) -> Tensor:
    """(N,) index of the token that a greedy position takes.

    Args:
        logits_NV: (N, V) float, -inf at ids that may not be taken.
        modality_N: (N,) int64, index into the layout's `modalities`; None where "mode" is asked.
        choice: "mode": the likeliest id; "median": of actions and states, whose ids are in order,
            the first id up to which more than half of the mass lies.

    Source: own derivation: the median has the least expected distance of all bins, where the
        likeliest bin is one of many that are as good; checked in tests/generation/test_sampling.py.
    """
    token_N = likeliest(logits_NV)
    if choice == MEDIAN:
        assert modality_N is not None
        is_ordered_N = torch.isin(modality_N, modality_N.new_tensor(_ORDERED))
        prob_NV = logits_NV[is_ordered_N].to(torch.float64).softmax(-1)
        half_N = torch.full((len(prob_NV),), 0.5, dtype=torch.float64, device=prob_NV.device)
        token_N[is_ordered_N] = inverse_cdf(prob_NV, half_N)
    return token_N


def probabilities(
    logits_NV: Tensor, temperature_N: Tensor, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """(N, V) float64 law that tokens are drawn from; arguments as `choose_tokens`."""
    prob_NV = torch.zeros(logits_NV.shape, dtype=torch.float64, device=logits_NV.device)
    prob_NV.scatter_(-1, logits_NV.argmax(-1, keepdim=True), 1.0)
    drawn_N = temperature_N > 0
    if bool(drawn_N.any()):
        kept_NV = _scaled(logits_NV[drawn_N], temperature_N[drawn_N], top_k, top_p)
        prob_NV[drawn_N] = kept_NV.softmax(-1)
    return prob_NV


def choose_tokens(
    logits_NV: Tensor,
    temperature_N: Tensor,
    uniform_N: Tensor,
    top_k: int | None = None,
    top_p: float = 1.0,
    greedy_N: Tensor | None = None,
) -> Tensor:
    """(N,) index of the token chosen at each position.

    Args:
        logits_NV: (N, V) float, -inf at ids that may not be taken.
        temperature_N: (N,) float64; 0 takes the greedy token.
        uniform_N: (N,) float64 in (0, 1), read where the temperature is not 0.
        top_k: ids kept before drawing; None or 0 keeps all.
        top_p: probability mass kept before drawing, after temperature and `top_k`.
        greedy_N: (N,) tokens of `greedy_tokens`; None: the likeliest id, the lower one in a tie.
    """
    token_N = likeliest(logits_NV) if greedy_N is None else greedy_N.clone()
    (drawn_N,) = torch.nonzero(temperature_N > 0, as_tuple=True)
    rows = max(1, _MOST_ELEMENTS // logits_NV.shape[-1])
    for part_N in drawn_N.split(rows) if len(drawn_N) else ():
        kept_NV = _scaled(logits_NV[part_N], temperature_N[part_N], top_k, top_p)
        token_N[part_N] = inverse_cdf(kept_NV.softmax(-1), uniform_N[part_N])
    return token_N


def _scaled(logits_NV: Tensor, temperature_N: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Float64 logits divided by their temperatures, all but the ids kept at -inf."""
    scaled_NV = logits_NV.to(torch.float64)
    # The highest becomes 0 first: no temperature, however small, makes it infinite.
    scaled_NV = scaled_NV - scaled_NV.amax(-1, keepdim=True)
    return keep_top_p(keep_top_k(scaled_NV / temperature_N[:, None], top_k), top_p)
