"""The invariance table of DESIGN section 6: how decoding is run must not change its result.

The models are those of small_decoding.py; self-speculation and blocks have files of their own.
"""

from typing import Any

import numpy as np
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
    run_of,
    tiny_model,
)
from torch import Tensor

from unidiff.generation.options import UNMASKING_STRATEGIES
from unidiff.model.denoiser import ModelDenoiser
from unidiff.model.masks import Stream, concatenated_mask, full_mask
from unidiff.model.modeling import UniDiffForBlockDiffusion


@pytest.fixture(scope="module")
def models() -> dict[str, UniDiffForBlockDiffusion]:
    return {pattern: tiny_model(pattern) for pattern in PATTERNS}


@pytest.mark.parametrize("strategy", UNMASKING_STRATEGIES)
@pytest.mark.parametrize("pattern", CACHED)
def test_fused_commit_equals_separate_commit(pattern: str, strategy: str, models: dict) -> None:
    ids, mask = prompts([7, 13, 4])
    options = {"max_new_tokens": [25, 9, 18], "unmasking_strategy": strategy, "seed": 5}
    options["max_denoising_steps"] = 4
    fused = decode(models[pattern], ids, mask, **options)
    separate = decode(models[pattern], ids, mask, fuse_commit=False, **options)
    assert torch.equal(fused.sequences, separate.sequences)
    torch.testing.assert_close(fused.logprobs, separate.logprobs, rtol=0, atol=1e-10)
    assert (separate.num_forwards > fused.num_forwards).all()
    one, other = fused.past_key_values, separate.past_key_values
    assert one.token_ids == other.token_ids
    assert one.tail == other.tail
    for layer in range(models[pattern].config.num_hidden_layers):
        for mine, theirs in zip(one.read(layer), other.read(layer), strict=True):
            for row, length in enumerate(one.lengths_B.tolist()):
                torch.testing.assert_close(
                    mine[row, :, :length], theirs[row, :, :length], rtol=0, atol=1e-10
                )


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("pattern", CACHED)
def test_fused_commit_gives_the_next_canvas_the_same_logits(pattern: str, shift: int) -> None:
    denoiser = ModelDenoiser(tiny_model(pattern, logits_shift=shift))
    prompt, block = list(range(4, 4 + CANVAS)), list(range(20, 20 + CANVAS))
    canvas = run_of([1] * CANVAS, 2 * CANVAS)
    asked = torch.ones(1, CANVAS, dtype=torch.bool)
    logits = []
    for fused in (True, False):
        cache = denoiser.new_cache(1)
        denoiser.commit(cache, run_of(prompt, 0))
        if not fused:
            denoiser.commit(cache, run_of(block, CANVAS))
        commit = run_of(block, CANVAS) if fused else None
        logits.append(denoiser.probe(cache, canvas, logits_at_BK=asked, commit=commit))
        assert cache.token_ids == [prompt + block]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("strategy", UNMASKING_STRATEGIES)
@pytest.mark.parametrize("pattern", CACHED)
def test_cached_decoding_equals_recomputing_everything(
    pattern: str, strategy: str, models: dict
) -> None:
    ids, mask = prompts([7, 13, 4])
    options = {"max_new_tokens": [25, 9, 18], "unmasking_strategy": strategy, "seed": 6}
    options["max_denoising_steps"] = 4
    cached = decode(models[pattern], ids, mask, **options)
    recomputed = decode(models[pattern], ids, mask, cache_reuse="none", **options)
    assert torch.equal(cached.sequences, recomputed.sequences)
    torch.testing.assert_close(cached.logprobs, recomputed.logprobs, rtol=0, atol=1e-10)
    assert recomputed.past_key_values is None


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    ("pattern", "chunk"),
    [("causal_context", 1), ("causal_context", 5), ("block_causal", 6), ("block_causal", 12)],
)
def test_chunked_prefill_equals_whole_prefill(
    pattern: str, chunk: int, fuse: bool, models: dict
) -> None:
    ids, mask = prompts([31, 13, 4])
    options = {"max_new_tokens": 14, "unmasking_strategy": "static", "seed": 1}
    options["max_denoising_steps"] = 3
    whole = decode(models[pattern], ids, mask, **options)
    chunked = decode(
        models[pattern], ids, mask, prefill_chunk_length=chunk, fuse_commit=fuse, **options
    )
    assert torch.equal(whole.sequences, chunked.sequences)
    torch.testing.assert_close(whole.logprobs, chunked.logprobs, rtol=0, atol=1e-10)
    if fuse:  # prompt chunks choose no token and store no generated one: they do not count
        assert torch.equal(whole.num_forwards, chunked.num_forwards)


