"""The expert of the robot table and its demonstrations.

Run: OMP_NUM_THREADS=1 python -m pytest -q tests/data/sources/test_tabletop_expert.py
"""

import math

import numpy as np
import pytest

from unidiff.data.sources.tabletop import STEP_LIMITS, TabletopEnv, colour_in
from unidiff.data.sources.tabletop_expert import (
    SAMPLES_PER_EPISODE,
    expert_action,
    expert_policy,
    plan_chunk,
    record_demonstrations,
    record_episode,
)
from unidiff.data.sources.tabletop_rollout import (
    evaluation_seeds,
    rollout,
    swapped_instruction,
)
from unidiff.data.sources.tabletop_scene import (
    EVALUATION_SEED_START,
    MAX_STEP,
    TASKS,
    Scene,
    advance,
    render_scene,
    sample_scene,
)


def _expert_results(task, seeds, **options):
    results = []
    for seed in seeds:
        env = TabletopEnv(task)
        results.append(rollout(expert_policy(env), seed, task, env=env, **options))
    return results


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_succeeds_on_at_least_99_percent_of_300_tables(task):
    results = _expert_results(task, evaluation_seeds(300), replan_every=1)
    assert np.mean([result.success for result in results]) >= 0.99
    assert not any(result.wrong_target for result in results)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("replan_every", [4, 8])
def test_its_chunks_succeed_open_loop(task, replan_every):
    results = _expert_results(task, evaluation_seeds(100), replan_every=replan_every)
    assert np.mean([result.success for result in results]) >= 0.98


@pytest.mark.parametrize("task", TASKS)
def test_told_the_other_colour_it_goes_to_the_other_disc(task):
    results = _expert_results(task, evaluation_seeds(100), instruction_override=swapped_instruction)
    assert np.mean([result.success for result in results]) <= 0.1
    assert np.mean([result.wrong_target for result in results]) >= 0.9


@pytest.mark.parametrize("task", TASKS)
def test_it_comes_to_rest_with_exact_zeros(task):
    for seed in range(20):
        scene = sample_scene(task, seed)
        for _ in range(STEP_LIMITS[task]):
            scene = advance(scene, *expert_action(scene))
        assert np.abs(expert_action(scene)).max() < 0.02
    resting = Scene(task, (0.2, 0.2), None, ((0.2, 0.2), (0.8, 0.8)), ("red", "blue"), 0)
    assert expert_action(resting) == (0.0, 0.0)


@pytest.mark.parametrize("task", TASKS)
def test_its_action_is_short_and_changes_little_along_its_way(task):
    for seed in range(30):
        scene = sample_scene(task, seed)
        for _ in range(STEP_LIMITS[task]):
            action = expert_action(scene)
            assert math.hypot(*action) <= 1 + 1e-9
            scene = advance(scene, *action)
            # No flip of direction from one step to the next: the field has no razor's edge here.
            assert math.dist(expert_action(scene), action) < 1.3


def test_a_chunk_is_the_expert_run_forward_in_a_copy():
    scene = sample_scene("push", 3)
    before, chunk = scene, plan_chunk(scene)
    assert chunk.shape == (8, 2)
    assert chunk.dtype == np.float32
    for row in chunk:
        assert expert_action(scene) == pytest.approx(tuple(row), abs=1e-6)
        scene = advance(scene, *expert_action(scene))
    assert before == sample_scene("push", 3)


@pytest.mark.parametrize("task", TASKS)
def test_an_undisturbed_recording_replays_the_expert(task):
    episode = record_episode(11, task, noise=0.0)
    num_points = len(episode.instructions)
    assert episode.success
    assert episode.frames.shape == (num_points, 32, 32, 3)
    assert episode.chunks.shape == (num_points, 8, 2)
    assert np.array_equal(episode.frames[0], render_scene(sample_scene(task, 11)))
    assert np.array_equal(episode.chunks[0], plan_chunk(sample_scene(task, 11)))
    # Four steps on, the new chunk begins where the old one had got to.
    assert episode.chunks[1, :4] == pytest.approx(episode.chunks[0, 4:], abs=1e-5)
    moved = episode.chunks[0, :4].sum(0) * MAX_STEP
    if task == "reach":
        assert episode.states[1] - episode.states[0] == pytest.approx(moved, abs=1e-5)


