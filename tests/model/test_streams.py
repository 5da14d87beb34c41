"""The training pass [context ; canvas]: who sees what, and that a sample is alone in any batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unidiff.data.collator import BlockCollator
from unidiff.model.streams import Selection, check_trainable, training_streams

MASK = 1
IDS = [2, 9, 10, 11, 12, 13, 14, 15]
BLOCKS = [-1, -1, 0, 0, 1, 1, 2, 2]  # two tokens of prompt, three blocks of two


def all_masked_losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Sum of the losses of each row with every label masked, by canvas rows and context rows."""
    streams = training_streams(batch, model.config.grid)
    inputs = streams.inputs(streams.can_mask_BK, MASK)
    successors = streams.successor_labels()
    inputs["labels"][:, : successors.shape[1]] = successors
    return model(**inputs).token_losses


def logits(model: Any, sample: dict[str, Any], masked: list[int]) -> tuple[Tensor, Tensor]:
    """(context, canvas) logits of one sample with the given canvas columns masked."""
    streams = training_streams(BlockCollator()([sample]), model.config.grid)
    width = streams.canvas.index_BN.shape[1]
    is_masked = torch.zeros(1, width, dtype=torch.bool)
    is_masked[0, masked] = True
    inputs = streams.inputs(is_masked, MASK)
    del inputs["labels"]
    out = model(**inputs).logits[0]
    return out[:-width], out[-width:]


def test_selection_gathers_to_the_left() -> None:
    chosen = Selection.of(torch.tensor([[False, True, True], [False, False, True]]))
    values = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert chosen.take(values, -7).tolist() == [[2, 3], [6, -7]]
    assert Selection.of(torch.zeros(2, 3, dtype=torch.bool)).take(values, 0).shape == (2, 0)


def test_inputs_hold_the_clean_context_and_the_noisy_canvas(make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS, BLOCKS, pinned=[3])])
    streams = training_streams(batch, None)
    masked = torch.tensor([[True, False, False, True, False, False]])
    inputs = streams.inputs(masked, MASK)
    assert inputs["input_ids"].tolist() == [[*IDS, MASK, 11, 12, MASK, 14, 15]]
    ignored = [-100] * 8
    assert inputs["labels"].tolist() == [[*ignored, 10, -100, -100, 13, -100, -100]]
    assert inputs["position_ids"][1].tolist() == [[*range(8), *range(2, 8)]]
    assert streams.can_mask_BK.tolist() == [[True, False, True, True, True, True]]


def test_successor_labels_are_the_next_response_tokens(make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS, BLOCKS, pinned=[3])])
    labels = training_streams(batch, None).successor_labels()
    assert labels.tolist() == [[-100, 10, -100, 12, 13, 14, 15, -100]]


def test_successor_labels_stop_at_dropped_tokens_and_samples(make_sample: Callable) -> None:
    short = make_sample([2, 20, 21], [-1, 0, 0], key=2)
    sample = make_sample(IDS, BLOCKS, outside_context=[3])
    batch = BlockCollator(packed_length=16)([sample, short])
    labels = training_streams(batch, None).successor_labels()
    # 3 is not in the context: nobody predicts it there, and 2 does not predict 4.
    assert labels.tolist() == [[-100, 10, -100, 13, 14, 15, -100, 20, 21, -100]]


def test_on_a_grid_only_the_end_of_a_block_predicts_a_successor(make_sample: Callable) -> None:
    batch = BlockCollator()([make_sample(IDS, [-1, -1, -1, -1, 1, 1, 1, 1])])
    labels = training_streams(batch, 4).successor_labels()
    assert labels.tolist() == [[-100, -100, -100, 12, -100, -100, -100, -100]]


@pytest.mark.parametrize("pattern", ["causal_context", "block_causal"])
def test_canvas_does_not_see_its_own_clean_tokens(
    pattern: str, make_model: Callable, make_sample: Callable
) -> None:
    model = make_model(attention_pattern=pattern, canvas_length=2)
    masked = list(range(6))
    context, canvas = logits(model, make_sample(IDS, BLOCKS), masked)
    changed = [*IDS[:4], 20, *IDS[5:]]  # a clean token of block 1
    other_context, other_canvas = logits(model, make_sample(changed, BLOCKS), masked)
    torch.testing.assert_close(canvas[:4], other_canvas[:4])  # blocks 0 and 1
    assert not torch.isclose(canvas[4:], other_canvas[4:]).all(-1).any()  # block 2
    torch.testing.assert_close(context[:4], other_context[:4])
    assert not torch.isclose(context[4:], other_context[4:]).all(-1).any()


