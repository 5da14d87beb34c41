"""The robot table of the bundled checkpoint as an environment told in words; numpy alone.

Physics, pictures, instructions and success are the core's. A test layout is one of the tables that
no training of the bundled checkpoint sees; with the same one, the core's environment and this one
show the same.

Action: (2,) in [-1, 1], hand motion x, y in steps of 7 % of the table. State: (2,) hand position in
table widths.
"""

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from unidiff.data.sources.tabletop import PHRASINGS, STEP_LIMITS
from unidiff.data.sources.tabletop import TabletopEnv as Table
from unidiff.data.sources.tabletop_expert import expert_action
from unidiff.data.sources.tabletop_rollout import swapped_instruction
from unidiff.data.sources.tabletop_scene import EVALUATION_SEED_START, IMAGE_SIZE

from .instructed_simulation import InstructedSimulation
from .instructions import check_wording
from .protocol import Expert, Info

# What no demonstration says; the colour's word must stay, for nothing else tells the discs apart.
HELD_OUT = {
    "reach": "bring the hand over to the {} disc",
    "push": "shove the puck onto the {} disc",
}


class TabletopEnv(InstructedSimulation):
    """A task of the robot table; see `InstructedSimulation` for observations and errors.

    Info also holds `wrong_target`: the other disc was satisfied at some step.

    Args:
        task: "reach" or "push".
        split: of the tables, "train" or "test".
        cameras: ("top",), or () for no pictures.
        image_size: height and width in pixels, which the table has but one of.
        max_steps: steps after which an episode is truncated; None: the table's own limit.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    recording_noise = np.array([0.3, 0.3])

    def __init__(
        self,
        task: str = "push",
        split: str = "train",
        *,
        cameras: tuple[str, ...] = ("top",),
        image_size: int = IMAGE_SIZE,
        max_steps: int | None = None,
    ) -> None:
        if set(cameras) - {"top"} or image_size != IMAGE_SIZE:
            raise ValueError(
                f"expected cameras ('top',) or (), and image_size={IMAGE_SIZE}, the only size of "
                f"the table's pictures; got {cameras=} {image_size=}"
            )
        self._table = Table(task)
        super().__init__(
            f"tabletop-{task}",
            split,
            cameras=cameras,
            image_size=IMAGE_SIZE,
            max_steps=STEP_LIMITS[task] if max_steps is None else max_steps,
            action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
            state_space=spaces.Box(0.0, 1.0, (2,), np.float32),
        )

    def expert(self) -> Expert:
        """A smooth function of the present scene."""
        return lambda: np.array(expert_action(self._table.table))

    @property
    def layout(self) -> np.ndarray:
        """(6,) or (8,) hand, the two discs and the puck, if there is one, in table widths."""
        scene = self._table.table
        places = [scene.hand, *scene.targets, *([scene.puck] if scene.puck else [])]
        return np.array(places).reshape(-1)

    def _place(self, seed: int) -> None:
        is_test = self.split == "test"
        if not 0 <= seed < EVALUATION_SEED_START:
            raise ValueError(f"seed must be in [0, {EVALUATION_SEED_START}); got {seed=}")
        _, self._outcome = self._table.reset(seed=seed + is_test * EVALUATION_SEED_START)

    def _chosen_instruction(self, wording: str) -> str:
        check_wording(wording)
        if wording == "swapped":
            return swapped_instruction(self._table)
        if wording == "known":
            return self._table.instruction
        scene = self._table.table
        return HELD_OUT[self._table.task].format(scene.colours[scene.goal])

    def _advance(self, action: np.ndarray) -> bool:
        _, _, success, _, self._outcome = self._table.step(action)
        return success

    def _state(self) -> np.ndarray:
        return np.array(self._table.table.hand)

    def _picture(self, camera: str) -> np.ndarray:
        return self._table.render()

    def _info(self) -> Info:
        return {**super()._info(), "wrong_target": bool(self._outcome["wrong_target"])}


assert set(HELD_OUT) == set(PHRASINGS)
