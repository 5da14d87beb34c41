"""Known actions of a chunk: what is pinned in its canvas, so that only the rest is denoised.

The engine knows pinned and masked positions and nothing between them: a pinned token is read by all
others and never changes. What is left of the previous chunk is therefore pinned or left out; it
cannot be offered as a draft that denoising may still change.
"""

# Shapes: B rows, T timesteps, R leftover timesteps, D dimensions, K = T * D of a chunk.

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import BatchFeature

from .safety import check_actions


@dataclass(frozen=True)
class Pins:
    """What is known of one chunk.

    Attributes:
        values_TD: (T, D) float32 actions; read where pinned.
        is_pinned_TD: (T, D) bool.
    """

    values_TD: np.ndarray
    is_pinned_TD: np.ndarray


def no_pins(shape: tuple[int, int]) -> Pins:
    """Pins of a (T, D) chunk of which nothing is known."""
    return Pins(np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool))


def leftover_pins(
    leftover: ArrayLike, inference_delay: int, bins: Any, is_sure_RD: np.ndarray | None = None
) -> Pins:
    """Pins of a chunk whose first timesteps are those that the previous chunk has left.

    Args:
        leftover: (R, D) actions of the previous chunk that are not executed yet, soonest first.
        inference_delay: leading timesteps to pin: what will be executed while the chunk is planned.
        bins: the checkpoint's action bins.
        is_sure_RD: (R, D) bool, further actions to pin; None: none.

    Raises:
        ValueError: if the leftover has the wrong shape, is too short, leaves nothing to denoise, or
            holds actions that are not finite or out of range.
    """
    shape = (bins.horizon, bins.dim)
    values = np.asarray(leftover, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != bins.dim or len(values) > bins.horizon:
        raise ValueError(
            f"leftover must have shape (<= {bins.horizon}, {bins.dim}) for each observation; got "
            f"{values.shape}"
        )
    if not 0 <= inference_delay <= min(len(values), bins.horizon - 1):
        raise ValueError(
            f"inference_delay must lie in [0, {min(len(values), bins.horizon - 1)}] with a "
            f"leftover of {len(values)} timesteps and a horizon of {bins.horizon}; got "
            f"{inference_delay}: replan earlier"
        )
    check_actions(values, bins)
    pins = no_pins(shape)
    pins.values_TD[: len(values)] = values
    pins.is_pinned_TD[:inference_delay] = True
    if is_sure_RD is not None:
        pins.is_pinned_TD[: len(values)] |= is_sure_RD
    return pins


def pin(inputs: BatchFeature, pins: Sequence[Pins], processor: Any) -> None:
    """Write each row's pins into the canvas and pinned mask of `inputs`; the chunk stands last."""
    bins, layout = processor.bins_of("action"), processor.layout
    chunk = slice(-bins.num_tokens, None)
    for row, one in enumerate(pins):
        known = np.where(one.is_pinned_TD, one.values_TD, np.array(bins.low))
        ids = torch.from_numpy(layout.encode("action", bins.encode(known)).reshape(-1))
        is_pinned_K = torch.from_numpy(one.is_pinned_TD.reshape(-1))
        canvas_K = inputs["canvas"][row, chunk]
        inputs["canvas"][row, chunk] = torch.where(is_pinned_K, ids, canvas_K)
        inputs["pinned_mask"][row, chunk] = is_pinned_K


def steps_of(steps: int | Sequence[int | None] | None, pins: Sequence[Pins]) -> Any:
    """`max_denoising_steps` of each row: a chunk's steps in proportion to what is to denoise.

    Args:
        steps: of a whole chunk, for all rows or for each; None: one for each masked position.
        pins: of each row; at least one step stays.
    """
    each = list(steps) if isinstance(steps, (list, tuple)) else [steps] * len(pins)
    return [
        one if one is None else max(1, math.ceil(one * (~row.is_pinned_TD).mean()))
        for one, row in zip(each, pins, strict=True)
    ]
