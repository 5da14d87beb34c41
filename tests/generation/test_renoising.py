"""Renoising: accepted tokens stay for a step, the rest is noise again; when a block is finished."""

import pytest
import torch
from torch import Tensor
from uniform_toys import NUM_IDS, Script, chi_square, decoded

from unidiff.generation.options import OPTIONS
from unidiff.generation.uniform_noise import Ancestral, Renoising, UniformDiffusion, uniform_loop

gemma = pytest.importorskip(
    "transformers.models.diffusion_gemma.generation_diffusion_gemma",
    reason="this transformers has no DiffusionGemma",
)

LENGTH, STEPS, ROWS = 6, 7, 400
RENOISE = {"revision": "renoise", "unmasking_strategy": "entropy_bound", "entropy_bound": 0.8}


def script(seed: int, sharpness: float) -> Tensor:
    """(STEPS, LENGTH, 3) logits that grow sharper with the steps."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(STEPS, LENGTH, NUM_IDS, generator=generator).double()
    growth = torch.linspace(0.5, 1.0, STEPS, dtype=torch.float64)[:, None, None]
    return noise * sharpness * growth


def theirs(tables: Tensor, bound: float, stable_for: int, below: float) -> tuple[list, int]:
    """(positions that transformers' sampler accepts in each step, steps until it stops)."""
    sampler = gemma.EntropyBoundSampler(
        gemma.EntropyBoundSamplerConfig(bound), LENGTH, NUM_IDS, STEPS
    )
    stops = gemma.StableAndConfidentStoppingCriteria(stable_for, below)
    accepted = []
    old, new = torch.zeros(1, LENGTH, dtype=torch.int64), torch.ones(1, LENGTH, dtype=torch.int64)
    for number, table in enumerate(tables):
        accepted.append((sampler.accept_canvas(old, new, table[None], STEPS - number) == 1)[0])
        if bool(stops(table.argmax(-1)[None], table[None])):
            break
    return accepted, len(accepted)


@pytest.mark.parametrize("seed", range(3))
def test_what_stays_for_a_step_is_what_transformers_sampler_accepts(seed: int) -> None:
    """A kept position shows the same token in all rows (greedy); the others show all ids."""
    tables = script(seed, 3.0)
    denoiser = Script(tables)
    decoded(denoiser, ROWS, do_sample=False, max_denoising_steps=STEPS, **RENOISE)
    accepted, steps = theirs(tables, 0.8, 1, 0.005)
    assert len(denoiser.seen) == steps
    for step in range(1, steps):
        for place in range(LENGTH):
            shown = set(denoiser.seen[step][:, place].tolist())
            best = {int(tables[step - 1, place].argmax())}
            assert shown == (best if accepted[step - 1][place] else set(range(NUM_IDS)))
    assert any(not row.all() and row.any() for row in accepted)


@pytest.mark.parametrize("stable_for", [0, 1, 2, 3])
@pytest.mark.parametrize("below", [0.0, 0.3, 0.6, 1.5])
def test_a_block_ends_when_transformers_criterion_says_so(stable_for: int, below: float) -> None:
    steady = script(1, 3.0)
    steady[3:] = steady[3:4] * torch.linspace(1.0, 4.0, STEPS - 3)[:, None, None]
    for tables in (steady, script(2, 8.0)):
        denoiser = Script(tables)
        output = decoded(
            denoiser,
            2,
            max_denoising_steps=STEPS,
            stability_steps=stable_for,
            stability_entropy=below,
            **RENOISE,
        )
        steps = theirs(tables, 0.8, stable_for, below)[1] if below else STEPS
        assert output.num_forwards.tolist() == [steps, steps]


def test_some_criterion_ends_early_and_some_does_not() -> None:
    """The power of the test above: its cases reach all kinds of ends."""
    steady = script(1, 3.0)
    steady[3:] = steady[3:4] * torch.linspace(1.0, 4.0, STEPS - 3)[:, None, None]
    ends = {theirs(steady, 0.8, n, e)[1] for n in (0, 1, 2, 3) for e in (0.3, 0.6, 1.5)}
    assert len(ends) >= 3


def test_the_last_step_draws_every_token_from_its_law() -> None:
    tables = script(4, 1.0)
    output = decoded(Script(tables), 2000, max_denoising_steps=STEPS, **RENOISE)
    law = tables[-1].softmax(-1)
    for place in range(LENGTH):
        counts = torch.bincount(output.sequences[:, 1 + place], minlength=NUM_IDS)
        assert chi_square(counts, law[place]) < 13.82  # 2 degrees of freedom: p = 0.001


def test_noise_is_even_and_new_in_every_step() -> None:
    denoiser = Script(torch.zeros(STEPS, LENGTH, NUM_IDS, dtype=torch.float64))
    options = {"revision": "renoise", "unmasking_strategy": "static", "entropy_bound": 0.8}
    decoded(denoiser, 2000, max_denoising_steps=STEPS, **options)
    first, second = denoiser.seen[:2]
    for shown in (first, second):
        counts = torch.bincount(shown.flatten(), minlength=NUM_IDS)
        assert chi_square(counts, torch.full((NUM_IDS,), 1 / 3, dtype=torch.float64)) < 13.82
    assert float((first == second).double().mean()) == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("strategy", ["static", "sequential"])
def test_an_even_share_grows_by_the_same_number_in_every_step(strategy: str) -> None:
    """A kept position shows the same token in all rows (greedy); noise shows every id."""
    denoiser = Script(script(6, 2.0))
    options = {"unmasking_strategy": strategy, "stability_entropy": 0.0, "do_sample": False}
    decoded(denoiser, ROWS, revision="renoise", max_denoising_steps=LENGTH, **options)
    assert len(denoiser.seen) == LENGTH
    for step, shown in enumerate(denoiser.seen):
        is_kept = [len(set(shown[:, place].tolist())) == 1 for place in range(LENGTH)]
        assert sum(is_kept) == step


def test_without_revision_revealed_tokens_stay() -> None:
    tables = script(5, 2.0)
    denoiser = Script(tables)
    options = {"unmasking_strategy": "sequential", "max_denoising_steps": LENGTH}
    output = decoded(denoiser, 50, **options)
    for step in range(1, LENGTH):
        assert torch.equal(denoiser.seen[step][:, :step], output.sequences[:, 1 : 1 + step])
    law = tables[0, 0].softmax(-1)
    many = decoded(Script(tables), 2000, **options)
    assert chi_square(torch.bincount(many.sequences[:, 1], minlength=NUM_IDS), law) < 13.82


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, UniformDiffusion),
        ({"revision": "renoise"}, Renoising),
        ({"unmasking_strategy": "ancestral"}, Ancestral),
    ],
)
def test_options_name_the_loop(options: dict, kind: type) -> None:
    assert uniform_loop({**OPTIONS, **options}) is kind
