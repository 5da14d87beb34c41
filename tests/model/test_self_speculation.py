"""Self-speculation on a model: greedy or sampled, it is `ar` token for token."""

import pytest
import torch
from small_decoding import assert_rows_equal_alone, decode, prompts, responses, tiny_model

from unidiff.model.modeling import UniDiffForBlockDiffusion

SPECULATIVE = ["self_speculative", "auto"]


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    return {"causal_context": tiny_model("causal_context")}


@pytest.mark.parametrize("draft_length", [1, 3, 8])
@pytest.mark.parametrize("mode", SPECULATIVE)
def test_greedy_self_speculation_equals_ar_token_for_token(
    mode: str, draft_length: int, models: dict
) -> None:
    ids, mask = prompts([6, 10, 3])
    options = {"max_new_tokens": [9, 1, 12], "do_sample": False}
    model = models["causal_context"]
    expected = decode(model, ids, mask, decoding_mode="ar", **options)
    options |= {"decoding_mode": mode, "draft_length": draft_length}
    for more in ({}, {"cache_reuse": "none"}, {"prefill_chunk_length": 4}):
        output = decode(model, ids, mask, **options, **more)
        assert torch.equal(output.sequences, expected.sequences)
        torch.testing.assert_close(output.logprobs, expected.logprobs, rtol=0, atol=1e-9)
        assert output.finish_reason == expected.finish_reason


@pytest.mark.parametrize("mode", SPECULATIVE)
@pytest.mark.parametrize(
    "more",
    [
        {"draft_lookup": False},
        {"top_k": 5, "top_p": 0.9},
        {"draft_length": 5, "cache_reuse": "none"},
        {"suppress_eos_before": 4},
    ],
    ids=str,
)
def test_sampled_self_speculation_equals_ar_token_for_token(
    mode: str, more: dict, models: dict
) -> None:
    ids, mask = prompts([6, 10, 3])
    options = {"temperature": [0.2, 0.7, 1.0], "max_new_tokens": [30, 7, 25], "seed": 11}
    options |= {"do_sample": True, **more}
    expected = decode(models["causal_context"], ids, mask, decoding_mode="ar", **options)
    output = decode(models["causal_context"], ids, mask, decoding_mode=mode, **options)
    assert torch.equal(output.sequences, expected.sequences)
    torch.testing.assert_close(output.logprobs, expected.logprobs, rtol=0, atol=1e-9)


def test_a_row_that_repeats_itself_is_drafted_from_what_it_said(models: dict) -> None:
    ids, mask = prompts([6])
    options = {"max_new_tokens": 60, "do_sample": False, "eos_token_id": -1}
    mode = "self_speculative"
    alone = decode(models["causal_context"], ids, mask, decoding_mode=mode, **options)
    options["draft_lookup"] = False
    canvas = decode(models["causal_context"], ids, mask, decoding_mode=mode, **options)
    assert torch.equal(alone.sequences, canvas.sequences)
    assert alone.num_forwards[0] < canvas.num_forwards[0]


@pytest.mark.parametrize("mode", SPECULATIVE)
def test_self_speculation_stops_where_ar_stops(mode: str, models: dict) -> None:
    ids, mask = prompts([6, 9])
    options = {"max_new_tokens": 14, "do_sample": False}
    free = decode(models["causal_context"], ids, mask, decoding_mode="ar", **options)
    for place in (0, 4, 13):
        options["eos_token_id"] = responses(free, 9)[0][place]
        expected = decode(models["causal_context"], ids, mask, decoding_mode="ar", **options)
        output = decode(models["causal_context"], ids, mask, decoding_mode=mode, **options)
        assert torch.equal(output.sequences, expected.sequences)
        assert output.finish_reason == expected.finish_reason


@pytest.mark.parametrize("mode", SPECULATIVE)
def test_sampled_self_speculation_does_not_depend_on_the_batch(mode: str, models: dict) -> None:
    own = {"temperature": [0.5, 1.0, 2.0], "max_new_tokens": [9, 4, 12]}
    shared = {"decoding_mode": mode}
    assert_rows_equal_alone(models["causal_context"], [6, 10, 3], 5, shared, own)


@pytest.mark.parametrize("mode", SPECULATIVE)
def test_the_second_turn_after_self_speculation_equals_one_from_scratch(
    mode: str, models: dict
) -> None:
    model = models["causal_context"]
    ids, mask = prompts([6])
    options = {"decoding_mode": mode, "max_new_tokens": 9, "seed": 2}
    first = decode(model, ids, mask, **options)
    longer = torch.cat([first.sequences, ids], dim=1)
    everything = torch.ones_like(longer)
    scratch = decode(model, longer, everything, **options)
    reused = decode(model, longer, everything, past_key_values=first.past_key_values, **options)
    assert torch.equal(scratch.sequences, reused.sequences)
    torch.testing.assert_close(scratch.logprobs, reused.logprobs, rtol=0, atol=1e-9)
