"""pytest plugins/vla/tests/test_metaworld_env.py"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed")
if "MUJOCO_GL" not in os.environ and sys.platform == "linux":
    os.environ["MUJOCO_GL"] = "egl"  # importorskip imports it before the environment does
pytest.importorskip("metaworld", reason="Meta-World is not installed: unidiff-vla[metaworld]")

from unidiff_vla.environments import check_environment, environment_id, metaworld_experts  # noqa: E402
from unidiff_vla.environments.layouts import cell_of  # noqa: E402

BENCHMARK = (
    "reach",
    "push",
    "drawer-open",
    "drawer-close",
    "button-press-topdown",
    "window-open",
)
PLAY = Path(__file__).parent / "play_metaworld.py"


def make(task, **options):
    return gymnasium.make(environment_id(task), **options).unwrapped


def expert_succeeds(env):
    """Whether the expert does the task from where the episode is."""
    expert, is_over = env.expert(), False
    while not is_over:
        _, _, terminated, truncated, info = env.step(expert())
        is_over = terminated or truncated
    return info["success"]


@pytest.fixture(scope="module")
def reach():
    env = make("reach")
    yield env
    env.close()


@pytest.fixture(scope="module")
def blind():
    """Environments without cameras by (task, split), made once."""
    made = {}

    def get(task, split="train"):
        if (task, split) not in made:
            made[task, split] = make(task, split=split, cameras=())
        return made[task, split]

    return get


def test_it_fits_the_protocol(reach):
    check_environment(reach)
    observation, _ = reach.reset(seed=0)
    assert observation["image"].shape == (64, 64, 3)
    assert observation["image"].std() > 10
    assert observation["state"].shape == (4,)
    assert observation in reach.observation_space


@pytest.mark.parametrize("task", ["push", "drawer-open"])
def test_two_processes_and_any_history_give_the_same_bits(task):
    command = [sys.executable, str(PLAY), task]
    alone = [
        subprocess.run([*command, *seeds], capture_output=True, text=True, check=True).stdout
        for seeds in (("7",), ("3", "12", "7"))
    ]
    assert len(alone[0].split()) == 2
    assert alone[0].split() == alone[1].split()[-2:]
    assert alone[1].split()[0] != alone[0].split()[0]


@pytest.mark.parametrize("task", BENCHMARK)
def test_layouts_of_training_and_testing_are_disjoint(blind, task):
    cells, layouts = {}, {}
    for split in ("train", "test"):
        env = blind(task, split)
        box = env._simulator._random_reset_space
        drawn = []
        for seed in range(12):
            env.reset(seed=seed)
            drawn.append(env.layout)
        layouts[split] = {tuple(one) for one in drawn}
        cells[split] = {cell_of(one, box.low, box.high) for one in drawn}
        assert len(layouts[split]) == 12
    assert not cells["train"] & cells["test"]
    assert not layouts["train"] & layouts["test"]


@pytest.mark.parametrize("task", BENCHMARK)
def test_the_expert_solves_five_unseen_layouts(blind, task):
    env = blind(task, "test")
    results = []
    for seed in range(5):
        env.reset(seed=seed)
        results.append(expert_succeeds(env))
    assert results == [True] * 5


@pytest.mark.parametrize("tries_again", [True, False])
def test_the_expert_of_push_opens_fingers_that_closed_on_nothing(blind, tries_again, monkeypatch):
    if not tries_again:  # Meta-World's script alone: whoever learns from it cannot come back
        monkeypatch.setattr(metaworld_experts, "_trying_again", metaworld_experts._as_it_is)
    env = blind("push")
    results = []
    for seed in range(6):
        env.reset(seed=seed)
        aside = np.append(np.random.default_rng(seed).uniform(-0.5, 0.5, 3), 1.0)
        for _ in range(40):
            env.step(aside)
        results.append(expert_succeeds(env))
    assert results == [tries_again] * 6


def test_the_first_picture_shows_the_goal_of_this_episode(reach):
    first = reach.reset(seed=1)[0]["image"]
    reach.reset(seed=2)
    np.testing.assert_array_equal(reach.reset(seed=1)[0]["image"], first)
    site = reach._simulator.data.site("goal").xpos
    np.testing.assert_allclose(site, reach._simulator._target_pos, atol=1e-9)
    np.testing.assert_allclose(site, reach.layout[-3:], atol=1e-9)


@pytest.mark.parametrize("task", ["reach", "drawer-open", "assembly", "box-close"])
def test_after_a_reset_every_body_and_marker_lies_where_this_episode_has_it(task):
    env = make(task, cameras=())
    env.reset(seed=7)
    simulator = env._simulator
    before = simulator.data.xpos.copy(), simulator.data.site_xpos.copy()
    env._mujoco.mj_forward(simulator.model, simulator.data)
    np.testing.assert_allclose(before[0], simulator.data.xpos, atol=1e-6)
    np.testing.assert_allclose(before[1], simulator.data.site_xpos, atol=1e-6)


def test_a_marker_that_the_simulator_puts_elsewhere_is_drawn_at_the_goal():
    env = make("sweep", image_size=16)
    env.reset(seed=0)
    env.step(np.zeros(4))
    simulator = env._simulator
    np.testing.assert_allclose(simulator.data.site("goal").xpos, simulator._target_pos, atol=1e-9)
    env.close()


def test_the_marker_has_the_radius_of_success_or_the_simulators_own(reach):
    plain = make("reach", cameras=(), marks_success=False)
    assert reach._simulator.model.site("goal").size[0] == 0.05
    assert plain._simulator.model.site("goal").size[0] == 0.02
    # Just inside the marker the simulator reports success, just outside it does not.
    plain.reset(seed=0)
    full = plain._full_state.copy()
    tip, goal = plain._simulator.tcp_center, plain._simulator._target_pos
    for radius, success in ((0.049, 1.0), (0.051, 0.0)):
        plain._simulator._target_pos = tip + np.array([radius, 0.0, 0.0])
        assert plain._simulator.evaluate_state(full, np.zeros(4))[1]["success"] == success
    plain._simulator._target_pos = goal


def test_rendering_is_the_fast_one(reach):
    reach.reset(seed=0)
    quality = reach._simulator.model.vis.quality
    assert (quality.offsamples, quality.shadowsize) == (0, 0)


def test_several_cameras_see_different_things():
    env = make("push", cameras=("front", "side"), image_size=32)
    pictures = env.reset(seed=0)[0]["image"]
    env.close()
    assert pictures["front"].shape == pictures["side"].shape == (32, 32, 3)
    assert np.abs(pictures["front"].astype(int) - pictures["side"]).mean() > 5


def test_an_action_that_is_not_finite_never_reaches_the_simulator(blind):
    env = blind("reach")
    env.reset(seed=0)
    before = env._simulator.data.qpos.copy()
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite numbers in an action"):
            env.step([0.0, 0.0, wrong, 0.0])
    np.testing.assert_array_equal(env._simulator.data.qpos, before)
    assert env._simulator.curr_path_length == 0


def test_an_action_out_of_range_is_that_at_its_bound(blind):
    env = blind("reach")
    states = []
    for action in ([9.0, -9.0, 1.0, 2.0], [1.0, -1.0, 1.0, 1.0]):
        env.reset(seed=0)
        states.append(env.step(action)[0]["state"])
    np.testing.assert_array_equal(*states)


def test_unknown_names_and_too_many_steps_are_refused():
    from unidiff_vla.environments.metaworld_env import MetaWorldEnv

    with pytest.raises(ValueError, match="task must be one of"):
        MetaWorldEnv("juggle")
    with pytest.raises(ValueError, match="expected cameras out of"):
        MetaWorldEnv("reach", cameras=("back",))
    with pytest.raises(ValueError, match="max_steps <= 500"):
        MetaWorldEnv("reach", max_steps=501)
    with pytest.raises(ValueError, match="split must be one of"):
        MetaWorldEnv("reach", "valid")


def test_the_rendering_backend_is_egl_unless_the_user_says_otherwise():
    code = (
        "from unidiff_vla.environments.metaworld_env import load_metaworld; load_metaworld();"
        "import os; print(os.environ['MUJOCO_GL'])"
    )
    plain = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    for extra, expected in (({}, "egl"), ({"MUJOCO_GL": "osmesa"}, "osmesa")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**plain, **extra}, capture_output=True, text=True
        )
        if extra and done.returncode:  # no such library here; it was asked for all the same
            assert expected in done.stderr.lower()
        else:
            assert done.stdout.strip() == expected


def test_a_renderer_without_opengl_says_what_to_do():
    code = (
        "import mujoco; from unidiff_vla.environments.metaworld_env import MetaWorldEnv;"
        "MetaWorldEnv('reach').reset(seed=0)"
    )
    plain = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    plain.pop("DISPLAY", None)  # without EGL mujoco asks for a window, which needs a display
    done = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True)
    assert "set MUJOCO_GL=egl before" in done.stderr


def test_what_is_used_of_the_simulators_inside_is_there(blind):
    simulator = blind("reach")._simulator
    for name in (
        "_set_task_called",
        "_partially_observable",
        "_random_reset_space",
        "_target_site_config",
        "_set_pos_site",
        "_get_obs",
        "_get_state_rand_vec",
    ):
        assert hasattr(simulator, name), name
