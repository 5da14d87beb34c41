"""The part that all simulated environments share: episodes, instructions, checks, observations.

A simulator supplies five methods (`_place`, `_advance`, `_state`, `_picture`, `expert`); this class
makes a gymnasium environment of them that satisfies `ExpertEnv`.
"""

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from .actions import bounds_of, checked_action
from .instructions import choose_instruction
from .layouts import check_split
from .protocol import Expert, Info, Observation

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?'-_/()"
_OPTIONS = {"wording", "instruction"}
_MAX_SEED = 2**31


class InstructedSimulation(gymnasium.Env):
    """A simulated task told in words.

    Observation: `image` (size, size, 3) uint8, or a dict of those where there are several cameras,
    absent where there is none; `state` (d,) float32; `instruction` str. Reward 1.0 at success,
    which ends the episode, otherwise 0.0. Info: `success` (`is_success` too, as lerobot reads it),
    `task`, `split`, `seed` and `num_steps`.

    Attributes:
        task: what the scene is for.
        split: of the layouts, "train" or "test".
        instruction: what is asked for in this episode.
        max_steps: steps after which an episode is truncated.
        recording_noise: (D,) standard deviations, in action units, that the expert copes with.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    recording_noise: np.ndarray

    def __init__(
        self,
        task: str,
        split: str,
        *,
        cameras: tuple[str, ...],
        image_size: int,
        max_steps: int,
        action_space: spaces.Box,
        state_space: spaces.Box,
    ) -> None:
        check_split(split)
        if image_size < 1 or max_steps < 1:
            raise ValueError(f"expected sizes >= 1; got {image_size=} {max_steps=}")
        self.task, self.split, self.max_steps = task, split, max_steps
        self.cameras, self.image_size = tuple(cameras), image_size
        self.render_mode = "rgb_array"
        self.action_space = action_space
        self.observation_space = self._space(state_space)
        self.instruction = ""
        self._is_running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, Info]:
        """Begin an episode.

        Args:
            seed: with the split it decides layout and wording; None goes on with seeds drawn from
                the last one given.
            options: may hold `wording` ("known", "held_out", "swapped") or `instruction`, which is
                told as it is. Success is judged by the scene's own task in any case.

        Raises:
            ValueError: if an option is unknown.
        """
        super().reset(seed=seed)
        options = options or {}
        if set(options) - _OPTIONS:
            raise ValueError(f"options of reset() are {sorted(_OPTIONS)}; got {sorted(options)}")
        self.seed = int(self.np_random.integers(_MAX_SEED)) if seed is None else int(seed)
        self._is_running = False
        self._place(self.seed)
        chosen = self._chosen_instruction(options.get("wording", "known"))
        self.instruction = options.get("instruction", chosen)
        self._num_steps, self._success, self._is_running = 0, False, True
        return self.observe(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Info]:
        """Execute one action (D,) and look.

        Raises:
            RuntimeError: before `reset`, or after the end of the episode.
            ValueError: if the action has another shape or is not finite.
        """
        return self.execute([action])

    def execute(self, actions: Any) -> tuple[Observation, float, bool, bool, Info]:
        """Execute actions (T, D), T >= 1, until the episode ends, and look once.

        Pictures cost most: of a chunk of 8 actions, executed so, there is one and not eight.

        Returns:
            As `step`, of the last action executed.

        Raises:
            RuntimeError: before `reset`, or after the end of the episode.
            ValueError: if there is none, or one has another shape or is not finite; nothing is
                executed then.
        """
        is_late = self._carry_out(actions)
        return self.observe(), float(self._success), self._success, is_late, self._info()

    def advance(self, action: Any) -> tuple[Observation, float, bool, bool, Info]:
        """As `step`, without pictures: for a recorder that does not need all of them."""
        is_late = self._carry_out([action])
        return self._felt(), float(self._success), self._success, is_late, self._info()

    def observe(self) -> Observation:
        """What a policy sees now; every picture is rendered anew."""
        observation = self._felt()
        pictures = {camera: self._picture(camera) for camera in self.cameras}
        if pictures:
            is_single = len(pictures) == 1
            observation["image"] = next(iter(pictures.values())) if is_single else pictures
        return observation

    def render(self) -> np.ndarray:
        """The picture of the first camera, (size, size, 3) uint8.

        Raises:
            ValueError: if the environment was made without cameras.
        """
        if not self.cameras:
            raise ValueError("this environment has no camera; make it with cameras=(...)")
        return self._picture(self.cameras[0])

    def expert(self) -> Expert:
        """An expert for the episode that has just begun; it sees the simulator's full state."""
        raise NotImplementedError

    @property
    def layout(self) -> np.ndarray:
        """(n,) the present layout, as `LayoutSampler` drew it."""
        raise NotImplementedError

    def _carry_out(self, actions: Any) -> bool:
        """Execute actions as `execute` says; True if the episode was truncated."""
        if not self._is_running:
            raise RuntimeError("there is no episode under way; call reset(seed=...) first")
        low, high = bounds_of(self.action_space)
        checked = [checked_action(action, low, high) for action in actions]
        if not checked:
            raise ValueError("expected one action at least, got none")
        for action in checked:
            self._success = bool(self._advance(action))
            self._num_steps += 1
            is_late = self._num_steps >= self.max_steps and not self._success
            if self._success or is_late:
                self._is_running = False
                break
        return is_late

    def _felt(self) -> Observation:
        """State and words."""
        return {
            "state": np.asarray(self._state(), dtype=np.float32),
            "instruction": self.instruction,
        }

    def _chosen_instruction(self, wording: str) -> str:
        """An instruction for the scene that was laid out, in a wording of `WORDINGS`."""
        return choose_instruction(self.task, wording, self.seed)

    def _place(self, seed: int) -> None:
        """Lay out the scene of a seed."""
        raise NotImplementedError

    def _advance(self, action: np.ndarray) -> bool:
        """Execute a checked action; True if the task is done."""
        raise NotImplementedError

    def _state(self) -> np.ndarray:
        """The robot's own state, (d,)."""
        raise NotImplementedError

    def _picture(self, camera: str) -> np.ndarray:
        """What a camera sees, (size, size, 3) uint8."""
        raise NotImplementedError

    def _info(self) -> Info:
        return {
            "success": self._success,
            "is_success": self._success,
            "task": self.task,
            "split": self.split,
            "seed": self.seed,
            "num_steps": self._num_steps,
        }

    def _space(self, state_space: spaces.Box) -> spaces.Dict:
        picture = spaces.Box(0, 255, (self.image_size, self.image_size, 3), np.uint8)
        parts: dict[str, Any] = {
            "state": state_space,
            "instruction": spaces.Text(max_length=256, min_length=0, charset=_LETTERS),
        }
        if len(self.cameras) == 1:
            parts["image"] = picture
        elif self.cameras:
            parts["image"] = spaces.Dict(dict.fromkeys(self.cameras, picture))
        return spaces.Dict(parts)
