"""pytest plugins/vla/tests/test_tabletop_env.py: the table's physics and words are the core's."""

import gymnasium
import numpy as np
import pytest
import unidiff_vla.environments
from unidiff_vla.environments import check_environment, environment_id
from unidiff_vla.environments.tabletop_env import TabletopEnv
from unidiff_vla.recording import record_demonstration

from unidiff.data.sources.tabletop import PHRASINGS
from unidiff.data.sources.tabletop import TabletopEnv as Table
from unidiff.data.sources.tabletop_scene import EVALUATION_SEED_START, sample_scene

TASKS = ("reach", "push")


@pytest.mark.parametrize("task", TASKS)
def test_it_shows_and_does_what_the_core_s_table_does(task):
    env, table = TabletopEnv(task, "test"), Table(task)
    seen, _ = env.reset(seed=5)
    same, _ = table.reset(seed=EVALUATION_SEED_START + 5)
    rng, is_over = np.random.default_rng(0), False
    while not is_over:
        assert seen["instruction"] == same["instruction"]
        assert np.array_equal(seen["image"], same["image"])
        assert np.array_equal(seen["state"], same["state"])
        action = rng.uniform(-1, 1, 2)
        seen, *_, truncated, info = env.step(action)
        same, _, terminated, late, facts = table.step(action)
        assert all(info[name] == facts[name] for name in ("success", "wrong_target", "num_steps"))
        is_over = terminated or late
    assert truncated == late


@pytest.mark.parametrize("task", TASKS)
def test_it_is_an_environment_told_in_words(task):
    env = gymnasium.make(environment_id(f"tabletop-{task}"), split="test")
    check_environment(env.unwrapped)
    seen, info = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    assert info["split"] == "test"
    assert unidiff_vla.environments.SHORT_NAMES[0] == "tabletop-reach"


def test_training_tables_are_those_below_the_evaluation_s():
    env = TabletopEnv("reach")
    env.reset(seed=7)
    assert env.layout[:2].tolist() == list(sample_scene("reach", 7).hand)
    with pytest.raises(ValueError, match="seed must be in"):
        env.reset(seed=EVALUATION_SEED_START)


@pytest.mark.parametrize("task", TASKS)
def test_wordings_are_of_the_scene(task):
    env = TabletopEnv(task, "test")
    told = {}
    for wording in ("known", "held_out", "swapped"):
        told[wording] = env.reset(seed=9, options={"wording": wording})[0]["instruction"]
        layout = env.layout
    scene = env._table.table
    goal, other = scene.colours[scene.goal], scene.colours[1 - scene.goal]
    assert np.array_equal(env.layout, layout)
    assert told["known"] in [one.format(goal) for one in PHRASINGS[task]]
    assert told["held_out"] not in [one.format(goal) for one in PHRASINGS[task]]
    assert goal in told["held_out"]
    assert told["swapped"] == told["known"].replace(goal, other)
    with pytest.raises(ValueError, match="wording must be"):
        env.reset(seed=9, options={"wording": "loud"})
    with pytest.raises(RuntimeError, match="no episode under way"):
        env.step(np.zeros(2))


@pytest.mark.parametrize("task", TASKS)
def test_its_expert_can_be_recorded(task):
    found = record_demonstration(TabletopEnv(task), 2)
    assert found.success
    assert found.actions.shape[1] == 2
    assert np.abs(found.executed - found.actions).max() > 0.1
    assert found.pictures["image"].shape[1:] == (32, 32, 3)


def test_there_is_one_camera():
    assert "image" not in TabletopEnv("reach", cameras=()).reset(seed=0)[0]
    with pytest.raises(ValueError, match="cameras"):
        TabletopEnv("reach", cameras=("side",))
