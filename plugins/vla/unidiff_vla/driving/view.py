"""What a policy is shown of an observation: its cameras, the state if it reads one, the words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unidiff_vla.environments.protocol import Observation, pictures_of


@dataclass(frozen=True)
class View:
    """Chooses from an environment's observation, and checks it before it joins a batch.

    Attributes:
        cameras: names in the order of training; None: one camera, whatever its name.
        has_state: whether the policy reads states.
        foresees: whether its plans say what the first camera will see; a film shows that beside it.
    """

    cameras: tuple[str, ...] | None = None
    has_state: bool = True
    foresees: bool = False

    @classmethod
    def of(cls, policy: Any) -> "View":
        """The view of a `MaskedDiffusionPolicy`."""
        has_state = policy.processor.state_bins is not None
        return cls(policy.settings.cameras, has_state, policy.settings.foresees)

    def __call__(self, observation: Observation, instruction: str | None = None) -> Observation:
        """What the policy sees.

        Args:
            observation: as the environment made it.
            instruction: told instead of the environment's.

        Raises:
            ValueError: if a camera is missing, there are several and none was chosen, or the state
                is not finite.
        """
        seen = {
            **self._pictures(observation),
            "instruction": observation["instruction"] if instruction is None else instruction,
        }
        if not self.has_state:
            return seen
        state = np.asarray(observation["state"])
        if not np.isfinite(state).all():
            raise ValueError(
                f"state must be finite; the environment gave {state.tolist()}: its simulation has "
                "come apart"
            )
        return {**seen, "state": state}

    def filmed(self, observation: Observation) -> np.ndarray | None:
        """The picture of the policy's first camera, whose next one it may foresee; None: no camera.

        The environment's first one where it has none of that name.
        """
        pictures = pictures_of(observation)
        own = None if self.cameras is None else pictures.get(self.cameras[0])
        return next(iter(pictures.values()), None) if own is None else own

    def _pictures(self, observation: Observation) -> Mapping[str, Any]:
        """`image`, or `images` by camera."""
        pictures = pictures_of(observation)
        if self.cameras is None:
            if len(pictures) != 1:
                raise ValueError(
                    f"the policy sees one camera and the environment has {sorted(pictures)}: say "
                    "which in the `cameras` of the checkpoint's policy.json"
                )
            return {"image": next(iter(pictures.values()))}
        missing = sorted(set(self.cameras) - set(pictures))
        if missing and len(self.cameras) == 1 and set(pictures) == {"image"}:
            # An environment with a single camera does not say its name.
            return {"images": {self.cameras[0]: pictures["image"]}}
        if missing:
            raise ValueError(
                f"the policy sees the cameras {self.cameras} and the environment lacks {missing}; "
                f"it has {sorted(pictures)}"
            )
        return {"images": {camera: pictures[camera] for camera in self.cameras}}
