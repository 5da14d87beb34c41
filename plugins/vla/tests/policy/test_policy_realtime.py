"""python -m pytest plugins/vla/tests/policy/test_policy_realtime.py"""

import numpy as np
import pytest
from unidiff_vla.policy.pins import leftover_pins, no_pins, steps_of


@pytest.fixture(scope="module")
def previous(policy, observations):
    """A chunk planned before, of which five timesteps are left."""
    return policy.predict_action_chunk(observations[0])[0, 3:]


@pytest.mark.parametrize("delay", [1, 3, 5])
def test_the_pinned_timesteps_come_back_bit_for_bit(policy, observations, previous, delay):
    chunk = policy.predict_action_chunk(observations[1], leftover=previous, inference_delay=delay)[
        0
    ]
    assert np.array_equal(chunk[:delay], previous[:delay])
    record = policy.last_record
    assert record.is_pinned[0, :delay].all()
    assert not record.is_pinned[0, delay:].any()
    assert (record.confidence[0, :delay] == 1).all()
    assert min(record.traces[0].index) == 2 * delay
    assert len(record.traces[0]) == 16 - 2 * delay


def test_actions_between_bin_centres_come_back_as_they_were(policy, observations):
    leftover = np.array([[0.123456, -0.654321], [1 / 3, 0.1]], dtype=np.float32)
    chunk = policy.predict_action_chunk(observations[0], leftover=leftover, inference_delay=2)
    assert np.array_equal(chunk[0, :2], leftover)


def test_a_pinned_action_a_hair_above_the_range_comes_back_at_its_end(policy, observations):
    """What one rounding has put there is taken, and never handed on."""
    low, high = (np.array(one, np.float32) for one in (policy.bins.low, policy.bins.high))
    above = np.tile(np.nextafter(high, np.float32(np.inf)), (4, 1))
    chunk = policy.predict_action_chunk(observations[0], leftover=above, inference_delay=2)[0]
    assert np.array_equal(chunk[:2], [high, high])
    below = np.tile(np.nextafter(low, -np.float32(np.inf)), (4, 1))
    chunk = policy.predict_action_chunk(observations[0], leftover=below, inference_delay=2)[0]
    assert np.array_equal(chunk[:2], [low, low])


def test_the_rest_is_denoised_to_fit_what_is_pinned(policy, observations):
    def rest(value):
        leftover = np.full((4, 2), value, dtype=np.float32)
        chunk = policy.predict_action_chunk(observations[0], leftover=leftover, inference_delay=4)
        return chunk[0, 4:]

    assert not np.array_equal(rest(0.9), rest(-0.9))


def test_each_row_has_its_own_leftover(policy, observations, previous):
    leftovers = [previous, previous[::-1]]
    chunks = policy.predict_action_chunk(
        observations[:2], leftover=leftovers, inference_delay=2, seed=3
    )
    for row, leftover in enumerate(leftovers):
        alone = policy.predict_action_chunk(
            observations[row],
            leftover=leftover,
            inference_delay=2,
            seed=[policy.last_record.seeds[row]] if row == 0 else None,
        )
        assert np.array_equal(alone[0], chunks[row])
        assert np.array_equal(chunks[row, :2], leftover[:2])


def test_no_delay_pins_nothing(policy, observations, previous):
    free = policy.predict_action_chunk(observations[1])
    assert np.array_equal(free, policy.predict_action_chunk(observations[1], leftover=previous))


def test_select_action_pins_the_leftover_of_its_own_last_chunk(policy_with, observations):
    policy = policy_with(replan_every=3, inference_delay=2)
    for _ in range(3):
        policy.select_action(observations[0])
    first = policy.last_record.chunks[0]
    actions = [policy.select_action(observations[1]) for _ in range(3)]
    assert np.array_equal(actions[:2], first[3:5])
    expected = policy.predict_action_chunk(observations[1], leftover=first[3:], inference_delay=2)
    assert np.array_equal(actions, expected[0, :3])


def test_a_warm_start_pins_exactly_what_was_certain(policy_with, observations):
    policy = policy_with(replan_every=2, warm_start=0.8)
    for _ in range(2):
        policy.select_action(observations[0])
    first = policy.last_record
    assert not first.is_pinned.any()
    policy.select_action(observations[0])
    second = policy.last_record
    is_sure = first.confidence[0, 2:] >= 0.8
    assert 0 < is_sure.sum() < is_sure.size
    assert np.array_equal(second.is_pinned[0, :6], is_sure)
    assert not second.is_pinned[0, 6:].any()
    assert np.array_equal(second.chunks[0, :6][is_sure], first.chunks[0, 2:][is_sure])
    assert second.num_forwards[0] <= first.num_forwards[0]


def test_steps_shrink_with_what_is_left_to_denoise(policy):
    half, nothing = np.zeros((8, 2), dtype=np.float32), no_pins((8, 2))
    pins = [leftover_pins(half, 4, policy.bins), nothing, leftover_pins(half, 7, policy.bins)]
    assert steps_of(4, pins) == [2, 4, 1]
    assert steps_of(None, pins) == [None, None, None]
    assert steps_of([6, 1, 16], pins) == [3, 1, 2]


def test_pins_shrink_the_steps_that_the_checkpoint_itself_saves(
    policy_with, observations, previous, monkeypatch
):
    policy = policy_with(decoding={"unmasking_strategy": "static"})
    monkeypatch.setattr(policy.model.generation_config, "max_denoising_steps", 6)
    policy.predict_action_chunk(observations[0])
    assert policy.last_record.num_forwards == (6,)
    policy.predict_action_chunk(observations[0], leftover=previous, inference_delay=4)
    assert policy.last_record.num_forwards == (3,)


