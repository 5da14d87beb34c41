"""Meta-World v3: a Sawyer arm and fifty tasks on a table, told in words.

The simulator's own `reset(seed=...)` picks a layout before it seeds, keeps 50 layouts and hides the
goal; here the layouts come from `LayoutSampler`. Its first observation after a reset still shows
bodies where they lay before, so kinematics are computed once more before anything is read.

Action: (4,) in [-1, 1], hand motion x, y, z in centimetres per step and closing of the gripper.
State: (4,) hand position x, y, z in metres and opening of the gripper in [0, 1]. 80 steps are one
second.
"""

import os
import sys
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from .instructed_simulation import InstructedSimulation
from .instructions import METAWORLD_TASKS
from .layouts import LayoutSampler
from .metaworld_experts import expert_of
from .metaworld_rendering import CAMERAS, FastRenderer
from .protocol import Expert

MAX_STEPS = 200
_STATE_LOW = np.array([-0.525, 0.348, -0.0525, 0.0], dtype=np.float32)
_STATE_HIGH = np.array([0.525, 1.025, 0.7, 1.0], dtype=np.float32)
# Distance to the goal, in metres, below which the simulator reports success.
# Source: the `success` expressions in metaworld/envs/sawyer_<task>_v3.py, version 3.1.1.
SUCCESS_RADII = {
    "reach": 0.05,
    "push": 0.05,
    "pick-place": 0.07,
    "drawer-open": 0.03,
    "drawer-close": 0.055,
    "window-open": 0.05,
    "window-close": 0.05,
}
_OTHER_RADIUS = 0.05  # SawyerXYZEnv.TARGET_RADIUS


def load_metaworld() -> tuple[Any, Any]:
    """The modules metaworld and mujoco, with EGL for pictures unless `MUJOCO_GL` says otherwise.

    Raises:
        ImportError: naming what to install.
    """
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import metaworld
        import mujoco
    except ImportError as error:
        raise ImportError(
            f"Meta-World is not installed ({error}); pip install 'unidiff-vla[metaworld]'"
        ) from error
    return metaworld, mujoco


class MetaWorldEnv(InstructedSimulation):
    """One Meta-World task; see `InstructedSimulation` for observations and errors.

    Args:
        task: one of `METAWORLD_TASKS`, such as "drawer-open".
        split: of the layouts, "train" or "test".
        cameras: names out of `CAMERAS`; none makes no pictures at all.
        image_size: height and width in pixels.
        max_steps: at most 500, the simulator's own limit.
        marks_success: draw the goal's marker as large as its success radius. Meta-World's own
            marker has 2 cm, two pixels at 64 px.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 80}
    recording_noise = np.array([0.3, 0.3, 0.3, 0.0])

    def __init__(
        self,
        task: str = "reach",
        split: str = "train",
        *,
        cameras: tuple[str, ...] = ("side",),
        image_size: int = 64,
        max_steps: int = MAX_STEPS,
        marks_success: bool = True,
    ) -> None:
        if task not in METAWORLD_TASKS:
            raise ValueError(f"task must be one of {METAWORLD_TASKS}; got {task=}")
        unknown = set(cameras) - set(CAMERAS)
        if unknown or max_steps > 500:
            raise ValueError(
                f"expected cameras out of {tuple(CAMERAS)} and max_steps <= 500; got {cameras=} "
                f"{max_steps=}"
            )
        super().__init__(
            task,
            split,
            cameras=cameras,
            image_size=image_size,
            max_steps=max_steps,
            action_space=spaces.Box(-1.0, 1.0, (4,), np.float32),
            state_space=spaces.Box(_STATE_LOW, _STATE_HIGH, dtype=np.float32),
        )
        self._metaworld, self._mujoco = load_metaworld()
        self._simulator = self._build(f"{task}-v3")
        if marks_success:
            self._enlarge_marker()
        self._renderer: FastRenderer | None = None

    def expert(self) -> Expert:
        """The task's expert; see `metaworld_experts`."""
        return expert_of(self.task, lambda: self._full_state)

    @property
    def layout(self) -> np.ndarray:
        """(n,) positions of the objects and of the goal in metres, as the task orders them."""
        return self._sampler.last

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _build(self, name: str) -> Any:
        """The simulator, with the goal in its full state and layouts drawn at each reset."""
        simulator = self._metaworld.ALL_V3_ENVIRONMENTS[name]()
        simulator._set_task_called = True
        # The bounds of the full state are cached, and clip a goal to 0 where it was hidden.
        simulator._partially_observable = False
        simulator.__dict__.pop("sawyer_observation_space", None)
        return simulator

    def _place(self, seed: int) -> None:
        simulator = self._simulator
        box = simulator._random_reset_space
        self._sampler = LayoutSampler(self.split, seed, box.low, box.high)
        simulator._get_state_rand_vec = self._sampler.draw
        simulator.reset()
        self._mujoco.mj_forward(simulator.model, simulator.data)
        self._full_state = simulator._get_obs()

    def _advance(self, action: np.ndarray) -> bool:
        self._full_state, _, _, _, info = self._simulator.step(action.astype(np.float32))
        return info["success"] > 0

    def _state(self) -> np.ndarray:
        return np.clip(self._full_state[:4], _STATE_LOW, _STATE_HIGH)

    def _picture(self, camera: str) -> np.ndarray:
        if self._renderer is None:
            self._renderer = FastRenderer(self._mujoco, self._simulator.model, self.image_size)
        # Its own step puts some markers elsewhere, such as that of "sweep" 63 cm off.
        for name, position in self._simulator._target_site_config:
            self._simulator._set_pos_site(name, position)
        return self._renderer.picture(self._simulator.data, CAMERAS[camera])

    def _enlarge_marker(self) -> None:
        """Give the marker of the goal, where there is one, the radius of success."""
        model = self._simulator.model
        names = [model.site(index).name for index in range(model.nsite)]
        if "goal" in names:
            model.site_size[names.index("goal")] = SUCCESS_RADII.get(self.task, _OTHER_RADIUS)
