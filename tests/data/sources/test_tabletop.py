"""The robot table: physics, pictures, success and rollouts.

Run: OMP_NUM_THREADS=1 python -m pytest -q tests/data/sources/test_tabletop.py
"""

import ast
import math
import string
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unidiff.data.sources import tabletop
from unidiff.data.sources.tabletop import (
    PHRASINGS,
    STEP_LIMITS,
    STILL_STEPS,
    TabletopEnv,
    colour_in,
)
from unidiff.data.sources.tabletop_rollout import (
    evaluation_seeds,
    rollout,
    rollout_batch,
    swapped_instruction,
)
from unidiff.data.sources.tabletop_scene import (
    COLOURS,
    CONTACT_DISTANCE,
    HAND_RADIUS,
    MAX_STEP,
    PUCK_RADIUS,
    TARGET_RADIUS,
    TASKS,
    Scene,
    advance,
    render_scene,
    sample_scene,
)

FAR_TARGETS = ((0.15, 0.15), (0.85, 0.15))


def _table(hand: tuple[float, float], puck: tuple[float, float] | None) -> Scene:
    task = "reach" if puck is None else "push"
    return Scene(task, hand, puck, FAR_TARGETS, ("red", "blue"), 0)


def _environment_with(scene: Scene) -> TabletopEnv:
    env = TabletopEnv(scene.task)
    env.reset(seed=0)
    env.scene = scene
    return env


def test_a_free_hand_moves_by_the_scaled_clipped_action():
    scene = advance(_table((0.5, 0.5), None), 0.5, -9.0)
    assert scene.hand == pytest.approx((0.5 + 0.5 * MAX_STEP, 0.5 - MAX_STEP))


def test_the_hand_stops_at_the_wall():
    scene = _table((0.1, 0.5), None)
    for _ in range(5):
        scene = advance(scene, -1.0, 0.0)
    assert scene.hand == (HAND_RADIUS, 0.5)


def test_a_straight_push_carries_the_puck_ahead_of_the_hand():
    scene = advance(_table((0.5 - CONTACT_DISTANCE, 0.5), (0.5, 0.5)), 1.0, 0.0)
    assert scene.puck == pytest.approx((0.5 + MAX_STEP, 0.5))


def test_friction_carries_the_puck_along_an_oblique_motion_within_the_cone():
    scene = advance(_table((0.5 - CONTACT_DISTANCE, 0.5), (0.5, 0.5)), 1.0, 0.4)
    assert scene.puck == pytest.approx((0.5 + MAX_STEP, 0.5 + 0.4 * MAX_STEP), abs=0.003)


def test_an_untouched_puck_stays():
    scene = advance(_table((0.2, 0.5), (0.5, 0.5)), -1.0, 1.0)
    assert scene.puck == (0.5, 0.5)


def test_hand_and_puck_never_overlap_nor_leave_the_table():
    rng = np.random.default_rng(3)
    for seed in range(20):
        scene = sample_scene("push", seed)
        for _ in range(60):
            # Drive at the puck, so that most steps are contacts and many end at a wall.
            aim = np.subtract(scene.puck, scene.hand) * 8 + rng.normal(0, 0.5, 2)
            scene = advance(scene, *aim)
            assert math.dist(scene.hand, scene.puck) > 0.9 * CONTACT_DISTANCE
            assert all(PUCK_RADIUS <= x <= 1 - PUCK_RADIUS for x in scene.puck)
            assert all(HAND_RADIUS <= x <= 1 - HAND_RADIUS for x in scene.hand)


def test_the_picture_shows_each_thing_at_its_place():
    picture = render_scene(
        Scene("push", (0.5, 0.75), (0.5, 0.5), ((0.25, 0.25), (0.75, 0.25)), ("red", "yellow"), 0)
    )
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[8, 8]) == COLOURS["red"]
    assert tuple(picture[8, 24]) == COLOURS["yellow"]
    assert tuple(picture[24, 16]) == (255, 255, 255)
    assert picture[16, 16].max() < 90
    assert tuple(picture[31, 0]) == tuple(picture[16, 31])


