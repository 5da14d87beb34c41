"""The numbers of `unidiff bench adapt`: what counts as right, which threshold, which aims."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unidiff.bundled import bundled_checkpoint
from unidiff.data.sources.additions import additions
from unidiff.evaluation.adaptation import (
    AdaptationMeasurement,
    aims_of,
    best_threshold,
    heldout_windows,
    solve_sums,
    text_bits,
)
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.processor import UniDiffProcessor


@pytest.fixture(scope="module")
def processor() -> UniDiffProcessor:
    return UniDiffProcessor.from_pretrained(bundled_checkpoint())


class Solver:
    """Answers from a table, in two forwards each."""

    def __init__(self, answers: list[list[int]]) -> None:
        self.answers = answers

    def generate(self, prompts: torch.Tensor, **options: Any) -> SimpleNamespace:
        rows = [self.answers.pop(0) for _ in prompts]
        width = max(map(len, rows))
        padded = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        return SimpleNamespace(
            sequences=torch.cat([prompts, padded], dim=1),
            num_forwards=torch.full((len(rows),), 2),
            tokens_per_forward=torch.tensor([len(row) / 2 for row in rows]),
        )


def test_a_sum_is_right_with_its_last_digit_and_its_end(processor):
    pairs = additions(5, "heldout", 0)
    right = [[*processor.encoder.text(total).ids_L.tolist(), 3] for _, total in pairs]
    other = [[*right[1][:-2], right[1][-2] ^ 1, 3], right[2][:-1]]
    found = solve_sums(Solver([right[0], *other, right[3], right[4]]), processor, pairs, {}, 2)
    assert found["exact"] == 3 / 5
    assert found["num_sums"] == 5
    assert found["tokens_per_forward"] == pytest.approx((4 * 6 + 5) / 10)


def test_the_threshold_is_the_most_right_of_those_fast_enough():
    tried = [
        {"threshold": 0.5, "exact": 0.90, "tokens_per_forward": 5.0},
        {"threshold": 0.8, "exact": 0.97, "tokens_per_forward": 3.0},
        {"threshold": 0.9, "exact": 0.97, "tokens_per_forward": 2.5},
        {"threshold": 0.99, "exact": 1.0, "tokens_per_forward": 2.4},
    ]
    assert best_threshold(tried) == 0.9
    assert best_threshold(tried[3:]) == 0.99


@pytest.mark.parametrize(
    ("exact", "speed", "bits", "met"),
    [(0.98, 2.5, 2.0, [True] * 4), (0.96, 2.4, 2.2, [True, False, False, False])],
)
def test_aims_are_those_of_the_issue(exact, speed, bits, met):
    report = {
        "source": {"sums": {"exact": 0.985}},
        "adapted": {
            "sums": {"exact": exact, "tokens_per_forward": speed},
            "bits_per_byte": {"value": bits},
        },
        "scratch": {"bits_per_byte": {"value": 2.25}},
    }
    assert list(aims_of(report).values()) == met


@pytest.mark.parametrize("pattern", ["causal_context", "block_causal"])
def test_a_uniform_model_needs_the_same_bits_by_the_bound_and_by_reading(pattern, processor):
    layout = processor.layout
    config = UniDiffConfig(
        vocab_size=layout.num_ids,
        token_layout=layout.to_dict(),
        mask_token_id=layout.mask_token_id,
        attention_pattern=pattern,
        canvas_length=8,
        logits_shift=1,
        tie_word_embeddings=False,
    )
    model = UniDiffForBlockDiffusion(config).eval()
    torch.nn.init.zeros_(model.lm_head.weight)
    settings = AdaptationMeasurement(num_windows=4, length=24, num_samples=8)
    windows = heldout_windows(processor.tokenizer, settings)
    num_ids = int(layout.allowed_ids("text", layout.num_ids).sum())
    num_tokens = sum(len(ids) for ids in windows.ids)
    expected = num_tokens * math.log2(num_ids) / windows.num_bytes.sum()
    bound = text_bits(model, processor, windows, settings, is_bound=True)
    assert bound["value"] == pytest.approx(expected, rel=1e-5)
    if pattern == "causal_context":
        read = text_bits(model, processor, windows, settings, is_bound=False)
        assert read["value"] == pytest.approx(expected, rel=1e-5)
