"""The ELBO by enumeration: every way of writing it gives the same number.

A model of length L is a table of conditionals p(x_i | visible part); a cross-entropy is looked up
in it.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.diffusion.absorbing import mask_exact_count
from unidiff.diffusion.objective import mask_set_weight, stratified_times, weighted_row_loss
from unidiff.diffusion.random import uniform
from unidiff.diffusion.schedules import SCHEDULES

Table = dict[tuple[int | None, ...], np.ndarray]
SYMBOLS = 3
HIDDEN = None


def all_sequences(length: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(SYMBOLS), repeat=length))


def random_table(length: int, seed: int = 0) -> Table:
    """(L, SYMBOLS) conditionals for every partly visible sequence."""
    rng = np.random.default_rng(seed)
    partial = itertools.product([HIDDEN, *range(SYMBOLS)], repeat=length)
    return {x: rng.dirichlet(np.ones(SYMBOLS), size=length) for x in partial}


def exact_table(joint: dict[tuple[int, ...], float], length: int) -> Table:
    """The conditionals of a joint distribution."""
    table = {}
    for partial in itertools.product([HIDDEN, *range(SYMBOLS)], repeat=length):
        marginals = np.zeros((length, SYMBOLS))
        for x, prob in joint.items():
            if all(seen is HIDDEN or seen == token for seen, token in zip(partial, x, strict=True)):
                for place, token in enumerate(x):
                    marginals[place, token] += prob
        table[partial] = marginals / marginals.sum(1, keepdims=True)
    return table


def losses(table: Table, x: tuple[int, ...], is_masked_NL: Tensor) -> Tensor:
    """(N, L) cross-entropies of x under each mask."""
    rows = []
    for mask in is_masked_NL.tolist():
        seen = tuple(HIDDEN if hide else token for hide, token in zip(mask, x, strict=True))
        rows.append([-math.log(table[seen][place, token]) for place, token in enumerate(x)])
    return torch.tensor(rows, dtype=torch.float64)


def all_masks(length: int) -> Tensor:
    """(2^L - 1, L) bool, every mask set but the empty one."""
    sets = list(itertools.product([False, True], repeat=length))[1:]
    return torch.tensor(sets)


def elbo_by_mask_sets(table: Table, x: tuple[int, ...]) -> float:
    masks = all_masks(len(x))
    weights = [mask_set_weight(int(mask.sum()), len(x)) for mask in masks]
    weight_NL = torch.tensor(weights, dtype=torch.float64)[:, None].expand(masks.shape)
    return float(weighted_row_loss(losses(table, x, masks), masks, weight_NL).double().sum())


def elbo_by_time(table: Table, x: tuple[int, ...], schedule: str) -> float:
    """Continuous-time bound, integrated by Gauss-Legendre quadrature over all mask sets."""
    nodes, node_weights = np.polynomial.legendre.leggauss(60)
    masks = all_masks(len(x))
    set_losses = (losses(table, x, masks) * masks).sum(1)
    hidden = masks.sum(1)
    total = 0.0
    for node, node_weight in zip((nodes + 1) / 2, node_weights / 2, strict=True):
        time = torch.tensor(node, dtype=torch.float64)
        alpha = SCHEDULES[schedule].alpha(time)
        prob = (1 - alpha) ** hidden * alpha ** (len(x) - hidden)
        total += node_weight * float((SCHEDULES[schedule].weight(time) * prob * set_losses).sum())
    return total


def order_losses(table: Table, x: tuple[int, ...]) -> np.ndarray:
    """(L!,) negative log-likelihood of x when its tokens are produced in each order."""
    totals = []
    for order in itertools.permutations(range(len(x))):
        seen: list[int | None] = [HIDDEN] * len(x)
        total = 0.0
        for place in order:
            total -= math.log(table[tuple(seen)][place, x[place]])
            seen[place] = x[place]
        totals.append(total)
    return np.array(totals)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_every_form_of_the_elbo_is_the_same_number(length: int) -> None:
    table = random_table(length)
    x = tuple(np.random.default_rng(1).integers(SYMBOLS, size=length).tolist())
    expected = order_losses(table, x).mean()
    assert elbo_by_mask_sets(table, x) == pytest.approx(expected, abs=1e-6)
    for schedule in SCHEDULES:
        assert elbo_by_time(table, x, schedule) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
def test_exact_count_estimator_is_the_elbo(length: int) -> None:
    table = random_table(length, seed=2)
    x = tuple(np.random.default_rng(3).integers(SYMBOLS, size=length).tolist())
    orders = list(itertools.permutations(np.linspace(0.1, 0.9, length).tolist()))
    draw = torch.tensor(orders, dtype=torch.float64)
    everything = torch.ones_like(draw, dtype=torch.bool)
    total = 0.0
    for count in range(1, length + 1):  # t uniform: every count alike
        rate = torch.full_like(draw, (count - 0.5) / length)
        masked, weight = mask_exact_count(draw, torch.zeros_like(draw).long(), rate, everything)
        rows = weighted_row_loss(losses(table, x, masked), masked, weight)
        total += float(rows.double().mean()) / length
    assert total == pytest.approx(order_losses(table, x).mean(), abs=1e-6)


@pytest.mark.parametrize("length", [2, 3])
def test_nelbo_bounds_exact_likelihood(length: int) -> None:
    table = random_table(length, seed=4)
    total = 0.0
    for x in all_sequences(length):
        exact_prob = float(np.exp(-order_losses(table, x)).mean())  # a random order each time
        total += exact_prob
        assert elbo_by_mask_sets(table, x) > -math.log(exact_prob)
    assert total == pytest.approx(1.0)


def test_nelbo_of_the_exact_denoiser_is_the_entropy() -> None:
    sequences = all_sequences(3)
    probs = np.random.default_rng(5).dirichlet(np.ones(len(sequences)))
    joint = dict(zip(sequences, probs.tolist(), strict=True))
    table = exact_table(joint, 3)
    for x, prob in joint.items():
        assert elbo_by_mask_sets(table, x) == pytest.approx(-math.log(prob), abs=1e-5)
    bound = sum(prob * elbo_by_mask_sets(table, x) for x, prob in joint.items())
    assert bound == pytest.approx(-(probs * np.log(probs)).sum(), abs=1e-6)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_mask_set_weight_is_schedule_free(schedule: str) -> None:
    nodes, node_weights = np.polynomial.legendre.leggauss(60)
    time = torch.from_numpy((nodes + 1) / 2)
    alpha, rate = SCHEDULES[schedule].alpha(time), SCHEDULES[schedule].weight(time)
    for length in range(1, 7):
        for count in range(1, length + 1):
            values = rate * (1 - alpha) ** count * alpha ** (length - count)
            integral = float((values * torch.from_numpy(node_weights / 2)).sum())
            assert mask_set_weight(count, length) == pytest.approx(integral, rel=1e-9)


def test_mask_set_weights_have_known_values_and_survive_long_blocks() -> None:
    assert mask_set_weight(1, 1) == pytest.approx(1.0)
    assert mask_set_weight(2, 4) == pytest.approx(1 / 12)
    assert mask_set_weight(5, 5) == pytest.approx(1 / 5)
    assert math.comb(200, 77) * mask_set_weight(77, 200) == pytest.approx(1 / 77, rel=1e-6)


@pytest.mark.parametrize(("count", "length"), [(0, 3), (4, 3), (-1, 3)])
def test_mask_set_weight_refuses_an_impossible_count(count: int, length: int) -> None:
    with pytest.raises(ValueError, match=r"num_masked must lie in 1\.\.3"):
        mask_set_weight(count, length)


def test_row_loss_reads_masked_positions_only() -> None:
    loss = torch.tensor([[1.0, float("nan"), 3.0], [1.0, 1.0, 1.0]])
    masked = torch.tensor([[True, False, True], [False, False, False]])
    weight = torch.tensor([[2.0, -1.0, 0.5], [float("inf")] * 3])
    assert weighted_row_loss(loss, masked, weight).tolist() == [3.5, 0.0]


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_row_loss_refuses_a_meaningless_weight(weight: float) -> None:
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="finite and >= 0"):
        weighted_row_loss(one, one.bool(), torch.tensor([[weight]]))


@pytest.mark.parametrize("start", [0, 977, 10_000_019])
@pytest.mark.parametrize("run", [16, 128])
def test_stratified_times_fill_strata_evenly(start: int, run: int) -> None:
    times = stratified_times(torch.arange(start, start + run), torch.tensor(0.3))
    counts = torch.histc(times.float(), bins=run // 4, min=0, max=1)
    assert counts.min() >= 3  # random times leave 1.8 % of such strata empty
    assert counts.max() <= 5
    gaps = torch.cat([times, times.min()[None] + 1]).sort().values.diff()
    assert gaps.max() < 2 / run


def test_one_time_is_uniform_over_rotations() -> None:
    rotation = uniform(0, 1, torch.arange(4000), 0)
    times = stratified_times(torch.tensor(12345), rotation)
    assert (times > 0).all()
    assert (times < 1).all()
    counts = torch.histc(times.float(), bins=10, min=0, max=1)
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-square, 9 degrees, alpha 0.001
