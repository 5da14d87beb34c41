"""Sub-blocks and blocks that end at delimiters: the invariances hold for them as well."""

from typing import Any

import pytest
import torch
from small_decoding import (
    CACHED,
    CANVAS,
    PATTERNS,
    VOCAB,
    assert_rows_equal_alone,
    decode,
    prompts,
    responses,
    tiny_model,
)

from unidiff.generation.blocks import Blocks
from unidiff.model.modeling import UniDiffForBlockDiffusion

ADAPTIVE = {"block_delimiters": list(range(4, 40)), "delimiter_threshold": 0.02}
CASES = [
    ("causal_context", ADAPTIVE),
    ("causal_context", {**ADAPTIVE, "delimiter_window": 9}),
    ("causal_context", {**ADAPTIVE, "sub_block_length": 2}),
    ("causal_context", {"sub_block_length": 4}),
    ("block_causal", {"sub_block_length": 2}),
    ("full", ADAPTIVE),
]


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    return {pattern: tiny_model(pattern) for pattern in PATTERNS}


@pytest.mark.parametrize(("pattern", "blocks"), CASES)
def test_batched_row_equals_the_row_alone(pattern: str, blocks: dict, models: dict) -> None:
    own = {"max_new_tokens": [20, 5, 13], "confidence_threshold": [0.2, 0.9, 0.05]}
    assert_rows_equal_alone(models[pattern], [9, 3, 14], 3, blocks, own)


@pytest.mark.parametrize("change", [{"fuse_commit": False}, {"cache_reuse": "none"}])
@pytest.mark.parametrize(("pattern", "blocks"), [c for c in CASES if c[0] in CACHED])
def test_cache_and_fusing_change_nothing(
    pattern: str, blocks: dict, change: dict, models: dict
) -> None:
    ids, mask = prompts([7, 13])
    options: dict[str, Any] = {"max_new_tokens": [20, 9], "seed": 5, **blocks}
    one = decode(models[pattern], ids, mask, **options)
    other = decode(models[pattern], ids, mask, **options, **change)
    assert torch.equal(one.sequences, other.sequences)
    torch.testing.assert_close(one.logprobs, other.logprobs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pattern", ["causal_context", "full"])
def test_delimiters_that_are_never_sure_leave_blocks_fixed(pattern: str, models: dict) -> None:
    ids, mask = prompts([7, 13])
    options = {"max_new_tokens": [20, 9], "seed": 5}
    fixed = decode(models[pattern], ids, mask, **options)
    never = {"block_delimiters": list(range(4, VOCAB)), "delimiter_threshold": 1.0}
    adaptive = decode(models[pattern], ids, mask, **options, **never)
    assert torch.equal(fixed.sequences, adaptive.sequences)
    assert torch.equal(fixed.num_forwards, adaptive.num_forwards)


@pytest.mark.parametrize("pattern", ["causal_context", "full"])
def test_blocks_end_where_the_first_step_says(
    pattern: str, models: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step for each block: the forwards of a row count its blocks."""
    chosen = []

    def lengths(self: Blocks, *args: Any) -> torch.Tensor:
        length_B = original(self, *args)
        chosen.append(length_B.tolist()[0])
        return length_B

    original = Blocks.lengths
    monkeypatch.setattr(Blocks, "lengths", lengths)
    ids, mask = prompts([7])
    options = {"max_new_tokens": 24, "seed": 5, "max_denoising_steps": 1, **ADAPTIVE}
    output = decode(models[pattern], ids, mask, **options)
    assert min(chosen) < CANVAS
    assert sum(chosen[:-1]) < 24 <= sum(chosen)
    assert output.num_forwards.tolist() == [len(chosen)]


class Watch:
    """A streamer that keeps every draft."""

    def __init__(self) -> None:
        self.drafts: list[list[int]] = []

    def put(self, value: torch.Tensor) -> None: ...

    def put_draft(self, value: torch.Tensor) -> None:
        self.drafts.append(value.tolist())

    def end(self) -> None: ...


@pytest.mark.parametrize("pattern", CACHED)
def test_a_sub_block_is_revealed_before_the_next(pattern: str, models: dict) -> None:
    ids, mask = prompts([CANVAS])
    options = {"max_new_tokens": CANVAS, "sub_block_length": 2, "max_denoising_steps": 1}
    watch = Watch()
    output = decode(models[pattern], ids, mask, streamer=watch, **options)
    assert [len(draft) for draft in watch.drafts] == [2, 2, 2]
    assert [t for draft in watch.drafts for t in draft] == responses(output, CANVAS)[0]


def test_sub_blocks_are_counted_from_the_beginning_of_their_block(models: dict) -> None:
    ids, mask = prompts([CANVAS + 1])  # a block opens with one token of the prompt
    options = {"max_new_tokens": CANVAS - 1, "sub_block_length": 2, "max_denoising_steps": 1}
    watch = Watch()
    decode(models["block_causal"], ids, mask, streamer=watch, **options)
    assert [len(draft) for draft in watch.drafts] == [1, 2, 2]


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("block_causal", {"block_delimiters": [5]}, "without a trained grid"),
        ("full", {"sub_block_length": 2}, "block_length itself"),
        ("full", {"first_alone": True}, "never finishes"),
        ("causal_context", {"sub_block_length": 7}, "longer than the block of 6"),
    ],
)
def test_blocks_that_cannot_be_are_refused(
    pattern: str, options: dict, message: str, models: dict
) -> None:
    ids, mask = prompts([4])
    with pytest.raises(ValueError, match=message):
        decode(models[pattern], ids, mask, **options)
