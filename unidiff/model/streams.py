"""The training pass: a batch of clean rows becomes one forward over [context ; noisy canvas].

The context stream holds clean tokens under the checkpoint's own mask; the canvas stream holds every
block with its noise, or twice with two noises. One forward gives the denoising losses and the
autoregressive losses (context rows predict their successors); DESIGN decision 5. A canvas token is
read from its own row, or (`logits_shift=1`) from the row of the token before it: the one before it
in its canvas, and for a canvas's first token the last one of the context.
"""

# Shapes: B batch, L row tokens, C context tokens, K canvas tokens.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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

    def repeated(self, copies: int) -> "Selection":
        """The same positions several times, side by side."""
        return Selection(self.index_BN.repeat(1, copies), self.is_real_BN.repeat(1, copies))


@dataclass(frozen=True)
class TrainingStreams:
    """Both streams of a batch, before any noise.

    Attributes:
        batch: the collator's tensors.
        context: selected context positions.
        canvas: selected canvas positions.
        attention_mask: (B, 1, C + K, C + K) bool.
        position_ids: (3, B, C + K).
        canvas_group_BK: (B, K) int64, distinct for each block of each sample in a row, and for each
            copy of it.
        can_mask_BK: (B, K) bool, canvas positions that carry a label.
        speaker_BK: (B, K) int64, row of the pass that each canvas position is read from.
        grid: block length under `block_causal`, else None.
        copies: how often each canvas position stands in the pass.
    """

    batch: Mapping[str, Tensor]
    context: Selection
    canvas: Selection
    attention_mask: Tensor
    position_ids: Tensor
    canvas_group_BK: Tensor
    can_mask_BK: Tensor
    speaker_BK: Tensor
    grid: int | None = None
    copies: int = 1

    @property
    def copy_K(self) -> Tensor:
        """(K,) int64 number of the copy that each canvas column belongs to."""
        width = self.can_mask_BK.shape[1]
        column_K = torch.arange(width, device=self.can_mask_BK.device)
        return column_K // max(1, width // self.copies)

    def canvas_values(self, name: str, fill: int = 0) -> Tensor:
        """(B, K) a batch field at the canvas positions."""
        return self.canvas.take(self.batch[name], fill)

    def inputs(self, is_masked_BK: Tensor, mask_token_id: int | Tensor) -> dict[str, Tensor]:
        """Forward arguments with the given canvas positions masked.

        Labels are theirs alone, each at the row that it is read from.

        Args:
            is_masked_BK: (B, K) bool, positions that are noised and carry a label.
            mask_token_id: what they show: one id, or (B, K) int64 of their own.
        """
        clean_BK = self.canvas_values("input_ids")
        noisy_BK = torch.where(is_masked_BK, mask_token_id, clean_BK)
        context_BC = self.context.take(self.batch["input_ids"], 0)
        input_ids = torch.cat([context_BC, noisy_BK], dim=1)
        label_BK = torch.where(is_masked_BK, self.canvas_values("labels", IGNORED), IGNORED)
        labels = torch.full_like(input_ids, IGNORED)  # below every id, so that `amax` keeps ids
        return {
            "input_ids": input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            "labels": labels.scatter_reduce(1, self.speaker_BK, label_BK, reduce="amax"),
        }

    def canvas_losses(self, losses_BL: Tensor) -> Tensor:
        """(B, K) losses of the canvas positions, of (B, C + K) losses by row."""
        return losses_BL.gather(1, self.speaker_BK)

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


