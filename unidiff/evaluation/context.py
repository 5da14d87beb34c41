"""What every metric of a suite is given: who answers, how much to ask, and the shared inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unidiff.data.sources.garments import load_fashion_mnist, pad_to_canvas
from unidiff.diffusion.random import hash_integers

from .intervals import wilson_interval
from .pictures import encode_pictures
from .report import Measurement
from .responder import Conversation, Responder

Settings = Mapping[str, Any]


@dataclass
class EvaluationContext:
    """One run of a suite.

    Attributes:
        responder: answers requests.
        model: read by the likelihood metrics alone.
        processor: layout, tokenizers and bins.
        seed: decides inputs and sampling.
        limit: largest number of inputs of a metric, None: as many as the suite says.
        sampling: which of several samplings of the same inputs; drawings heed it.
    """

    responder: Responder
    model: Any
    processor: Any
    seed: int = 0
    limit: int | None = None
    sampling: int = 0
    _photographs: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def sampling_seed(self) -> int:
        """Seed of decoding; that of the inputs for the first sampling."""
        return self.seed if not self.sampling else int(hash_integers(self.seed, self.sampling))

    def count(self, wanted: int) -> int:
        """The suite's number of inputs, or the limit where that is smaller."""
        return wanted if self.limit is None else min(wanted, self.limit)

    def photographs(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """((N, 32, 32, 3) uint8, (N, h * w) codes, (N,) classes) of the first test photographs."""
        longest = max(self._photographs, default=0)
        if longest < number:
            images, labels = load_fashion_mnist("test")
            pictures = pad_to_canvas(images[:number])
            codes = encode_pictures(self.processor, pictures)
            self._photographs = {number: (pictures, codes, labels[:number])}
            longest = number
        pictures, codes, labels = self._photographs[longest]
        return pictures[:number], codes[:number], labels[:number]


def user_turn(*parts: str | Mapping[str, Any]) -> Conversation:
    """A conversation in which the user has said (or shown) this."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


def image_part(codes: np.ndarray) -> dict[str, Any]:
    """Content part of an image whose codes are known."""
    return {"type": "image", "codes": codes}


def share_measurement(
    name: str, is_right: Sequence[bool] | np.ndarray, **fields: Any
) -> Measurement:
    """A share of inputs with its Wilson interval; `fields` are those of `Measurement`."""
    right = np.asarray(is_right, dtype=bool)
    return Measurement(
        name=name,
        value=float(right.mean()),
        num_inputs=len(right),
        interval=wilson_interval(int(right.sum()), len(right)),
        **fields,
    )
