"""Guidance under every attention pattern, and in a part of the steps only."""

from typing import Any

import pytest
import torch
from small_decoding import CACHED, CANVAS, PATTERNS, decode, prompts, responses, tiny_model
from torch import Tensor

from unidiff.model.modeling import UniDiffForBlockDiffusion

# Lengths that leave the same rest modulo the grid of 6, so that they serve every pattern.
LENGTHS = [9, 3, 15]
SHORT, LONG = torch.tensor([[7, 8, 9]]), torch.arange(10, 31)[None]
GUIDED: dict[str, Any] = {"guidance_scale": [1.5, 3.0], "negative_input_ids": [SHORT, LONG]}
SOMETIMES: list[dict[str, Any]] = [
    {"guidance_interval": [0.3, 0.7]},
    {"guidance_schedule": "rising"},
    {"guidance_schedule": "falling", "guidance_interval": [0.5, 1.0]},
    {"guidance_refresh": 2},
    {"guidance_refresh": 3, "guidance_interval": [0.2, 1.0]},
]


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    return {pattern: tiny_model(pattern) for pattern in PATTERNS}


def first_logits(model: Any, ids: Tensor, steps: int = 1, **options: Any) -> Tensor:
    """Logits that the first step reads, kept by a processor that changes nothing."""
    seen = []

    def keep(known: Tensor, scores: Tensor) -> Tensor:
        seen.append(scores)
        return scores

    settings = {"max_new_tokens": 3, "max_denoising_steps": steps, "seed": 1, **options}
    decode(model, ids, torch.ones_like(ids), logits_processor=[keep], **settings)
    return seen[0]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_guided_logits_are_the_mixture_of_each_prompts_own(pattern: str, models: dict) -> None:
    ids, _ = prompts([9])
    model = models[pattern]
    whole, none, part = (first_logits(model, prompt) for prompt in (ids, SHORT, LONG))
    expected = none + 1.5 * (part - none) + 3.0 * (whole - part)
    guided = first_logits(model, ids, **GUIDED)
    allowed = whole > -torch.inf
    assert torch.equal(guided > -torch.inf, allowed)
    torch.testing.assert_close(guided[allowed], expected[allowed], rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_weaker_prompts_that_are_the_prompt_change_nothing(pattern: str, models: dict) -> None:
    ids, mask = prompts([9])
    options = {"max_new_tokens": 14, "seed": 3}
    plain = decode(models[pattern], ids, mask, **options)
    same = {"guidance_scale": [4.0, 0.3], "negative_input_ids": [ids, ids]}
    guided = decode(models[pattern], ids, mask, **options, **same)
    assert torch.equal(plain.sequences, guided.sequences)
    off = decode(models[pattern], ids, mask, **options, **{**GUIDED, "guidance_scale": 1.0})
    assert torch.equal(plain.sequences, off.sequences)
    assert torch.equal(plain.num_forwards, off.num_forwards)


@pytest.mark.parametrize("change", [{}, *SOMETIMES], ids=str)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_batched_row_equals_the_row_alone(pattern: str, change: dict, models: dict) -> None:
    ids, mask = prompts(LENGTHS)
    own: dict[str, Any] = {"max_new_tokens": [16, 5, 9], "max_denoising_steps": [5, None, 4]}
    shared = {**GUIDED, **change, "unmasking_strategy": "static"}
    together = decode(models[pattern], ids, mask, seed=3, **shared, **own)
    for row, length in enumerate(LENGTHS):
        bare = ids[row : row + 1, ids.shape[1] - length :]
        alone = decode(
            models[pattern],
            bare,
            torch.ones_like(bare),
            seed=together.row_seeds[row],
            **shared,
            **{name: values[row] for name, values in own.items()},
        )
        assert responses(alone, length)[0] == responses(together, ids.shape[1])[row]
        assert alone.num_forwards[0] == together.num_forwards[row]


@pytest.mark.parametrize("change", [{"fuse_commit": False}, {"cache_reuse": "none"}], ids=str)
@pytest.mark.parametrize("guidance", [{}, *SOMETIMES], ids=str)
@pytest.mark.parametrize("pattern", CACHED)
def test_cache_and_fusing_change_nothing(
    pattern: str, guidance: dict, change: dict, models: dict
) -> None:
    ids, mask = prompts(LENGTHS[:2])
    options: dict[str, Any] = {"max_new_tokens": [20, 9], "seed": 5, **GUIDED, **guidance}
    options |= {"max_denoising_steps": [4, 3], "unmasking_strategy": "static"}
    one = decode(models[pattern], ids, mask, **options)
    other = decode(models[pattern], ids, mask, **options, **change)
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_padding_of_negative_prompts_is_not_seen(pattern: str, models: dict) -> None:
    ids, mask = prompts(LENGTHS)
    options: dict[str, Any] = {"max_new_tokens": 8, "seed": 2, "guidance_scale": 2.0}
    bare = decode(models[pattern], ids, mask, negative_input_ids=SHORT, **options)
    padded = torch.full((1, 8), 40)
    padded[0, [1, 4, 6]] = SHORT[0]
    real = torch.zeros(1, 8, dtype=torch.int64)
    real[0, [1, 4, 6]] = 1
    other = decode(
        models[pattern],
        ids,
        mask,
        negative_input_ids=padded,
        negative_attention_mask=real,
        **options,
    )
    assert torch.equal(bare.sequences, other.sequences)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pinned_tokens_reach_every_branch(pattern: str, models: dict) -> None:
    """A canvas in the grid's last three places; without its pinned token the logits differ."""
    ids, _ = prompts([9])
    canvas, found = torch.tensor([[20, 21, 22]]), []
    for pinned in ([True, False, False], [False, False, False]):
        given = {"canvas": canvas, "pinned_mask": torch.tensor([pinned]), "max_new_tokens": None}
        logits = [first_logits(models[pattern], p, **given) for p in (ids, SHORT, LONG)]
        mixed = logits[1] + 1.5 * (logits[2] - logits[1]) + 3.0 * (logits[0] - logits[2])
        guided = first_logits(models[pattern], ids, **given, **GUIDED)
        allowed = guided > -torch.inf
        torch.testing.assert_close(guided[allowed], mixed[allowed], rtol=0, atol=1e-9)
        found.append(guided[-2:][allowed[-2:]])
    assert not torch.allclose(*found)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_step_outside_the_interval_costs_one_forward(pattern: str, models: dict) -> None:
    """Six steps: progress 0, 0.2, ... 1, of which the interval holds the third and fourth."""
    ids, mask = prompts([3])
    options: dict[str, Any] = {"max_new_tokens": 3, "max_denoising_steps": 6, "seed": 1}
    never = {"unmasking_strategy": "remdm", "remdm_eta": 0.0}  # uses all its steps
    counts = [
        int(decode(models[pattern], ids, mask, **options, **never, **change).num_forwards)
        for change in ({}, GUIDED, {**GUIDED, "guidance_interval": [0.3, 0.7]})
    ]
    assert counts == [6, 18, 10]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_logits_outside_the_interval_are_the_unguided_ones(pattern: str, models: dict) -> None:
    ids, _ = prompts([9])
    late = {**GUIDED, "guidance_interval": [0.5, 1.0]}
    plain = first_logits(models[pattern], ids, steps=3)
    assert torch.equal(first_logits(models[pattern], ids, steps=3, **late), plain)
    early = {**GUIDED, "guidance_interval": [0.0, 0.5]}
    assert not torch.equal(first_logits(models[pattern], ids, steps=3, **early), plain)


@pytest.mark.parametrize("change", [SOMETIMES[0], SOMETIMES[3]], ids=str)
def test_weights_that_predict_successors_may_skip_guidance_too(change: dict) -> None:
    """Their branches keep their seats, for joined caches forget the reading of the last token."""
    model = tiny_model("causal_context", logits_shift=1)
    ids, mask = prompts(LENGTHS[:2])
    options: dict[str, Any] = {"max_new_tokens": 14, "seed": 5, **GUIDED, **change}
    options |= {"max_denoising_steps": 4, "unmasking_strategy": "static"}
    one = decode(model, ids, mask, **options)
    other = decode(model, ids, mask, **options, cache_reuse="none")
    assert torch.equal(one.sequences, other.sequences)


@pytest.mark.parametrize(
    ("pattern", "options", "error", "message"),
    [
        (
            "block_causal",
            {"guidance_scale": 2.0, "negative_input_ids": torch.tensor([[7, 8]])},
            ValueError,
            "lengthen the negative prompt by 1 tokens",
        ),
        (
            "causal_context",
            {**GUIDED, "guidance_interval": [0.0, 0.5], "decoding_mode": "ar"},
            ValueError,
            "guidance_interval counts denoising steps",
        ),
        ("full", {**GUIDED, "guidance_interval": [0.7, 0.5]}, ValueError, "start <= stop"),
        ("full", {**GUIDED, "guidance_interval": [0.0, 1.5]}, ValueError, r"in \[0, 1\]"),
        ("full", {**GUIDED, "guidance_interval": 0.5}, TypeError, "two numbers"),
    ],
)
def test_impossible_guidance_is_refused(
    pattern: str, options: dict, error: type, message: str, models: dict
) -> None:
    ids, mask = prompts([CANVAS + 3])
    with pytest.raises(error, match=message):
        decode(models[pattern], ids, mask, **options)
