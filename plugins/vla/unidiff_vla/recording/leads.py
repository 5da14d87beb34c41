"""What leads an episode astray before its expert takes over: a walk, or a policy.

An expert alone never shows how to come back from where a policy errs. What leads is not recorded.

Source: `PolicyLead` is DAgger, arXiv 1011.0686, with one change of hands an episode; the walk is
our own derivation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unidiff_vla.driving import ChunkPolicy, View
from unidiff_vla.driving.lockstep import plan_key
from unidiff_vla.environments.actions import bounds_of
from unidiff_vla.environments.protocol import ExpertEnv, Observation

_WALK_PARTS = 3  # directions of a walk
Begin = Callable[[], Observation]


class Lead(Protocol):
    """Drives an episode's first steps."""

    def __call__(self, env: ExpertEnv, begin: Begin, seed: int) -> Observation | None:
        """What is seen where the expert takes over.

        Args:
            env: the environment.
            begin: resets it to the episode's beginning, and returns what is seen there.
            seed: of the episode.

        Returns:
            None if the episode is over and is to be left out.
        """


@dataclass(frozen=True)
class RandomWalk:
    """Walks before every other episode, in directions drawn anew three times.

    A walk that ends the episode is not taken.

    Attributes:
        most_steps: of a walk.
    """

    most_steps: int

    def __post_init__(self) -> None:
        """Reject a walk of no steps."""
        if self.most_steps < 1:
            raise ValueError(f"expected a walk of at least one step; got {self.most_steps}")

    def __call__(self, env: ExpertEnv, begin: Begin, seed: int) -> Observation:
        """See `Lead`."""
        observation = begin()
        if seed % 2 == 0:
            return observation
        rng = np.random.default_rng((seed, 2))
        low, high = bounds_of(env.action_space)
        turns = np.sort(rng.integers(1, self.most_steps + 1, size=_WALK_PARTS))
        directions = rng.uniform(low, high, size=(_WALK_PARTS, *low.shape))
        walk = np.repeat(directions, np.diff(turns, prepend=0), axis=0)
        observation, is_over = carried_out(env, walk)
        return begin() if is_over else observation


@dataclass(frozen=True)
class PolicyLead:
    """A policy drives; where it has not done the task in time, the expert takes over.

    Attributes:
        policy: plans.
        most_steps: it has half as many to all of them, drawn for each episode.
    """

    policy: ChunkPolicy
    most_steps: int

    def __post_init__(self) -> None:
        """Reject a drive of no steps."""
        if self.most_steps < 1:
            raise ValueError(f"expected a policy to drive one step at least; got {self.most_steps}")

    def __call__(self, env: ExpertEnv, begin: Begin, seed: int) -> Observation | None:
        """See `Lead`; raises ValueError if the policy refuses what it sees."""
        rng = np.random.default_rng((seed, 4))
        num_steps = int(rng.integers(-(-self.most_steps // 2), self.most_steps + 1))
        view = View.of(self.policy)
        observation, size = begin(), self.policy.num_executed
        for plan, done in enumerate(range(0, num_steps, size)):
            key = plan_key(0, seed, plan)
            chunk = self.policy.predict_action_chunk([view(observation)], seed=[key])[0]
            observation, is_over = carried_out(env, chunk[: min(size, num_steps - done)])
            if is_over:
                return None
        return observation


def carried_out(env: ExpertEnv, actions: np.ndarray) -> tuple[Observation, bool]:
    """(what is seen, whether the episode is over) after actions, with one picture if possible."""
    low, high = bounds_of(env.action_space)
    wanted = np.clip(actions, low, high)
    at_one_blow = getattr(env, "execute", None)
    steps = [at_one_blow(wanted)] if at_one_blow else (env.step(action) for action in wanted)
    for observation, _, terminated, truncated, _ in steps:
        if terminated or truncated:
            return observation, True
    return observation, False
