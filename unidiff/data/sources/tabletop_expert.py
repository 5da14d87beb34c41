"""An expert for the robot table, and demonstrations: frame, state, instruction, next 8 actions.

The expert is a smooth function of the present scene only: no memory, no planning. Demonstrations
are DART-like (arXiv 1703.09327): noise disturbs the executed action, the recorded chunk is what the
undisturbed expert would do for the next 8 steps from there, found by simulating a copy.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tabletop import TabletopEnv, colour_in
from .tabletop_rollout import swapped_instruction
from .tabletop_scene import (
    CONTACT_DISTANCE,
    EVALUATION_SEED_START,
    MAX_STEP,
    TASKS,
    Point,
    Scene,
    advance,
    check_task,
)

CHUNK_LENGTH = 8
SAMPLES_PER_EPISODE = 3
SHARE_AT_REST = 0.15  # weight of a resting point beside a moving one when samples are chosen
_REST = 0.05  # action units; a chunk below it everywhere is rest
_GAIN = 0.5  # share of the remaining distance covered per step, below the speed limit
_REACH_DEADBAND = 0.015  # table widths; inside it the hand is kept still
_PUSH_DEADBAND = 0.04
_PUSH_SPEED = 0.8
_FREE_GAP = 0.03  # clearance to the puck at which the bearing is corrected in full
_ORBIT_RADIUS = CONTACT_DISTANCE + 0.05
_ALIGNED, _ASTRAY = math.radians(20), math.radians(40)  # bearing errors: pure push, pure orbit


def _limit(x: float, y: float) -> Point:
    """The vector shortened to length 1 if it is longer."""
    length = math.hypot(x, y)
    return (x / length, y / length) if length > 1 else (x, y)


def _reach_action(scene: Scene) -> Point:
    """Head for the disc, slower near it, still inside the deadband."""
    x, y = scene.targets[scene.goal]
    x, y = x - scene.hand[0], y - scene.hand[1]
    distance = math.hypot(x, y)
    if distance <= _REACH_DEADBAND:
        return (0.0, 0.0)
    gain = _GAIN / MAX_STEP * (distance - _REACH_DEADBAND) / distance
    return _limit(gain * x, gain * y)


def _push_action(scene: Scene, puck: Point) -> Point:
    """Circle to the far side of the puck and push, blended smoothly by the bearing error."""
    goal, hand = scene.targets[scene.goal], scene.hand
    gap = math.dist(goal, puck)
    urgency = min(1.0, max(0.0, (gap - _PUSH_DEADBAND) / 0.1))
    if urgency == 0.0:
        return (0.0, 0.0)
    ahead_x, ahead_y = (goal[0] - puck[0]) / gap, (goal[1] - puck[1]) / gap
    out_x, out_y = hand[0] - puck[0], hand[1] - puck[1]
    radius = max(1e-9, math.hypot(out_x, out_y))
    out_x, out_y = out_x / radius, out_y / radius
    # Angle from the hand's bearing to the bearing behind the puck, in (-pi, pi].
    error = math.atan2(ahead_x * out_y - ahead_y * out_x, -ahead_x * out_x - ahead_y * out_y)
    share = min(1.0, max(0.0, (_ASTRAY - abs(error)) / (_ASTRAY - _ALIGNED)))
    push = share * share * (3 - 2 * share)
    # In contact friction carries the puck along the hand's motion: correcting would drag it astray.
    freedom = min(1.0, max(0.0, (radius - CONTACT_DISTANCE) / _FREE_GAP, 1 - push))
    around = freedom * min(1.0, max(-1.0, _GAIN * error * radius / MAX_STEP))
    outward = (1 - push) * min(1.0, max(-1.0, _GAIN * (_ORBIT_RADIUS - radius) / MAX_STEP))
    forward = push * _PUSH_SPEED
    x = forward * ahead_x + outward * out_x - around * out_y
    y = forward * ahead_y + outward * out_y + around * out_x
    x, y = _limit(x, y)
    return (urgency * x, urgency * y)


def expert_action(scene: Scene) -> Point:
    """What the expert does now: (dx, dy) of length <= 1, zeros once the goal is well covered."""
    return _reach_action(scene) if scene.puck is None else _push_action(scene, scene.puck)


def plan_chunk(scene: Scene, length: int = CHUNK_LENGTH) -> np.ndarray:
    """The expert's next actions in its own copy of the world: (length, 2) float32 in [-1, 1]."""
    chunk = []
    for _ in range(length):
        action = expert_action(scene)
        chunk.append(action)
        scene = advance(scene, *action)
    return np.array(chunk, dtype=np.float32)


