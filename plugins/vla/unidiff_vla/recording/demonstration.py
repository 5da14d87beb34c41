"""One demonstration: an expert with noise in what is executed and none in what is recorded.

So the frames show where errors lead and the actions how they are put right. Noise leads a little
astray; to show how to come back from far, something else may lead first (`leads.py`).
Knows no simulator.

Source: DART, arXiv 1703.09327, with a fixed normal noise.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from unidiff_vla.environments.actions import bounds_of
from unidiff_vla.environments.protocol import ExpertEnv, Observation, pictures_of

from .leads import Lead


@dataclass(frozen=True)
class Demonstration:
    """What was seen and what the expert wanted, at T steps.

    Attributes:
        pictures: camera -> (T, H, W, 3) uint8.
        states: (T, d) float32.
        actions: (T, D) float32, the expert's, without noise.
        executed: (T, D) float32, with noise, clipped to the action's bounds.
        instruction: what was asked for.
        success: whether it was done.
        is_fresh: (T,) bool, False where the pictures are those of an earlier step.
    """

    pictures: dict[str, np.ndarray]
    states: np.ndarray
    actions: np.ndarray
    executed: np.ndarray
    instruction: str
    success: bool
    is_fresh: np.ndarray


def record_demonstration(
    env: ExpertEnv,
    seed: int,
    noise: np.ndarray | None = None,
    options: dict[str, Any] | None = None,
    lead: Lead | None = None,
    look_every: int = 1,
) -> Demonstration | None:
    """Play one episode; the same arguments give the same demonstration.

    It is None if what leads leaves nothing for the expert to do.

    Args:
        env: the environment; `gymnasium.make(...).unwrapped`.
        seed: of the episode and of the noise.
        noise: (D,) standard deviations in action units; None: `env.recording_noise`.
        options: of `env.reset`.
        lead: what drives before the expert does and the recording begins; None: nothing.
        look_every: steps from one picture to the next, the first two nearer by chance; the others
            show the last one again. Pictures cost most of a recording, and those of one layout
            resemble each other. It needs `env.advance`.

    Raises:
        ValueError: if the noise is negative, not finite or of another shape than an action, or
            `look_every` is below 1 or more than the environment can.
    """
    low, high = bounds_of(env.action_space)
    spread = np.asarray(env.recording_noise if noise is None else noise, dtype=np.float64)
    _check(env, spread, low.shape, look_every)
    rng = np.random.default_rng((seed, 1))

    def begin() -> Observation:
        return env.reset(seed=seed, options=options)[0]

    observation = begin() if lead is None else lead(env, begin, seed)
    if observation is None:
        return None
    expert = env.expert()
    seen, actions, executed, looks = [], [], [], [True]
    offset = int(np.random.default_rng((seed, 3)).integers(look_every))
    is_over = False
    while not is_over:
        action = np.clip(expert(), low, high)
        seen.append(observation)
        actions.append(action)
        executed.append(np.clip(action + rng.normal(0.0, spread), low, high))
        looks.append((len(seen) + offset) % look_every == 0)
        go = env.step if looks[-1] else env.advance  # type: ignore[attr-defined]  # checked above
        observation, _, terminated, truncated, info = go(executed[-1])
        is_over = terminated or truncated
    is_fresh = np.array(looks[:-1])  # what is seen at the end is not recorded
    latest = np.maximum.accumulate(np.where(is_fresh, np.arange(len(seen)), 0))
    cameras = [pictures_of(seen[step]) for step in latest]
    return Demonstration(
        pictures={name: np.stack([one[name] for one in cameras]) for name in cameras[0]},
        states=np.stack([one["state"] for one in seen]),
        actions=np.array(actions, dtype=np.float32),
        executed=np.array(executed, dtype=np.float32),
        instruction=seen[0]["instruction"],
        success=bool(info["success"]),
        is_fresh=is_fresh,
    )


def _check(env: ExpertEnv, spread: np.ndarray, shape: tuple[int, ...], look_every: int) -> None:
    """Raise ValueError if an argument of `record_demonstration` cannot be."""
    if spread.shape != shape or not np.isfinite(spread).all() or (spread < 0).any():
        raise ValueError(f"expected noise of shape {shape}, finite and >= 0; got {spread.tolist()}")
    if look_every < 1 or (look_every > 1 and not hasattr(env, "advance")):
        raise ValueError(
            f"expected look_every >= 1, and 1 of an environment without advance(); got {look_every}"
        )
