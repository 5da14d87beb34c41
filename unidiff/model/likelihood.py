"""Likelihood of labelled tokens: the ELBO over mask sets, and the autoregressive reading.

`nll` bounds the negative log-likelihood of each row's labels given the context before each block:
always the ELBO, with analytic weights and no clamp on time. Every random number is a hash of the
sample's key, so an estimate does not depend on the batch. Decides nothing about blocks: the batch
says which tokens are denoised together.
"""

# Shapes: B batch, K canvas, G blocks of a row, C context tokens, R mask draws of one forward.

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unidiff.diffusion.absorbing import mask_exact_count
from unidiff.diffusion.objective import mask_set_weight
from unidiff.diffusion.random import hash_integers, uniform

from .streams import TrainingStreams, check_trainable, training_streams

if TYPE_CHECKING:
    from .modeling import UniDiffForBlockDiffusion

DRAW_COUNT, DRAW_SET = 201, 202
MAX_EXACT = 8  # labelled tokens of a block whose mask sets are all enumerated (255 forwards)


@dataclass(frozen=True)
class NllEstimate:
    """Upper bound of the negative log-likelihood of each row's labelled tokens.

    Attributes:
        nats_B: (B,) float64, the ELBO's estimate, in nats.
        standard_error_B: (B,) float64, of that estimate, in nats. It ignores that the counts are
            stratified, so it is too large rather than too small; zero when every mask set was
            enumerated, NaN for one sample.
        num_tokens_B: (B,) int64 labelled tokens.
    """

    nats_B: Tensor
    standard_error_B: Tensor
    num_tokens_B: Tensor


