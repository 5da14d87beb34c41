"""Token sequences as the tensors that `generate()` takes: left-padded prompts, canvases, pins.

Knows sequences and the layout; knows nothing of strings, pixels or models.
"""

# Shapes: B batch, L prompt, K canvas.

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature

from .infill import infill_prompt_length, masked_ids
from .layout import CANVAS_PADDING, TokenLayout, contiguous_layout
from .sequence import TokenSequence, in_rows, run_of
from .text import SPECIAL_TOKENS

CANVAS_FIELDS = ("canvas", "pinned_mask", "canvas_modality_ids")


def layout_for_tokenizer(
    tokenizer: object,
    sizes: dict[str, int],
    image_grid: tuple[int, int] = (8, 8),
    action_grid: tuple[int, int] = (8, 2),
) -> TokenLayout:
    """Layout with the tokenizer's ids first and the other modalities behind them.

    Args:
        tokenizer: a tokenizer of `build_text_tokenizer`.
        sizes: number of codes of each further modality, such as {"image": 240, "action": 256}.
        image_grid: (rows, columns) of one image's codes.
        action_grid: (timesteps, dimensions) of one chunk.
    """
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))  # type: ignore[attr-defined]
    end = tokenizer.eos_token_id  # type: ignore[attr-defined]
    return contiguous_layout(
        {"text": len(tokenizer), **sizes},  # type: ignore[arg-type]
        reserved_token_ids=tuple(i for i in ids if i != end),
        mask_token_id=tokenizer.mask_token_id,  # type: ignore[attr-defined]
        pad_token_id=tokenizer.pad_token_id,  # type: ignore[attr-defined]
        end_token_ids=(end,),
        image_grid=image_grid,
        action_grid=action_grid,
    )


def batch_prompts(prompts: Sequence[TokenSequence], layout: TokenLayout) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, (B, L) int64, padded on the left.

    Raises:
        ValueError: if there is no prompt or one has no token.
    """
    if not prompts or min(len(prompt) for prompt in prompts) == 0:
        raise ValueError("a prompt needs at least one token, and a batch at least one prompt")
    length = max(len(prompt) for prompt in prompts)
    ids = left_padded([prompt.ids_L for prompt in prompts], length, layout.pad_token_id)
    mask = left_padded([np.ones(len(prompt)) for prompt in prompts], length, 0)
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def left_padded(values: Sequence[np.ndarray], length: int, fill: int) -> np.ndarray:
    """(B, length) int64 of rows of different lengths, filled on the left."""
    batch = np.full((len(values), length), fill, dtype=np.int64)
    for row, value in zip(batch, values, strict=True):
        row[length - len(value) :] = value
    return batch


def empty_canvas(modality: str, layout: TokenLayout) -> TokenSequence:
    """One whole value of a modality with a grid, of which no code is known."""
    grid = layout.grid_of(modality)
    if grid is None:
        raise ValueError(f"{modality!r} has no fixed length: its prompt needs no canvas")
    layout.range_of(modality)
    masks = [layout.mask_token_id] * math.prod(grid)
    return in_rows(run_of(masks, layout.modality_id(modality), wanted=True), modality, layout)


def prompts_with_canvases(
    prompts: Sequence[TokenSequence], canvases: Sequence[TokenSequence], layout: TokenLayout
) -> BatchFeature:
    """Arguments of `generate()`: the prompts, and per row a canvas whose known part is pinned.

    Args:
        prompts: B token sequences of any lengths.
        canvases: B token sequences; what is wanted in them is to be filled.
        layout: mask and padding ids.

    Returns:
        `BatchFeature` of input_ids and attention_mask (B, L), canvas (B, K) int64, pinned_mask
        (B, K) bool and canvas_modality_ids (B, K) int64; behind a canvas shorter than K the
        modality is `CANVAS_PADDING`.

    Raises:
        ValueError: if a canvas has nothing to fill.
    """
    if not all(canvas.is_wanted_L.any() for canvas in canvases):
        raise ValueError("the canvas has nothing to fill: mark at least one hole")
    shape = (len(canvases), max(len(canvas) for canvas in canvases))
    ids = np.full(shape, layout.pad_token_id, dtype=np.int64)
    pinned = np.ones(shape, dtype=bool)
    modality = np.full(shape, CANVAS_PADDING, dtype=np.int64)
    for row, canvas in enumerate(canvases):
        ids[row, : len(canvas)] = masked_ids(canvas, layout)
        pinned[row, : len(canvas)] = ~canvas.is_wanted_L
        modality[row, : len(canvas)] = canvas.modality_L
    fields = {"canvas": ids, "pinned_mask": pinned, "canvas_modality_ids": modality}
    tensors = {name: torch.from_numpy(values) for name, values in fields.items()}
    return BatchFeature({**batch_prompts(prompts, layout), **tensors})


def canvases_of(inputs: Mapping[str, Any]) -> list[TokenSequence]:
    """The canvas of each row, without padding; inverse of `prompts_with_canvases`."""
    fields = [torch.as_tensor(inputs[name]).cpu().numpy() for name in CANVAS_FIELDS]
    rows = [TokenSequence(ids, kind, ~pinned) for ids, pinned, kind in zip(*fields, strict=True)]
    return [row[: int((row.modality_L != CANVAS_PADDING).sum())] for row in rows]


def stacked(requests: Sequence[Mapping[str, Any]], layout: TokenLayout) -> BatchFeature:
    """One batch of the rows of several requests, all with a canvas or all without.

    Raises:
        ValueError: if there is none, or only some have a canvas.
    """
    if len({"canvas" in request for request in requests}) != 1:
        raise ValueError("a batch needs requests that all have a canvas, or all have none")
    prompts = []
    for request in requests:
        for ids, mask in zip(request["input_ids"], request["attention_mask"], strict=True):
            real = ids[mask.bool()].cpu().numpy()
            prompts.append(TokenSequence(real, layout.modality_ids(real), real < 0))
    if "canvas" not in requests[0]:
        return BatchFeature(batch_prompts(prompts, layout))
    canvases = [canvas for request in requests for canvas in canvases_of(request)]
    return prompts_with_canvases(prompts, canvases, layout)


def infill_inputs(sequence: TokenSequence, layout: TokenLayout) -> BatchFeature:
    """Arguments of `generate()` for one sequence of `infill_sequence`."""
    length = infill_prompt_length(layout)
    return prompts_with_canvases([sequence[:length]], [sequence[length:]], layout)


def canvas_modalities(canvas: TokenSequence, layout: TokenLayout) -> list[str]:
    """Modalities that a canvas holds; text counts if it is more than pinned special tokens."""
    is_content = canvas.is_wanted_L | ~np.isin(canvas.ids_L, layout.special_ids)
    present = set(canvas.modality_L[is_content].tolist())
    return [name for index, name in enumerate(layout.modalities) if index in present]


def converted(result: BatchFeature, return_tensors: str | None) -> BatchFeature:
    """The tensors as "pt", "np", or lists for None."""
    if return_tensors == "pt":
        return result
    if return_tensors == "np":
        return BatchFeature({name: value.numpy() for name, value in result.items()})
    if return_tensors is None:
        return BatchFeature({name: value.tolist() for name, value in result.items()})
    raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {return_tensors!r}")