def expert_policy(env: TabletopEnv) -> Callable[[np.ndarray, np.ndarray, str], np.ndarray]:
    """A policy that obeys the instruction it is given but looks at the full state of `env`.

    Args:
        env: the environment whose scene is read at each call; pass it to `rollout` as well.
    """

    def policy(image: np.ndarray, state: np.ndarray, instruction: str) -> np.ndarray:
        del image, state
        return plan_chunk(env.table.with_goal(colour_in(instruction)))

    return policy


@dataclass(frozen=True)
class Episode:
    """One disturbed demonstration, read at its n replanning points.

    Attributes:
        frames: (n, 32, 32, 3) uint8.
        states: (n, 2) float32, hand positions in table widths.
        instructions: n strings.
        chunks: (n, 8, 2) float32 in [-1, 1], what the undisturbed expert does from there.
        success: True if the disturbed expert succeeded within the limit.
    """

    frames: np.ndarray
    states: np.ndarray
    instructions: list[str]
    chunks: np.ndarray
    success: bool


@dataclass(frozen=True)
class Demonstrations:
    """Samples of many episodes, in the order of recording.

    Attributes:
        frames: (n, 32, 32, 3) uint8.
        states: (n, 2) float32.
        instructions: n strings.
        chunks: (n, 8, 2) float32.
        tasks: n task names.
        seeds: (n,) int64, the episode seed of each sample (all below `EVALUATION_SEED_START`).
    """

    frames: np.ndarray
    states: np.ndarray
    instructions: list[str]
    chunks: np.ndarray
    tasks: list[str]
    seeds: np.ndarray


def record_episode(
    seed: int, task: str, noise: float = 0.3, replan_every: int = 4, prob_retold: float = 0.0
) -> Episode:
    """Record one demonstration; the same arguments give the same episode.

    Recording ends two replanning points after success, so that holding still is seen too.

    Args:
        seed: in [0, `EVALUATION_SEED_START`).
        task: "reach" or "push".
        noise: standard deviation per axis added to executed actions, in action units. Half of its
            variance is held for a whole replanning interval, as the error of a chunk would be.
        replan_every: steps between two recorded points.
        prob_retold: probability that a point is recorded with the other disc's instruction and
            what the expert would do if told so there; the episode goes on as it was told.

    Raises:
        ValueError: if the seed is an evaluation seed, or noise or replan_every is out of range.
    """
    if not 0 <= seed < EVALUATION_SEED_START:
        raise ValueError(f"a training seed must be in [0, {EVALUATION_SEED_START}); got {seed=}")
    if noise < 0 or replan_every < 1:
        raise ValueError(f"expected noise >= 0 and replan_every >= 1; got {noise=} {replan_every=}")
    rng = np.random.default_rng((seed, TASKS.index(task) if task in TASKS else 0, 1))
    env = TabletopEnv(task)
    points: list[tuple[dict[str, Any], np.ndarray]] = []
    observation, info = env.reset(seed=seed)
    is_late, num_held = False, 0
    while not is_late and num_held < 2:
        table = env.table
        if rng.random() < prob_retold:
            observation = {**observation, "instruction": swapped_instruction(env)}
            table = table.with_goal(table.colours[1 - table.goal])
        points.append((observation, plan_chunk(table)))
        num_held += info["success"]
        shaking = rng.normal(0.0, noise * math.sqrt(0.5), (replan_every, 2))
        shaking += rng.normal(0.0, noise * math.sqrt(0.5), 2)
        observation, info, is_late = _execute_disturbed(env, shaking)
    return Episode(
        frames=np.stack([seen["image"] for seen, _ in points]),
        states=np.stack([seen["state"] for seen, _ in points]),
        instructions=[seen["instruction"] for seen, _ in points],
        chunks=np.stack([chunk for _, chunk in points]),
        success=num_held > 0 or info["success"],
    )


