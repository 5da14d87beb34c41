"""Running policies on the robot table: one episode, or many side by side for batched policies.

A policy maps what the robot sees to a chunk of actions; the first `replan_every` of them are
executed open loop. Knows nothing of models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tabletop import TabletopEnv
from .tabletop_scene import EVALUATION_SEED_START

Policy = Callable[[np.ndarray, np.ndarray, str], np.ndarray]
BatchPolicy = Callable[[list[np.ndarray], list[np.ndarray], list[str]], Sequence[np.ndarray]]
InstructionOverride = str | Callable[[TabletopEnv], str] | None


@dataclass(frozen=True)
class EpisodeResult:
    """What came of one rollout.

    Attributes:
        success: the goal of the table (not of an overriding instruction) was satisfied.
        wrong_target: the other disc was satisfied at some step.
        num_steps: steps taken, at most the task's limit.
        num_plans: how often the policy was asked.
        instruction: what the policy was told.
        frames: (num_steps + 1, 32, 32, 3) uint8, the first before any action.
        states: (num_steps + 1, 2) float32.
        actions: (num_steps, 2) float32, as executed (clipped to [-1, 1]).
    """

    success: bool
    wrong_target: bool
    num_steps: int
    num_plans: int
    instruction: str
    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray


class _Run:
    """One episode under way: its environment and everything recorded so far."""

    def __init__(self, env: TabletopEnv, seed: int, override: InstructionOverride) -> None:
        self.env = env
        observation, self.info = env.reset(seed=seed)
        told = override(env) if callable(override) else override
        self.instruction = observation["instruction"] if told is None else told
        self.images, self.states = [observation["image"]], [observation["state"]]
        self.actions: list[np.ndarray] = []
        self.num_plans = 0
        self.is_over = False

    def execute(self, chunk: Any, replan_every: int) -> None:
        """Carry out the first `replan_every` actions of a chunk (T, 2), or fewer if it ends."""
        chunk = np.asarray(chunk, dtype=np.float32)
        if chunk.ndim != 2 or chunk.shape[0] < replan_every or chunk.shape[1] != 2:
            raise ValueError(
                f"policy must return a chunk of shape (>= {replan_every}, 2); got {chunk.shape=}"
            )
        self.num_plans += 1
        for action in np.clip(chunk[:replan_every], -1, 1):
            observation, _, is_success, is_late, self.info = self.env.step(action)
            self.images.append(observation["image"])
            self.states.append(observation["state"])
            self.actions.append(action)
            self.is_over = is_success or is_late
            if self.is_over:
                return

    def result(self) -> EpisodeResult:
        """The record as arrays."""
        return EpisodeResult(
            success=self.info["success"],
            wrong_target=self.info["wrong_target"],
            num_steps=len(self.actions),
            num_plans=self.num_plans,
            instruction=self.instruction,
            frames=np.stack(self.images),
            states=np.stack(self.states),
            actions=np.stack(self.actions),
        )


def evaluation_seeds(num_seeds: int) -> list[int]:
    """The first seeds of the evaluation range, which no demonstration uses."""
    return list(range(EVALUATION_SEED_START, EVALUATION_SEED_START + num_seeds))


def swapped_instruction(env: TabletopEnv) -> str:
    """The instruction of the present table with the other disc's colour: use it as an override."""
    table = env.table
    goal, other = table.colours[table.goal], table.colours[1 - table.goal]
    return env.instruction.replace(goal, other)


def rollout(
    policy: Policy,
    seed: int,
    task: str,
    *,
    replan_every: int = 8,
    instruction_override: InstructionOverride = None,
    env: TabletopEnv | None = None,
) -> EpisodeResult:
    """Run one episode.

    Args:
        policy: (image (32, 32, 3) uint8, state (2,) float32, instruction) -> chunk (8, 2).
        seed: of the table; evaluation seeds start at `EVALUATION_SEED_START`.
        task: "reach" or "push".
        replan_every: actions executed open loop before the policy is asked again.
        instruction_override: what the policy is told instead, or a function of the environment that
            says it (`swapped_instruction`); success is still judged by the table's own goal.
        env: the environment to use, for a policy that looks into it (`expert_policy`).

    Raises:
        ValueError: if `replan_every` < 1, or the policy returns a wrong shape or numbers that are
            not finite.
    """
    _check_replan_every(replan_every)
    run = _Run(TabletopEnv(task) if env is None else env, seed, instruction_override)
    while not run.is_over:
        run.execute(policy(run.images[-1], run.states[-1], run.instruction), replan_every)
    return run.result()


def rollout_batch(
    policy_batch: BatchPolicy,
    seeds: Sequence[int],
    task: str,
    *,
    replan_every: int = 8,
    instruction_override: InstructionOverride = None,
) -> list[EpisodeResult]:
    """Run one episode per seed side by side; the policy sees the unfinished ones as one batch.

    Args:
        policy_batch: (images, states, instructions), lists of equal length n <= len(seeds), ->
            n chunks of shape (8, 2).
        seeds: of the tables.
        task: "reach" or "push".
        replan_every: see `rollout`.
        instruction_override: see `rollout`.

    Returns:
        One result per seed, in the order of the seeds; empty for no seeds.

    Raises:
        ValueError: as `rollout`, and if the policy returns another number of chunks.
    """
    _check_replan_every(replan_every)
    runs = [_Run(TabletopEnv(task), seed, instruction_override) for seed in seeds]
    while active := [run for run in runs if not run.is_over]:
        chunks = policy_batch(
            [run.images[-1] for run in active],
            [run.states[-1] for run in active],
            [run.instruction for run in active],
        )
        if len(chunks) != len(active):
            raise ValueError(f"policy must return {len(active)} chunks; got {len(chunks)}")
        for run, chunk in zip(active, chunks, strict=True):
            run.execute(chunk, replan_every)
    return [run.result() for run in runs]


def _check_replan_every(replan_every: int) -> None:
    if replan_every < 1:
        raise ValueError(f"replan_every must be >= 1; got {replan_every=}")
