"""What a model says of masked positions, and how far two such laws are apart.

Terms that join a step's loss draw the rows that they compare on from streams of their own.
"""

# Shapes: B batch, K canvas tokens, Q positions of a forward, N masked positions, V ids.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.data.collator import BlockCollator
from unidiff.data.stream import MixtureStream
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.streams import TrainingStreams, check_trainable, training_streams


@dataclass(frozen=True)
class MaskedInputs:
    """One training forward of which only the masked positions' logits are asked.

    Attributes:
        inputs: keywords of the model's forward, without labels.
        wanted_BQ: (B, Q) bool, the masked positions.
        modality_N: (N,) int64 modality of each.
    """

    inputs: dict[str, Tensor]
    wanted_BQ: Tensor
    modality_N: Tensor

    @classmethod
    def of(
        cls, streams: TrainingStreams, is_masked_BK: Tensor, config: UniDiffConfig
    ) -> "MaskedInputs":
        """The forward of a batch with (B, K) canvas positions masked."""
        inputs = streams.inputs(is_masked_BK, config.mask_token_id)
        wanted_BQ = inputs.pop("labels") != -100
        return cls(inputs, wanted_BQ, streams.canvas_values("modality_ids")[is_masked_BK])

    def logits(self, model: nn.Module) -> Tensor:
        """(N, V) the model's logits."""
        logits_NV: Tensor = model(**self.inputs, logits_at=self.wanted_BQ).logits
        return logits_NV

    def law(self, model: nn.Module, config: UniDiffConfig) -> Tensor:
        """(N, V) the model's log-probabilities over allowed ids."""
        return allowed_law(self.logits(model), self.modality_N, config)


def rows_of_step(stream: MixtureStream, step: int, number: int) -> list[dict[str, Any]]:
    """Items step * number and the following ones of a stream, which begins again behind its end."""
    first = step * number
    return [stream[(first + place) % len(stream)] for place in range(number)]


def streams_of(samples: Sequence[Mapping[str, Any]], base: Any) -> TrainingStreams:
    """Both streams of some samples, on a model's device.

    Raises:
        ValueError: as `check_trainable`, under `logits_shift=1` too.
    """
    batch = {name: value.to(base.device) for name, value in BlockCollator()(samples).items()}
    check_trainable(base.config, batch)
    return training_streams(batch, base.config.grid)


def allowed_law(logits_NV: Tensor, modality_N: Tensor, config: UniDiffConfig) -> Tensor:
    """(N, V) float32 log-probabilities over the ids that each position may take, -inf elsewhere.

    Args:
        logits_NV: (N, V) float.
        modality_N: (N,) int64.
        config: of the model.
    """
    blocked_NV = torch.ones_like(logits_NV, dtype=torch.bool)
    for kind in modality_N.unique().tolist():
        modality = config.layout.modalities[kind]
        allowed_V = config.layout.allowed_ids(modality, logits_NV.shape[1])
        blocked_NV[modality_N == kind] = ~allowed_V.to(logits_NV.device)
    return logits_NV.float().masked_fill(blocked_NV, float("-inf")).log_softmax(-1)


def divergence(target_NV: Tensor, law_NV: Tensor) -> Tensor:
    """(N,) Kullback-Leibler divergence of a law from its target, in nats.

    Args:
        target_NV: (N, V) log-probabilities; where they are -inf nothing is counted.
        law_NV: (N, V) log-probabilities, -inf at most there.
    """
    terms_NV = target_NV.exp() * (target_NV - law_NV)
    return torch.where(target_NV.isfinite(), terms_NV, 0.0).sum(-1)
