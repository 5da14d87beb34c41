"""What a robot sees, checked and built into the prompt and the empty canvas of one chunk.

Knows the processor; knows nothing of models or of what was planned before.
"""

# Shapes: B observations, D state dimensions.

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature

from unidiff_vla.units import is_far_outside

from .safety import real_numbers
from .settings import PolicySettings

Observation = Mapping[str, Any]
# How far a state may lie outside what was recorded: a robot can reach more than was demonstrated
# (Meta-World's hand 1.5 widths of the bundled range), but no other units.
_NUM_WIDTHS = 3


class ObservationEncoder:
    """Turns observations into the arguments of `generate()`.

    An observation holds "instruction" (str); "state" (D,) where the checkpoint has states; and
    "image", or "images" with one picture for each name of `settings.cameras`. A picture is anything
    that the processor takes.
    """

    def __init__(self, processor: Any, settings: PolicySettings) -> None:
        """Encoder for one checkpoint's processor."""
        self.processor = processor
        self.cameras = settings.cameras
        self.want = ("image", "action") if settings.foresees else ("action",)
        size = processor.image_processor.size
        self.image_size = settings.image_size or (size["height"], size["width"])

    def __call__(self, observations: Sequence[Observation]) -> BatchFeature:
        """Prompts (B, L) and empty canvases (B, K) of B observations.

        Raises:
            ValueError: if a key, a camera, a size, a state or an instruction is not what the
                checkpoint was trained on; a state a bit outside its range is clipped.
            TypeError: if a picture is no picture.
        """
        turns = []
        for place, observation in enumerate(observations):
            content = self.content(observation, f"observation {place}")
            for part in content:
                if part["type"] == "state":
                    self._check_reach(part["state"], f"observation {place}")
            turns.append([{"role": "user", "content": content}])
        inputs: BatchFeature = self.processor.build(turns, want=self.want)
        return inputs

    def content(self, observation: Observation, name: str) -> list[dict[str, Any]]:
        """Content parts in the order of `UniDiffProcessor.for_action`: cameras, state, text.

        Training reads these too. There a state of any size is clipped, for the bins were fitted to
        most of the recorded ones and not to all.
        """
        has_state = self.processor.state_bins is not None
        wanted = {"image" if self.cameras is None else "images", "instruction"}
        wanted |= {"state"} if has_state else set()
        if set(observation) != wanted:
            raise ValueError(
                f"{name} must have exactly the keys {sorted(wanted)}; got {sorted(observation)}: "
                "rename or drop the others, or say in PolicySettings.cameras what there is to see"
            )
        parts = [self._picture(image, f"{name}, {key}") for key, image in self._views(observation)]
        if has_state:
            parts.append({"type": "state", "state": self._state(observation["state"], name)})
        instruction = observation["instruction"]
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(
                f"{name}: instruction must be a str that says what to do; got {instruction!r}"
            )
        return [*parts, {"type": "text", "text": instruction}]

    def _views(self, observation: Observation) -> list[tuple[str, Any]]:
        """(name, picture) of each camera in the order of training."""
        if self.cameras is None:
            return [("image", observation["image"])]
        images = observation["images"]
        if not isinstance(images, Mapping) or set(images) != set(self.cameras):
            got = sorted(images) if isinstance(images, Mapping) else type(images).__name__
            raise ValueError(
                f"images must map exactly the cameras {self.cameras} to pictures; got {got}: "
                "name them as in training"
            )
        return [(camera, images[camera]) for camera in self.cameras]

    def _picture(self, image: Any, name: str) -> dict[str, Any]:
        """Content part of one camera's picture; codes are taken as they are."""
        if isinstance(image, Mapping):
            return {"type": "image", **image}
        picture = self.processor.picture(image)
        size = (picture.height, picture.width)
        if size != tuple(self.image_size):
            raise ValueError(
                f"{name} must be (height, width) {tuple(self.image_size)} pixels; got {size}: "
                "resize it as in training, or set PolicySettings.image_size if training saw that"
            )
        return {"type": "image", "image": picture}

    def _state(self, state: Any, name: str) -> np.ndarray:
        """(D,) finite state."""
        dim = self.processor.state_bins.dim
        values = real_numbers(state, f"{name}: state")
        if values.shape != (dim,):
            raise ValueError(f"{name}: state must have shape ({dim},); got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name}: state must be finite; got {values.tolist()}: hold the last good reading"
            )
        return values

    def _check_reach(self, state: np.ndarray, name: str) -> None:
        """Raise ValueError if a state that is planned for is far outside the bins."""
        bins = self.processor.state_bins
        if (is_far := is_far_outside(bins, state, _NUM_WIDTHS)).any():
            place = int(np.argmax(is_far))
            raise ValueError(
                f"{name}: dimension {place} of state is {state[place]:g}, more than "
                f"{_NUM_WIDTHS} widths outside the checkpoint's range, {bins.low[place]:g} to "
                f"{bins.high[place]:g}: other units, another order, or a broken sensor?"
            )


def as_observations(observations: Observation | Sequence[Observation]) -> list[Observation]:
    """One observation, or several, as a list.

    Raises:
        TypeError: if it is neither.
        ValueError: if there is none.
    """
    several = [observations] if isinstance(observations, Mapping) else observations
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise TypeError(
            "an observation must be a dict with 'image', 'state' and 'instruction'; several are a "
            f"list of such; got {type(observations).__name__}"
        )
    several = list(several)
    if not several:
        raise ValueError("observations must hold at least one; got none")
    if not all(isinstance(one, Mapping) for one in several):
        raise TypeError("an observation must be a dict with 'image', 'state' and 'instruction'")
    return several
