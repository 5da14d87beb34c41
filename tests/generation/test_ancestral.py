"""Ancestral sampling and D-CFG under uniform noise, against the enumerated Markov chain.

Three tokens of three ids: 27 states. The chain's law after S steps is a product of 27 x 27
matrices; the decode loop must draw from exactly that law, and that law tends to the data's.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from uniform_toys import (
    NUM_IDS,
    SUPPORT,
    NoisyTable,
    chi_square,
    counts_of,
    decoded,
    exact_reading,
    states,
)

from unidiff.diffusion.uniform import uniform_reverse

NUM_ROWS, LENGTH = 3_000, 3
LIMIT = 54.05  # chi-square with 26 degrees of freedom: p = 0.001
READINGS = ("leave_one_out", "posterior")


def joint_of(seed: int) -> Tensor:
    weight = np.random.default_rng(seed).gamma(0.5, size=(NUM_IDS,) * LENGTH)
    return torch.from_numpy(weight / weight.sum())


JOINTS = [joint_of(12), joint_of(13)]
JOINTS.append((JOINTS[0] + JOINTS[1]) / 2)  # what a weaker prompt leaves open


def earlier(joint: Tensor, alpha: float, later: float) -> Tensor:
    """(27, L, V) law of each token one step on, from each state."""
    noisy = states(LENGTH)
    law = exact_reading(joint, noisy, alpha, "leave_one_out").flatten(0, 1)
    now, then = (torch.full((len(law),), a, dtype=torch.float64) for a in (alpha, later))
    found = uniform_reverse(law, noisy.flatten(), now, then, SUPPORT)
    return found.view(len(noisy), LENGTH, -1)


def chain(steps: int, law_of: Any) -> Tensor:
    """(27,) law of the chain's last state; `law_of` gives a step's (27, L, V)."""
    reached = torch.full((NUM_IDS**LENGTH,), NUM_IDS**-LENGTH, dtype=torch.float64)
    for step in range(steps):
        law = law_of(step / steps, (step + 1) / steps)
        move = torch.ones(len(reached), len(reached), dtype=torch.float64)
        for place in range(LENGTH):
            move = move * law[:, place, states(LENGTH)[:, place]]
        reached = reached @ move
    return reached


def total_variation(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().sum()) / 2


@pytest.mark.parametrize("kind", READINGS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_decoding_draws_from_the_chains_law(steps: int, kind: str) -> None:
    denoiser = NoisyTable(JOINTS, steps, kind)
    output = decoded(denoiser, NUM_ROWS, unmasking_strategy="ancestral", max_denoising_steps=steps)
    assert denoiser.calls == steps
    assert set(output.num_forwards.tolist()) == {steps}
    law = chain(steps, lambda now, then: earlier(JOINTS[0], now, then))
    assert chi_square(counts_of(output, LENGTH), law) < LIMIT


def test_one_step_gives_the_product_of_the_marginals() -> None:
    law = chain(1, lambda now, then: earlier(JOINTS[0], now, then)).view(JOINTS[0].shape)
    one, two, three = (JOINTS[0].sum([a for a in range(3) if a != axis]) for axis in range(3))
    torch.testing.assert_close(law, one[:, None, None] * two[:, None] * three)


def test_the_law_tends_to_the_datas_as_steps_grow() -> None:
    gaps = [
        total_variation(
            chain(steps, lambda now, then: earlier(JOINTS[0], now, then)), JOINTS[0].reshape(-1)
        )
        for steps in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.2
    assert gaps[-1] < 0.02


def test_one_reading_taken_for_the_other_draws_from_another_law() -> None:
    denoiser = NoisyTable(JOINTS, 5, "posterior")
    wrong = type("Mislabelled", (NoisyTable,), {})(JOINTS, 5, "posterior")
    probe = wrong.probe

    def mislabelled(*arguments: Any, **keywords: Any) -> Tensor:
        wrong.uniform_prediction = "posterior"
        logits = probe(*arguments, **keywords)
        wrong.uniform_prediction = "leave_one_out"
        return logits

    wrong.probe = mislabelled
    wrong.uniform_prediction = "leave_one_out"
    options = {"unmasking_strategy": "ancestral", "max_denoising_steps": 5}
    law = chain(5, lambda now, then: earlier(JOINTS[0], now, then))
    right = chi_square(counts_of(decoded(denoiser, NUM_ROWS, **options), LENGTH), law)
    assert chi_square(counts_of(decoded(wrong, NUM_ROWS, **options), LENGTH), law) > 10 * right


@pytest.mark.parametrize("kind", READINGS)
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.5])
def test_guidance_mixes_the_reverse_posteriors(scale: float, kind: str) -> None:
    """D-CFG: p(z_s | z_t, c)^g p(z_s | z_t)^(1 - g), normalised token by token."""
    steps = 3

    def guided(now: float, then: float) -> Tensor:
        strong, weak = (earlier(JOINTS[number], now, then) for number in (0, 2))
        law = torch.where(strong > 0, strong.pow(scale) * weak.pow(1 - scale), 0.0)
        return law / law.sum(-1, keepdim=True)

    output = decoded(
        NoisyTable(JOINTS, steps, kind),
        NUM_ROWS,
        unmasking_strategy="ancestral",
        max_denoising_steps=steps,
        guidance_scale=scale,
        negative=2,
    )
    assert set(output.num_forwards.tolist()) == {2 * steps}
    counts, law = counts_of(output, LENGTH), chain(steps, guided)
    assert chi_square(counts, law) < LIMIT
    if scale == 2.5:
        unguided = chain(steps, lambda now, then: earlier(JOINTS[0], now, then))
        assert chi_square(counts, unguided) > 10 * LIMIT


def test_guidance_of_the_logits_is_another_law() -> None:
    steps, scale = 3, 2.5

    def guided(now: float, then: float) -> Tensor:
        noisy = states(LENGTH)
        strong, weak = (
            exact_reading(JOINTS[number], noisy, now, "leave_one_out") for number in (0, 2)
        )
        law = torch.where(strong > 0, strong.pow(scale) * weak.pow(1 - scale), 0.0)
        law = (law / law.sum(-1, keepdim=True)).flatten(0, 1)
        times = (torch.full((len(law),), a, dtype=torch.float64) for a in (now, then))
        return uniform_reverse(law, noisy.flatten(), *times, SUPPORT).view(len(noisy), LENGTH, -1)

    output = decoded(
        NoisyTable(JOINTS, steps, "leave_one_out"),
        NUM_ROWS,
        unmasking_strategy="ancestral",
        max_denoising_steps=steps,
        guidance_scale=scale,
        guidance_level="logits",
        negative=2,
    )
    assert chi_square(counts_of(output, LENGTH), chain(steps, guided)) < LIMIT


def test_guidance_in_a_part_of_the_steps_leaves_the_others_unguided() -> None:
    steps = 4  # progress 0, 1/3, 2/3, 1: the interval holds the last two
    calls = []

    def law_of(now: float, then: float) -> Tensor:
        calls.append(now)
        strong, weak = (earlier(JOINTS[number], now, then) for number in (0, 2))
        if len(calls) <= 2:
            return strong
        law = torch.where(strong > 0, strong.pow(2.0) * weak.pow(-1.0), 0.0)
        return law / law.sum(-1, keepdim=True)

    output = decoded(
        NoisyTable(JOINTS, steps, "leave_one_out"),
        NUM_ROWS,
        unmasking_strategy="ancestral",
        max_denoising_steps=steps,
        guidance_scale=2.0,
        guidance_interval=[0.5, 1.0],
        negative=2,
    )
    assert set(output.num_forwards.tolist()) == {steps + 2}
    assert chi_square(counts_of(output, LENGTH), chain(steps, law_of)) < LIMIT


@pytest.mark.parametrize("steps", [1, 3])
def test_a_single_token_has_its_own_law_in_any_number_of_steps(steps: int) -> None:
    joint = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    denoiser = NoisyTable([joint], steps, "leave_one_out")
    output = decoded(denoiser, NUM_ROWS, unmasking_strategy="ancestral", max_denoising_steps=steps)
    assert chi_square(counts_of(output, 1), joint) < 13.82  # 2 degrees of freedom: p = 0.001


def test_greedy_takes_the_prediction_for_certain() -> None:
    """A last step with a certain prediction ends in the likeliest token of each position."""
    joint = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    denoiser = NoisyTable([joint], 2, "leave_one_out")
    options = {"unmasking_strategy": "ancestral", "max_denoising_steps": 2}
    output = decoded(denoiser, 200, do_sample=False, **options)
    assert set(output.sequences[:, 1].tolist()) == {1}
    cut = decoded(NoisyTable([joint], 2, "leave_one_out"), 200, top_k=2, **options)
    assert set(cut.sequences[:, 1].tolist()) == {1, 2}
    middle = denoiser.seen[1]
    assert len(set(middle[:, 0].tolist())) == NUM_IDS  # the step between is drawn all the same