def test_the_picture_moves_by_less_than_a_pixel_too():
    scene = _table((0.5, 0.5), None)
    moved = replace(scene, hand=(0.51, 0.5))
    assert not np.array_equal(render_scene(scene), render_scene(moved))


@pytest.mark.parametrize("task", TASKS)
def test_tables_are_fair_and_decided_by_their_seed(task):
    for seed in range(100):
        scene = sample_scene(task, seed)
        mover = scene.hand if scene.puck is None else scene.puck
        assert scene == sample_scene(task, seed)
        assert scene.colours[0] != scene.colours[1]
        assert math.dist(*scene.targets) > 3 * TARGET_RADIUS
        # Walk straight to the named disc: the other one stays uncrossed.
        for share in np.linspace(0, 1, 20):
            spot = np.add(np.multiply(mover, 1 - share), np.multiply(scene.targets[0], share))
            assert math.dist(spot, scene.targets[1]) > TARGET_RADIUS
    assert sample_scene(task, 1) != sample_scene(task, 2)


def test_crossing_a_disc_is_no_success_but_resting_on_it_is():
    env = _environment_with(_table((0.15 + 2 * MAX_STEP, 0.15), None))
    for _ in range(3):
        _, reward, terminated, _, info = env.step((-0.5, 0.0))
        assert (reward, terminated, info["success"]) == (0.0, False, False)
    outcomes = [env.step((0.0, 0.0))[2] for _ in range(STILL_STEPS)]
    assert outcomes == [False] * (STILL_STEPS - 1) + [True]


def test_the_wrong_disc_is_recorded_and_remembered_but_does_not_end_the_episode():
    env = _environment_with(_table((0.85, 0.15), None))
    for _ in range(STILL_STEPS):
        _, _, terminated, _, info = env.step((0.0, 0.0))
    assert info["wrong_target"]
    assert not terminated
    for _ in range(4):
        info = env.step((-1.0, 0.0))[4]
    assert info["wrong_target"]
    assert not env.reset(seed=1)[1]["wrong_target"]


def test_in_push_the_puck_must_rest_on_the_disc_not_the_hand():
    env = _environment_with(_table((0.15, 0.15), (0.5, 0.5)))
    assert not any(env.step((0.0, 0.0))[2] for _ in range(4))
    env = _environment_with(_table((0.5, 0.5), (0.15, 0.15)))
    assert any(env.step((0.0, 0.0))[2] for _ in range(4))


@pytest.mark.parametrize("task", TASKS)
def test_an_idle_hand_is_truncated_at_the_limit(task):
    result = rollout(lambda image, state, text: np.zeros((8, 2)), 5, task)
    assert (result.success, result.num_steps) == (False, STEP_LIMITS[task])
    assert result.frames.shape == (STEP_LIMITS[task] + 1, 32, 32, 3)


@pytest.mark.parametrize("task", TASKS)
def test_observations_fit_the_declared_spaces_and_instructions_name_the_goal(task):
    env = TabletopEnv(task)
    for seed in range(8):
        observation, _ = env.reset(seed=seed)
        for name, space in env.observation_space.items():
            assert observation[name].shape == space.shape
            assert observation[name].dtype == space.dtype
        assert observation["instruction"] == observation["instruction"].lower()
        assert colour_in(observation["instruction"]) == env.scene.colours[env.scene.goal]
        swapped = swapped_instruction(env)
        assert colour_in(swapped) == env.scene.colours[1 - env.scene.goal]


def test_seeds_and_options_choose_the_phrasing():
    env = TabletopEnv("push")
    seen = {env.reset(seed=0, options={"phrasing": i})[0]["instruction"] for i in range(4)}
    assert len(seen) == len(PHRASINGS["push"])


def test_reset_without_a_seed_goes_on_to_new_tables():
    env = TabletopEnv()
    env.reset(seed=7)
    first = env.scene
    env.reset()
    second = env.scene
    env.reset()
    assert len({first.hand, second.hand, env.scene.hand}) == 3


