"""A grid of blocks that grows while a model is trained on it: short blocks are learnt first.

A block of one token is what an autoregressive model predicts already; each doubling asks for a
little more.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unidiff.data.blocks import NO_BLOCK
from unidiff.model.configuration import UniDiffConfig

from .objective import BlockObjective


@dataclass(frozen=True)
class GrowingBlocks:
    """A `BlockObjective` whose grid has one length after the other.

    The length follows from a sample's place in the stream, so a resumed run has the same one.

    Attributes:
        objective: the loss.
        lengths: of the blocks, each a multiple of the one before; rows are cut for the last one.
        num_items: samples over which all lengths but the last are gone through.
    """

    objective: BlockObjective
    lengths: tuple[int, ...]
    num_items: int

    def length_at(self, item: int) -> int:
        """Block length of an item of the stream."""
        early = len(self.lengths) - 1
        return self.lengths[min(early, item * early // max(1, self.num_items))]

    def __call__(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        config: UniDiffConfig,
        num_response_tokens: int | Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As the objective's, with the batch cut to the length that it has the turn for."""
        length = self.length_at(int(batch["stream_positions"].max()))
        shorter = copy.copy(config)
        shorter.canvas_length = length
        in_canvas = batch["block_ids"] != NO_BLOCK
        block_ids = torch.where(in_canvas, batch["token_index"] // length, NO_BLOCK)
        cut = {**batch, "block_ids": block_ids}
        return self.objective(model, cut, shorter, num_response_tokens)


def doubling(first: int, last: int) -> tuple[int, ...]:
    """Lengths from `first` to `last`, each twice the one before.

    Raises:
        ValueError: if doubling does not lead from one to the other.
    """
    lengths = [first]
    while 0 < lengths[-1] < last:
        lengths.append(2 * lengths[-1])
    if lengths[-1] != last:
        raise ValueError(
            f"block lengths double from the first to the last: {first} does not lead to {last}"
        )
    return tuple(lengths)
