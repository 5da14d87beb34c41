"""Uniform noise against enumeration: reverse law, the two readings of a head, and the bound."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.diffusion.processes import Absorbing, Process, Uniform
from unidiff.diffusion.schedules import SCHEDULES
from unidiff.diffusion.uniform import (
    leave_one_out_from_posterior,
    noised_law,
    posterior_from_leave_one_out,
    uniform_ids,
    uniform_nelbo_rate,
    uniform_reverse,
)

NUM_IDS, LENGTH = 3, 2
STATES = list(itertools.product(range(NUM_IDS), repeat=LENGTH))
JOINT = torch.from_numpy(np.random.default_rng(4).dirichlet([0.6] * len(STATES)))
SUPPORT = torch.ones(NUM_IDS, dtype=torch.bool)
READINGS = ("leave_one_out", "posterior")


def chance(noisy: int, clean: int, alpha: float) -> float:
    """q(z | x) of one token."""
    return alpha * (noisy == clean) + (1 - alpha) / NUM_IDS


def reading(kind: str, noisy: tuple[int, ...], place: int, alpha: float) -> Tensor:
    """(1, V) exact law of the clean token at a place, by summing over all clean sequences."""
    law = torch.zeros(1, NUM_IDS, dtype=torch.float64)
    for prob, clean in zip(JOINT.tolist(), STATES, strict=True):
        others = [i for i in range(LENGTH) if kind == "posterior" or i != place]
        law[0, clean[place]] += prob * np.prod([chance(noisy[i], clean[i], alpha) for i in others])
    return law / law.sum()


def scalar(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize(("now", "later"), [(0.0, 0.3), (0.3, 0.8), (0.5, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("place", range(LENGTH))
def test_reverse_law_is_the_exact_conditional_of_the_earlier_token(
    now: float, later: float, place: int
) -> None:
    """P(z_s at the place | z_t) by summing over clean and earlier sequences."""
    kept = now / later
    for noisy in STATES:
        expected = torch.zeros(NUM_IDS, dtype=torch.float64)
        for prob, clean in zip(JOINT.tolist(), STATES, strict=True):
            others = [chance(noisy[i], clean[i], now) for i in range(LENGTH) if i != place]
            for earlier in range(NUM_IDS):
                here = chance(earlier, clean[place], later) * chance(noisy[place], earlier, kept)
                expected[earlier] += prob * np.prod(others) * here
        law = reading("leave_one_out", noisy, place, now)
        current = torch.tensor([noisy[place]])
        found = uniform_reverse(law, current, scalar(now), scalar(later), SUPPORT)
        torch.testing.assert_close(found[0], expected / expected.sum())
        assert torch.equal(
            found, Uniform(SUPPORT).reverse(law, current, scalar(now), scalar(later))
        )


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.9])
def test_the_two_readings_follow_from_each_other(alpha: float) -> None:
    for noisy, place in itertools.product(STATES, range(LENGTH)):
        current = torch.tensor([noisy[place]])
        alone, own = (reading(kind, noisy, place, alpha) for kind in READINGS)
        arguments = (current, scalar(alpha), SUPPORT)
        torch.testing.assert_close(posterior_from_leave_one_out(alone, *arguments), own)
        torch.testing.assert_close(leave_one_out_from_posterior(own, *arguments), alone)


def bound(kind: str, clean: tuple[int, ...], schedule: str, convert: bool = False) -> float:
    """NELBO of a sequence by quadrature over time and summation over all noise, in nats."""
    nodes, weights = np.polynomial.legendre.leggauss(28)
    # The integrand has a logarithm at both ends: t = u^2 (3 - 2 u) makes it smooth.
    total = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        time = scalar(node**2 * (3 - 2 * node))
        alpha = SCHEDULES[schedule].alpha(time)
        rate = SCHEDULES[schedule].weight(time)
        for noisy in STATES:
            prob = np.prod([chance(noisy[i], clean[i], float(alpha)) for i in range(LENGTH)])
            for place in range(LENGTH):
                law = reading(kind, noisy, place, float(alpha))
                current = torch.tensor([noisy[place]])
                if convert:
                    law = leave_one_out_from_posterior(law, current, alpha, SUPPORT)
                nats = uniform_nelbo_rate(
                    law, torch.tensor([clean[place]]), current, alpha, rate, SUPPORT
                )
                total += weight * 6 * node * (1 - node) * prob * float(nats)
    return total


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_bound_is_the_exact_likelihood(schedule: str) -> None:
    """For every sequence, not only on average; so the mean NELBO is the entropy."""
    for prob, clean in zip(JOINT.tolist(), STATES, strict=True):
        assert bound("leave_one_out", clean, schedule) == pytest.approx(-np.log(prob), abs=2e-4)


def test_taking_one_reading_for_the_other_loosens_the_bound() -> None:
    entropy = -float((JOINT * JOINT.log()).sum())
    pairs = list(zip(JOINT.tolist(), STATES, strict=True))
    mixed_up = sum(prob * bound("posterior", clean, "linear") for prob, clean in pairs)
    assert mixed_up > entropy + 0.3
    clean = STATES[1]
    converted = bound("posterior", clean, "linear", convert=True)
    assert converted == pytest.approx(-float(JOINT[1].log()), abs=2e-4)


def test_ids_outside_the_support_get_nothing() -> None:
    support = torch.tensor([True, False, True, True])
    law = torch.tensor([[0.2, 0.0, 0.5, 0.3]], dtype=torch.float64)
    noised = noised_law(law, scalar(0.4), support)
    assert noised[0].tolist() == pytest.approx([0.28, 0.0, 0.4, 0.32])
    current = torch.tensor([2])
    earlier = uniform_reverse(law, current, scalar(0.4), scalar(0.7), support)
    assert earlier[0, 1] == 0.0
    assert float(earlier.sum()) == pytest.approx(1.0)
    rate = uniform_nelbo_rate(
        law, torch.tensor([0]), current, scalar(0.4), scalar(1 / 0.6), support
    )
    assert 0 < float(rate) < 10


@pytest.mark.parametrize(
    "process", [Absorbing(3), Uniform(torch.tensor([True, True, True, False]))]
)
def test_corrupting_then_reversing_keeps_the_marginal(process: Process) -> None:
    """Both processes: what is drawn back from alpha 0.2 has the law of alpha 0.6."""
    count = 40_000
    numbers = torch.rand(3, count, generator=torch.Generator().manual_seed(1)).double()
    clean = torch.arange(count) % 3
    alpha = torch.full((count,), 0.2, dtype=torch.float64)
    later = torch.full((count,), 0.6, dtype=torch.float64)
    noisy = process.corrupt(clean, alpha, numbers[0], numbers[1])
    truth = torch.nn.functional.one_hot(clean, 4).double()
    earlier_NV = process.reverse(truth, noisy, alpha, later)
    torch.testing.assert_close(earlier_NV.sum(1), torch.ones(count, dtype=torch.float64))
    stays = float(earlier_NV.gather(1, clean[:, None]).mean())
    same_by_chance = 0.0 if isinstance(process, Absorbing) else 0.4 / 3
    assert stays == pytest.approx(0.6 + same_by_chance, abs=0.01)
    changed = float((noisy != clean).double().mean())
    assert changed == pytest.approx(0.8 * (1 if same_by_chance == 0.0 else 2 / 3), abs=0.01)
    assert (earlier_NV[:, 3] > 0).any() == isinstance(process, Absorbing)


def test_drawn_ids_are_even_and_stay_inside_the_choices() -> None:
    choices = torch.tensor([2, 5, 7])
    drawn = uniform_ids(torch.tensor([1e-17, 0.34, 0.67, 1 - 2**-53], dtype=torch.float64), choices)
    assert drawn.tolist() == [2, 5, 7, 7]
