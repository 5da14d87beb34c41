"""UniDiff: one masked-diffusion transformer over text, images and robot actions.

Importing this package registers its classes with transformers' Auto classes, so that
`AutoModelForCausalLM.from_pretrained(folder)` finds them. The names below are the public ones;
each is loaded from its room when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import unidiff.model  # noqa: F401  registers the Auto classes
from unidiff.bundled import bundled_checkpoint

if TYPE_CHECKING:
    from unidiff.generation.config import UniDiffGenerationConfig
    from unidiff.model.configuration import UniDiffConfig
    from unidiff.model.modeling import UniDiffForBlockDiffusion, UniDiffModel
    from unidiff.tokens.image import FSQImageTokenizer
    from unidiff.tokens.layout import TokenLayout
    from unidiff.tokens.processor import UniDiffProcessor

__version__ = "0.1.0"

_HOMES = {
    "FSQImageTokenizer": "unidiff.tokens.image",
    "TokenLayout": "unidiff.tokens.layout",
    "UniDiffConfig": "unidiff.model.configuration",
    "UniDiffForBlockDiffusion": "unidiff.model.modeling",
    "UniDiffGenerationConfig": "unidiff.generation.config",
    "UniDiffModel": "unidiff.model.modeling",
    "UniDiffProcessor": "unidiff.tokens.processor",
}

__all__ = [
    "FSQImageTokenizer",
    "TokenLayout",
    "UniDiffConfig",
    "UniDiffForBlockDiffusion",
    "UniDiffGenerationConfig",
    "UniDiffModel",
    "UniDiffProcessor",
    "__version__",
    "bundled_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Public class of that name, imported from its room on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unidiff' has no attribute {name!r}; it has {__all__}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names in this module, the ones not loaded yet included."""
    return sorted({*globals(), *__all__})