def test_canvas_sees_visible_and_pinned_tokens_of_its_block(
    make_model: Callable, make_sample: Callable
) -> None:
    model = make_model()
    _, canvas = logits(model, make_sample(IDS, BLOCKS, pinned=[3]), [0, 2, 3, 4, 5])
    changed = [*IDS[:3], 20, *IDS[4:]]
    _, other = logits(model, make_sample(changed, BLOCKS, pinned=[3]), [0, 2, 3, 4, 5])
    assert not torch.isclose(canvas, other).all(-1).any()  # block 0 beside it, later ones behind it


def test_end_fill_is_seen_by_its_own_canvas_only(
    make_model: Callable, make_sample: Callable
) -> None:
    model = make_model()
    blocks = [-1, -1, 0, 0, 0, 1, 1, 1]
    runs = []
    for fill in (12, 20):  # token 4 is in block 0 but not in the clean context
        sample = make_sample([*IDS[:4], fill, *IDS[5:]], blocks, outside_context=[4])
        runs.append(logits(model, sample, [0, 1, 3, 4, 5]))
    torch.testing.assert_close(runs[0][0], runs[1][0])
    assert not torch.isclose(runs[0][1][:3], runs[1][1][:3]).all(-1).any()
    torch.testing.assert_close(runs[0][1][3:], runs[1][1][3:])


@pytest.mark.parametrize("pattern", ["causal_context", "block_causal"])
def test_packed_and_padded_batches_give_each_sample_its_own_loss(
    pattern: str, make_model: Callable, make_sample: Callable
) -> None:
    model = make_model(attention_pattern=pattern, canvas_length=2)
    samples = [
        make_sample(IDS, BLOCKS, pinned=[4]),
        make_sample([2, 20, 21], [-1, 0, 1]),
        make_sample([2, 5, 6, 7, 8], [-1, -1, 0, 0, 1], outside_context=[2]),
    ]
    alone = [all_masked_losses(model, BlockCollator()([s])).sum() for s in samples]
    padded = all_masked_losses(model, BlockCollator()(samples)).sum(1)
    torch.testing.assert_close(padded, torch.stack(alone), rtol=1e-5, atol=1e-5)
    for length in (16, 8):
        batch = BlockCollator(packed_length=length)(samples)
        assert len(batch["input_ids"]) == (1 if length == 16 else 2)
        packed = all_masked_losses(model, batch).sum()
        torch.testing.assert_close(packed, sum(alone), rtol=1e-5, atol=1e-5)


def test_a_batch_without_canvas_has_an_empty_one(make_sample: Callable) -> None:
    streams = training_streams(BlockCollator()([make_sample([2, 3], [-1, -1])]), None)
    assert streams.can_mask_BK.shape == (1, 0)
    assert streams.attention_mask.shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"logits_shift": 1}, "logits_shift=0"), ({"attention_pattern": "full"}, "one canvas")],
)
def test_checkpoints_with_another_reading_are_refused(
    fields: dict[str, Any], message: str, make_model: Callable, make_sample: Callable
) -> None:
    batch = BlockCollator()([make_sample([2, 3], [-1, 0])])
    with pytest.raises(ValueError, match=message):
        check_trainable(make_model(**fields).config, batch)


def test_full_attention_takes_samples_that_are_one_canvas(
    make_model: Callable, make_sample: Callable
) -> None:
    config = make_model(attention_pattern="full").config
    whole = make_sample([2, 3, 4], [0, 0, 0], pinned=[0], outside_context=[0, 1, 2])
    batch = BlockCollator()([whole, make_sample([2], [0], outside_context=[0])])
    check_trainable(config, batch)
    streams = training_streams(batch, None)
    assert streams.successor_labels().shape == (2, 0)
    assert streams.attention_mask[0].all()
    cut = make_sample([2, 3, 4], [0, 0, 1], pinned=[0], outside_context=[0, 1, 2])
    with pytest.raises(ValueError, match="several blocks"):
        check_trainable(config, BlockCollator()([cut]))
