"""Regression as a baseline: the same backbone says each action as a number, not as a law.

The hidden states of a canvas that is masked whole, the one that one-step decoding reads, go through
one linear layer instead of the token head. Trained by the squared error, it says the mean of what
the demonstrations did; where they did two things, that is neither.
"""

# Shapes: B rows, C context, K = T * D canvas, T timesteps, D dimensions.

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unidiff.data.blocks import IGNORED, NO_BLOCK
from unidiff.model.configuration import UniDiffConfig
from unidiff.model.modeling import UniDiffForBlockDiffusion
from unidiff.model.streams import TrainingStreams, training_streams
from unidiff.plugins.answers import check_fits
from unidiff.tokens.layout import TokenLayout
from unidiff.tokens.positions import sequence_positions

from .chunk_policy import ChunkPolicy
from .observations import Observation
from .pins import Pins
from .records import ChunkRecord
from .safety import safe_actions
from .settings import PolicySettings


class ActionRegressor(UniDiffForBlockDiffusion):
    """The transformer with a second head: one number for each canvas position.

    Attributes:
        value_head: hidden state to value; -1 and 1 are the ends of the action's range.
    """

    def __init__(self, config: UniDiffConfig) -> None:
        """Fresh weights from the configuration."""
        super().__init__(config)
        self.value_head = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(  # type: ignore[override]  # one argument more than the base's
        self,
        *args: Any,
        value_at: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """((N,) float32 values at the N True positions of (B, Q) `value_at`, token losses).

        Args:
            args: of `UniDiffModel.forward`.
            value_at: None: what the token head says, as in `UniDiffForBlockDiffusion.forward`.
            labels: (B, Q) ids whose cross-entropy is wanted too, -100 elsewhere.
            kwargs: as `args`.
        """
        if value_at is None:
            return super().forward(*args, **kwargs, labels=labels)  # type: ignore[misc]
        hidden_BQD = self.model(*args, **kwargs).last_hidden_state
        losses = (
            hidden_BQD.new_zeros(()) if labels is None else self.token_losses(hidden_BQD, labels)
        )
        return self.value_head(hidden_BQD[value_at])[:, 0].float(), losses


def masked_values(
    model: nn.Module, streams: TrainingStreams, value_at_BK: Tensor, config: UniDiffConfig
) -> tuple[Tensor, Tensor]:
    """((N,) float32 values of N canvas positions, row by row, losses of the other labelled ones).

    Args:
        model: `ActionRegressor`, possibly wrapped.
        streams: of a batch; all that is labelled is masked.
        value_at_BK: (B, K) bool, the N positions.
        config: the model's.
    """
    inputs = streams.inputs(streams.can_mask_BK, config.mask_token_id)
    width = inputs["input_ids"].shape[1] - streams.can_mask_BK.shape[1]
    value_at = nn.functional.pad(value_at_BK, (width, 0))
    labels = inputs.pop("labels").masked_fill(value_at, IGNORED)
    has_others = bool((labels != IGNORED).any())
    values_N, losses = model(**inputs, value_at=value_at, labels=labels if has_others else None)
    return values_N, losses


class RegressionPolicy(ChunkPolicy):
    """Plans chunks by one forward of an `ActionRegressor`; see `ChunkPolicy` for the attributes.

    Nothing is drawn, so seeds change nothing, and the settings' `decoding` is not read. Chunks are
    planned whole: neither `inference_delay` nor `warm_start` can be had.
    """

    model_class: ClassVar[type[UniDiffForBlockDiffusion]] = ActionRegressor

    def __init__(self, model: Any, processor: Any, settings: PolicySettings | None = None) -> None:
        """Policy of a loaded checkpoint.

        Args:
            model: `ActionRegressor`.
            processor: with action bins that have a horizon.
            settings: None: the defaults.

        Raises:
            ValueError: if the checkpoint has no actions, or settings and checkpoint do not fit.
        """
        super().__init__(model, processor, settings)
        refused = ("inference_delay", "warm_start", "reuses_prompt", "foresees")
        if any(getattr(self.settings, name) for name in refused):
            raise ValueError(
                "regression plans whole chunks, and nothing else, from whole prompts: leave out "
                f"{', '.join(refused)}; got {self.settings}"
            )

    @torch.inference_mode()
    def _plan(
        self,
        observations: Sequence[Observation],
        pins: Sequence[Pins],
        keys: Sequence[int],
        options: dict[str, Any],
        *,
        uses_past: bool = False,
    ) -> tuple[ChunkRecord, Any]:
        """Chunks of B observations; there is no cache."""
        del uses_past
        start = time.perf_counter()
        if options:
            raise ValueError(f"regression decodes nothing: leave out {sorted(options)}")
        is_pinned = np.stack([one.is_pinned_TD for one in pins])
        if any((one.is_pinned_TD | one.is_drafted_TD).any() for one in pins):
            raise ValueError("regression plans whole chunks: leave out leftover")
        inputs = self.encoder(observations)
        check_fits(self.model, inputs)
        config, device = self.model.config, self.model.device
        batch = request_batch(inputs, config.layout)
        streams = training_streams({k: v.to(device) for k, v in batch.items()}, config.grid)
        values_N, _ = masked_values(self.model, streams, streams.can_mask_BK, config)
        values = values_N.double().cpu().numpy()
        chunks = self._actions(values.reshape(-1, self.horizon, self.dof))
        self.last_record = ChunkRecord(
            chunks=chunks,
            confidence=np.ones(chunks.shape),
            is_pinned=is_pinned,
            num_forwards=(1,) * len(chunks),
            seeds=tuple(keys),
            traces=(),
            num_prompt_tokens=tuple(inputs["attention_mask"].sum(1).tolist()),
            num_reused_tokens=0,
            seconds=time.perf_counter() - start,
        )
        return self.last_record, None

    def _actions(self, values_BTD: np.ndarray) -> np.ndarray:
        """(B, T, D) float32 actions of values, clipped to the range; ValueError if not finite."""
        low, high = np.array(self.bins.low), np.array(self.bins.high)
        share_BTD = (values_BTD + 1) / 2
        return safe_actions(low * (1 - share_BTD) + high * share_BTD, self.bins)


def request_batch(inputs: Mapping[str, Any], layout: TokenLayout) -> dict[str, Tensor]:
    """Prompts and empty canvases as the batch that training would have made of them.

    Args:
        inputs: input_ids and attention_mask, (B, C); canvas_modality_ids, (B, K), of one length.
        layout: the checkpoint's.

    Returns:
        What `BlockCollator` documents, (B, C + K); padding stands where the prompts have it.
    """
    is_real = torch.cat(
        [inputs["attention_mask"].bool(), torch.ones_like(inputs["canvas"]).bool()], dim=1
    )
    prompt_BC, canvas_BK = inputs["input_ids"], inputs["canvas_modality_ids"]
    kind_BC = torch.from_numpy(layout.modality_ids(prompt_BC.numpy()))
    modality = torch.cat([kind_BC, canvas_BK], dim=1)
    positions = torch.zeros(3, *modality.shape, dtype=torch.int64)
    for row, is_real_L in enumerate(is_real):
        found, _ = sequence_positions(modality[row, is_real_L].numpy(), layout)
        positions[:, row, is_real_L] = torch.from_numpy(found)
    in_canvas = torch.zeros_like(is_real)
    in_canvas[:, prompt_BC.shape[1] :] = True
    first_id = layout.range_of("action").start
    return {
        "input_ids": torch.cat([prompt_BC, torch.full_like(canvas_BK, first_id)], dim=1),
        "modality_ids": modality,
        "labels": torch.where(in_canvas, first_id, IGNORED),
        "block_ids": torch.where(in_canvas, 0, NO_BLOCK),
        "context_mask": is_real & ~in_canvas,
        "token_index": (is_real.long().cumsum(1) - 1).clamp(min=0),
        "sample_ids": torch.where(is_real, 0, -1),
        "position_ids": positions,
    }
