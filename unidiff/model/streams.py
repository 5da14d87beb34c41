"""The training pass: a batch of clean rows becomes one forward over [context ; noisy canvas].

The context stream holds clean tokens under the checkpoint's own mask; the canvas stream holds every
block with its noise. One forward gives the denoising losses (canvas rows predict themselves) and
the autoregressive losses (context rows predict their successors); DESIGN decision 5.
"""

# Shapes: B batch, L row tokens, C context tokens, K canvas tokens.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unidiff.tokens.layout import MODALITY_IDS

from .configuration import UniDiffConfig
from .masks import Stream, concatenated_mask

IGNORED = -100


@dataclass(frozen=True)
class Selection:
    """Positions of a (B, L) batch gathered to the left of narrower rows.

    Attributes:
        index_BN: (B, N) int64 columns of the batch.
        is_real_BN: (B, N) bool, False behind a row's last selected position.
    """

    index_BN: Tensor
    is_real_BN: Tensor

    @classmethod
    def of(cls, selected_BL: Tensor) -> "Selection":
        """The True positions of each row, in order."""
        count_B = selected_BL.sum(1)
        width = int(count_B.max()) if len(count_B) else 0
        order_BL = torch.argsort((~selected_BL).to(torch.uint8), dim=1, stable=True)
        column_N = torch.arange(width, device=selected_BL.device)
        return cls(order_BL[:, :width], column_N < count_B[:, None])

    def take(self, values_BL: Tensor, fill: int) -> Tensor:
        """(B, N) values at the selected positions, `fill` behind them."""
        return torch.where(self.is_real_BN, values_BL.gather(1, self.index_BN), fill)


@dataclass(frozen=True)
class TrainingStreams:
    """Both streams of a batch, before any noise.

    Attributes:
        batch: the collator's tensors.
        context: selected context positions.
        canvas: selected canvas positions.
        attention_mask: (B, 1, C + K, C + K) bool.
        position_ids: (3, B, C + K).
        canvas_group_BK: (B, K) int64, distinct for each block of each sample in a row.
        can_mask_BK: (B, K) bool, canvas positions that carry a label.
        grid: block length under `block_causal`, else None.
    """

    batch: Mapping[str, Tensor]
    context: Selection
    canvas: Selection
    attention_mask: Tensor
    position_ids: Tensor
    canvas_group_BK: Tensor
    can_mask_BK: Tensor
    grid: int | None = None

    def canvas_values(self, name: str, fill: int = 0) -> Tensor:
        """(B, K) a batch field at the canvas positions."""
        return self.canvas.take(self.batch[name], fill)

    def inputs(self, is_masked_BK: Tensor, mask_token_id: int | Tensor) -> dict[str, Tensor]:
        """Forward arguments with the given canvas positions masked; labels are canvas only.

        Args:
            is_masked_BK: (B, K) bool, positions that are noised and carry a label.
            mask_token_id: what they show: one id, or (B, K) int64 of their own.
        """
        clean_BK = self.canvas_values("input_ids")
        noisy_BK = torch.where(is_masked_BK, mask_token_id, clean_BK)
        context_BC = self.context.take(self.batch["input_ids"], 0)
        canvas_labels = torch.where(is_masked_BK, self.canvas_values("labels", IGNORED), IGNORED)
        return {
            "input_ids": torch.cat([context_BC, noisy_BK], dim=1),
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "labels": torch.cat([torch.full_like(context_BC, IGNORED), canvas_labels], dim=1),
        }

    def successor_labels(self, modality_ids: Sequence[int] = (MODALITY_IDS["text"],)) -> Tensor:
        """(B, C) response token that follows each context row in its sample, else -100.

        On a grid only the last row of a block has a successor to predict: the others see theirs.

        Args:
            modality_ids: modalities of the tokens that are predicted; text alone by default.
        """
        labels_BC = self.context.take(self.batch["labels"], IGNORED)
        modality_BC = self.context.take(self.batch["modality_ids"], -1)
        is_read = torch.isin(modality_BC, modality_BC.new_tensor(list(modality_ids)))
        sample_BC = self.context.take(self.batch["sample_ids"], -1)
        index_BC = self.context.take(self.batch["token_index"], -2)
        follows = (sample_BC[:, 1:] == sample_BC[:, :-1]) & (
            index_BC[:, 1:] == index_BC[:, :-1] + 1
        )
        if self.grid is not None:
            follows &= index_BC[:, 1:] % self.grid == 0
        next_BC = torch.where(is_read[:, 1:] & follows, labels_BC[:, 1:], IGNORED)
        padded = torch.nn.functional.pad(next_BC, (0, 1), value=IGNORED)
        return padded[:, : labels_BC.shape[1]]  # a context may be empty


