"""What a new kind of token is: values become codes, codes become values.

A plugin names its classes in `Plugin.modalities`. The layout gives the codes ids behind all others,
and two delimiters; the model grows by their rows.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Modality(Protocol):
    """A tokenizer of one kind of value.

    Attributes:
        name: of the modality, of its part in messages and of the part's value:
            `{"type": "audio", "audio": value}`; lower case, digits and underscores.
        plugin: name of the plugin's entry point.
        num_codes: size of the codebook.
        grid: (rows, columns) of one value's codes, whose positions they give; (1, n) is a line.
            None is a line of any length, which can be shown to the model but not asked of it.
    """

    name: str
    plugin: str
    num_codes: int

    @property
    def grid(self) -> tuple[int, int] | None:
        """(rows, columns) of one value's codes; an attribute will do."""
        ...

    def encode(self, value: Any) -> np.ndarray:
        """(n,) int codes of a value, row by row.

        Raises:
            TypeError: if it is no value of this kind.
            ValueError: if it cannot be coded.
        """
        ...

    def decode(self, codes: np.ndarray) -> Any:
        """Value of (n,) codes; any codes give one."""
        ...

    def save_pretrained(self, folder: str | Path) -> Any:
        """Write what `from_pretrained` reads."""
        ...

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Modality":
        """The modality in a folder of `save_pretrained`."""
        ...

    @classmethod
    def default(cls) -> "Modality":
        """The one that comes with the plugin."""
        ...
