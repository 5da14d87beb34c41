"""Weights whose prompt attends within itself in both directions and never sees the response.

Run: pytest tests/model/test_prefix_pattern.py
"""

from collections.abc import Callable

import pytest
import torch
from small_decoding import VOCAB, decode, prompts, responses, tiny_model
from torch import Tensor

from unidiff.data.collator import BlockCollator
from unidiff.model.modeling import UniDiffForBlockDiffusion

GREEDY = {"do_sample": False, "max_new_tokens": 9, "block_length": 4}


def prefix_model(**config: int) -> UniDiffForBlockDiffusion:
    return tiny_model("prefix", **config)


def filled(model: UniDiffForBlockDiffusion, prompt: Tensor, new: int, block: int) -> list[int]:
    """The response of the slow loop: the whole row anew at each step, the surest position first."""
    mask_id, shift = model.config.mask_token_id, model.config.logits_shift
    row = torch.cat([prompt, torch.full((new,), mask_id)])
    sees = torch.ones(len(row), len(row), dtype=torch.bool)
    sees[: len(prompt), len(prompt) :] = False
    for start in range(len(prompt), len(row), block):
        stop = min(start + block, len(row))
        for _ in range(stop - start):
            logits = model(row[None], attention_mask=sees[None, None]).logits[0].detach()
            logits[:, mask_id] = -torch.inf
            if shift:
                logits = torch.cat([logits[:1], logits[:-1]])
            law = logits[start:stop].softmax(-1)
            best = law.amax(-1).masked_fill(row[start:stop] != mask_id, -1.0)
            place = int(best.argmax())
            row[start + place] = law[place].argmax()
    return row[len(prompt) :].tolist()


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("reuse", [None, "none"])
def test_rows_decode_as_the_slow_loop(shift: int, reuse: str | None) -> None:
    model = prefix_model(logits_shift=shift)
    lengths = [7, 3, 5]
    ids, mask = prompts(lengths)
    options = {} if reuse is None else {"cache_reuse": reuse}
    found = responses(decode(model, ids, mask, **GREEDY, **options), ids.shape[1])
    for row, length in enumerate(lengths):
        prompt = ids[row, ids.shape[1] - length :]
        assert found[row] == filled(model, prompt, 9, 4)


def test_guidance_mixes_prompts_that_see_no_response() -> None:
    model = prefix_model()
    ids, mask = prompts([7])
    weaker = torch.tensor([[5, 6]])
    options = {**GREEDY, "guidance_scale": 2.0, "negative_input_ids": weaker}
    exact = decode(model, ids, mask, **options)
    anew = decode(model, ids, mask, **options, cache_reuse="none")
    assert exact.sequences.tolist() == anew.sequences.tolist()
    assert exact.sequences.tolist() != decode(model, ids, mask, **GREEDY).sequences.tolist()


def test_a_further_turn_reads_its_whole_prompt_anew() -> None:
    model = prefix_model()
    ids, mask = prompts([7])
    first = decode(model, ids, mask, **GREEDY)
    second = torch.cat([first.sequences, torch.randint(4, VOCAB, (1, 3))], dim=1)
    whole = torch.ones_like(second)
    fresh = decode(model, second, whole, **GREEDY)
    again = decode(model, second, whole, **GREEDY, past_key_values=first.past_key_values)
    assert again.sequences.tolist() == fresh.sequences.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefill_chunk_length": 4}, "cuts a prompt"),
        ({"sub_block_length": 2}, "attention_pattern='prefix'"),
        ({"first_alone": True}, "attention_pattern='prefix'"),
        ({"cache_reuse": "prefix"}, "approximates full attention"),
        ({"decoding_mode": "ar"}, "this checkpoint is 'prefix'"),
    ],
)
def test_what_it_cannot_do_is_named(options: dict, message: str) -> None:
    ids, mask = prompts([4])
    with pytest.raises(ValueError, match=message):
        decode(prefix_model(), ids, mask, **{**GREEDY, **options})


def test_it_is_not_trained(make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample([2, 9, 10, 11], [-1, -1, 0, 0])])
    with pytest.raises(ValueError, match="is for decoding"):
        prefix_model().nll(batch)
