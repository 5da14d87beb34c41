"""Rows of recorded frames: what is told, which frames are drawn, the states ahead; no training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer
from unidiff_vla.training.objectives import policy_blocks
from unidiff_vla.training.source import Recorded, turns_of

from unidiff.bundled import bundled_checkpoint
from unidiff.data.blocks import BlockOptions
from unidiff.data.collator import BlockCollator
from unidiff.data.tasks import RowMaker
from unidiff.model.streams import training_streams
from unidiff.tokens.prompts import layout_for_tokenizer
from unidiff.tokens.sequence import SequenceEncoder

from .coded_frames import coded

TOKENIZER = AutoTokenizer.from_pretrained(bundled_checkpoint())
# Pictures of 8 x 8 codes, chunks of two timesteps of two dimensions.
LAYOUT = layout_for_tokenizer(TOKENIZER, {"image": 9, "action": 4, "state": 4}, (8, 8), (2, 2))


def maker_for(objective: str) -> RowMaker:
    """Makes rows as the objective reads them."""
    return RowMaker(SequenceEncoder(TOKENIZER, LAYOUT), policy_blocks(objective))


def test_a_frame_is_told_in_any_wording_and_kept_still_when_told_otherwise() -> None:
    maker = RowMaker(SequenceEncoder(TOKENIZER, replace(LAYOUT, image_grid=(2, 2))), BlockOptions())
    frames = coded(("open it", "pull it", "push the puck"), (0, 0, 1))
    source = Recorded(maker, frames, still_share=0.25)
    start = LAYOUT.range_of("action").start
    told: dict[str, set[int]] = {"own": set(), "other": set()}
    num_still = 0
    for key in range(400):
        row = source.row(0, np.random.default_rng(key))
        action = row.input_ids[row.block_ids >= 0] - start
        text = TOKENIZER.decode(row.input_ids)
        is_other = "puck" in text
        told["other" if is_other else "own"].add("pull" in text)
        assert (action == (1 if is_other else 3)).all(), text
        num_still += is_other
    assert told["own"] == {False, True}  # both wordings of its task
    assert num_still / 400 == pytest.approx(0.25, abs=0.07)
    alone = Recorded(maker, coded(("open it",), (0,)), still_share=0.9)
    row = alone.row(0, np.random.default_rng(0))  # there is no other task to be told
    assert (row.input_ids[row.block_ids >= 0] - start == 3).all()


@pytest.mark.parametrize("objective", ["masked", "ar"])
def test_states_ahead_are_learnt_from_the_prompt_alone(objective: str) -> None:
    maker = maker_for(objective)
    frames = replace(
        coded(("open it", "pull it", "push it", "shut it", "shut it"), (0, 0, 1, 2, 2)),
        pictures=np.zeros((5, 2, 64), dtype=np.int64),
        states=np.tile(np.array([0, 1, 2, 3, 1])[:, None], (1, 3)),
        episode_index=np.array([0, 0, 0, 0, 1]),
    )
    bare = Recorded(maker, frames).row(1, np.random.default_rng(0))
    row = Recorded(maker, frames, waypoints=(1, 9)).row(1, np.random.default_rng(0))
    own, ahead = len(bare), slice(len(bare), None)
    for name in ("input_ids", "labels", "block_ids", "context_mask", "token_index"):
        assert np.array_equal(getattr(row, name)[:own], getattr(bare, name)), name
    codes = LAYOUT.decode("state", row.labels[ahead][1:])
    assert codes.tolist() == [2] * 3 + [3] * 3  # one step on; the episode's last
    assert len(set(row.block_ids[ahead])) == 1
    assert row.block_ids[-1] > row.block_ids[:own].max()
    batch = BlockCollator()([{"row": row, "key": 0, "stream_position": 0}])
    streams = training_streams(batch, None)
    width = streams.context.index_BN.shape[1]
    seen = streams.attention_mask[0, 0, -1]  # by the last state token
    modality = torch.cat(
        [part.take(batch["modality_ids"], -1)[0] for part in (streams.context, streams.canvas)]
    )
    is_action = modality == LAYOUT.modality_id("action")
    is_label = torch.zeros_like(seen)
    is_label[width:] = streams.canvas_values("labels", -100)[0] >= 0
    assert is_action.any()
    assert not seen[is_action].any()
    assert seen[~is_action].all()
    assert is_label[seen].sum() == 6
    if objective == "masked":  # nor does the chunk see the states
        action_row = streams.attention_mask[0, 0, width + int(is_action[width:].nonzero()[0])]
        assert not action_row[-7:].any()
    turning = replace(frames, turns=np.array([1, 2, 4]))
    row = Recorded(maker, turning, waypoints=(1,), num_turns=2).row(1, np.random.default_rng(0))
    codes = LAYOUT.decode("state", row.labels[-9:]).tolist()
    assert codes == [2] * 3 + [2] * 3 + [3] * 3  # one step on; the next turn; the episode's last
    kept = Recorded(maker, turning, still_share=0.99, waypoints=(9,), num_turns=1)
    still = kept.row(1, np.random.default_rng(0))
    assert LAYOUT.decode("state", still.labels[-6:]).tolist() == [1] * 6  # where it is


def test_turns_are_where_the_action_jumps_within_an_episode() -> None:
    actions = np.array([[0, 8], [1, 8], [6, 8], [6, 8], [6, 2], [0, 2]], dtype=np.uint8)
    turns = turns_of(actions, 16, np.array([0, 0, 0, 0, 0, 1]))
    assert turns.tolist() == [2, 4]  # a quarter of 16 bins is not a jump; the last is a new episode
    assert turns_of(actions, 20, np.zeros(6)).tolist() == [4, 5]
    frames = replace(coded(("a",) * 4, (0,) * 4), turns=np.array([1, 2]))
    assert [frames.turns_after(index, 2) for index in (0, 1, 2, 3)] == [
        [1, 2],
        [2, 3],
        [3, 3],
        [3, 3],
    ]


def test_frames_with_an_earlier_picture_are_not_drawn() -> None:
    frames = replace(
        coded(("open it",) * 4, (0,) * 4),
        pictures=np.zeros((4, 2, 64), dtype=np.int64),
        states=np.tile(np.arange(4)[:, None], (1, 3)),
        is_fresh=np.array([True, False, True, False]),
        turns=np.array([1, 3]),
    )
    source = Recorded(maker_for("masked"), frames, waypoints=(1,))
    assert len(source) == 2
    row = source.row(1, np.random.default_rng(0))
    assert LAYOUT.decode("state", row.labels[-3:]).tolist() == [3] * 3  # after frame 2
    assert frames.approaches.tolist() == [0]
    with pytest.raises(ValueError, match="a picture at every step"):
        Recorded(maker_for("masked"), frames, future_share=0.1)


def test_frames_before_two_turns_are_drawn_more_often() -> None:
    frames = replace(
        coded(("open it",) * 7, (0,) * 7),
        pictures=np.zeros((7, 2, 64), dtype=np.int64),
        states=np.tile(np.arange(7)[:, None] % 4, (1, 3)),
        episode_index=np.array([0, 0, 0, 0, 1, 1, 1]),
        turns=np.array([1, 3, 5]),
    )
    assert frames.approaches.tolist() == [0]  # frame 2 has one turn to come, 5 is another episode's
    source = Recorded(maker_for("masked"), frames, approach_share=0.3)
    states = LAYOUT.range_of("state")
    zeros = 0
    for key in range(300):
        ids = source.row(1, np.random.default_rng(key)).input_ids
        zeros += (ids[(ids >= states.start) & (ids < states.stop)] == states.start).all()
    assert zeros / 300 == pytest.approx(0.3, abs=0.08)
    straight = replace(frames, turns=np.zeros(0, dtype=np.int64))
    source = Recorded(maker_for("masked"), straight, approach_share=1.0)
    ids = source.row(1, np.random.default_rng(0)).input_ids
    assert (ids[(ids >= states.start) & (ids < states.stop)] == states.start + 1).all()


def test_words_of_no_known_task_are_never_told_otherwise() -> None:
    maker = RowMaker(SequenceEncoder(TOKENIZER, replace(LAYOUT, image_grid=(2, 2))), BlockOptions())
    source = Recorded(maker, coded(("wave", "nod", "open it"), (-1, -2, 0)), still_share=0.9)
    start = LAYOUT.range_of("action").start
    for index in range(3):
        for key in range(20):
            row = source.row(index, np.random.default_rng(key))
            assert (row.input_ids[row.block_ids >= 0] - start == 3).all()


def test_words_of_tasks_that_were_not_recorded_are_told_as_often_and_kept_still() -> None:
    maker = RowMaker(SequenceEncoder(TOKENIZER, replace(LAYOUT, image_grid=(2, 2))), BlockOptions())
    words = ("open it", "push the puck", "wave", "nod", "jump")
    frames = coded(words, (0, 1, 2, 3, 4))
    frames = replace(frames, instruction_index=np.array([0, 1, 0, 1, 0]))
    source = Recorded(maker, frames, still_share=0.5)
    start, told = LAYOUT.range_of("action").start, []
    for key in range(400):
        row = source.row(0, np.random.default_rng(key))
        text = TOKENIZER.decode(row.input_ids)
        told.append(next(place for place, one in enumerate(words) if one in text))
        action = row.input_ids[row.block_ids >= 0] - start
        assert (action == (3 if told[-1] == 0 else 1)).all()
    counts = np.bincount(told, minlength=5) / 400
    assert counts[0] == pytest.approx(0.5, abs=0.08)
    assert counts[1] == pytest.approx(0.25, abs=0.07)
    assert (counts[2:] > 0.03).all()
