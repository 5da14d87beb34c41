"""This repository's environments under lerobot: `--env.type=unidiff_vla --env.task=NAME`.

NAME is `tabletop-reach`, `tabletop-push` (numpy alone), `pusht`, `pusht-pose` (its state tells
where the T is) or one of Meta-World's tasks, such as `drawer-open`.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from unidiff_vla.environments import (
    METAWORLD_TASKS,
    PUSHT_TASKS,
    bounds_of,
    environment_id,
    pictures_of,
)

from unidiff.data.sources.tabletop import STEP_LIMITS, TabletopEnv
from unidiff.data.sources.tabletop_scene import EVALUATION_SEED_START, IMAGE_SIZE

TABLE = "tabletop-"
TASKS = (*(TABLE + task for task in STEP_LIMITS), *PUSHT_TASKS, *METAWORLD_TASKS)
GYM_ID = "lerobot_policy_unidiff/Instructed-v0"


@EnvConfig.register_subclass("unidiff_vla")
@dataclass
class InstructedEnvConfig(EnvConfig):
    """An environment told in words.

    Attributes:
        task: one of `TASKS`.
        fps: of the videos.
        split: of the layouts, "train" or "test".
        cameras: of Meta-World and PushT; empty: the environment's own single one.
        image_size: pixels per side; the table's are always 32.
    """

    task: str | None = TABLE + "reach"
    fps: int = 10
    split: str = "test"
    cameras: list[str] = field(default_factory=list)
    image_size: int = 64
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the features; raise ValueError for an unknown task."""
        if self.task not in TASKS:
            raise ValueError(f"--env.task must be one of {TASKS}; got {self.task!r}")
        dim = 4 if self.task in METAWORLD_TASKS else 2
        felt = 8 if self.task == "pusht-pose" else dim
        size = IMAGE_SIZE if self.task.startswith(TABLE) else self.image_size
        picture = PolicyFeature(type=FeatureType.VISUAL, shape=(size, size, 3))
        several = self.cameras if len(self.cameras) > 1 else []
        names = {f"pixels/{one}": f"observation.images.{one}" for one in several}
        names = names or {"pixels": "observation.image"}
        self.features = {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(dim,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(felt,)),
            **dict.fromkeys(names, picture),
        }
        self.features_map = {"action": "action", "agent_pos": "observation.state", **names}

    @property
    def package_name(self) -> str:
        """What lerobot imports to have the environment registered."""
        return __package__ or "lerobot_policy_unidiff"

    @property
    def gym_id(self) -> str:
        """One name for all tasks; the task is an argument."""
        return GYM_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of `InstructedEnv`."""
        return {
            "task": self.task,
            "split": self.split,
            "cameras": tuple(self.cameras),
            "image_size": self.image_size,
        }


class InstructedEnv(gymnasium.Env):
    """An environment of `unidiff_vla.environments`, or the table, with lerobot's names.

    Observation: `pixels`, an array (h, w, 3) uint8 or a dictionary of them, and `agent_pos` (d,)
    float32. lerobot reads the instruction from `task_description`, success from
    `info["is_success"]` and the longest episode from `_max_episode_steps`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    render_mode = "rgb_array"

    def __init__(
        self, task: str, split: str = "test", cameras: tuple[str, ...] = (), image_size: int = 64
    ) -> None:
        """Environment of a task; see `InstructedEnvConfig`."""
        self.task = task
        self._seed_start = 0
        if task.startswith(TABLE):
            self._env: Any = TabletopEnv(task.removeprefix(TABLE))
            self._seed_start = EVALUATION_SEED_START if split == "test" else 0
            self._max_episode_steps = STEP_LIMITS[task.removeprefix(TABLE)]
        else:
            options: dict[str, Any] = {"cameras": cameras} if cameras else {}
            made = gymnasium.make(
                environment_id(task), split=split, image_size=image_size, **options
            )
            self._env = made.unwrapped
            self._max_episode_steps = self._env.max_steps
        low, high = bounds_of(self._env.action_space)
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))
        observation, _ = self._env.reset(seed=self._seed_start)
        self.observation_space = _space(_renamed(observation))

    @property
    def task_description(self) -> str:
        """What is asked for in this episode."""
        return str(self._env.instruction)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        own = int(self.np_random.integers(2**20)) if seed is None else seed
        observation, info = self._env.reset(seed=self._seed_start + own, options=options)
        return _renamed(observation), {"is_success": bool(info["success"])}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Execute an action (D,)."""
        observation, reward, ended, late, info = self._env.step(action)
        success = bool(info["success"])
        return _renamed(observation), float(reward), bool(ended), late, {"is_success": success}

    def render(self) -> Any:
        """(h, w, 3) uint8, for the video."""
        return self._env.render()

    def close(self) -> None:
        """Give back what the simulator holds."""
        self._env.close()


def _renamed(observation: dict[str, Any]) -> dict[str, Any]:
    """An observation under lerobot's names."""
    pictures = pictures_of(observation)
    single = len(pictures) == 1
    pixels = next(iter(pictures.values())) if single else pictures
    return {"pixels": pixels, "agent_pos": np.asarray(observation["state"], dtype=np.float32)}


def _space(value: Any) -> Any:
    """The space of an observation, read off one."""
    if isinstance(value, dict):
        return spaces.Dict({name: _space(one) for name, one in value.items()})
    if value.dtype == np.uint8:
        return spaces.Box(0, 255, value.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, value.shape, np.float32)


if GYM_ID not in gymnasium.registry:
    # Without wrappers: lerobot 0.4 looks for `task_description` on what `gymnasium.make` returns.
    gymnasium.register(
        GYM_ID,
        entry_point=f"{__name__}:InstructedEnv",
        order_enforce=False,
        disable_env_checker=True,
    )
