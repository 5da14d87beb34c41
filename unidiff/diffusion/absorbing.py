"""The absorbing process: each token is replaced by the mask id, independently or by exact count.

Pure functions; the random numbers are arguments. Masked state is a boolean: a clean token may
well be the mask id itself.
"""

# Shapes: B batch, K canvas.

import torch
from torch import Tensor


def mask_independently(uniform_BK: Tensor, mask_rate_BK: Tensor, can_mask_BK: Tensor) -> Tensor:
    """Which positions the process has absorbed when each is masked with its own probability.

    Args:
        uniform_BK: (B, K) float in (0, 1), one number for each position.
        mask_rate_BK: (B, K) float, 1 - alpha at each position's time.
        can_mask_BK: (B, K) bool, positions that take part (not pinned, not padding).

    Returns:
        (B, K) bool.
    """
    return (uniform_BK < mask_rate_BK) & can_mask_BK


def mask_exact_count(
    uniform_BK: Tensor, group_BK: Tensor, mask_rate_BK: Tensor, can_mask_BK: Tensor
) -> tuple[Tensor, Tensor]:
    """Masks exactly k = ceil(rate n), at least one, of the n maskable positions of each group.

    With the linear schedule (rate = t, t uniform) k is uniform on 1..n, and the weight n / k gives
    the ELBO of every schedule: no clamp on t, and less variance than independent masking.

    Args:
        uniform_BK: (B, K) float in (0, 1); the k smallest of a group are masked.
        group_BK: (B, K) int64, group (a block of one sample) of its row a position belongs to.
        mask_rate_BK: (B, K) float in (0, 1], equal within a group.
        can_mask_BK: (B, K) bool.

    Returns:
        ((B, K) bool masked, (B, K) weight n / k, zero where a position cannot be masked).

    Source: own derivation from L * E_k[(1/k) sum CE] (DESIGN section 6); checked by enumeration in
        tests/diffusion/test_objective.py::test_exact_count_estimator_is_the_elbo.
    """
    rank_BK, size_BK = _ranks(uniform_BK, group_BK, can_mask_BK)
    count_BK = torch.ceil(mask_rate_BK * size_BK).clamp(min=1)
    masked_BK = can_mask_BK & (rank_BK < count_BK)
    weight_BK = torch.where(can_mask_BK, size_BK / count_BK, 0.0)
    return masked_BK, weight_BK.to(mask_rate_BK.dtype)


def mask_complementary(
    uniform_BK: Tensor,
    group_BK: Tensor,
    mask_rate_BK: Tensor,
    can_mask_BK: Tensor,
    is_second_BK: Tensor,
) -> tuple[Tensor, Tensor]:
    """Masks k = floor(rate (n + 1)) positions of a group, and the n - k others in its second copy.

    Over a group and its copy each position is masked exactly once. With the linear schedule k is
    uniform on 0..n, and the weight (n + 1) / (2 count) gives the ELBO, averaged over both: each
    copy's count is uniform on 0..n, and one without a mask says nothing.

    Args:
        uniform_BK: (B, K) float in (0, 1), the same for a position and its copy.
        group_BK: (B, K) int64, as for `mask_exact_count`; a copy is a group of its own.
        mask_rate_BK: (B, K) float in (0, 1], equal within a group and its copy.
        can_mask_BK: (B, K) bool.
        is_second_BK: (B, K) bool, positions of the second copies.

    Returns:
        ((B, K) bool masked, (B, K) weight (n + 1) / (2 count), zero where nothing is masked).

    Source: complementary masks of Fast-dLLM v2 (arXiv 2509.26328); the counts and their weight are
        an own derivation, checked by enumeration in
        tests/diffusion/test_absorbing.py::test_complementary_masks_average_to_the_elbo.
    """
    rank_BK, size_BK = _ranks(uniform_BK, group_BK, can_mask_BK)
    first_BK = torch.minimum(torch.floor(mask_rate_BK * (size_BK + 1)), size_BK)
    count_BK = torch.where(is_second_BK, size_BK - first_BK, first_BK)
    masked_BK = can_mask_BK & ((rank_BK < first_BK) != is_second_BK)
    weight_BK = torch.where(masked_BK, (size_BK + 1) / (2 * count_BK.clamp(min=1)), 0.0)
    return masked_BK, weight_BK.to(mask_rate_BK.dtype)


def _ranks(uniform_BK: Tensor, group_BK: Tensor, can_mask_BK: Tensor) -> tuple[Tensor, Tensor]:
    """((B, K) place of each number among those of its group, (B, K) maskable ones of the group)."""
    same_BKK = group_BK[:, :, None] == group_BK[:, None, :]
    same_BKK = same_BKK & can_mask_BK[:, :, None] & can_mask_BK[:, None, :]
    earlier_BKK = uniform_BK[:, None, :] < uniform_BK[:, :, None]
    return (same_BKK & earlier_BKK).sum(-1), same_BKK.sum(-1)
