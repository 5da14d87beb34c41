"""Known actions of a chunk: what its canvas shows, so that only the rest is denoised.

A pinned token is read by all others and never changes. A drafted one is read by all others too, and
secondary remasking gives it back where the model finds it unlikely; that wants weights trained on
visible tokens. Both want bins, where a token is an action of one timestep and dimension.
"""

# Shapes: B rows, T timesteps, R leftover timesteps, D dimensions, K tokens of a
# chunk: T * D of bins, else any number.

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import BatchFeature

from .fit import check_pinnable
from .safety import check_actions, real_numbers


@dataclass(frozen=True)
class Pins:
    """What is known of one chunk.

    Attributes:
        values_TD: (T, D) float32 actions; read where pinned or drafted.
        is_pinned_TD: (T, D) bool.
        is_drafted_TD: (T, D) bool, nowhere where it is pinned.
    """

    values_TD: np.ndarray
    is_pinned_TD: np.ndarray
    is_drafted_TD: np.ndarray


def no_pins(shape: tuple[int, int]) -> Pins:
    """Pins of a (T, D) chunk of which nothing is known."""
    nowhere = np.zeros(shape, dtype=bool)
    return Pins(np.zeros(shape, dtype=np.float32), nowhere, nowhere.copy())


def leftover_pins(
    leftover: ArrayLike,
    inference_delay: int,
    bins: Any,
    is_sure_RD: np.ndarray | None = None,
    *,
    is_draft: bool = False,
) -> Pins:
    """Pins of a chunk whose first timesteps are those that the previous chunk has left.

    Args:
        leftover: (R, D) actions of the previous chunk that are not executed yet, soonest first.
        inference_delay: leading timesteps to pin: what will be executed while the chunk is planned.
        bins: the checkpoint's action bins.
        is_sure_RD: (R, D) bool, further actions to pin; None: none.
        is_draft: whether what is not pinned of the leftover is drafted.

    Raises:
        ValueError: if the leftover has the wrong shape, is too short, leaves nothing to denoise,
            holds actions that are not finite or out of range, or only bins could be pinned.
    """
    shape = (bins.horizon, bins.dim)
    values = real_numbers(leftover, "leftover").astype(np.float32)
    if values.ndim != 2 or values.shape[1] != bins.dim or len(values) > bins.horizon:
        raise ValueError(
            f"leftover must have shape (<= {bins.horizon}, {bins.dim}) for each observation; got "
            f"{values.shape}"
        )
    if not isinstance(inference_delay, Integral):
        raise ValueError(f"inference_delay must be a whole number; got {inference_delay!r}")
    if not 0 <= inference_delay <= min(len(values), bins.horizon - 1):
        raise ValueError(
            f"inference_delay must lie in [0, {min(len(values), bins.horizon - 1)}] with a "
            f"leftover of {len(values)} timesteps and a horizon of {bins.horizon}; got "
            f"{inference_delay}: replan earlier"
        )
    known = {"inference_delay": inference_delay, "warm_start": is_sure_RD is not None}
    check_pinnable(bins, [name for name, on in {**known, "a draft": is_draft}.items() if on])
    check_actions(values, bins)
    pins = no_pins(shape)
    pins.values_TD[: len(values)] = values
    pins.is_pinned_TD[:inference_delay] = True
    if is_sure_RD is not None:
        pins.is_pinned_TD[: len(values)] |= is_sure_RD
    if is_draft:
        pins.is_drafted_TD[: len(values)] = ~pins.is_pinned_TD[: len(values)]
    return pins


def pin(inputs: BatchFeature, pins: Sequence[Pins], processor: Any) -> None:
    """Write each row's pins into the canvas and masks of `inputs`; the chunk stands last."""
    bins, layout = processor.bins_of("action"), processor.layout
    chunk = slice(-bins.num_tokens, None)
    if any(one.is_drafted_TD.any() for one in pins):
        inputs["draft_mask"] = torch.zeros_like(inputs["pinned_mask"])
    for row, one in enumerate(pins):
        is_shown_TD = one.is_pinned_TD | one.is_drafted_TD
        if not is_shown_TD.any():
            continue
        shown = np.where(is_shown_TD, one.values_TD, np.array(bins.low))
        ids = torch.from_numpy(layout.encode("action", bins.encode(shown)).reshape(-1))
        canvas_K = inputs["canvas"][row, chunk]
        is_shown_K = torch.from_numpy(is_shown_TD.reshape(-1))
        inputs["canvas"][row, chunk] = torch.where(is_shown_K, ids, canvas_K)
        inputs["pinned_mask"][row, chunk] = torch.from_numpy(one.is_pinned_TD.reshape(-1))
        if "draft_mask" in inputs:
            inputs["draft_mask"][row, chunk] = torch.from_numpy(one.is_drafted_TD.reshape(-1))


def steps_of(steps: int | Sequence[int | None] | None, pins: Sequence[Pins], least: int = 1) -> Any:
    """`max_denoising_steps` of each row: a chunk's steps in proportion to what is to denoise.

    Args:
        steps: of a whole chunk, for all rows or for each; None: one for each masked position.
        pins: of each row.
        least: steps that stay, where there are so many; see `fit.fewest_steps`.
    """
    each: list[Any] = list(steps) if isinstance(steps, (list, tuple)) else [steps] * len(pins)
    return [
        one if one is None else max(min(one, least), math.ceil(one * (~row.is_pinned_TD).mean()))
        for one, row in zip(each, pins, strict=True)
    ]
