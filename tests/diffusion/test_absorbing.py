"""The absorbing process: which positions are masked, and with which weight."""

import itertools

import pytest
import torch

from unidiff.diffusion.absorbing import (
    mask_complementary,
    mask_exact_count,
    mask_independently,
)
from unidiff.diffusion.objective import mask_set_weight
from unidiff.diffusion.random import uniform


def test_independent_masking_compares_each_number_with_its_rate() -> None:
    draw = torch.tensor([[0.1, 0.6, 0.4, 0.1]])
    rate = torch.tensor([[0.5, 0.5, 0.3, 0.5]])
    can_mask = torch.tensor([[True, True, True, False]])
    assert mask_independently(draw, rate, can_mask).tolist() == [[True, False, False, False]]


def test_independent_masking_keeps_its_rate() -> None:
    draw = uniform(3, 1, torch.arange(20_000), 0)[None]
    rate = torch.full_like(draw, 0.3)
    masked = mask_independently(draw, rate, torch.ones_like(draw, dtype=torch.bool))
    assert masked.double().mean() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20_000) ** 0.5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_exact_count_masks_the_smallest_numbers_of_a_group(count: int) -> None:
    draw = torch.tensor([[0.5, 0.2, 0.9, 0.1, 0.7]])
    rate = torch.full_like(draw, (count - 0.5) / 5)
    everything = torch.ones_like(draw, dtype=torch.bool)
    masked, weight = mask_exact_count(draw, torch.zeros_like(draw).long(), rate, everything)
    assert masked[0].tolist() == (draw[0] <= draw[0].sort().values[count - 1]).tolist()
    assert weight[0].tolist() == pytest.approx([5 / count] * 5)


def test_groups_and_pinned_positions_do_not_count_for_each_other() -> None:
    draw = torch.tensor([[0.9, 0.8, 0.01, 0.2, 0.1, 0.3]])
    group = torch.tensor([[0, 0, 0, 1, 1, 1]])
    rate = torch.tensor([[0.4, 0.4, 0.4, 0.6, 0.6, 0.6]])
    can_mask = torch.tensor([[True, True, False, True, True, True]])
    masked, weight = mask_exact_count(draw, group, rate, can_mask)
    assert masked.tolist() == [[False, True, False, True, True, False]]
    assert weight[0].tolist() == pytest.approx([2.0, 2.0, 0.0, 1.5, 1.5, 1.5])


def test_a_rate_of_almost_zero_still_masks_one_and_of_one_masks_all() -> None:
    draw = torch.tensor([[0.3, 0.2, 0.7]] * 2)
    rate = torch.tensor([[1e-9] * 3, [1.0] * 3])
    everything = torch.ones_like(draw, dtype=torch.bool)
    masked, _ = mask_exact_count(draw, torch.zeros_like(draw).long(), rate, everything)
    assert masked.sum(1).tolist() == [1, 3]


def test_nothing_maskable_gives_no_mask_and_no_weight() -> None:
    draw = torch.tensor([[0.3, 0.2]])
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    rate = torch.full_like(draw, 0.5)
    masked, weight = mask_exact_count(draw, torch.zeros(1, 2).long(), rate, nothing)
    assert not masked.any()
    assert weight.tolist() == [[0.0, 0.0]]


def test_every_set_of_a_size_is_equally_likely() -> None:
    orders = torch.tensor(list(itertools.permutations([0.1, 0.3, 0.5, 0.7])))
    rate = torch.full_like(orders, 0.5)
    everything = torch.ones_like(orders, dtype=torch.bool)
    masked, _ = mask_exact_count(orders, torch.zeros_like(orders).long(), rate, everything)
    sets, counts = torch.unique(masked, dim=0, return_counts=True)
    assert len(sets) == 6
    assert counts.tolist() == [4] * 6


def complementary(
    draw: torch.Tensor, rate: float, can_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks and weights of a block and, behind it, its second copy."""
    width = len(draw)
    return mask_complementary(
        draw.repeat(2)[None],
        torch.arange(2).repeat_interleave(width)[None],
        torch.full((1, 2 * width), rate, dtype=torch.float64),
        can_mask.repeat(2)[None],
        torch.arange(2).repeat_interleave(width)[None] == 1,
    )


@pytest.mark.parametrize(("rate", "count"), [(0.1, 0), (0.3, 1), (0.6, 2), (0.9, 3), (1.0, 3)])
def test_complementary_copies_mask_every_position_once(rate: float, count: int) -> None:
    can_mask = torch.tensor([True, True, False, True])
    masked, weight = complementary(torch.tensor([0.5, 0.2, 0.0, 0.7]), rate, can_mask)
    first, second = masked[0].split(4)
    assert torch.equal(first, torch.tensor([1, 0, 9, 2]) < count)
    assert torch.equal(first ^ second, can_mask)
    for copy, own in zip((first, second), weight[0].split(4), strict=True):
        size = int(copy.sum())
        assert own[copy].tolist() == pytest.approx([4 / (2 * max(1, size))] * size)
        assert not own[~copy].any()


def test_complementary_masks_average_to_the_elbo() -> None:
    """Total weight of each mask set, over all counts and orders, is that of the ELBO."""
    size = 3
    total = dict.fromkeys(itertools.product((False, True), repeat=size), 0.0)
    orders = list(itertools.permutations(range(size)))
    for count in range(size + 1):
        for order in orders:
            draw = torch.tensor(order, dtype=torch.float64) / size
            rate = (count + 0.5) / (size + 1)
            masked, weight = complementary(draw, rate, torch.ones(size, dtype=torch.bool))
            for one, own in zip(masked[0].split(size), weight[0].split(size), strict=True):
                if one.any():
                    total[tuple(one.tolist())] += float(own.max()) / (size + 1) / len(orders)
    for masks, weight in total.items():
        if any(masks):
            assert weight == pytest.approx(mask_set_weight(sum(masks), size)), masks
