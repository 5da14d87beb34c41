"""The known tokens of one row in order, where they stand, and how many the cache already holds."""

# Shapes: N tokens.

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from unidiff.tokens.layout import MODALITY_IDS, TokenLayout
from unidiff.tokens.positions import sequence_positions

from .soft import same_features

_TEXT = MODALITY_IDS["text"]


@dataclass
class Context:
    """Clean tokens that a canvas follows.

    Attributes:
        layout: gives grids to positions.
        ids: token ids, the row's first real token first.
        modality: index into the layout's `modalities` of each token.
        positions: (3, n) int64 of each token.
        num_given: leading tokens whose positions the caller gave; the rest continue after them.
        num_prompt: leading tokens that were not generated.
        num_cached: leading tokens that the cache holds.
        soft: (N, D) what stands at its soft positions, in order; None: there are none.
    """

    layout: TokenLayout
    ids: list[int]
    modality: list[int]
    positions: np.ndarray
    num_given: int = 0
    num_prompt: int = 0
    num_cached: int = 0
    soft: Tensor | None = None

    @classmethod
    def of(
        cls, ids: Sequence[int], layout: TokenLayout, positions: np.ndarray | None = None
    ) -> "Context":
        """Context of a prompt; `positions` (3, n) as the caller gave them, None to derive them."""
        modality = layout.modality_ids(np.asarray(ids, dtype=np.int64))
        given = 0 if positions is None else len(ids)
        if positions is None:
            positions, _ = sequence_positions(modality, layout)
        return cls(layout, list(ids), modality.tolist(), positions, given, len(ids))

    def copy(self) -> "Context":
        """The same tokens; what happens to one of the two leaves the other alone."""
        return replace(self, ids=list(self.ids), modality=list(self.modality))

    def __len__(self) -> int:
        return len(self.ids)

    def next_positions(self, modality: Sequence[int]) -> np.ndarray:
        """(3, n) positions of tokens of these modalities if they came next."""
        if len(self) > self.num_given and self.modality[-1] == _TEXT:  # a token like any before it
            start = int(self.positions[0, -1]) + 1
            if all(kind == _TEXT for kind in modality):
                return np.tile(np.arange(start, start + len(modality)), (3, 1))
            if not self.layout.has_bare_pictures:  # whose numbers count from the first one
                kinds = np.asarray(modality, dtype=np.int64)
                return sequence_positions(kinds, self.layout, start)[0]
        start = int(self.positions[:, : self.num_given].max()) + 1 if self.num_given else 0
        following = [*self.modality[self.num_given :], *modality]
        positions, _ = sequence_positions(np.asarray(following, dtype=np.int64), self.layout, start)
        return positions[:, len(self) - self.num_given :]

    def extend(self, ids: Sequence[int], modality: Sequence[int], positions: np.ndarray) -> None:
        """Append tokens that stand at the given (3, n) positions."""
        self.ids += ids
        self.modality += modality
        self.positions = np.concatenate([self.positions, positions], axis=1)

    def split(self, length: int) -> "Context":
        """Cut the tokens from `length` on off and return them, as a context of their own."""
        rest = Context(
            self.layout,
            self.ids[length:],
            self.modality[length:],
            self.positions[:, length:],
        )
        del self.ids[length:], self.modality[length:]
        self.positions = self.positions[:, :length]
        self.num_prompt = min(self.num_prompt, length)
        return rest

    @property
    def num_pending(self) -> int:
        """Tokens that the cache does not hold yet."""
        return len(self) - self.num_cached

    def take_pending(self, limit: int | None = None) -> tuple[list[int], np.ndarray]:
        """(ids, (3, n) positions) of the next tokens to commit, counted as cached from now on."""
        stop = len(self) if limit is None else min(len(self), self.num_cached + limit)
        start, self.num_cached = self.num_cached, stop
        return self.ids[start:stop], self.positions[:, start:stop]

    def common_prefix(
        self, ids: Sequence[int], positions: np.ndarray, soft: Tensor | None = None
    ) -> int:
        """How many leading tokens equal the given ones, in id, position and feature."""
        length = min(len(self), len(ids))
        own = np.asarray(self.ids[:length])
        same = own == np.asarray(ids[:length])
        same &= (self.positions[:, :length] == positions[:, :length]).all(0)
        same &= same_features(own, self.layout.soft_token_id, self.soft, soft)
        return length if same.all() else int(np.argmin(same))
