"""What an environment must offer to be recorded and evaluated: gymnasium's interface, instructed.

Imports no gymnasium, so that a class of a user that only looks like one is enough.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .actions import bounds_of

Observation = dict[str, Any]
Info = dict[str, Any]
# One episode's expert: called before each step, it returns the action (D,) for the present state.
Expert = Callable[[], np.ndarray]


class InstructedEnv(Protocol):
    """An environment whose observations hold pictures, the robot's state and an instruction.

    Observation: `image` (H, W, 3) uint8, or a dict of several cameras' pictures; `state` (d,)
    float32; `instruction` str. Info: `success` bool, on reset and on each step.
    """

    action_space: Any  # with `shape` (D,), `low` and `high`

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode; the same seed begins the same one."""

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Info]:
        """Execute an action (D,): observation, reward, terminated, truncated, info."""

    def close(self) -> None:
        """Give back what the simulator holds."""


class ExpertEnv(InstructedEnv, Protocol):
    """An environment that can also show how it is done."""

    recording_noise: np.ndarray  # (D,) standard deviations that its expert copes with

    def expert(self) -> Expert:
        """An expert for the episode that has just begun."""


def check_environment(env: InstructedEnv, seed: int = 0) -> None:
    """Try a reset and a step, and say what does not fit `InstructedEnv`.

    Args:
        env: the environment; its present episode is lost.
        seed: of the episode that is tried.

    Raises:
        ValueError: naming the part that differs, what was expected and what came.
    """
    low, high = bounds_of(env.action_space)
    observation, info = env.reset(seed=seed)
    _check_observation(observation, "reset")
    _check_success(info, "reset")
    came = env.step(np.clip(np.zeros_like(low), low, high))
    if not isinstance(came, tuple) or len(came) != 5:
        raise ValueError(
            "expected step() to return (observation, reward, terminated, truncated, info); got "
            f"{len(came) if isinstance(came, tuple) else type(came).__name__} values"
        )
    _check_observation(came[0], "step")
    _check_success(came[4], "step")


def pictures_of(observation: Observation) -> dict[str, np.ndarray]:
    """The pictures of an observation by camera; a single one is called "image"; none: empty."""
    image = observation.get("image", {})
    return dict(image) if isinstance(image, dict) else {"image": image}


def _check_observation(observation: Any, when: str) -> None:
    missing = {"state", "instruction"} - set(observation)
    if missing:
        raise ValueError(
            f"expected image, state and instruction in the observation of {when}(); missing "
            f"{sorted(missing)}, got {sorted(observation)}"
        )
    for name, picture in pictures_of(observation).items():
        shape, dtype = np.shape(picture), np.asarray(picture).dtype
        if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
            raise ValueError(
                f"expected the picture {name!r} of {when}() as (H, W, 3) uint8; got {shape} {dtype}"
            )
    state = np.asarray(observation["state"])
    if state.ndim != 1 or state.dtype != np.float32:
        raise ValueError(
            f"expected state of {when}() as (d,) float32; got {state.shape} {state.dtype}"
        )
    if not isinstance(observation["instruction"], str):
        raise ValueError(f"expected a str as instruction; got {observation['instruction']!r}")


def _check_success(info: Any, when: str) -> None:
    if "success" not in info:
        raise ValueError(
            f"expected `success` in the info of {when}(); got {sorted(info)}. It says whether the "
            "instruction was carried out"
        )
