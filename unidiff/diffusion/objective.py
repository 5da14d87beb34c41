"""Losses of masked diffusion, in nats, from cross-entropies and masks alone.

Knows nothing of models: a cross-entropy is a number that somebody computed for a position.
"""

# Shapes: B batch, K canvas.

import torch
from torch import Tensor


def weighted_row_loss(loss_BK: Tensor, is_masked_BK: Tensor, weight_BK: Tensor) -> Tensor:
    """Sum over masked positions of weight times cross-entropy, per row, in nats.

    With ELBO weights its expectation over times and masks is an upper bound of the row's negative
    log-likelihood.

    Args:
        loss_BK: (B, K) float, cross-entropy of the clean token in nats; read where masked.
        is_masked_BK: (B, K) bool.
        weight_BK: (B, K) float >= 0.

    Returns:
        (B,) float32. Zero for a row with no masked position.

    Raises:
        ValueError: if a weight at a masked position is negative or not finite.

    Source: MDLM, arXiv 2406.07524, continuous-time bound; checked against enumeration in
        tests/diffusion/test_objective.py::test_nelbo_bounds_exact_likelihood.
    """
    weight_BK = torch.where(is_masked_BK, weight_BK, 0.0)
    if not bool(torch.isfinite(weight_BK).all()) or bool((weight_BK < 0).any()):
        raise ValueError("loss weights at masked positions must be finite and >= 0")
    return (torch.where(is_masked_BK, loss_BK, 0.0) * weight_BK).float().sum(-1)


def mask_set_weight(num_masked: int, length: int) -> float:
    """Total ELBO weight (k-1)! (L-k)! / L! of one mask set of k among L positions.

    The same for every schedule: the integral over time of
    -alpha' / (1 - alpha) (1 - alpha)^k alpha^(L - k).

    Args:
        num_masked: k, from 1 to `length`.
        length: L.

    Raises:
        ValueError: if k is not in 1..L.

    Source: own derivation (beta integral), DESIGN section 6; checked against numerical
        integration in tests/diffusion/test_objective.py::test_mask_set_weight_is_schedule_free.
    """
    if not 1 <= num_masked <= length:
        raise ValueError(f"num_masked must lie in 1..{length}, got {num_masked}")
    log_factorials = torch.lgamma(
        torch.tensor([num_masked, length - num_masked + 1, length + 1], dtype=torch.float64)
    )
    return float(torch.exp(log_factorials[0] + log_factorials[1] - log_factorials[2]))


def stratified_times(position_B: Tensor, rotation: Tensor) -> Tensor:
    """Times in (0, 1) that cover the interval evenly over consecutive samples of the stream.

    Time of sample n is frac(rotation + n / golden ratio): any run of consecutive samples is
    stratified, whatever the batch size, number of ranks or point of resumption. A random rotation
    makes every single time uniform; one for each block index keeps blocks of a sample apart.

    Args:
        position_B: int64, place of the sample in the training stream, any shape.
        rotation: float in (0, 1), broadcastable.

    Source: additive-recurrence (Kronecker) sequence, own use; checked in
        tests/diffusion/test_objective.py::test_stratified_times_fill_strata_evenly.
    """
    golden = 0.6180339887498949
    time = torch.remainder(rotation + position_B.to(torch.float64) * golden, 1.0)
    return time.clamp(1e-9, 1 - 1e-9)
