"""PushT: a disc pushes a T onto its outline, in two dimensions.

gym-pusht's physics, pictures and success (95 % of the outline covered). Changed are the action,
which is the offset of the target from the disc instead of a place on the table, and the start,
which comes from `LayoutSampler` so that test layouts are unseen.

Action: (2,) in [-1, 1], times `REACH` pixels: the target's offset from the disc. State: (2,)
position of the disc in pixels of the 512 px table, and where the T is felt (`pusht-pose`) behind
that (6,): position of the T, cosine and sine of its angle, and position of the disc in the T's own
frame, at most `NEARBY` to each side. Ten steps are one second.
"""

import math
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from .instructed_simulation import InstructedSimulation
from .layouts import LayoutSampler
from .protocol import Expert
from .pusht_geometry import in_frame_of

TABLE = 512.0  # px
REACH = 64.0  # px
MAX_STEPS = 300
NEARBY = 160.0  # px: a push begins at most 139 px from the T's own point, and bins are finite
# Disc x, y, T x, y in px and its angle in radians: gym-pusht's own ranges.
_LAYOUT_LOW = np.array([50.0, 50.0, 100.0, 100.0, -np.pi])
_LAYOUT_HIGH = np.array([450.0, 450.0, 400.0, 400.0, np.pi])


def load_pusht() -> Any:
    """The class of gym-pusht's environment.

    Raises:
        ImportError: naming what to install.
    """
    try:
        from gym_pusht.envs.pusht import PushTEnv as Simulator
    except ImportError as error:
        raise ImportError(
            f"gym-pusht is not installed ({error}); pip install 'unidiff-vla[pusht]'"
        ) from error
    return Simulator


class PushTEnv(InstructedSimulation):
    """PushT told in words; see `InstructedSimulation` for observations and errors.

    Args:
        split: of the layouts, "train" or "test".
        cameras: ("top",), or () for no pictures.
        image_size: height and width in pixels.
        max_steps: steps after which an episode is truncated.
        feels_pose: whether the state tells where the T is.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    recording_noise = np.array([0.03, 0.03])  # 2 px: the expert pushes from 4 px away

    def __init__(
        self,
        split: str = "train",
        *,
        cameras: tuple[str, ...] = ("top",),
        image_size: int = 64,
        max_steps: int = MAX_STEPS,
        feels_pose: bool = False,
    ) -> None:
        if set(cameras) - {"top"}:
            raise ValueError(f"expected cameras ('top',) or (); got {cameras=}")
        self.feels_pose = feels_pose
        low = np.array([0, 0, 0, 0, -1, -1, -NEARBY, -NEARBY], np.float32)
        high = np.array([TABLE, TABLE, TABLE, TABLE, 1, 1, NEARBY, NEARBY], np.float32)
        dim = len(low) if feels_pose else 2
        super().__init__(
            "pusht",
            split,
            cameras=cameras,
            image_size=image_size,
            max_steps=max_steps,
            action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
            state_space=spaces.Box(low[:dim], high[:dim]),
        )
        self._simulator = load_pusht()(
            obs_type="state", observation_width=image_size, observation_height=image_size
        )

    def expert(self) -> Expert:
        """A planner that tries pushes in a copy of the physics."""
        from .pusht_expert import PushTExpert

        return PushTExpert(self._simulator, load_pusht()(obs_type="state"), REACH)

    @property
    def layout(self) -> np.ndarray:
        """(5,) disc x, y, T x, y in pixels and the T's angle in radians."""
        return self._sampler.last

    def _place(self, seed: int) -> None:
        self._sampler = LayoutSampler(self.split, seed, _LAYOUT_LOW, _LAYOUT_HIGH)
        self._simulator.reset(options={"reset_to_state": self._sampler.draw()})

    def _advance(self, action: np.ndarray) -> bool:
        target = np.array(self._simulator.agent.position) + REACH * action
        _, _, is_done, _, _ = self._simulator.step(np.clip(target, 0.0, TABLE))
        return is_done

    def _state(self) -> np.ndarray:
        disc, block = np.array(self._simulator.agent.position), self._simulator.block
        felt = [np.clip(disc, 0.0, TABLE)]
        if self.feels_pose:
            x, y = block.position
            turn = np.array([math.cos(block.angle), math.sin(block.angle)])
            near = np.clip(in_frame_of(disc, x, y, block.angle), -NEARBY, NEARBY)
            felt += [np.clip((x, y), 0.0, TABLE), turn, near]
        return np.concatenate(felt)

    def _picture(self, camera: str) -> np.ndarray:
        return self._simulator._render()
