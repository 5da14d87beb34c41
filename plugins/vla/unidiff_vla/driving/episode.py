"""One episode under way, and what is left of it.

Whatever a simulator raises, and whatever the policy refuses to plan for, ends it alone.
"""

# Shapes: T timesteps, D dimensions.

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from unidiff_vla.environments.actions import bounds_of, checked_action
from unidiff_vla.environments.protocol import InstructedEnv, Observation

from .film import Film
from .view import View


@dataclass(frozen=True)
class EpisodeRecord:
    """What came of an episode and what it cost.

    Attributes:
        seed: of the layout.
        instruction: what the policy was told.
        success: as the environment judges; False where it broke off.
        num_steps: actions carried out.
        num_plans: chunks planned.
        num_forwards: of all plans.
        seconds: spent planning; of a plan made for several episodes at once its share.
        error: where and why it broke off; None: it did not.
    """

    seed: int
    instruction: str
    success: bool
    num_steps: int
    num_plans: int
    num_forwards: int
    seconds: float
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 4)}


class EpisodeRun:
    """An episode of one environment; it is reset at once.

    Attributes:
        env: the environment.
        seed: of the layout.
        seen: what the policy sees now; None after the end.
        num_steps, num_plans, num_forwards, seconds, error: see `EpisodeRecord`.
        film: what the policy's first camera saw; None: it is not filmed.
        foreseen: what it should see after the latest plan; None: nobody said.
    """

    def __init__(
        self,
        env: InstructedEnv,
        seed: int,
        view: View,
        *,
        options: Mapping[str, Any] | None = None,
        instruction: str | None = None,
        film: Film | None = None,
    ) -> None:
        self.env, self.seed, self.film = env, seed, film
        self.num_steps = self.num_plans = self.num_forwards = 0
        self.seconds, self.success = 0.0, False
        self.error: str | None = None
        self.seen: Observation | None = None
        self.foreseen: Image.Image | None = None
        self.instruction = instruction or ""
        self._view, self._told = view, instruction
        self._guarded("reset", lambda: self._begin(dict(options) if options else None))

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to plan."""
        return self.seen is None

    def execute(self, chunk: np.ndarray) -> None:
        """Carry out a chunk (T, D), or less of it if the episode ends.

        Actions are clipped to the environment's bounds. An environment with `execute` does it at
        one blow and renders once, unless it is filmed.
        """
        at_one_blow = getattr(self.env, "execute", None)
        if self.film is None and at_one_blow is not None:
            where = f"steps {self.num_steps + 1} to {self.num_steps + len(chunk)}"
            self._guarded(where, lambda: self._take(at_one_blow(chunk), len(chunk)))
            return
        low, high = bounds_of(self.env.action_space)
        dtype = getattr(self.env.action_space, "dtype", None) or np.float32
        for action in chunk:
            if self.is_over:
                return
            self._guarded(
                f"step {self.num_steps + 1}",
                lambda one=action: self._take(  # type: ignore[misc]
                    self.env.step(checked_action(one, low, high).astype(dtype)), 1
                ),
            )

    def break_off(self, where: str, error: Exception) -> None:
        """End the episode with an error, in one line."""
        words = " ".join(str(error).split())
        self.error = f"{where}: {type(error).__name__}: {words}"
        self.seen = None

    def record(self) -> EpisodeRecord:
        """What is known of it by now."""
        return EpisodeRecord(
            self.seed,
            self.instruction,
            self.success and self.error is None,
            self.num_steps,
            self.num_plans,
            self.num_forwards,
            self.seconds,
            self.error,
        )

    def _begin(self, options: dict[str, Any] | None) -> None:
        observation, _ = self.env.reset(seed=self.seed, options=options)
        self._look(observation)
        self.instruction = self.seen["instruction"] if self.seen else ""

    def _take(self, came: tuple[Any, ...], count: int) -> None:
        """What the environment said of `count` actions, fewer if it counts them itself."""
        observation, _, terminated, truncated, info = came
        counted = info.get("num_steps") if count > 1 else None
        self.num_steps = self.num_steps + count if counted is None else int(counted)
        self.success = bool(info["success"])
        self._look(observation)
        if terminated or truncated:
            self.seen = None

    def _look(self, observation: Observation) -> None:
        if self.film is not None and (picture := self._view.filmed(observation)) is not None:
            self.film.add(self._filmed(picture), self.num_steps)
        self.seen = self._view(observation, self._told)

    def _filmed(self, picture: np.ndarray) -> np.ndarray:
        """The picture, and beside it the foreseen one where the policy says any."""
        if not self._view.foresees:
            return picture
        size = (picture.shape[1], picture.shape[0])
        beside = Image.new("RGB", size, "white") if self.foreseen is None else self.foreseen
        return np.concatenate([picture, np.asarray(beside.convert("RGB").resize(size))], axis=1)

    def _guarded(self, where: str, call: Callable[[], None]) -> None:
        """Call into the environment; whatever it raises becomes the episode's error."""
        try:
            call()
        except Exception as error:  # a simulator's own code must not end the other episodes
            self.break_off(where, error)