@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize("strategy", UNMASKING_STRATEGIES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_padded_row_equals_unpadded_row(
    pattern: str, strategy: str, side: str, models: dict
) -> None:
    ids, mask = prompts([5, 11], side)
    options = {"max_new_tokens": 13, "unmasking_strategy": strategy, "max_denoising_steps": 4}
    padded = decode(models[pattern], ids[:1], mask[:1], seed=[11], **options)
    bare = ids[:1][mask[:1].bool()][None]
    unpadded = decode(models[pattern], bare, torch.ones_like(bare), seed=[11], **options)
    assert responses(padded, 11) == responses(unpadded, 5)
    torch.testing.assert_close(padded.logprobs, unpadded.logprobs, rtol=0, atol=1e-10)
    assert torch.equal(padded.sequences[:, :11], ids[:1])


@pytest.mark.parametrize("strategy", UNMASKING_STRATEGIES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_batched_row_equals_the_row_alone(pattern: str, strategy: str, models: dict) -> None:
    own = {
        "max_new_tokens": [20, 3, 11, 31, 7],
        "temperature": [0.8, 0.0, 1.5, 1.0, 0.5],
        "confidence_threshold": [0.2, 0.9, 0.05, 0.5, 0.1],
        "max_denoising_steps": [6, 2, 3, 4, 1],
        "eos_token_id": [[-1], [9], [40, 41], [17, 30], [-1]],
    }
    shared = {"unmasking_strategy": strategy, "top_k": 30, "top_p": 0.95, "confidence_noise": 0.7}
    assert_rows_equal_alone(models[pattern], [9, 3, 14, 6, 1], 123, shared, own)


@pytest.mark.parametrize("ending", ["length", "stop"])
@pytest.mark.parametrize("pattern", CACHED)
def test_second_turn_on_the_cache_equals_from_scratch(
    pattern: str, ending: str, models: dict
) -> None:
    ids, mask = prompts([9, 4])
    options = {"unmasking_strategy": "static", "max_denoising_steps": 3, "seed": 8}
    free = decode(models[pattern], ids, mask, max_new_tokens=20, **options)
    ends = [row[8] for row in responses(free, 9)]
    stops = {} if ending == "length" else {"eos_token_id": [[end] for end in ends]}
    first = decode(models[pattern], ids, mask, max_new_tokens=20, **options, **stops)
    assert set(first.finish_reason) == {ending}
    handle = first.past_key_values
    answer = responses(first, 9)
    asked = [[5, 6, 7], [8, 9, 10, 11, 12]]
    rows = [ids[i][mask[i].bool()].tolist() + answer[i] + asked[i] for i in range(2)]
    assert [handle.token_ids[i] + handle.tail[i] for i in range(2)] == [
        row[: -len(more)] for row, more in zip(rows, asked, strict=True)
    ]
    width = max(len(row) for row in rows)
    turn = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    lengths_before = handle.lengths_B.clone()
    scratch = decode(models[pattern], turn, real, max_new_tokens=15, **options)
    reused = decode(
        models[pattern], turn, real, max_new_tokens=15, past_key_values=handle, **options
    )
    assert torch.equal(scratch.sequences, reused.sequences)
    torch.testing.assert_close(scratch.logprobs, reused.logprobs, rtol=0, atol=1e-10)
    assert torch.equal(handle.lengths_B, lengths_before)  # the caller's handle is not consumed


@pytest.mark.parametrize("pattern", CACHED)
def test_wrong_handle_changes_nothing(pattern: str, models: dict) -> None:
    ids, mask = prompts([9, 4])
    options = {"unmasking_strategy": "static", "max_new_tokens": 13, "seed": 8}
    other = decode(models[pattern], ids.flip(0), mask.flip(0), **options).past_key_values
    scratch = decode(models[pattern], ids, mask, **options)
    assert torch.equal(
        scratch.sequences,
        decode(models[pattern], ids, mask, past_key_values=other, **options).sequences,
    )
    moved = torch.arange(ids.shape[1]).expand(ids.shape) * 2 + 1  # same ids, other positions
    handle = decode(models[pattern], ids, mask, position_ids=moved, **options).past_key_values
    reused = decode(models[pattern], ids, mask, past_key_values=handle, **options)
    assert torch.equal(scratch.sequences, reused.sequences)


@pytest.mark.parametrize("pattern", CACHED)
def test_prompt_that_leaves_the_handle_inside_a_block_equals_from_scratch(
    pattern: str, models: dict
) -> None:
    ids, mask = prompts([3 * CANVAS])
    options = {"unmasking_strategy": "static", "max_new_tokens": 8, "seed": 8}
    handle = decode(models[pattern], ids, mask, **options).past_key_values
    other = ids.clone()
    other[0, CANVAS + 2] = 5 if ids[0, CANVAS + 2] != 5 else 6
    scratch = decode(models[pattern], other, mask, **options)
    reused = decode(models[pattern], other, mask, past_key_values=handle, **options)
    assert torch.equal(scratch.sequences, reused.sequences)
    torch.testing.assert_close(scratch.logprobs, reused.logprobs, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("pattern", "mode"),
    [("causal_context", "diffusion"), ("block_causal", "diffusion"), ("causal_context", "ar")],
)
def test_prompt_that_the_handle_holds_whole_still_gives_its_last_reading(
    pattern: str, mode: str
) -> None:
    """What comes next is read from the last context row, so that row is always computed."""
    model = tiny_model(pattern, logits_shift=1)
    ids, mask = prompts([2 * CANVAS])
    options = {"max_new_tokens": 2 * CANVAS, "seed": 8}
    handle = decode(model, ids, mask, **options).past_key_values
    known = torch.tensor(handle.token_ids)
    options["decoding_mode"] = mode
    scratch = decode(model, known, torch.ones_like(known), **options)
    reused = decode(model, known, torch.ones_like(known), past_key_values=handle, **options)
    assert torch.equal(scratch.sequences, reused.sequences)
    torch.testing.assert_close(scratch.logprobs, reused.logprobs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pattern", CACHED)
def test_reused_cache_computes_only_what_is_new(
    pattern: str, models: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, mask = prompts([18])
    options = {"max_new_tokens": 6, "seed": 8}
    handle = decode(models[pattern], ids, mask, **options).past_key_values
    widths = []
    forward = models[pattern].model.forward

    def counted(input_ids: Tensor, **kwargs: Any) -> Any:
        widths.append(input_ids.shape[1])
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(models[pattern].model, "forward", counted)
    turn = torch.cat([ids, torch.tensor([[5, 6, 7]])], dim=1)
    decode(models[pattern], turn, torch.ones_like(turn), past_key_values=handle, **options)
    # Under block_causal the three new tokens open the canvas.
    assert widths[0] == (3 + CANVAS if pattern == "causal_context" else CANVAS)


@pytest.mark.parametrize("pattern", CACHED)
def test_one_block_equals_full_attention(pattern: str, models: dict) -> None:
    denoiser = ModelDenoiser(models[pattern])
    noisy = [1, 9, 1, 30, 1, 12]
    asked = torch.tensor([[True, False, True, False, True, False]])
    probed = denoiser.probe(denoiser.new_cache(1), run_of(noisy, 0), logits_at_BK=asked)
    ids = torch.tensor([noisy])
    whole = models[pattern](ids, attention_mask=full_mask(torch.ones_like(ids))).logits
    torch.testing.assert_close(probed, whole[asked], rtol=0, atol=1e-10)
    full = models["full"](ids).logits
    torch.testing.assert_close(probed, full[asked], rtol=0, atol=1e-10)


def concatenated_logits(
    model: UniDiffForBlockDiffusion, clean: list[int], noisy: list[int], block: int
) -> tuple[Tensor, Tensor]:
    """(context, canvas) logits of one [clean ; noisy] pass whose blocks have the given length."""
    length = len(clean)
    index = torch.arange(length)[None]
    sample = torch.zeros_like(index)
    number = index // block
    context = Stream(sample, index, torch.full_like(index, -1), index)
    canvas = Stream(sample, index, number, number * block)
    mask = concatenated_mask(context, canvas, model.config.grid)
    position = torch.cat([index, index], dim=1)
    ids = torch.tensor([clean + noisy])
    logits = model(ids, attention_mask=mask, position_ids=position).logits[0]
    return logits[:length], logits[length:]


@pytest.mark.parametrize("pattern", CACHED)
def test_concatenated_pass_equals_cached_probes(pattern: str, models: dict) -> None:
    model = models[pattern]
    denoiser = ModelDenoiser(model)
    generator = np.random.default_rng(0)
    clean = generator.integers(4, VOCAB, 3 * CANVAS).tolist()
    masked = generator.random(len(clean)) < 0.5
    noisy = [1 if hide else token for hide, token in zip(masked, clean, strict=True)]
    context_logits, canvas_logits = concatenated_logits(model, clean, noisy, CANVAS)
    cache = denoiser.new_cache(1)
    asked = torch.ones(1, CANVAS, dtype=torch.bool)
    for start in range(0, len(clean), CANVAS):
        block = slice(start, start + CANVAS)
        probed = denoiser.probe(cache, run_of(noisy[block], start), logits_at_BK=asked)
        torch.testing.assert_close(probed, canvas_logits[block], rtol=0, atol=1e-10)
        denoiser.commit(cache, run_of(clean[block], start))
        read = denoiser.next_logits(cache)
        last = context_logits[start + CANVAS - 1]
        torch.testing.assert_close(read[0], last, rtol=0, atol=1e-10)


def test_block_length_one_is_the_product_of_single_mask_conditionals(models: dict) -> None:
    model = models["causal_context"]
    denoiser = ModelDenoiser(model)
    clean = np.random.default_rng(1).integers(4, VOCAB, 7).tolist()
    context, canvas = concatenated_logits(model, clean, [1] * 7, 1)
    cache = denoiser.new_cache(1)
    asked = torch.ones(1, 1, dtype=torch.bool)
    for start, token in enumerate(clean):
        probed = denoiser.probe(cache, run_of([1], start), logits_at_BK=asked)
        torch.testing.assert_close(probed[0], canvas[start], rtol=0, atol=1e-10)
        denoiser.commit(cache, run_of([token], start))
        read = denoiser.next_logits(cache)
        torch.testing.assert_close(read[0], context[start], rtol=0, atol=1e-10)
    # The clean row before it is another predictor of the same token.
    assert not torch.allclose(canvas[3], context[2], atol=1e-3)


def test_block_length_one_with_shifted_logits_is_autoregressive() -> None:
    model = tiny_model("causal_context", logits_shift=1)
    ids, mask = prompts([5, 9])
    options = {"max_new_tokens": 12, "seed": 4}
    blocks = decode(model, ids, mask, block_length=1, **options)
    left_to_right = decode(model, ids, mask, decoding_mode="ar", **options)
    assert torch.equal(blocks.sequences, left_to_right.sequences)


@pytest.mark.parametrize("do_sample", [False, True])
def test_ar_mode_equals_a_plain_causal_loop(do_sample: bool, models: dict) -> None:
    model = models["causal_context"]
    ids, mask = prompts([6, 10, 3])
    output = decode(
        model, ids, mask, decoding_mode="ar", max_new_tokens=[9, 4, 12], do_sample=False
    )
    assert output.num_forwards.tolist() == [9, 4, 12]
    for row, count in enumerate([9, 4, 12]):
        known = ids[row][mask[row].bool()].tolist()
        for _ in range(count):
            logits = model(torch.tensor([known])).logits[0, -1]
            logits[1] = -torch.inf  # the mask id is never emitted
            known.append(int(logits.argmax()))
        assert responses(output, 10)[row] == known[-count:]
    sampled = decode(model, ids, mask, decoding_mode="ar", max_new_tokens=8, seed=2)
    alone = decode(
        model,
        ids[2:, -3:],
        mask[2:, -3:],
        decoding_mode="ar",
        max_new_tokens=8,
        seed=sampled.row_seeds[2],
        prefill_chunk_length=2,
    )
    assert responses(sampled, 10)[2] == responses(alone, 3)[0]


class Recorder:
    """A streamer that remembers what it was shown."""

    def __init__(self) -> None:
        self.put_values: list[list[int]] = []
        self.drafts: list[list[int]] = []
        self.ended = 0

    def put(self, value: Tensor) -> None:
        assert value.ndim == 1
        self.put_values.append(value.tolist())

    def put_draft(self, value: Tensor) -> None:
        self.drafts.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("mode", ["diffusion", "ar", "self_speculative", "auto"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_streamed_tokens_equal_the_returned_ones(
    pattern: str, mode: str, stops: bool, models: dict
) -> None:
    if mode != "diffusion" and pattern != "causal_context":
        pytest.skip("the second reading belongs to causal_context")
    ids, mask = prompts([8])
    options = {"max_new_tokens": 17, "decoding_mode": mode, "seed": 3, "max_denoising_steps": 3}
    if stops:
        free = decode(models[pattern], ids, mask, **options)
        options["eos_token_id"] = responses(free, 8)[0][10]
    streamer = Recorder()
    output = decode(models[pattern], ids, mask, streamer=streamer, **options)
    assert streamer.put_values[0] == ids[0].tolist()
    streamed = [token for block in streamer.put_values[1:] for token in block]
    assert streamed == responses(output, 8)[0]
    assert streamer.ended == 1
    if mode == "diffusion":
        assert len(streamer.drafts) == int(output.num_forwards)
        assert all(1 not in draft for draft in streamer.drafts)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_position_of_a_committed_row_does_not_depend_on_its_phase(
    pattern: str, models: dict
) -> None:
    """Rows that commit at different times equal rows decoded alone, canvas by canvas."""
    own = {"confidence_threshold": [0.05, 0.4, 0.99]}
    shared = {"max_new_tokens": 19}
    batch = assert_rows_equal_alone(models[pattern], [2, 9, 17], 77, shared, own)
    assert len(set(batch.num_forwards.tolist())) > 1