def test_noise_disturbs_what_is_done_but_not_what_is_recorded():
    calm, shaken = record_episode(4, "reach", 0.0), record_episode(4, "reach", 0.4)
    assert np.array_equal(calm.chunks[0], shaken.chunks[0])
    assert not np.allclose(calm.states[1], shaken.states[1], atol=1e-3)
    colour = colour_in(shaken.instructions[0])
    scene = sample_scene("reach", 4).with_goal(colour)
    for state, chunk in zip(shaken.states, shaken.chunks, strict=True):
        there = Scene("reach", tuple(state.tolist()), None, scene.targets, scene.colours, 0)
        assert chunk == pytest.approx(plan_chunk(there), abs=1e-4)


def test_disturbed_demonstrations_mostly_succeed_and_end_with_stillness():
    for task in TASKS:
        episodes = [record_episode(seed, task, 0.3) for seed in range(60)]
        assert np.mean([episode.success for episode in episodes]) >= 0.9
        ends = [np.abs(e.chunks[-1]).max() for e in episodes if e.success]
        assert np.mean(np.array(ends) < 0.5) >= 0.9


def test_demonstrations_are_aligned_reproducible_and_of_training_seeds():
    data = record_demonstrations(300, seed=5)
    again = record_demonstrations(300, seed=5)
    assert data.frames.shape == (300, 32, 32, 3)
    assert data.frames.dtype == np.uint8
    assert data.states.shape == (300, 2)
    assert data.states.dtype == np.float32
    assert data.chunks.shape == (300, 8, 2)
    assert np.abs(data.chunks).max() <= 1
    assert len(data.instructions) == len(data.tasks) == len(data.seeds) == 300
    assert set(data.tasks) == set(TASKS)
    assert data.seeds.max() < EVALUATION_SEED_START <= min(evaluation_seeds(3))
    assert np.array_equal(data.chunks, again.chunks)
    assert np.array_equal(data.frames, again.frames)
    for task, text in zip(data.tasks, data.instructions, strict=True):
        assert ("puck" in text) == (task == "push")


def test_recording_refuses_evaluation_seeds_and_nonsense():
    with pytest.raises(ValueError, match="training seed"):
        record_episode(EVALUATION_SEED_START, "reach")
    with pytest.raises(ValueError, match="noise"):
        record_episode(0, "reach", noise=-1.0)
    with pytest.raises(ValueError, match="task must be one of"):
        record_episode(0, "juggle")
    with pytest.raises(ValueError, match="num_samples"):
        record_demonstrations(0, seed=0)
    with pytest.raises(ValueError, match="task must be one of"):
        record_demonstrations(1, seed=0, tasks=("juggle",))


def test_a_retold_point_holds_what_the_expert_would_do_for_the_other_disc():
    told = record_episode(11, "reach", noise=0.0)
    retold = record_episode(11, "reach", noise=0.0, prob_retold=1.0)
    np.testing.assert_array_equal(told.frames, retold.frames)  # the episode itself is the same
    env = TabletopEnv("reach")
    env.reset(seed=11)
    other = env.table.colours[1 - env.table.goal]
    assert other in retold.instructions[0]
    assert other not in told.instructions[0]
    np.testing.assert_array_equal(retold.chunks[0], plan_chunk(env.table.with_goal(other)))


def test_demonstrations_show_many_tables_and_seldom_rest():
    data = record_demonstrations(600, seed=0)
    assert len(np.unique(data.seeds)) >= 600 / SAMPLES_PER_EPISODE
    at_rest = np.abs(data.chunks).max((1, 2)) < 0.05
    assert 0.0 < at_rest.mean() < 0.2