def _execute_disturbed(
    env: TabletopEnv, shaking: np.ndarray
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Run the expert for one interval with (n, 2) noise on its actions, none once it succeeded."""
    is_done = False
    for disturbance in shaking:
        action = np.array(expert_action(env.table), dtype=np.float64)
        observation, _, is_done, is_late, info = env.step(
            action if is_done else action + disturbance
        )
        if is_late:
            return observation, info, True
    return observation, info, False


def _thinned(episode: Episode, rng: np.random.Generator) -> Episode:
    """At most `SAMPLES_PER_EPISODE` points of an episode, in order, resting ones rarely."""
    moves = np.abs(episode.chunks).max((1, 2)) >= _REST
    weight = np.where(moves, 1.0, SHARE_AT_REST)
    count = min(SAMPLES_PER_EPISODE, len(weight))
    kept = np.sort(rng.choice(len(weight), size=count, replace=False, p=weight / weight.sum()))
    return Episode(
        frames=episode.frames[kept],
        states=episode.states[kept],
        instructions=[episode.instructions[index] for index in kept],
        chunks=episode.chunks[kept],
        success=episode.success,
    )


def record_demonstrations(
    num_samples: int, seed: int, tasks: tuple[str, ...] = TASKS, max_noise: float = 0.4
) -> Demonstrations:
    """Record samples for imitation; episodes alternate between the tasks.

    Each episode's seed is drawn below `EVALUATION_SEED_START`, so no evaluation table is ever seen;
    its noise is uniform in [0, max_noise]. An episode gives few samples and few of them at rest, so
    that most samples show a table of their own and a hand that moves.

    Args:
        num_samples: how many samples to return; the last episode is cut.
        seed: decides everything.
        tasks: the tasks to alternate between.
        max_noise: see `record_episode`.

    Raises:
        ValueError: if there is nothing to record or a task is unknown.
    """
    if num_samples < 1 or not tasks:
        raise ValueError(f"expected num_samples >= 1 and a task; got {num_samples=} {tasks=}")
    for task in tasks:
        check_task(task)
    rng = np.random.default_rng(seed)
    recorded: list[tuple[str, int, Episode]] = []
    total = 0
    while total < num_samples:
        task = tasks[len(recorded) % len(tasks)]
        episode_seed = int(rng.integers(EVALUATION_SEED_START))
        episode = record_episode(
            episode_seed, task, float(rng.uniform(0, max_noise)), prob_retold=0.5
        )
        episode = _thinned(episode, rng)
        recorded.append((task, episode_seed, episode))
        total += len(episode.instructions)
    counts = [len(episode.instructions) for _, _, episode in recorded]
    return Demonstrations(
        frames=np.concatenate([e.frames for _, _, e in recorded])[:num_samples],
        states=np.concatenate([e.states for _, _, e in recorded])[:num_samples],
        instructions=[text for _, _, e in recorded for text in e.instructions][:num_samples],
        chunks=np.concatenate([e.chunks for _, _, e in recorded])[:num_samples],
        tasks=[task for task, _, e in recorded for _ in e.instructions][:num_samples],
        seeds=np.repeat(np.array([s for _, s, _ in recorded], np.int64), counts)[:num_samples],
    )
