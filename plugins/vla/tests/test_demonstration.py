"""pytest plugins/vla/tests/test_demonstration.py"""

from types import SimpleNamespace

import numpy as np
import pytest
from unidiff_vla.recording import PolicyLead, RandomWalk, record_demonstration


def test_noise_is_executed_and_not_recorded(line):
    told = record_demonstration(line, 1)
    wanted = -np.clip(told.states[:, 0], -1, 1)
    np.testing.assert_allclose(told.actions[:, 0], wanted, atol=1e-6)
    np.testing.assert_allclose(line.executed, told.executed, atol=1e-6)
    assert np.abs(told.executed - told.actions)[:, 0].max() > 0.05
    np.testing.assert_array_equal(told.executed[:, 1], told.actions[:, 1])  # no noise there


def test_states_follow_what_was_executed(line):
    told = record_demonstration(line, 1)
    moved = told.states[:-1, 0] + 0.5 * told.executed[:-1, 0]
    np.testing.assert_allclose(told.states[1:, 0], moved, atol=1e-5)


def test_the_noise_has_the_spread_asked_for_where_nothing_is_clipped(line):
    line.expert = lambda: lambda: np.zeros(2)
    noise = np.array([0.1, 0.2])
    spread = np.concatenate(
        [record_demonstration(line, seed, noise).executed for seed in range(40)]
    )
    np.testing.assert_allclose(spread.std(0), noise, rtol=0.08)
    np.testing.assert_allclose(spread.mean(0), 0.0, atol=0.02)


def test_executed_actions_stay_in_range(line):
    told = record_demonstration(line, 2, np.array([5.0, 5.0]))
    assert np.abs(told.executed).max() == 1.0


def test_without_noise_the_expert_is_executed(line):
    told = record_demonstration(line, 3, np.zeros(2))
    np.testing.assert_array_equal(told.executed, told.actions)
    assert told.success


def test_the_same_seed_gives_the_same_demonstration(line):
    first, second = record_demonstration(line, 5), record_demonstration(line, 5)
    np.testing.assert_array_equal(first.executed, second.executed)
    np.testing.assert_array_equal(first.pictures["image"], second.pictures["image"])
    assert first.instruction == second.instruction == "go to zero 1"


@pytest.mark.parametrize("noise", [[0.1], [-0.1, 0.0], [np.nan, 0.0]])
def test_noise_that_cannot_be_is_refused(line, noise):
    with pytest.raises(ValueError, match="expected noise of shape"):
        record_demonstration(line, 0, np.array(noise))


def test_every_other_seed_begins_with_a_walk_that_is_not_recorded(line):
    walk = []
    for seed in range(1, 41, 2):
        line.executed = []
        told = record_demonstration(line, seed, lead=RandomWalk(3))
        walk.append(len(line.executed) - len(told.actions))
        assert told.success
        place = float(np.random.default_rng(seed).uniform(2.0, 3.0))
        place += 0.5 * sum(action[0] for action in line.executed[: walk[-1]])
        np.testing.assert_allclose(told.states[0, 0], place, atol=1e-5)  # where the walk ended
    assert min(walk) >= 1
    assert max(walk) == 3
    line.executed = []
    told = record_demonstration(line, 2, lead=RandomWalk(3))
    assert len(line.executed) == len(told.actions)
    with pytest.raises(ValueError, match="at least one step"):
        RandomWalk(0)


def test_a_walk_that_ends_the_episode_is_not_taken(line):
    still = record_demonstration(line, 1)
    step = line.step

    def late(action):
        observation, reward, terminated, _, info = step(action)
        return observation, reward, terminated, line.num_resets == resets + 1, info

    resets, line.step = line.num_resets, late
    told = record_demonstration(line, 1, lead=RandomWalk(8))
    assert line.num_resets == resets + 2
    np.testing.assert_array_equal(told.states, still.states)


def test_a_walk_is_executed_at_one_blow_where_the_environment_can(line):
    stepped = record_demonstration(line, 3, lead=RandomWalk(8))
    chunks = []

    def execute(actions):
        chunks.append(actions)
        return [line.step(action) for action in actions][-1]

    line.execute = execute
    told = record_demonstration(line, 3, lead=RandomWalk(8))
    assert len(chunks) == 1
    np.testing.assert_array_equal(told.states, stepped.states)


def test_pictures_are_taken_every_so_many_steps(line):
    whole = record_demonstration(line, 3)
    looked = []

    def advance(action):
        observation, *rest = line.step(action)
        del observation["image"]
        return observation, *rest

    line.advance = advance
    for look_every in (2, 3, 50):
        told = record_demonstration(line, 3, look_every=look_every)
        np.testing.assert_array_equal(told.states, whole.states)
        np.testing.assert_array_equal(told.actions, whole.actions)
        fresh = np.flatnonzero(told.is_fresh)
        assert fresh[0] == 0
        assert (np.diff(fresh[1:]) == look_every).all()
        assert len(told.actions) - fresh[-1] <= look_every
        latest = fresh[np.searchsorted(fresh, np.arange(len(told.actions)), side="right") - 1]
        np.testing.assert_array_equal(told.pictures["image"], whole.pictures["image"][latest])
        looked.append(len(fresh))
    assert looked[0] > looked[1] > looked[2] >= 1
    firsts = {
        int(np.flatnonzero(record_demonstration(line, seed, look_every=3).is_fresh)[1])
        for seed in range(20)
    }
    assert firsts == {1, 2, 3}  # not always the same steps of an episode


def test_an_environment_that_always_looks_refuses_to_look_less(line):
    with pytest.raises(ValueError, match=r"without advance\(\); got 2"):
        record_demonstration(line, 1, look_every=2)


class Chunks:
    """A policy that goes the wrong way, four steps a plan of which three are carried out."""

    num_executed = 3
    last_record = None
    processor = SimpleNamespace(state_bins=object())
    settings = SimpleNamespace(cameras=None, foresees=False)

    def __init__(self, way=1.0):
        self.way, self.seeds = way, []

    def predict_action_chunk(self, observations, *, seed):
        self.seeds += seed
        return np.full((len(observations), 4, 2), self.way, dtype=np.float32)


def test_a_policy_drives_first_and_its_part_is_not_recorded(line):
    counts = set()
    for seed in (0, 1, 2, 3):
        line.executed = []
        policy = Chunks()
        told = record_demonstration(line, seed, lead=PolicyLead(policy, 8))
        led = len(line.executed) - len(told.actions)
        counts.add(led)
        assert len(policy.seeds) == len(set(policy.seeds)) == -(-led // 3)
        place = float(np.random.default_rng(seed).uniform(2.0, 3.0)) + 0.5 * led
        np.testing.assert_allclose(told.states[0, 0], place, atol=1e-5)
        assert told.success
    assert min(counts) >= 4
    assert max(counts) <= 8
    assert len(counts) > 1


def test_where_the_policy_does_it_there_is_nothing_to_show(line):
    assert record_demonstration(line, 1, lead=PolicyLead(Chunks(-1.0), 20)) is None
    with pytest.raises(ValueError, match="one step at least"):
        PolicyLead(Chunks(), 0)
