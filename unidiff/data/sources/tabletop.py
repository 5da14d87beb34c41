"""The robot table as an environment with gymnasium's interface, in numpy.

Imports no gymnasium; knows instructions and success, nothing of experts, tokens or models.

Task `reach`: the hand must come to rest on the named disc. Task `push`: the puck must. At rest
means inside the disc with steps no longer than `STILL_STEP` for `STILL_STEPS` steps in a row, so
that merely crossing a disc is not success.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .tabletop_scene import (
    COLOURS,
    EVALUATION_SEED_START,
    IMAGE_SIZE,
    MAX_STEP,
    TARGET_RADIUS,
    Scene,
    advance,
    check_task,
    render_scene,
    sample_scene,
)

STILL_STEP = 0.35 * MAX_STEP  # table widths
STILL_STEPS = 2
STEP_LIMITS = {"reach": 40, "push": 64}

PHRASINGS: dict[str, tuple[str, ...]] = {
    "reach": (
        "move the hand to the {} target",
        "go to the {} disc",
        "reach the {} target",
        "touch the {} disc with the hand",
    ),
    "push": (
        "push the puck to the {} target",
        "slide the puck to the {} disc",
        "move the puck to the {} target",
        "bring the puck to the {} disc",
    ),
}


@dataclass(frozen=True)
class ArraySpace:
    """Shape, dtype and bounds of an array: what `gymnasium.spaces.Box` needs, without gymnasium."""

    shape: tuple[int, ...]
    dtype: type
    low: float
    high: float


def colour_in(instruction: str) -> str:
    """The colour word of an instruction.

    Raises:
        ValueError: if the instruction names no colour, or several.
    """
    found = [word for word in instruction.lower().split() if word in COLOURS]
    if len(found) != 1:
        raise ValueError(f"expected one colour out of {tuple(COLOURS)}; got {instruction=}")
    return found[0]


class TabletopEnv:
    """One episode after another on the table, with gymnasium's interface.

    Observation: `image` (32, 32, 3) uint8, `state` (2,) float32 hand position in table widths,
    `instruction` str. Action: (2,) float in [-1, 1]. Reward: 1.0 at success, otherwise 0.0.
    """

    action_space = ArraySpace((2,), np.float32, -1.0, 1.0)
    observation_space: ClassVar[dict[str, ArraySpace]] = {
        "image": ArraySpace((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8, 0, 255),
        "state": ArraySpace((2,), np.float32, 0.0, 1.0),
    }
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"

    def __init__(self, task: str = "reach") -> None:
        check_task(task)
        self.task = task
        self.scene: Scene | None = None
        self.instruction = ""
        self._rng = np.random.default_rng(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Lay a new table.

        Args:
            seed: decides the table and the phrasing; None goes on with training seeds.
            options: may hold `phrasing`, an index into `PHRASINGS[task]`.

        Returns:
            The observation and the info (see `step`).
        """
        if seed is None:
            seed = int(self._rng.integers(EVALUATION_SEED_START))
        else:
            self._rng = np.random.default_rng(seed)
        self.scene = sample_scene(self.task, seed)
        phrasing = (options or {}).get("phrasing", seed % len(PHRASINGS[self.task]))
        colour = self.scene.colours[self.scene.goal]
        self.instruction = PHRASINGS[self.task][phrasing].format(colour)
        self._num_steps = 0
        self._num_still = [0, 0]
        self._is_wrong = False
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move the hand by an action (2,), clipped to [-1, 1].

        Returns:
            Observation, reward, terminated (success), truncated (out of steps), info with
            `success`, `wrong_target` (the other disc was satisfied at some step) and `num_steps`.

        Raises:
            RuntimeError: before the first `reset`.
            ValueError: if the action is not two finite numbers.
        """
        if self.scene is None:
            raise RuntimeError("step() came before reset(); call reset(seed=...) first")
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"action must be two finite numbers of shape (2,); got {action=}")
        before = self.scene
        self.scene = advance(before, float(action[0]), float(action[1]))
        self._count_rest(before, self.scene)
        self._num_steps += 1
        info = self._info()
        self._is_wrong = info["wrong_target"]
        is_late = self._num_steps >= STEP_LIMITS[self.task] and not info["success"]
        return self._observe(), float(info["success"]), info["success"], is_late, info

    def render(self) -> np.ndarray:
        """The present picture, (32, 32, 3) uint8.

        Raises:
            RuntimeError: before the first `reset`.
        """
        return render_scene(self.table)

    @property
    def table(self) -> Scene:
        """The present scene.

        Raises:
            RuntimeError: before the first `reset`.
        """
        if self.scene is None:
            raise RuntimeError("the table is bare before reset(); call reset(seed=...) first")
        return self.scene

    def close(self) -> None:
        """Do nothing: the environment holds no resources."""

    def _count_rest(self, before: Scene, after: Scene) -> None:
        start = before.hand if before.puck is None else before.puck
        end = after.hand if after.puck is None else after.puck
        is_slow = math.dist(start, end) <= STILL_STEP
        for index, target in enumerate(after.targets):
            is_inside = math.dist(end, target) <= TARGET_RADIUS
            self._num_still[index] = self._num_still[index] + 1 if is_slow and is_inside else 0

    def _observe(self) -> dict[str, Any]:
        state = np.array(self.table.hand, dtype=np.float32)
        return {"image": self.render(), "state": state, "instruction": self.instruction}

    def _info(self) -> dict[str, Any]:
        goal = self.table.goal
        is_wrong = self._is_wrong or self._num_still[1 - goal] >= STILL_STEPS
        success = self._num_still[goal] >= STILL_STEPS
        return {"success": success, "wrong_target": is_wrong, "num_steps": self._num_steps}
