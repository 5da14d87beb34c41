"""Rows of the embedding for ids that a checkpoint did not have: the tokens of a new modality."""

# Shapes: N new ids, D width.

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

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
        model: changed in place; its adapters, if any, have no rows of their own.
        layout: of all tokens, the old ones where they were.

    Raises:
        ValueError: if an old range is not where it was, or embedding or head are adapted.
    """
    old_layout, held = model.config.layout, model.config.vocab_size
    if not layout.holds(old_layout):
        moved = [name for name, ids in old_layout.ranges.items() if layout.ranges.get(name) != ids]
        raise ValueError(
            f"the new layout does not hold {moved or 'the grids'} where the model has them: new "
            "ids follow the model's; adapters that add different ones need models of their own"
        )
    if type(model.model.embed_tokens) is not nn.Embedding or type(model.lm_head) is not nn.Linear:
        raise ValueError(
            "an adapter on the model has rows of the embedding, which cannot grow under it: load "
            "the adapter with the most modalities first"
        )
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