@pytest.mark.parametrize(
    ("leftover", "delay", "message"),
    [
        (None, 2, "needs the leftover"),
        (np.zeros((2, 3)), 1, r"shape \(<= 8, 2\)"),
        (np.zeros((9, 2)), 1, r"shape \(<= 8, 2\)"),
        (np.zeros((2, 2)), 3, r"must lie in \[0, 2\]"),
        (np.zeros((8, 2)), 8, r"must lie in \[0, 7\]"),
        (np.zeros((2, 2)), -1, r"must lie in \[0, 2\]"),
        (np.zeros((4, 2)), 2.5, "inference_delay must be a whole number; got 2.5"),
        (np.zeros((4, 2)), "2", "inference_delay must be a whole number"),
        (np.zeros((4, 2), complex), 2, "leftover must be real numbers; got complex128"),
        ("abc", 1, "leftover must be real numbers"),
        (np.full((2, 2), np.nan), 1, "must be finite"),
        (np.full((2, 2), 1.01), 1, "lie between"),
    ],
)
def test_a_leftover_that_does_not_fit_is_refused(policy, observations, leftover, delay, message):
    with pytest.raises(ValueError, match=message):
        policy.predict_action_chunk(observations[0], leftover=leftover, inference_delay=delay)


def test_leftovers_are_as_many_as_observations(policy, observations, previous):
    with pytest.raises(ValueError, match="each of 2 observations; got 1"):
        policy.predict_action_chunk(observations[:2], leftover=[previous], inference_delay=1)


SECONDARY = {"revision": "secondary", "unmasking_strategy": "static", "max_denoising_steps": 4}


def test_a_draft_that_nobody_doubts_comes_back_in_one_forward(
    visible_policy_with, observations, previous
):
    policy = visible_policy_with(decoding={**SECONDARY, "revision_threshold": 0.0})
    draft = np.concatenate([previous, previous[:3]])
    chunk = policy.predict_action_chunk(observations[0], leftover=draft, is_draft=True)
    codes = policy.bins.encode(draft)
    assert np.array_equal(policy.bins.encode(chunk[0]), codes)
    assert policy.last_record.num_forwards == (1,)
    assert (policy.last_record.confidence == 1).all()


def test_of_a_draft_what_is_doubted_is_planned_anew_and_pins_stay(
    visible_policy_with, observations, previous
):
    policy = visible_policy_with(
        decoding={**SECONDARY, "revision_threshold": 1.0, "revision_drop": 1.0}
    )
    wrong = -previous[:4]  # the bins are symmetric
    chunk = policy.predict_action_chunk(
        observations[:2], leftover=[wrong, wrong], inference_delay=1, is_draft=True, seed=3
    )
    record = policy.last_record
    assert np.array_equal(chunk[:, :1], np.stack([wrong[:1]] * 2))
    assert record.is_pinned.sum() == 2 * 2
    given_back = [index for index in record.traces[0].index if index < 8]
    assert given_back
    assert min(given_back) >= 2
    assert set(record.traces[0].index) >= set(range(8, 16))  # nothing was known of these
    alone = policy.predict_action_chunk(
        observations[1], leftover=wrong, inference_delay=1, is_draft=True, seed=[record.seeds[1]]
    )
    assert np.array_equal(alone[0], chunk[1])


def test_a_step_to_mend_in_is_left_however_much_is_pinned(
    visible_policy_with, observations, previous
):
    """Seven of eight timesteps are pinned, and of four steps an eighth would be one."""
    policy = visible_policy_with(decoding=SECONDARY)
    leftover = np.concatenate([previous, previous])[:8]
    policy.predict_action_chunk(observations[0], leftover=leftover[:7], inference_delay=7)
    assert policy.last_record.num_forwards == (2,)
    doubting = {"revision_threshold": 1.0, "revision_drop": 1.0}
    policy.predict_action_chunk(
        observations[0], leftover=leftover, inference_delay=7, is_draft=True, **doubting
    )
    assert set(policy.last_record.traces[0].index) <= {14, 15}
    assert len(policy.last_record.traces[0]) >= 1


def test_one_step_mends_nothing_and_is_refused(visible_policy_with, observations, previous):
    with pytest.raises(ValueError, match="use at least 2"):
        visible_policy_with(decoding={**SECONDARY, "max_denoising_steps": 1})
    policy = visible_policy_with(decoding=SECONDARY)
    with pytest.raises(ValueError, match="use at least 2"):
        policy.predict_action_chunk(
            observations[0],
            leftover=previous,
            inference_delay=1,
            is_draft=True,
            max_denoising_steps=1,
        )


def test_a_warm_start_from_a_draft_shows_the_whole_leftover(visible_policy_with, observations):
    policy = visible_policy_with(
        decoding={**SECONDARY, "revision_threshold": 0.0}, replan_every=2, warm_start="draft"
    )
    for _ in range(2):
        policy.select_action(observations[0])
    first = policy.last_record.chunks[0]
    policy.select_action(observations[1])
    again = policy.last_record
    assert not again.is_pinned.any()
    assert np.array_equal(again.chunks[0, :6], first[2:])
    assert set(again.traces[0].index) == set(range(12, 16))


def test_a_draft_needs_something_that_decides(policy, policy_with, observations, previous):
    with pytest.raises(ValueError, match="draft_mask needs revision"):
        policy.predict_action_chunk(observations[0], leftover=previous, is_draft=True)
    with pytest.raises(ValueError, match="is_draft needs the leftover"):
        policy.predict_action_chunk(observations[0], is_draft=True)
    with pytest.raises(ValueError, match="revision='secondary'"):
        policy_with(warm_start="draft")
