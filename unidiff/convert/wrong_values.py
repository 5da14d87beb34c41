"""Values of a wrong type or size in a checkpoint's files, of which Python's own errors tell little.

Knows errors; knows nothing of families and their fields.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError

# What such a value raises where it is used.
_RAISED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


@contextmanager
def blamed_on(family: str, folder: Path) -> Iterator[None]:
    """Name the files in what is raised within; a ValueError that does is let through.

    Args:
        family: name of that which the values are read for.
        folder: that they are of.

    Raises:
        ValueError: naming `config.json`, the family, and what was wrong.
    """
    try:
        yield
    except _RAISED as error:
        if isinstance(error, ValueError) and str(folder) in str(error):
            raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(
            f"{folder / 'config.json'} or what lies beside it says something that no {family} has: "
            f"{kind}{error}"
        ) from error
