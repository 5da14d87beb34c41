"""pytest plugins/vla/tests/test_instructed_simulation.py"""

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="gymnasium is not installed")
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from unidiff_vla.environments import check_environment, choose_instruction, environment_id
from unidiff_vla.environments.instructed_simulation import InstructedSimulation


class Counter(InstructedSimulation):
    """Done once actions have summed up to 3; counts what it is asked for."""

    def __init__(self, cameras=("top",), max_steps=5):
        super().__init__(
            "reach",
            "train",
            cameras=cameras,
            image_size=4,
            max_steps=max_steps,
            action_space=spaces.Box(-1.0, 1.0, (1,), np.float32),
            state_space=spaces.Box(-10.0, 10.0, (1,), np.float32),
        )
        self.num_pictures, self.num_advanced = 0, 0

    def _place(self, seed):
        self.total = 0.0

    def _advance(self, action):
        self.num_advanced += 1
        self.total += float(action[0])
        return self.total >= 3

    def _state(self):
        return np.array([self.total])

    def _picture(self, camera):
        self.num_pictures += 1
        return np.full((4, 4, 3), int(10 * abs(self.total)), np.uint8)


@pytest.fixture
def counter():
    env = Counter()
    env.reset(seed=1)
    return env


def test_gymnasium_and_the_protocol_accept_it():
    check_env(Counter(), skip_render_check=True)
    check_environment(Counter())
    check_environment(Counter(cameras=("left", "right")))
    check_environment(Counter(cameras=()))


def test_success_ends_an_episode_and_is_told(counter):
    for _ in range(2):
        observation, reward, terminated, truncated, info = counter.step([1.0])
        assert (reward, terminated, truncated, info["success"]) == (0.0, False, False, False)
    observation, reward, terminated, truncated, info = counter.step([7.0])  # clipped to 1
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["success"]
    assert info["is_success"]
    assert info["num_steps"] == 3
    assert observation["state"].tolist() == [3.0]
    with pytest.raises(RuntimeError, match="call reset"):
        counter.step([1.0])


def test_the_last_step_truncates_unless_it_succeeds():
    env = Counter(max_steps=3)
    env.reset(seed=0)
    assert env.execute([[0.0], [0.0]])[2:4] == (False, False)
    assert env.step([0.0])[2:4] == (False, True)
    env.reset(seed=0)
    assert env.execute(np.ones((3, 1)))[2:4] == (True, False)


def test_a_chunk_is_looked_at_once_and_stops_at_success(counter):
    before = counter.num_pictures
    *_, info = counter.execute(np.ones((5, 1)))
    assert counter.num_pictures == before + 1
    assert info["num_steps"] == counter.num_advanced == 3


def test_an_action_can_be_executed_without_a_look(counter):
    number = counter.num_pictures
    observation, *told = counter.advance([1.0])
    assert counter.num_pictures == number
    other = Counter()
    other.reset(seed=1)
    seen, *wanted = other.step([1.0])
    assert told == wanted
    assert set(seen) - set(observation) == {"image"}
    np.testing.assert_array_equal(observation["state"], seen["state"])
    with pytest.raises(ValueError, match="finite"):
        counter.advance([np.nan])


def test_a_chunk_is_checked_before_any_of_it_reaches_the_simulator(counter):
    with pytest.raises(ValueError, match="finite numbers"):
        counter.execute([[1.0], [np.nan]])
    with pytest.raises(ValueError, match=r"shape \(1,\), got \(2,\)"):
        counter.step([1.0, 1.0])
    with pytest.raises(ValueError, match="one action at least"):
        counter.execute([])
    assert counter.num_advanced == 0


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(RuntimeError, match="call reset"):
        Counter().step([0.0])


def test_instructions_follow_seed_and_options(counter):
    assert counter.reset(seed=4)[0]["instruction"] == choose_instruction("reach", "known", 4)
    for wording in ("held_out", "swapped"):
        told = counter.reset(seed=4, options={"wording": wording})[0]["instruction"]
        assert told == choose_instruction("reach", wording, 4)
    assert counter.reset(seed=4, options={"instruction": "dance"})[0]["instruction"] == "dance"
    with pytest.raises(ValueError, match="options of reset"):
        counter.reset(seed=4, options={"words": "known"})


def test_without_a_seed_episodes_go_on_reproducibly(counter):
    def seeds():
        first = counter.reset(seed=9)[1]["seed"]
        return [first, counter.reset()[1]["seed"], counter.reset()[1]["seed"]]

    assert seeds() == seeds()
    assert len(set(seeds())) == 3


def test_pictures_follow_the_cameras():
    two, none = Counter(cameras=("left", "right")), Counter(cameras=())
    assert set(two.reset(seed=0)[0]["image"]) == {"left", "right"}
    assert "image" not in none.reset(seed=0)[0]
    assert two.render().shape == (4, 4, 3)
    with pytest.raises(ValueError, match="no camera"):
        none.render()


def test_sizes_and_splits_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="expected sizes >= 1"):
        Counter(max_steps=0)
    with pytest.raises(ValueError, match="task must be one of"):
        environment_id("juggle")