def test_rollouts_side_by_side_equal_rollouts_alone():
    def policy(image, state, text):
        goal = np.array([0.5, 0.5]) + 0.3 * (len(text) % 3 - 1)
        return np.repeat((goal - state)[None] * 3 + image.mean() / 1000, 8, axis=0)

    def policy_batch(images, states, texts):
        return [policy(*one) for one in zip(images, states, texts, strict=True)]

    seeds = evaluation_seeds(5)
    together = rollout_batch(policy_batch, seeds, "push", replan_every=4)
    for seed, result in zip(seeds, together, strict=True):
        alone = rollout(policy, seed, "push", replan_every=4)
        assert np.array_equal(alone.frames, result.frames)
        assert np.array_equal(alone.actions, result.actions)
        assert alone.success == result.success


def test_an_overriding_instruction_reaches_the_policy():
    heard = []

    def policy(image, state, text):
        heard.append(text)
        return np.zeros((8, 2))

    rollout(policy, 0, "reach", instruction_override="go to the blue disc")
    assert set(heard) == {"go to the blue disc"}
    assert len(heard) == STEP_LIMITS["reach"] // 8


def test_a_random_policy_rarely_succeeds():
    rng = np.random.default_rng(0)
    for task in TASKS:
        results = rollout_batch(
            lambda images, states, texts: rng.uniform(-1, 1, (len(images), 8, 2)),
            evaluation_seeds(150),
            task,
        )
        assert np.mean([result.success for result in results]) <= 0.05


def test_mistakes_are_answered_with_what_was_expected():
    with pytest.raises(ValueError, match="task must be one of"):
        TabletopEnv("juggle")
    with pytest.raises(RuntimeError, match="reset"):
        TabletopEnv().step((0, 0))
    with pytest.raises(RuntimeError, match="reset"):
        TabletopEnv().render()
    with pytest.raises(ValueError, match="finite"):
        _environment_with(_table((0.5, 0.5), None)).step((math.nan, 0))
    with pytest.raises(ValueError, match="seed must be"):
        sample_scene("reach", -1)
    with pytest.raises(ValueError, match="colour"):
        colour_in("go home")
    with pytest.raises(ValueError, match="expected one of the colours"):
        _table((0.5, 0.5), None).with_goal("green")
    with pytest.raises(ValueError, match="shape"):
        rollout(lambda image, state, text: np.zeros((4, 2)), 0, "reach")
    with pytest.raises(ValueError, match="2 chunks"):
        rollout_batch(lambda images, states, texts: [np.zeros((8, 2))], [0, 1], "reach")
    with pytest.raises(ValueError, match="replan_every"):
        rollout(lambda image, state, text: np.zeros((8, 2)), 0, "reach", replan_every=0)


def test_no_module_of_the_table_imports_anything_but_numpy_and_the_standard_library():
    allowed = set(sys.stdlib_module_names) | {"numpy"}
    folder = Path(tabletop.__file__).parent
    for path in folder.glob("tabletop*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] in allowed


def test_gymnasium_accepts_the_environment():
    gymnasium = pytest.importorskip("gymnasium")
    checker = pytest.importorskip("gymnasium.utils.env_checker")
    spaces = gymnasium.spaces

    class Wrapped(gymnasium.Env):
        """The table behind gymnasium's own base class."""

        metadata = TabletopEnv.metadata
        render_mode = TabletopEnv.render_mode

        def __init__(self) -> None:
            self.table = TabletopEnv("push")
            boxes = {
                name: spaces.Box(space.low, space.high, space.shape, space.dtype)
                for name, space in self.table.observation_space.items()
            }
            words = spaces.Text(64, charset=string.ascii_lowercase + " ")
            self.observation_space = spaces.Dict(boxes | {"instruction": words})
            self.action_space = spaces.Box(-1.0, 1.0, self.table.action_space.shape, np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.table.reset(seed=seed, options=options)

        def step(self, action):
            return self.table.step(action)

        def render(self):
            return self.table.render()

    checker.check_env(Wrapped(), skip_render_check=True)
