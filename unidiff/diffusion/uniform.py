"""The uniform process: each token is replaced by one drawn evenly from the ids of its kind.

A head for this process says one of two things of a position. `leave_one_out` is the law of the
clean token given all other noisy tokens; `posterior` is its law given the noisy token itself as
well. Either follows from the other at a known time; a bound or a sampler that takes one for the
other is wrong. Pure functions; the random numbers are arguments, and every position is alone.
"""

# Shapes: N positions, V ids, C ids that a token may take.

import torch
from torch import Tensor


def uniform_ids(number: Tensor, choices_C: Tensor) -> Tensor:
    """Ids drawn evenly from `choices_C`, one for each uniform number in (0, 1); any shape."""
    return choices_C[(number * len(choices_C)).long().clamp(max=len(choices_C) - 1)]


def noised_law(law_NV: Tensor, alpha_N: Tensor, support_NV: Tensor) -> Tensor:
    """(N, V) law of the noisy token when `law_NV` is that of the clean one.

    Args:
        law_NV: (N, V) float, probabilities; zero outside the support.
        alpha_N: (N,) float in [0, 1], probability that the token is still clean.
        support_NV: (N, V) or (V,) bool, ids that the token may take; at least one each.
    """
    alpha_N1 = alpha_N.to(law_NV)[:, None]
    return alpha_N1 * law_NV + (1.0 - alpha_N1) * _even(law_NV, support_NV)


def posterior_from_leave_one_out(
    law_NV: Tensor, current_N: Tensor, alpha_N: Tensor, support_NV: Tensor
) -> Tensor:
    """(N, V) law of the clean token given also its own noisy token: Bayes' rule.

    Args:
        law_NV: (N, V) float, law given the other tokens.
        current_N: (N,) int64, column of the noisy token.
        alpha_N: (N,) float in [0, 1], probability that it is still clean.
        support_NV: as in `noised_law`.
    """
    other_N1 = _share_of_others(law_NV, alpha_N, support_NV)
    return _normalised(_at(current_N, law_NV, torch.ones_like(other_N1), other_N1) * law_NV)


def leave_one_out_from_posterior(
    law_NV: Tensor, current_N: Tensor, alpha_N: Tensor, support_NV: Tensor
) -> Tensor:
    """(N, V) law of the clean token given only the others: the inverse of Bayes' rule.

    Arguments as in `posterior_from_leave_one_out`; alpha must be below 1, for a token known to be
    clean says nothing of what the others alone would say.
    """
    other_N1 = _share_of_others(law_NV, alpha_N, support_NV)
    return _normalised(_at(current_N, law_NV, other_N1, torch.ones_like(other_N1)) * law_NV)


def uniform_reverse(
    law_NV: Tensor,
    current_N: Tensor,
    alpha_now_N: Tensor,
    alpha_next_N: Tensor,
    support_NV: Tensor,
) -> Tensor:
    """(N, V) law of the token at an earlier time: q(z_s | z_t, x) with the prediction for x.

    With the exact leave-one-out law it is the exact law of z_s given all of z_t.

    Args:
        law_NV: (N, V) float, leave-one-out law of the clean token.
        current_N: (N,) int64, column of the noisy token now.
        alpha_now_N: (N,) float, probability that a token is still clean now.
        alpha_next_N: (N,) float, the same at the earlier time; at least `alpha_now_N`.
        support_NV: as in `noised_law`.

    Source: UDLM, arXiv 2412.10193, the posterior of its uniform process; checked by enumeration in
        tests/diffusion/test_uniform.py.
    """
    kept_N = alpha_now_N / alpha_next_N.clamp(min=torch.finfo(alpha_next_N.dtype).tiny)
    kept_N1 = kept_N.to(law_NV)[:, None]
    forward_NV = (1.0 - kept_N1) * _even(law_NV, support_NV)
    forward_NV = forward_NV.scatter_add(1, current_N[:, None], kept_N1.to(forward_NV))
    return _normalised(forward_NV * noised_law(law_NV, alpha_next_N, support_NV))


def uniform_nelbo_rate(
    law_NV: Tensor,
    clean_N: Tensor,
    noisy_N: Tensor,
    alpha_N: Tensor,
    weight_N: Tensor,
    support_NV: Tensor,
) -> Tensor:
    """(N,) float64 NELBO of each position per unit of time, in nats.

    Its integral over times in (0, 1), in expectation over the noise and summed over positions, is
    at least -log p(clean), and equal to it for the exact leave-one-out law.

    Args:
        law_NV: (N, V) float, leave-one-out law; positive wherever `clean_N` may lie.
        clean_N: (N,) int64 column of the clean token.
        noisy_N: (N,) int64 column of the noisy token.
        alpha_N: (N,) float in (0, 1).
        weight_N: (N,) float, `Schedule.weight` of the time: -alpha' / (1 - alpha).
        support_NV: as in `noised_law`.

    Source: UDLM, arXiv 2412.10193, its continuous-time bound, written as the divergence of the
        reverse jump rates (own derivation); checked in
        tests/diffusion/test_uniform.py::test_the_bound_is_the_exact_likelihood.
    """
    law_NV, alpha_N = law_NV.to(torch.float64), alpha_N.to(torch.float64)
    truth_NV = torch.zeros_like(law_NV).scatter_(1, clean_N[:, None], 1.0)
    rates = []
    for part_NV in (
        noised_law(truth_NV, alpha_N, support_NV),
        noised_law(law_NV, alpha_N, support_NV),
    ):
        # Jump rates of the reverse process go as the odds against the present token.
        rates.append(part_NV / part_NV.gather(1, noisy_N[:, None]))
    true_NV, guess_NV = rates
    positive_NV = true_NV.clamp(min=torch.finfo(torch.float64).tiny)
    safe_NV = guess_NV.clamp(min=torch.finfo(torch.float64).tiny)
    gap_NV = guess_NV - true_NV + true_NV * (positive_NV.log() - safe_NV.log())
    beta_N = weight_N.to(torch.float64) * (1.0 - alpha_N) / alpha_N
    return beta_N / _size(law_NV, support_NV)[:, 0] * gap_NV.sum(-1)


def _size(law_NV: Tensor, support_NV: Tensor) -> Tensor:
    """(N, 1) how many ids each token may take."""
    return support_NV.expand(law_NV.shape).sum(-1, keepdim=True).to(law_NV)


def _even(law_NV: Tensor, support_NV: Tensor) -> Tensor:
    """(N, V) even law on the support."""
    return support_NV.to(law_NV) / _size(law_NV, support_NV)


def _share_of_others(law_NV: Tensor, alpha_N: Tensor, support_NV: Tensor) -> Tensor:
    """(N, 1) chance of the noisy token under another clean token, over that under itself."""
    alpha_N1 = alpha_N.to(law_NV)[:, None]
    return (1.0 - alpha_N1) / (1.0 - alpha_N1 + _size(law_NV, support_NV) * alpha_N1)


def _at(current_N: Tensor, law_NV: Tensor, own_N1: Tensor, other_N1: Tensor) -> Tensor:
    """(N, V) one factor at the noisy token, another elsewhere."""
    return other_N1.expand(law_NV.shape).scatter(1, current_N[:, None], own_N1)


def _normalised(weight_NV: Tensor) -> Tensor:
    """(N, V) weights divided by their sum."""
    return weight_NV / weight_NV.sum(-1, keepdim=True)
