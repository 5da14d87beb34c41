"""pytest plugins/vla/tests/test_pusht_env.py"""

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
pytest.importorskip("gym_pusht", reason="gym-pusht is not installed: unidiff-vla[pusht]")

from unidiff_vla.environments import check_environment, split_of  # noqa: E402
from unidiff_vla.environments.pusht_env import (  # noqa: E402
    _LAYOUT_HIGH,
    _LAYOUT_LOW,
    NEARBY,
    REACH,
)
from unidiff_vla.environments.pusht_expert import candidates  # noqa: E402
from unidiff_vla.environments.pusht_geometry import distances_to, outline_at  # noqa: E402


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


def test_where_the_t_is_can_be_felt():
    env = gymnasium.make("unidiff_vla/PushT-pose-v0", cameras=()).unwrapped
    is_near = []
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        assert observation in env.observation_space
        disc, place, turn, near = observation["state"].reshape(4, 2)
        np.testing.assert_allclose(disc, env.layout[:2], atol=1e-3)
        np.testing.assert_allclose(place, env._simulator.block.position, atol=1e-3)
        cosine, sine = turn
        assert np.arctan2(sine, cosine) == pytest.approx(env.layout[4], abs=1e-5)
        assert np.abs(near).max() <= NEARBY
        back = place + np.array([[cosine, -sine], [sine, cosine]]) @ near
        is_near.append(np.linalg.norm(back - disc) < 0.1)
        assert is_near[-1] == (np.abs(near).max() < NEARBY)
    assert set(is_near) == {True, False}


def test_only_the_state_tells_where_the_t_is(env):
    other = gymnasium.make("unidiff_vla/PushT-pose-v0", image_size=96).unwrapped
    plain, felt = env.reset(seed=3)[0], other.reset(seed=3)[0]
    np.testing.assert_array_equal(plain["image"], felt["image"])
    np.testing.assert_array_equal(plain["state"], felt["state"][:2])
    assert plain["instruction"] == felt["instruction"]


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


def test_pushes_that_are_tried_begin_beside_the_t_and_meet_it():
    outline = outline_at(250.0, 230.0, 0.6)
    pushes = list(candidates(outline, speed=10.0))
    starts = np.array([one.start for one in pushes])
    away = distances_to(outline, starts)
    assert away.min() > 18.4  # the disc's radius is 15
    assert away.max() < 19.1
    nearest = [distances_to(outline, one.targets).min() for one in pushes]
    assert max(nearest) < 15  # all would push
    assert len({tuple(one.start) for one in pushes}) > 25
    at_rim = list(candidates(outline_at(40.0, 250.0, 0.0), speed=10.0))
    assert np.array([one.start for one in at_rim]).min() > 20
