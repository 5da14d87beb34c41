"""What drives a robot: anything that plans chunks for several observations at once."""

# Shapes: B observations, T timesteps, D dimensions.

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image


class PlanRecord(Protocol):
    """What a call of a policy cost and foresaw; `ChunkRecord` is one."""

    @property
    def num_forwards(self) -> Sequence[int]:
        """Forwards of each row of the call."""
        ...

    @property
    def futures(self) -> Sequence[Image.Image]:
        """The picture after each row's chunk; none where the policy does not foresee it."""
        ...


class ChunkPolicy(Protocol):
    """A policy; `MaskedDiffusionPolicy` is one, a baseline needs these three names.

    Attributes:
        num_executed: timesteps of a chunk that are carried out before the next plan.
        last_record: what the latest call cost; None: one forward for each row.
    """

    @property
    def num_executed(self) -> int:
        """See above."""
        ...

    @property
    def last_record(self) -> PlanRecord | None:
        """See above."""
        ...

    def predict_action_chunk(
        self, observations: Sequence[Mapping[str, Any]], *, seed: Sequence[int]
    ) -> np.ndarray:
        """(B, T, D) actions, T >= `num_executed`.

        Args:
            observations: B, each with `image`, or `images` by camera where there are several;
                `state` and `instruction`; as `View` leaves them.
            seed: B keys, one for each row: a row's plan must depend on its own key and observation
                and not on the other rows.
        """
        ...
