"""Canvases that stretch: bounded, pinned tokens in their order, rows as if alone."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from small_decoding import VOCAB, tiny_model
from torch import Tensor

from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.tokens.layout import IdRange, TokenLayout

MASK, END, EXPAND, DELETE = 1, 3, 40, 41
LAYOUT = TokenLayout(
    ranges={"text": IdRange(0, VOCAB)},
    mask_token_id=MASK,
    pad_token_id=0,
    end_token_ids=(END,),
    expand_token_id=EXPAND,
    delete_token_id=DELETE,
)
PATTERNS = ("full", "causal_context")


def stretchy(pattern: str, scale: float = 3.0) -> UniDiffForBlockDiffusion:
    """A model that often takes the two tokens."""
    model = tiny_model(pattern, token_layout=LAYOUT.to_dict())
    with torch.no_grad():
        model.lm_head.weight[[EXPAND, DELETE]] *= scale
    return model


def always(model: UniDiffForBlockDiffusion, token: int) -> UniDiffForBlockDiffusion:
    """The model made to take one token wherever it may."""
    plain = model.read_head

    def read_head(hidden: Tensor, id_range: Any = None) -> Tensor:
        logits = plain(hidden, id_range).clone()
        logits[:, token - (id_range[0] if id_range else 0)] += 1e4
        return logits

    model.read_head = read_head
    return model


def canvases(holes: list[int]) -> dict[str, Tensor]:
    """Rows `11 12 hole 13 14 hole 15`, the first hole of the given length, the second of 2."""
    width = max(holes) + 7
    ids, pinned = torch.zeros(len(holes), width, dtype=torch.int64), torch.ones(len(holes), width)
    kind = torch.full((len(holes), width), -1)
    for row, hole in enumerate(holes):
        line = [11, 12, *[MASK] * hole, 13, 14, MASK, MASK, 15]
        ids[row, : len(line)] = torch.tensor(line)
        pinned[row, : len(line)] = torch.tensor([one != MASK for one in line]).float()
        kind[row, : len(line)] = 0
    return {"canvas": ids, "pinned_mask": pinned.bool(), "canvas_modality_ids": kind}


def fill(model: UniDiffForBlockDiffusion, holes: list[int], **options: Any) -> Any:
    """Fill canvases behind a short prompt, sampled."""
    settings = {"do_sample": True, "unmasking_strategy": "static", "max_infill_tokens": 8}
    settings |= {"return_dict_in_generate": True, "return_logprobs": True, "seed": 5}
    ids = torch.arange(20, 24).expand(len(holes), 4)
    return model.generate(ids, **canvases(holes), **settings | options)


def filled(output: Any, row: int) -> list[int]:
    """A row's canvas without padding: up to its last pinned token."""
    line = output.canvas[row].tolist()
    return line[: len(line) - line[::-1].index(15)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pinned_tokens_stay_in_order_and_nothing_of_the_two_is_left(pattern: str) -> None:
    for seed in range(6):
        output = fill(stretchy(pattern), [3], seed=seed, return_logprobs=True)
        line = filled(output, 0)
        assert line[:2] == [11, 12]
        assert line[-1] == 15
        assert (13, 14) in set(pairwise(line))
        assert not {EXPAND, DELETE, MASK} & set(line)
        assert len(line) <= 5 + 8
        known = output.logprobs[0, : len(line)] == 0
        assert int(known.sum()) == 5
        assert known[:2].all()
        assert known[-1]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_rows_stretch_as_if_alone(pattern: str) -> None:
    model, holes = stretchy(pattern), [1, 4, 2, 3]
    together = fill(model, holes, seed=9)
    lengths = set()
    for row, hole in enumerate(holes):
        alone = fill(model, [hole], seed=together.row_seeds[row])
        line = filled(alone, 0)
        assert filled(together, row) == line
        assert alone.num_forwards[0] == together.num_forwards[row]
        torch.testing.assert_close(
            alone.logprobs[0, : len(line)], together.logprobs[row, : len(line)]
        )
        lengths.add(len(line))
    assert len(lengths) > 1


@pytest.mark.parametrize("steps", [None, 3])
def test_a_canvas_that_always_expands_stops_at_its_limit(steps: int | None) -> None:
    model = always(stretchy("full"), EXPAND)
    output = fill(model, [3], max_infill_tokens=8, max_denoising_steps=steps)
    assert len(filled(output, 0)) == 5 + 8


def test_a_canvas_that_always_expands_and_deletes_ends() -> None:
    model = always(always(stretchy("full"), DELETE), EXPAND)
    output = fill(model, [3])
    assert filled(output, 0) == [11, 12, 13, 14, 15]
    assert output.num_forwards[0] <= 5 + 3 * 2 * 8


def test_a_canvas_that_always_deletes_keeps_what_is_pinned() -> None:
    output = fill(always(stretchy("full"), DELETE), [3])
    assert filled(output, 0) == [11, 12, 13, 14, 15]
    assert output.canvas.shape == (1, 10)


@pytest.mark.parametrize("token", [EXPAND, DELETE])
def test_holes_of_fixed_length_and_plain_text_take_neither(token: int) -> None:
    model = always(stretchy("full"), token)
    output = fill(model, [3], max_infill_tokens=None)
    assert len(filled(output, 0)) == 10
    assert not {EXPAND, DELETE} & set(output.canvas[0].tolist())
    text = model.generate(torch.tensor([[20, 21]]), max_new_tokens=6, max_infill_tokens=8, seed=1)
    assert not {EXPAND, DELETE} & set(text[0].tolist())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"return_trace": True}, "return_trace"),
        ({"choices": ["a"]}, "choices"),
        ({"revision": "resample"}, "revision"),
        ({"cache_reuse": "dual"}, "cache_reuse"),
        ({"canvas_allowed_ids": [None] * 10}, "canvas_allowed_ids"),
    ],
)
def test_what_holds_on_to_places_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=f"which does not go with {word}"):
        fill(stretchy("full"), [3], **options)


def test_a_canvas_of_masks_alone_is_refused_too() -> None:
    kinds = torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="which does not go with return_trace"):
        stretchy("full").generate(
            torch.tensor([[20, 21]]),
            canvas_modality_ids=kinds,
            max_infill_tokens=8,
            return_trace=True,
        )


def test_a_saved_limit_can_be_left_out() -> None:
    model = always(stretchy("full"), EXPAND)
    model.generation_config.max_infill_tokens = 8
    assert len(filled(fill(model, [3], max_infill_tokens=None), 0)) == 10


def test_other_checkpoints_are_named() -> None:
    with pytest.raises(ValueError, match="needs a checkpoint with a token for one position more"):
        fill(tiny_model("full"), [3])


def test_a_layout_has_both_tokens_or_none() -> None:
    values = {**LAYOUT.to_dict()}
    assert TokenLayout.from_dict(values) == LAYOUT
    del values["delete_token_id"]
    with pytest.raises(ValueError, match="both or none"):
        TokenLayout.from_dict(values)
