"""pytest plugins/vla/tests/test_pusht_env.py"""

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("gym_pusht", reason="gym-pusht is not installed: unidiff-vla[pusht]")

from unidiff_vla.environments import check_environment, split_of  # noqa: E402
from unidiff_vla.environments.pusht_env import _LAYOUT_HIGH, _LAYOUT_LOW, REACH  # noqa: E402


@pytest.fixture(scope="module")
def env():
    return gymnasium.make("unidiff_vla/PushT-v0", image_size=96).unwrapped


def test_it_fits_the_protocol_and_shows_the_table(env):
    check_environment(env)
    observation, _ = env.reset(seed=0)
    assert observation["image"].shape == (96, 96, 3)
    assert observation["image"].std() > 10
    assert observation["state"].shape == (2,)
    assert observation in env.observation_space


def test_an_episode_follows_from_its_seed(env):
    def play():
        observation, _ = env.reset(seed=5)
        seen = [observation]
        for action in np.random.default_rng(0).uniform(-1, 1, (6, 2)):
            seen.append(env.step(action)[0])
        return seen

    first = play()
    env.reset(seed=6)
    for one, other in zip(first, play(), strict=True):
        np.testing.assert_array_equal(one["state"], other["state"])
        np.testing.assert_array_equal(one["image"], other["image"])


def test_layouts_belong_to_their_split():
    for split in ("train", "test"):
        env = gymnasium.make("unidiff_vla/PushT-v0", split=split, cameras=()).unwrapped
        for seed in range(20):
            env.reset(seed=seed)
            assert split_of(env.layout, _LAYOUT_LOW, _LAYOUT_HIGH) == split


def test_an_action_is_an_offset_from_the_disc(env):
    before = env.reset(seed=1)[0]["state"]
    env._simulator.step = lambda target: called.append(target) or (None, 0, False, False, {})
    called = []
    env.step([0.5, -1.0])
    del env._simulator.step
    np.testing.assert_allclose(called[0], before + np.array([0.5 * REACH, -REACH]), atol=1e-3)


def test_an_action_that_is_not_finite_moves_nothing(env):
    before = env.reset(seed=1)[0]["state"]
    with pytest.raises(ValueError, match="finite numbers in an action"):
        env.step([np.nan, 0.0])
    np.testing.assert_array_equal(env.observe()["state"], before)


def test_an_unknown_camera_is_refused():
    with pytest.raises(ValueError, match=r"cameras \('top',\)"):
        gymnasium.make("unidiff_vla/PushT-v0", cameras=("front",))


def test_the_expert_solves_five_unseen_layouts_and_repeats_itself():
    env = gymnasium.make("unidiff_vla/PushT-v0", split="test", cameras=()).unwrapped

    def play(seed):
        env.reset(seed=seed)
        expert, is_over = env.expert(), False
        while not is_over:
            _, _, terminated, truncated, info = env.step(expert())
            is_over = terminated or truncated
        return info["success"], info["num_steps"]

    results = [play(seed) for seed in range(5)]
    assert sum(success for success, _ in results) == 5
    assert play(4) == results[4]
