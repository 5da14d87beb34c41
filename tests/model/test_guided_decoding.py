"""Guidance on a model: every branch is cached exactly, and rows stay independent."""

from typing import Any

import pytest
import torch
from small_decoding import CANVAS, assert_rows_equal_alone, decode, prompts, tiny_model

from unidiff.model.modeling import UniDiffForBlockDiffusion

CASES = [
    (1, {"guidance_scale": 2.5}),
    (1, {"guidance_scale": 2.5, "guidance_schedule": "rising"}),
    (2, {"guidance_scale": [1.5, 3.0]}),
    (2, {"guidance_scale": [1.5, 3.0], "decoding_mode": "ar"}),
    (2, {"guidance_scale": [1.5, 3.0], "decoding_mode": "self_speculative"}),
]


@pytest.fixture(scope="module")
def model() -> UniDiffForBlockDiffusion:
    return tiny_model("causal_context")


def negatives(count: int) -> dict[str, Any]:
    """Prompts of weaker conditions, of different lengths."""
    ids = [torch.tensor([[7, 8, 9]]), torch.tensor([[30, 31, 32, 33, 34]])]
    return {"negative_input_ids": ids[:count]}


@pytest.mark.parametrize("change", [{"fuse_commit": False}, {"cache_reuse": "none"}])
@pytest.mark.parametrize(("count", "guidance"), CASES)
def test_cache_and_fusing_change_nothing(
    count: int, guidance: dict, change: dict, model: UniDiffForBlockDiffusion
) -> None:
    ids, mask = prompts([7, 13])
    options: dict[str, Any] = {"max_new_tokens": [20, 9], "seed": 5, **guidance, **negatives(count)}
    one = decode(model, ids, mask, **options)
    other = decode(model, ids, mask, **options, **change)
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("count", "guidance"), CASES)
def test_batched_row_equals_the_row_alone(
    count: int, guidance: dict, model: UniDiffForBlockDiffusion
) -> None:
    shared = {**guidance, **negatives(count)}
    assert_rows_equal_alone(model, [9, 3, 14], 3, shared, {"max_new_tokens": [20, 5, 13]})


def test_every_branch_counts_as_a_forward(model: UniDiffForBlockDiffusion) -> None:
    ids, mask = prompts([5])
    options: dict[str, Any] = {"max_new_tokens": CANVAS, "max_denoising_steps": 2}
    options["unmasking_strategy"] = "static"
    counts = [
        int(decode(model, ids, mask, guidance_scale=scale, **negatives(n), **options).num_forwards)
        for n, scale in ((0, 1.0), (1, 2.0), (2, [2.0, 2.0]))
    ]
    assert counts == [2, 4, 6]


def test_weaker_branches_that_are_the_prompt_change_nothing(
    model: UniDiffForBlockDiffusion,
) -> None:
    ids, mask = prompts([5])
    options = {"max_new_tokens": 14, "seed": 3}
    plain = decode(model, ids, mask, **options)
    same = {"guidance_scale": [4.0, 0.3], "negative_input_ids": [ids, ids]}
    guided = decode(model, ids, mask, **options, **same)
    assert torch.equal(plain.sequences, guided.sequences)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"guidance_scale": 2.0}, ValueError, "needs negative_input_ids"),
        ({"guidance_scale": [2.0, 3.0], **negatives(1)}, ValueError, "each of its 2 scales"),
        ({"guidance_scale": [2.0, -1.0], **negatives(2)}, ValueError, "guidance_scale must be"),
        ({"guidance_scale": []}, TypeError, "guidance_scale must be a number"),
        ({"guidance_scale": 2.0, "negative_input_ids": [[1, 2]]}, TypeError, "must be a tensor"),
    ],
)
def test_impossible_guidance_is_refused(
    options: dict, error: type, message: str, model: UniDiffForBlockDiffusion
) -> None:
    ids, mask = prompts([4])
    with pytest.raises(error, match=message):
        decode(model, ids, mask, **options)
