"""A caller's canvas filled from left to right: what teacher forcing says, place by place.

python -m pytest tests/model/test_ar_canvas.py
"""

from typing import Any

import numpy as np
import pytest
import torch
from small_decoding import decode, prompts, random_model
from torch import Tensor

from unidiff.data.blocks import BlockOptions, blocks_row
from unidiff.data.collator import BlockCollator
from unidiff.model.streams import training_streams
from unidiff.tokens.layout import MODALITY_IDS, contiguous_layout
from unidiff.tokens.sequence import join, run_of

LAYOUT = contiguous_layout(
    {"text": 48, "image": 8, "action": 6},
    mask_token_id=1,
    pad_token_id=0,
    end_token_ids=(3,),
    image_grid=(2, 2),
    action_grid=(3, 2),
)
ACTION = LAYOUT.range_of("action")
NUM_ACTIONS = 6
LENGTHS = [5, 9]


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(11, vocab_size=64, token_layout=LAYOUT.to_dict()).double()


def canvas_of(num_rows: int, pinned: dict[int, int] | None = None) -> dict[str, Tensor]:
    """Empty chunks; `pinned` gives the codes that are known, by place."""
    canvas = torch.full((num_rows, NUM_ACTIONS), LAYOUT.mask_token_id)
    known = torch.zeros_like(canvas, dtype=torch.bool)
    for place, code in (pinned or {}).items():
        canvas[:, place], known[:, place] = ACTION.start + code, True
    modality = torch.full_like(canvas, MODALITY_IDS["action"])
    return {"canvas": canvas, "pinned_mask": known, "canvas_modality_ids": modality}


def teacher_forced(model: Any, prompt: list[int], chunk: list[int]) -> Tensor:
    """(K, A) scores of each action token given those before it, of one training forward."""
    sequence = join([run_of(prompt, "text"), run_of(chunk, "action", wanted=True)])
    options = BlockOptions(left_to_right=True)
    row = blocks_row(sequence, LAYOUT, options, np.random.default_rng(0))
    streams = training_streams(
        BlockCollator()([{"row": row, "key": 0, "stream_position": 0}]), None
    )
    inputs = streams.inputs(streams.can_mask_BK, LAYOUT.mask_token_id)
    del inputs["labels"]
    with torch.no_grad():
        logits = model(**inputs, id_range=(ACTION.start, ACTION.stop)).logits
    return logits[0, len(prompt) - 1 : -1]


def filled(model: Any, canvas: dict[str, Tensor], **options: Any) -> Any:
    ids, mask = prompts(LENGTHS)
    return decode(model, ids, mask, decoding_mode="ar", **canvas, **options)


@pytest.mark.parametrize("pinned", [{}, {0: 2, 1: 3}, {2: 4, 5: 1}], ids=["none", "first", "later"])
def test_greedy_tokens_are_the_likeliest_of_teacher_forcing(
    model: Any, pinned: dict[int, int]
) -> None:
    ids, mask = prompts(LENGTHS)
    output = filled(model, canvas_of(2, pinned), do_sample=False, return_trace=True)
    free = [place for place in range(NUM_ACTIONS) if place not in pinned]
    for row in range(2):
        chunk = output.canvas[row].tolist()
        scores = teacher_forced(model, ids[row][mask[row].bool()].tolist(), chunk)
        for place in range(NUM_ACTIONS):
            code = pinned.get(place, int(scores[place].argmax()))
            assert chunk[place] == ACTION.start + code, place
        expected = scores.log_softmax(-1).max(-1).values[free]
        torch.testing.assert_close(output.logprobs[row, free], expected, rtol=0, atol=1e-9)
        assert output.trace[row].index == free
    assert output.num_forwards.tolist() == [len(free)] * 2
    assert output.finish_reason == ["canvas"] * 2
    assert len({tuple(row) for row in output.canvas.tolist()}) == 2  # the prompt is read


def test_a_sampled_canvas_is_its_rows_own_with_and_without_a_cache(model: Any) -> None:
    ids, mask = prompts(LENGTHS)
    canvas = canvas_of(2, {3: 0})
    together = filled(model, canvas, seed=5)
    assert not torch.equal(together.canvas, filled(model, canvas, seed=6).canvas)
    uncached = filled(model, canvas, seed=5, cache_reuse="none")
    assert torch.equal(together.canvas, uncached.canvas)
    alone = decode(
        model,
        ids[1:],
        mask[1:],
        decoding_mode="ar",
        seed=together.row_seeds[1],
        **{name: value[1:] for name, value in canvas.items()},
    )
    assert torch.equal(alone.canvas[0], together.canvas[1])


def test_places_take_tokens_of_their_own_modality(model: Any) -> None:
    canvas = canvas_of(2)
    kinds = torch.tensor([MODALITY_IDS["image"]] * 4 + [MODALITY_IDS["text"]] * 2)
    canvas["canvas_modality_ids"] = kinds.expand(2, -1)
    # Neither an end token nor max_new_tokens ends a canvas.
    found = filled(model, canvas, seed=1, eos_token_id=list(range(4, 48))).canvas
    assert np.array_equal(LAYOUT.modality_ids(found.numpy()), canvas["canvas_modality_ids"])
