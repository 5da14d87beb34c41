"""Rows of the embedding for ids that a checkpoint did not have: the tokens of a new modality."""

# Shapes: N new ids, D width.

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform
from unidiff.tokens.layout import TokenLayout

if TYPE_CHECKING:
    from .modeling import UniDiffForBlockDiffusion

_DRAW = 301  # of the random numbers; no other use has it


@torch.no_grad()
def grow_vocabulary(model: "UniDiffForBlockDiffusion", layout: TokenLayout) -> range:
    """Make room for a layout's ids; returns those that the old layout did not have.

    New rows follow from their place alone, so that every machine makes the same ones; ids that fit
    into the padding of the old vocabulary keep its rows.

    Args:
        model: without adapters; changed in place.
        layout: of all tokens, the old ones where they were.

    Raises:
        ValueError: if an old range moved, or the model has adapters.
    """
    old_layout, held = model.config.layout, model.config.vocab_size
    moved = [
        name for name, ids in old_layout.ranges.items() if layout.ranges.get(name, None) != ids
    ]
    if moved:
        raise ValueError(f"the new layout moves the ids of {moved}: keep them, add behind them")
    if getattr(model, "peft_config", None):
        raise ValueError("the vocabulary grows before adapters are loaded: load this one first")
    new_ids = range(old_layout.num_ids, layout.num_ids)
    model.config.token_layout = layout.to_dict()
    if layout.num_ids <= held:
        return new_ids
    scale = model.model.embed_tokens.weight.float().std()
    model.resize_token_embeddings(layout.num_ids, mean_resizing=False)
    for weight in {model.model.embed_tokens.weight, model.lm_head.weight}:
        new_ND = _normal(layout.num_ids - held, weight.shape[1], held) * scale.cpu()
        weight[held:] = new_ND.to(weight)
    return new_ids


def _normal(num_rows: int, width: int, first: int) -> Tensor:
    """(N, D) float32 of a standard normal distribution, from counters."""
    row_N1 = torch.arange(first, first + num_rows)[:, None]
    return torch.special.ndtri(uniform(_DRAW, _DRAW, row_N1, torch.arange(width))).float()