def nll(
    model: "UniDiffForBlockDiffusion",
    batch: Mapping[str, Tensor],
    num_samples: int = 32,
    seed: int = 0,
    *,
    exact: bool = False,
    rows_per_forward: int = 64,
) -> NllEstimate:
    """ELBO of every row's labelled tokens, block by block, given the clean context before each.

    Of a block with n labels, sample s masks exactly k = ceil(n (s + u) / S) at random and counts
    n / k times their cross-entropy: with S a multiple of n every k is covered equally, and the
    estimate is unbiased for any S.

    Args:
        model: the weights; under full attention each sample is one block.
        batch: as documented in `unidiff.data.collator.BlockCollator`, on the model's device.
        num_samples: S, mask sets drawn for each block.
        seed: key of the draws, together with each sample's own key.
        exact: enumerate all mask sets instead; blocks may have at most `MAX_EXACT` labels.
        rows_per_forward: rows of a forward; it bounds memory and does not change the result.

    Raises:
        ValueError: if `num_samples` or `rows_per_forward` is < 1, a label cannot be read
            (`training_streams`), or a block is too long to be enumerated.

    Source: own derivation from L * E_k[(1/k) sum CE] (DESIGN section 6); checked against
        enumeration in tests/model/test_likelihood.py.
    """
    check_trainable(model.config, batch, allows_shift=True)
    if num_samples < 1 or rows_per_forward < 1:
        raise ValueError(
            f"num_samples and rows_per_forward must be >= 1, got {num_samples}, {rows_per_forward}"
        )
    streams = training_streams(batch, model.config.grid, model.config.logits_shift)
    block_BK, num_blocks = _numbered_blocks(streams)
    draws = _all_sets(streams, block_BK) if exact else _draws(streams, num_samples, seed)
    num_rows = max(1, len(block_BK))
    parts = []
    with _evaluating(model):
        for chunk in _chunks(draws, max(1, rows_per_forward // num_rows)):
            weighted_RBK = _losses(model, streams, chunk)
            parts.append(_by_block(weighted_RBK, block_BK, num_blocks))
    count_B = streams.can_mask_BK.sum(1)
    if not parts:  # nothing to score
        zero_B = count_B.to(torch.float64) * 0.0
        return NllEstimate(zero_B, zero_B.clone(), count_B)
    nats_SBG = torch.cat(parts)
    if exact:
        nats_B = nats_SBG.sum(dim=(0, 2))
        return NllEstimate(nats_B, torch.zeros_like(nats_B), count_B)
    # Blocks draw independently, so their variances add.
    error_B = (nats_SBG.var(dim=0).sum(-1) / num_samples).sqrt()
    return NllEstimate(nats_SBG.mean(0).sum(-1), error_B, count_B)


@torch.no_grad()
def ar_nll(model: "UniDiffForBlockDiffusion", batch: Mapping[str, Tensor]) -> Tensor:
    """(B,) float64 nats of each row's text labels by the context rows' successor reading.

    Labels outside the clean context (those behind the end of a turn) are not counted, nor is one
    that no token precedes.

    Args:
        model: weights with `attention_pattern="causal_context"`.
        batch: as for `nll`.

    Raises:
        ValueError: if a context row sees its successor (another attention pattern).
    """
    if model.config.attention_pattern != "causal_context":
        raise ValueError(
            "ar_nll needs attention_pattern='causal_context', got "
            f"{model.config.attention_pattern!r}: its context rows see their successors"
        )
    streams = training_streams(batch, None)
    labels_BC = streams.successor_labels()
    width = labels_BC.shape[1]
    with _evaluating(model):
        loss_BC = model(
            input_ids=streams.context.take(batch["input_ids"], 0),
            attention_mask=streams.attention_mask[:, :, :width, :width],
            position_ids=streams.position_ids[:, :, :width],
            labels=labels_BC,
        ).token_losses
    return loss_BC.double().sum(1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """No gradients and no dropout inside; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _numbered_blocks(streams: TrainingStreams) -> tuple[Tensor, int]:
    """((B, K) int64 number of each token's block in its row, number of blocks of the batch)."""
    names, block_BK = torch.unique(streams.canvas_group_BK, return_inverse=True)
    return block_BK, len(names)


def _draws(
    streams: TrainingStreams, num_samples: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """((B, K) bool masked, (B, K) weight) of each sample."""
    if not bool(streams.can_mask_BK.any()):
        return
    key_BK = hash_integers(seed, streams.canvas_values("sample_keys"))
    index_BK = streams.canvas_values("token_index")
    offset_BK = uniform(key_BK, DRAW_COUNT, streams.canvas_values("block_ids").clamp(min=0), 0)
    for sample in range(num_samples):
        yield mask_exact_count(
            uniform(key_BK, DRAW_SET, index_BK, sample),
            streams.canvas_group_BK,
            (offset_BK + sample) / num_samples,
            streams.can_mask_BK,
        )


def _all_sets(streams: TrainingStreams, block_BK: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """((B, K) bool masked, (B, K) weight) of every mask set, all blocks side by side.

    A block with fewer labels than the largest has no set left in the last draws: nothing is masked
    there.
    """
    same_BKK = block_BK[:, :, None] == block_BK[:, None, :]
    same_BKK = same_BKK & streams.can_mask_BK[:, None, :]
    size_BK = same_BKK.sum(-1)
    largest = int(torch.where(streams.can_mask_BK, size_BK, 0).max()) if size_BK.numel() else 0
    if largest > MAX_EXACT:
        raise ValueError(
            f"exact=True needs blocks of at most {MAX_EXACT} labels, got one of {largest}: "
            "sample instead (exact=False)"
        )
    place_BK = same_BKK.tril(-1).sum(-1).clamp(max=MAX_EXACT)
    weight_N = torch.zeros(MAX_EXACT + 1, MAX_EXACT + 1, dtype=torch.float64)
    for size in range(1, largest + 1):
        for count in range(1, size + 1):
            weight_N[size, count] = mask_set_weight(count, size)
    weight_N = weight_N.to(block_BK.device)
    size_BK = size_BK.clamp(max=MAX_EXACT)
    for number in range(1, 2**largest):
        fits_BK = streams.can_mask_BK & (number < 2**size_BK)
        masked_BK = fits_BK & ((number >> place_BK) & 1).bool()
        yield masked_BK, weight_N[size_BK, number.bit_count()]


def _chunks(draws: Iterator[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Draws stacked to (R, B, K), at most `size` at a time."""
    held: list[tuple[Tensor, Tensor]] = []
    for draw in draws:
        held.append(draw)
        if len(held) == size:
            yield torch.stack([m for m, _ in held]), torch.stack([w for _, w in held])
            held = []
    if held:
        yield torch.stack([m for m, _ in held]), torch.stack([w for _, w in held])


def _losses(
    model: "UniDiffForBlockDiffusion", streams: TrainingStreams, chunk: tuple[Tensor, Tensor]
) -> Tensor:
    """(R, B, K) float64 weight times cross-entropy of the masked positions."""
    masked_RBK, weight_RBK = chunk
    draws = [streams.inputs(masked_BK, model.config.mask_token_id) for masked_BK in masked_RBK]
    times = len(draws)
    losses = model(
        input_ids=torch.cat([draw["input_ids"] for draw in draws]),
        labels=torch.cat([draw["labels"] for draw in draws]),
        attention_mask=streams.attention_mask.repeat(times, 1, 1, 1),
        position_ids=streams.position_ids.repeat(1, times, 1),
    ).token_losses
    parts = losses.view(times, len(streams.speaker_BK), -1)
    losses_RBK = torch.stack([streams.canvas_losses(part) for part in parts])
    return torch.where(masked_RBK, losses_RBK.double() * weight_RBK, 0.0)


def _by_block(values_RBK: Tensor, block_BK: Tensor, num_blocks: int) -> Tensor:
    """(R, B, G) sums over each block."""
    sums_RBG = values_RBK.new_zeros(*values_RBK.shape[:2], num_blocks)
    return sums_RBG.scatter_add_(2, block_BK.expand_as(values_RBK), values_RBK)
