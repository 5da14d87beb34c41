"""Heads that are the embedding: read once, though a file may hold them a second time.

Trainers that save every name, and most pickles, hold such a head beside the embedding. Knows names
and tensors; knows nothing of configurations.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .keys import Conversion, Rule, Tensors
from .tensors import DerivedTensor


@dataclass(frozen=True)
class Tied:
    """An embedding that is the head as well; or, of such a head, a bias that has two names.

    Attributes:
        table: rule of the embedding or the bias.
        theirs: its name in their files.
        head: the name that the same numbers may have there a second time.
    """

    table: Rule
    theirs: str
    head: str

    def forwards(self, theirs: Tensors) -> Conversion:
        """Ours made of theirs; that the two are equal is checked when the embedding is read.

        Raises:
            ValueError: if the two have other shapes or types.
        """
        if self.head not in theirs or self.theirs not in theirs:
            return self.table.forwards(theirs)
        one, two = theirs[self.theirs], theirs[self.head]
        if (one.shape, one.dtype) != (two.shape, two.dtype):
            raise self._contradiction(f"{one.shape} {one.dtype} and {two.shape} {two.dtype}")
        both = DerivedTensor((one, two), self._equal, one.shape, one.dtype)
        found = self.table.forwards({**theirs, self.theirs: both})
        return Conversion(found.made, found.used | {self.head})

    def backwards(self, ours: Tensors) -> Conversion:
        """Theirs made of ours, under both names; a file that had one takes one."""
        found = self.table.backwards(ours)
        if self.theirs not in found.made:
            return found
        return Conversion({**found.made, self.head: found.made[self.theirs]}, found.used)

    def _equal(self, table: Tensor, head: Tensor) -> Tensor:
        """The embedding; raises ValueError unless the head is the same."""
        if not torch.equal(table, head):
            raise self._contradiction("other numbers")
        return table

    def _contradiction(self, found: str) -> ValueError:
        """The error for a head that is not the embedding."""
        return ValueError(
            f"by config.json the head is the embedding, and the weights hold {self.head!r} beside "
            f"{self.theirs!r} with {found}: say tie_word_embeddings (LLaDA: weight_tying) false in "
            "config.json if the head is one of its own, or delete the wrong one from the weights"
        )