def training_streams(
    batch: Mapping[str, Tensor], grid: int | None, logits_shift: int = 0, copies: int = 1
) -> TrainingStreams:
    """Streams of a collated batch.

    Args:
        batch: as documented in `unidiff.data.collator.BlockCollator`.
        grid: block length under `block_causal`, else None.
        logits_shift: 0 where a canvas row predicts itself, 1 where it predicts its successor.
        copies: canvases of each block beside each other over the one context; they do not see each
            other.

    Raises:
        ValueError: under `logits_shift=1` for a label that no token precedes in its sample.
    """
    context = Selection.of(batch["context_mask"] & (batch["sample_ids"] >= 0))
    canvas = Selection.of((batch["block_ids"] >= 0) & (batch["sample_ids"] >= 0)).repeated(copies)
    first_BL = _first_index(batch)
    context_stream, canvas_stream = (
        Stream(
            sample_BL=part.take(batch["sample_ids"], -1),
            index_BL=part.take(batch["token_index"], 0),
            block_BL=part.take(batch["block_ids"], -1),
            first_BL=part.take(first_BL, 0),
        )
        for part in (context, canvas)
    )
    canvas_stream = _apart(canvas_stream, copies, _num_blocks(batch))
    can_mask_BK = canvas.take(batch["labels"], IGNORED) != IGNORED
    speaker_BK = _speakers(context_stream, canvas_stream, logits_shift)
    if bool((can_mask_BK & (speaker_BK < 0)).any()):
        raise ValueError(
            "logits_shift=1 weights predict successors: a label that no token precedes cannot be "
            "learnt; begin each sample with a token that is not wanted"
        )
    positions = [
        torch.stack([part.take(section, 0) for section in batch["position_ids"]])
        for part in (context, canvas)
    ]
    num_blocks = _num_blocks(batch) * copies
    return TrainingStreams(
        batch=batch,
        context=context,
        canvas=canvas,
        attention_mask=concatenated_mask(context_stream, canvas_stream, grid),
        position_ids=torch.cat(positions, dim=2),
        canvas_group_BK=canvas_stream.sample_BL * num_blocks + canvas_stream.block_BL,
        can_mask_BK=can_mask_BK,
        speaker_BK=speaker_BK.clamp(min=0),
        grid=grid,
        copies=copies,
    )


def _apart(canvas: Stream, copies: int, num_blocks: int) -> Stream:
    """The canvas with blocks of its own for each copy; padding stays of no block."""
    width = canvas.block_BL.shape[1] // copies
    column_K = torch.arange(width * copies, device=canvas.block_BL.device)
    shifted_BK = canvas.block_BL + column_K // max(1, width) * num_blocks
    return replace(canvas, block_BL=torch.where(canvas.block_BL < 0, -1, shifted_BK))


def _speakers(context: Stream, canvas: Stream, logits_shift: int) -> Tensor:
    """(B, K) int64 row of the [context ; canvas] pass to read each canvas token from, -1: none."""
    num_context, width = context.index_BL.shape[1], canvas.index_BL.shape[1]
    own_BK = torch.arange(width, device=canvas.index_BL.device).expand_as(canvas.index_BL)
    own_BK = own_BK + num_context
    if not logits_shift:
        return own_BK
    before_BK = canvas.index_BL - 1
    same_BKC = canvas.sample_BL[:, :, None] == context.sample_BL[:, None, :]
    found_BKC = same_BKC & (context.index_BL[:, None, :] == before_BK[:, :, None])
    column_C = torch.arange(num_context, device=own_BK.device)
    speaker_BK = torch.where(found_BKC, column_C, -1).amax(-1) if num_context else own_BK * 0 - 1
    follows_BK = torch.zeros_like(own_BK, dtype=torch.bool)
    same = canvas.block_BL[:, 1:] == canvas.block_BL[:, :-1]
    same &= canvas.sample_BL[:, 1:] == canvas.sample_BL[:, :-1]
    follows_BK[:, 1:] = same & (before_BK[:, 1:] == canvas.index_BL[:, :-1])
    return torch.where(follows_BK, own_BK - 1, speaker_BK)


def check_trainable(
    config: UniDiffConfig,
    batch: Mapping[str, Tensor],
    noise_process: str = "absorbing",
    allows_shift: bool = False,
) -> None:
    """Raise ValueError for a checkpoint, or a batch for it, that the pass does not describe.

    Under full attention there is no clean context: the canvas is the whole sample, the prompt
    pinned in it, and the two-stream pass then is a plain forward under the full mask.

    Args:
        config: the model's.
        batch: what the collator made.
        noise_process: the one that the caller corrupts with.
        allows_shift: whether the caller reads weights with `logits_shift=1` too.
    """
    if config.noise_process != noise_process:
        raise ValueError(
            f"this needs a model with noise_process={noise_process!r}, got "
            f"{config.noise_process!r}: weights of one process mean nothing under another"
        )
    if config.logits_shift and not allows_shift:
        raise ValueError(f"this needs a model with logits_shift=0, got {config.logits_shift}")
    if config.attention_pattern == "prefix":
        raise ValueError(
            "attention_pattern='prefix' is for decoding: in the context of a training row its "
            "tokens would see what they are to be predicted from"
        )
    is_real = batch["sample_ids"] >= 0
    end = config.layout.prefix_end_token_id
    if end is not None and bool((batch["context_mask"] & (batch["input_ids"] == end)).any()):
        raise ValueError(
            f"a prompt up to token {end} attends within itself in this checkpoint, which the "
            "training pass does not do: train on rows without pictures in their context"
        )
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
