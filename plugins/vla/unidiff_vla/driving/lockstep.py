"""Many episodes side by side: one call of the policy for all that wait for a plan.

Row i of a call has the key hash(seed, layout's seed, plan number), so what an episode does depends
on no other episode, nor on how many environments there are.
"""

# Shapes: B observations, T timesteps, D dimensions.

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unidiff.diffusion.random import hash_integers
from unidiff_vla.environments.protocol import InstructedEnv

from .episode import EpisodeRun
from .film import Film
from .protocol import ChunkPolicy
from .view import View

OnRound = Callable[[Sequence[EpisodeRun]], None]


@dataclass(frozen=True)
class Drive:
    """What all episodes of a drive have in common.

    Attributes:
        view: what the policy sees of an observation.
        seed: of the plans.
        options: of `env.reset`.
        instruction: told instead of the environment's own.
        num_filmed: episodes, from the first, whose pictures are kept.
    """

    view: View = field(default_factory=View)
    seed: int = 0
    options: Mapping[str, Any] | None = None
    instruction: str | None = None
    num_filmed: int = 0


def drive(
    policy: ChunkPolicy,
    envs: Sequence[InstructedEnv],
    seeds: Sequence[int],
    how: Drive | None = None,
    on_round: OnRound | None = None,
) -> list[EpisodeRun]:
    """One episode for each seed; those of the environments that are free take the next.

    Args:
        policy: plans.
        envs: environments of one kind, at least one; each plays one episode at a time.
        seeds: of the layouts.
        how: what the episodes have in common; None: the defaults.
        on_round: called with all episodes begun so far, before the first plan and after each.

    Returns:
        Episodes that are over, in the order of the seeds; one that broke off has an error: of its
        environment, or of the policy, where that refuses what the episode shows.

    Raises:
        ValueError: if there is no environment, or the policy returns chunks of another shape than
            promised.
    """
    if not envs:
        raise ValueError("driving needs at least one environment, got none")
    how = Drive() if how is None else how
    waiting, idle = deque(enumerate(seeds)), list(envs)
    runs: list[EpisodeRun] = []
    active: list[EpisodeRun] = []
    while waiting or active:
        while waiting and idle:
            number, seed = waiting.popleft()
            runs.append(_begun(idle.pop(0), seed, how, is_filmed=number < how.num_filmed))
            active.append(runs[-1])
        if on_round is not None:
            on_round(runs)
        if planned := [run for run in active if not run.is_over]:
            _advance(policy, planned, how.seed)
        idle += [run.env for run in active if run.is_over]
        active = [run for run in active if not run.is_over]
    if on_round is not None:
        on_round(runs)
    return runs


def plan_key(seed: int, episode: int, plan: int) -> int:
    """Key of the n-th plan, from 0, of the episode with a layout's seed."""
    return int(hash_integers(seed, episode, plan))


def _begun(env: InstructedEnv, seed: int, how: Drive, *, is_filmed: bool) -> EpisodeRun:
    """A new episode."""
    film = Film() if is_filmed else None
    return EpisodeRun(
        env, seed, how.view, options=how.options, instruction=how.instruction, film=film
    )


def _advance(policy: ChunkPolicy, runs: Sequence[EpisodeRun], seed: int) -> None:
    """Plan for all episodes at once, and carry out; one that is refused ends alone."""
    keys = [plan_key(seed, run.seed, run.num_plans) for run in runs]
    start = time.perf_counter()
    try:
        chunks = np.asarray(policy.predict_action_chunk([run.seen for run in runs], seed=keys))  # type: ignore[misc]
    except (TypeError, ValueError) as error:
        if len(runs) == 1:
            runs[0].break_off(f"plan {runs[0].num_plans + 1}", error)
        else:  # whose it is shows where each is planned for alone
            for run in runs:
                _advance(policy, [run], seed)
        return
    seconds = (time.perf_counter() - start) / len(runs)
    _check_chunks(chunks, policy.num_executed, runs)
    record = policy.last_record
    forwards = [1] * len(runs) if record is None else list(record.num_forwards)
    futures = () if record is None else record.futures
    for run, future in zip(runs, futures, strict=False):  # there may be none
        run.foreseen = future
    for run, chunk, number in zip(runs, chunks, forwards, strict=True):
        run.num_plans += 1
        run.num_forwards += number
        run.seconds += seconds
        run.execute(chunk[: policy.num_executed])


def _check_chunks(chunks: np.ndarray, count: int, runs: Sequence[EpisodeRun]) -> None:
    """Raise ValueError unless there is a chunk for each episode that its environment can take."""
    (dim,) = runs[0].env.action_space.shape
    is_good = chunks.ndim == 3 and len(chunks) == len(runs) and chunks.shape[2] == dim
    if not is_good or chunks.shape[1] < count:
        raise ValueError(
            f"expected chunks of shape ({len(runs)}, >= {count}, {dim}): one for each episode, as "
            f"many timesteps as are executed, the environment's dimensions; the policy gave "
            f"{chunks.shape}"
        )