def training_streams(batch: Mapping[str, Tensor], grid: int | None) -> TrainingStreams:
    """Streams of a collated batch.

    Args:
        batch: as documented in `unidiff.data.collator.BlockCollator`.
        grid: block length under `block_causal`, else None.
    """
    context = Selection.of(batch["context_mask"] & (batch["sample_ids"] >= 0))
    canvas = Selection.of((batch["block_ids"] >= 0) & (batch["sample_ids"] >= 0))
    first_BL = _first_index(batch)
    streams = [
        Stream(
            sample_BL=part.take(batch["sample_ids"], -1),
            index_BL=part.take(batch["token_index"], 0),
            block_BL=part.take(batch["block_ids"], -1),
            first_BL=part.take(first_BL, 0),
        )
        for part in (context, canvas)
    ]
    positions = [
        torch.stack([part.take(section, 0) for section in batch["position_ids"]])
        for part in (context, canvas)
    ]
    group_BK = streams[1].sample_BL * _num_blocks(batch) + streams[1].block_BL
    return TrainingStreams(
        batch=batch,
        context=context,
        canvas=canvas,
        attention_mask=concatenated_mask(streams[0], streams[1], grid),
        position_ids=torch.cat(positions, dim=2),
        canvas_group_BK=group_BK,
        can_mask_BK=canvas.take(batch["labels"], IGNORED) != IGNORED,
        grid=grid,
    )


def check_trainable(
    config: UniDiffConfig, batch: Mapping[str, Tensor], noise_process: str = "absorbing"
) -> None:
    """Raise ValueError for a checkpoint, or a batch for it, that the pass does not describe.

    Under full attention there is no clean context: the canvas is the whole sample, the prompt
    pinned in it, and the two-stream pass then is a plain forward under the full mask.

    Args:
        config: the model's.
        batch: what the collator made.
        noise_process: the one that the caller corrupts with.
    """
    if config.noise_process != noise_process:
        raise ValueError(
            f"this needs a model with noise_process={noise_process!r}, got "
            f"{config.noise_process!r}: weights of one process mean nothing under another"
        )
    if config.logits_shift:
        raise ValueError(f"this needs a model with logits_shift=0, got {config.logits_shift}")
    is_real = batch["sample_ids"] >= 0
    is_apart = batch["context_mask"] | (batch["block_ids"] != 0)
    if config.attention_pattern == "full" and bool((is_apart & is_real).any()):
        raise ValueError(
            "attention_pattern='full' has no clean context, so each sample must be one canvas: "
            "make rows by one_block_row(sequence, layout, first=0), got rows with a context or "
            "with several blocks"
        )


def _num_blocks(batch: Mapping[str, Tensor]) -> int:
    """One more than the largest block number."""
    return int(batch["block_ids"].max()) + 1


def _first_index(batch: Mapping[str, Tensor]) -> Tensor:
    """(B, L) index in its sample of the first token of each canvas token's block."""
    num_blocks = _num_blocks(batch)
    in_canvas = (batch["block_ids"] >= 0) & (batch["sample_ids"] >= 0)
    group_BL = batch["sample_ids"].clamp(min=0) * num_blocks + batch["block_ids"].clamp(min=0)
    group_BL = torch.where(in_canvas, group_BL, int(group_BL.max()) + 1)
    far = torch.iinfo(torch.int64).max
    first_BG = torch.full((group_BL.shape[0], int(group_BL.max()) + 1), far, device=group_BL.device)
    first_BG = first_BG.scatter_reduce(1, group_BL, batch["token_index"], reduce="amin")
    return torch.where(in_canvas, first_BG.gather(1, group_BL), 0)
