"""With a perfect model, decoding draws from the data law: chi-square at fixed seeds.

The joint of three tokens of three ids is a table; the denoiser gives its true conditionals. One
token per step, in whatever order the strategy picks, must reproduce the table; several per step
must not (that is the test's own power).
"""

from typing import Any

import numpy as np
import pytest
import torch

from unidiff.generation.generate import generate
from unidiff.generation.inputs import GenerationInputs
from unidiff.generation.options import DECODING_MODES, OPTIONS, UNMASKING_STRATEGIES

NUM_ROWS = 8_000
LIMIT = 54.05  # chi-square with 26 degrees of freedom: p = 0.001
# Each strategy limited to one token a step; remdm, which gives tokens back, is in test_revision.py.
ONE_TOKEN_A_STEP: list[dict[str, Any]] = [
    {"unmasking_strategy": "static"},
    {"unmasking_strategy": "static", "confidence_metric": "margin"},
    {"unmasking_strategy": "static", "confidence_metric": "entropy"},
    {"unmasking_strategy": "sequential"},
    {"unmasking_strategy": "random"},
    {"unmasking_strategy": "cosine", "confidence_noise": 1.0},
    {"unmasking_strategy": "threshold", "confidence_threshold": 1.0},
    {"unmasking_strategy": "dynamic", "confidence_threshold": 1.0},
    {"unmasking_strategy": "relative_threshold", "confidence_threshold": 1.0},
    {"unmasking_strategy": "factor", "factor": 1e-9},
    {"unmasking_strategy": "frechet", "frechet_margin": 1.0},
    {"unmasking_strategy": "entropy_bound", "entropy_bound": 0.0},
    {"unmasking_strategy": "ascending", "block_length": 1},
    {"unmasking_strategy": "timetable"},
    {"unmasking_strategy": "first_hitting"},
    {
        "unmasking_strategy": "hierarchy",
        "confidence_threshold": 1.0,
        "hierarchy_threshold": 1.0,
    },
    {"unmasking_strategy": "static", "eos_early_rejection": 0.1},
    {"unmasking_strategy": "static", "block_length": 2},
    {"unmasking_strategy": "random", "block_length": 1, "fuse_commit": False},
    {"unmasking_strategy": "static", "block_length": 2, "cache_reuse": "none"},
    {"decoding_mode": "ar"},
    {"decoding_mode": "ar_text"},
    {"decoding_mode": "self_speculative"},
    {"decoding_mode": "self_speculative", "draft_length": 1},
    {"decoding_mode": "auto", "draft_length": 3, "cache_reuse": "none"},
]


def sampled_counts(denoiser: Any, **options: Any) -> np.ndarray:
    """Counts of the 27 responses in one sampled batch."""
    settings = {**OPTIONS, "do_sample": True, "max_new_tokens": 3, "seed": 20, **options}
    prompts = torch.zeros(NUM_ROWS, 1, dtype=torch.int64)
    output = generate(denoiser, settings, GenerationInputs(input_ids=prompts))
    tokens = output.sequences[:, 1:].numpy()
    return np.bincount(tokens @ np.array([9, 3, 1]), minlength=27)


def chi_square(counts: np.ndarray, denoiser: Any) -> float:
    """Pearson's statistic against the table."""
    expected = denoiser.joint.numpy().reshape(-1) * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize(
    "options",
    ONE_TOKEN_A_STEP,
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_one_token_per_step_draws_from_the_data_law(options: dict, table_denoiser: Any) -> None:
    counts = sampled_counts(table_denoiser, **options)
    assert counts.sum() == NUM_ROWS
    assert chi_square(counts, table_denoiser) < LIMIT
    # Total variation at the sampling floor: the mean of an ideal sampler, plus a half.
    joint = table_denoiser.joint.numpy().reshape(-1)
    floor = np.sqrt(2 * joint * (1 - joint) / (np.pi * NUM_ROWS)).sum() / 2
    assert np.abs(counts / NUM_ROWS - joint).sum() / 2 < 1.5 * floor


def test_no_strategy_and_no_mode_is_left_out() -> None:
    strategies = {options.get("unmasking_strategy") for options in ONE_TOKEN_A_STEP}
    assert set(UNMASKING_STRATEGIES) - {"remdm"} <= strategies
    modes = {options.get("decoding_mode", "diffusion") for options in ONE_TOKEN_A_STEP}
    assert set(DECODING_MODES) == modes


def test_ranking_by_the_drawn_tokens_probability_is_biased(table_denoiser: Any) -> None:
    options = {"unmasking_strategy": "static", "confidence_metric": "sampled_prob"}
    assert chi_square(sampled_counts(table_denoiser, **options), table_denoiser) > 10 * LIMIT


@pytest.mark.parametrize("strategy", ["static", "random", "sequential", "first_hitting"])
def test_several_tokens_per_step_do_not(strategy: str, table_denoiser: Any) -> None:
    counts = sampled_counts(table_denoiser, unmasking_strategy=strategy, max_denoising_steps=1)
    assert chi_square(counts, table_denoiser) > 100 * LIMIT


def test_temperature_sharpens_the_first_conditional(table_denoiser: Any) -> None:
    counts = sampled_counts(table_denoiser, unmasking_strategy="sequential", temperature=0.5)
    marginal = table_denoiser.joint.sum((1, 2)).numpy() ** 2
    share = counts.reshape(3, 9).sum(1) / NUM_ROWS
    assert share == pytest.approx(marginal / marginal.sum(), abs=0.02)


def test_greedy_is_the_likeliest_path(table_denoiser: Any) -> None:
    counts = sampled_counts(table_denoiser, unmasking_strategy="sequential", do_sample=False)
    joint = table_denoiser.joint
    first = int(joint.sum((1, 2)).argmax())
    second = int(joint[first].sum(1).argmax())
    third = int(joint[first, second].argmax())
    assert counts[first * 9 + second * 3 + third] == NUM_ROWS


def test_ranking_ignores_the_token_that_will_be_drawn(table_denoiser: Any) -> None:
    """The first position revealed is the most certain one, whatever the random numbers say."""
    confidence = table_denoiser.log_conditional[-1].exp().amax(-1)
    best = int(confidence.argmax())
    seen = []

    class Watched(type(table_denoiser)):
        def probe(self, cache: Any, canvas: Any, **kwargs: Any) -> torch.Tensor:
            seen.append(kwargs["logits_at_BK"].clone())
            return super().probe(cache, canvas, **kwargs)

    sampled_counts(Watched(table_denoiser.joint), unmasking_strategy="static")
    assert not seen[1][:, best].any()
    others = [position for position in range(3) if position != best]
    assert seen[1][:, others].all()
