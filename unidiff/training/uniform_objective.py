"""The loss of uniform noise: random ids of each token's modality in place of masks.

Which loss it is follows from what the head predicts (`config.uniform_prediction`): the NELBO for
`leave_one_out`, the cross-entropy of the clean token at every position for `posterior`. Random
numbers are hashes of the sample's key, as in `objective.py`.
"""

# Shapes: B batch, K canvas tokens, N labelled ones, V ids.

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unidiff.diffusion.objective import stratified_times
from unidiff.diffusion.processes import Uniform
from unidiff.diffusion.random import uniform
from unidiff.diffusion.schedules import SCHEDULES
from unidiff.diffusion.uniform import uniform_nelbo_rate
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.streams import TrainingStreams, check_trainable, training_streams

from .balance import balance_term, routes_to_balance
from .objective import DRAW_MASK, DRAW_TIME

DRAW_ID = 103


@dataclass(frozen=True)
class UniformObjective:
    """Loss of uniform noise per response token, in nats.

    The model is not told the time: its bound is that of the best head without it.

    Attributes:
        schedule: name in `unidiff.diffusion.schedules.SCHEDULES`.
        seed: key of the rotations that stratify the times.
    """

    schedule: str = "linear"
    seed: int = 0

    def corrupt(self, streams: TrainingStreams, config: UniDiffConfig) -> tuple[Tensor, Tensor]:
        """((B, K) int64 noisy ids, (B, K) float64 times in (0, 1))."""
        rotation = uniform(self.seed, DRAW_TIME, streams.canvas_values("block_ids").clamp(min=0), 0)
        time_BK = stratified_times(streams.canvas_values("stream_positions"), rotation)
        alpha_BK = SCHEDULES[self.schedule].alpha(time_BK)
        keep_BK, token_BK = (
            uniform(
                streams.canvas_values("sample_keys"), draw, streams.canvas_values("token_index"), 0
            )
            for draw in (DRAW_MASK, DRAW_ID)
        )
        noisy_BK = streams.canvas_values("input_ids")
        modality_BK = streams.canvas_values("modality_ids")
        for kind in modality_BK[streams.can_mask_BK].unique().tolist():
            here = streams.can_mask_BK & (modality_BK == kind)
            allowed_V = config.layout.allowed_ids(config.layout.modalities[kind], config.vocab_size)
            process = Uniform(allowed_V.to(noisy_BK.device))
            noisy_BK[here] = process.corrupt(
                noisy_BK[here], alpha_BK[here], keep_BK[here], token_BK[here]
            )
        return noisy_BK, time_BK

    def __call__(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        config: UniDiffConfig,
        num_response_tokens: int | Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss in nats per response token, and its sum and count over the batch.

        Args:
            model: `UniDiffForBlockDiffusion`, possibly wrapped (DDP, peft).
            batch: as documented in `unidiff.data.collator.BlockCollator`.
            config: the model's configuration.
            num_response_tokens: labels in the global batch; None counts this batch's.

        Raises:
            ValueError: for a model of another noise process, with `logits_shift=1`, or with
                `attention_pattern="full"`.
        """
        check_trainable(config, batch, "uniform")
        streams = training_streams(batch, config.grid)
        noisy_BK, time_BK = self.corrupt(streams, config)
        inputs = streams.inputs(streams.can_mask_BK, noisy_BK)
        with routes_to_balance(model, config) as routes:
            if config.uniform_prediction == "posterior":
                total = model(**inputs).token_losses.sum()
            else:
                total = self._nelbo(model, inputs, streams, noisy_BK, time_BK, config)
        count = (batch["labels"] != -100).sum()
        if num_response_tokens is None:
            num_response_tokens = count
        parts = {"uniform_sum": total.detach(), "uniform_count": count}
        return (total + balance_term(routes, streams, config)) / num_response_tokens, parts

    def _nelbo(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        streams: TrainingStreams,
        noisy_BK: Tensor,
        time_BK: Tensor,
        config: UniDiffConfig,
    ) -> Tensor:
        """Sum over labelled positions of the NELBO's rate at their times, in nats."""
        labels = inputs.pop("labels")
        at_BK, width = streams.can_mask_BK, noisy_BK.shape[1]
        logits_NV = model(**inputs, logits_at=labels != -100).logits
        clean_N, noisy_N, time_N = labels[:, -width:][at_BK], noisy_BK[at_BK], time_BK[at_BK]
        modality_N = streams.canvas_values("modality_ids")[at_BK]
        schedule = SCHEDULES[self.schedule]
        total = logits_NV.new_zeros((), dtype=torch.float64)
        for kind in modality_N.unique().tolist():
            here_N = modality_N == kind
            support_V = config.layout.allowed_ids(config.layout.modalities[kind], config.vocab_size)
            support_V = support_V.to(logits_NV.device)
            logits = logits_NV[here_N].to(torch.float64).masked_fill(~support_V, -torch.inf)
            rate_N = uniform_nelbo_rate(
                logits.softmax(-1),
                clean_N[here_N],
                noisy_N[here_N],
                schedule.alpha(time_N[here_N]),
                schedule.weight(time_N[here_N]),
                support_V,
            )
            total = total + rate_N.sum()
        return total
