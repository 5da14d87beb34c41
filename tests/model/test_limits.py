"""Lengths around the block's, ends anywhere, mask ids in prompts, few steps: in every mode."""

from typing import Any

import pytest
import torch
from small_decoding import (
    CACHED,
    CANVAS,
    PATTERNS,
    assert_rows_equal_alone,
    decode,
    prompts,
    responses,
    tiny_model,
)

from unidiff.generation.options import DECODING_MODES, UNMASKING_STRATEGIES
from unidiff.model.modeling import UniDiffForBlockDiffusion

MASK = 1
LIMITS = [1, CANVAS - 1, CANVAS, CANVAS + 1]
WAYS: list[tuple[str, dict[str, Any]]] = [
    *((p, {"unmasking_strategy": name}) for p in PATTERNS for name in UNMASKING_STRATEGIES),
    *(
        ("causal_context", {"decoding_mode": mode})
        for mode in DECODING_MODES
        if mode != "diffusion"
    ),
]


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    return {pattern: tiny_model(pattern) for pattern in PATTERNS}


def name_of(value: Any) -> str:
    """A test's name from its parameters."""
    return value if isinstance(value, str) else "-".join(value.values())


@pytest.mark.parametrize(("pattern", "way"), WAYS, ids=name_of)
def test_limits_around_the_block_with_few_steps_and_mask_ids_in_the_prompt(
    pattern: str, way: dict, models: dict
) -> None:
    ids, mask = prompts([8, 3, 6, 5])
    ids[:, -2] = MASK
    options = {"max_new_tokens": LIMITS, "seed": 4, "max_denoising_steps": 2, **way}
    output = decode(models[pattern], ids, mask, **options)
    assert torch.equal(output.sequences[:, :8], ids)
    assert [len(row) for row in responses(output, 8)] == LIMITS
    assert output.finish_reason == ["length"] * 4
    assert all(MASK not in row for row in responses(output, 8))
    assert (output.logprobs != 0).sum(1).tolist() == LIMITS
    if "decoding_mode" not in way:  # two steps a block; a prompt may end inside the first
        num_blocks = 1 if pattern == "full" else 2
        windows = [2 if pattern == "full" and n > CANVAS else num_blocks for n in LIMITS]
        assert all(n <= 2 * w for n, w in zip(output.num_forwards.tolist(), windows, strict=True))
    if pattern in CACHED:
        again = decode(models[pattern], ids, mask, cache_reuse="none", **options)
        assert torch.equal(again.sequences, output.sequences)
        torch.testing.assert_close(again.logprobs, output.logprobs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("pattern", "way"), WAYS, ids=name_of)
def test_an_end_token_anywhere_cuts_the_response_there(
    pattern: str, way: dict, models: dict
) -> None:
    """Row i ends at its token i, whenever that is revealed; nothing before it changes."""
    ids, mask = prompts([5])
    length = 2 * CANVAS + 1
    options = {"max_new_tokens": length, "max_denoising_steps": 3, **way}
    [free] = responses(decode(models[pattern], ids, mask, seed=[9], **options), 5)
    output = decode(
        models[pattern],
        ids.expand(length, -1),
        mask.expand(length, -1),
        seed=[9] * length,
        **options,
        eos_token_id=[[token] for token in free],
    )
    expected = [free[: free.index(token) + 1] for token in free]
    assert responses(output, 5) == expected
    ends = ["stop"] * length
    assert output.finish_reason == ends


@pytest.mark.parametrize("mode", ["ar", "self_speculative", "auto"])
@pytest.mark.parametrize("change", ["padding", "chunks", "recomputed", "turn"])
def test_sampled_modes_keep_the_invariances(mode: str, change: str, models: dict) -> None:
    model = models["causal_context"]
    options: dict[str, Any] = {"decoding_mode": mode, "max_new_tokens": 11}
    ids, mask = prompts([5, 11], "middle")
    one = decode(model, ids, mask, seed=[1, 2], **options)
    if change == "padding":
        bare = ids[:1][mask[:1].bool()][None]
        other = decode(model, bare, torch.ones_like(bare), seed=[1], **options)
        assert responses(other, 5)[0] == responses(one, 11)[0]
        torch.testing.assert_close(other.logprobs, one.logprobs[:1], rtol=0, atol=1e-9)
        return
    more: dict[str, Any] = {"chunks": {"prefill_chunk_length": 4}}.get(change, {})
    if change == "recomputed":
        more = {"cache_reuse": "none"}
    if change == "turn":
        more = {"past_key_values": one.past_key_values}
    other = decode(model, ids, mask, seed=[1, 2], **options, **more)
    assert torch.equal(other.sequences, one.sequences)
    torch.testing.assert_close(other.logprobs, one.logprobs, rtol=0, atol=1e-9)


def test_sampled_ar_rows_are_independent(models: dict) -> None:
    own = {"temperature": [0.5, 1.0, 2.0], "max_new_tokens": [9, 4, 12]}
    shared = {"decoding_mode": "ar", "top_k": 30}
    assert_rows_equal_alone(models["causal_context"], [6, 10, 3], 5, shared, own)


@pytest.mark.parametrize(
    ("pattern", "options", "error", "message"),
    [
        ("block_causal", {"block_delimiters": [5]}, ValueError, "without a trained grid"),
        ("block_causal", {"block_length": 4}, ValueError, "trained grid 6"),
        ("full", {"cache_reuse": "exact"}, ValueError, "impossible with attention_pattern='full'"),
        ("full", {"decoding_mode": "ar"}, ValueError, "attention_pattern='causal_context'"),
        ("causal_context", {"confidence_threshold": 0.0}, ValueError, r"in \(0, 1\], got 0"),
        ("causal_context", {"confidence_threshold": 1.01}, ValueError, r"in \(0, 1\], got 1.01"),
        ("causal_context", {"revision": "edit"}, ValueError, "trained_on_visible=False"),
        (
            "causal_context",
            {"canvas": torch.full((1, 3), 9), "pinned_mask": torch.ones(1, 4, dtype=torch.bool)},
            ValueError,
            r"pinned_mask must have shape \(1, 3\)",
        ),
        ("causal_context", {"logits_processor": 5}, TypeError, "a list of callables, got 5"),
        ("causal_context", {"logits_processor": [5]}, TypeError, "a list of callables, got"),
        ("causal_context", {"stopping_criteria": 5}, TypeError, "a list of callables, got 5"),
        (
            "causal_context",
            {"position_ids": torch.tensor([[0, 1, -2, 3]])},
            ValueError,
            "position_ids must be >= 0, got -2",
        ),
    ],
)
def test_contradictions_raise_before_the_first_forward(
    pattern: str,
    options: dict,
    error: type,
    message: str,
    models: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forward(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a forward ran")

    monkeypatch.setattr(models[pattern].model, "forward", forward)
    ids, mask = prompts([4])
    with pytest.raises(error, match=message):
        decode(models[pattern], ids, mask, **options)
