"""A checkpoint learns of new kinds of tokens: processor and model grow by them."""

from collections.abc import Iterable
from typing import Any

from unidiff.model.growth import grow_vocabulary

from .registry import find_modality


def add_modalities(model: Any, processor: Any, names: Iterable[str]) -> tuple[int, ...]:
    """Add what the checkpoint lacks of some modalities, as the plugins that bring them have it.

    Args:
        model: `UniDiffForBlockDiffusion` without adapters, changed in place.
        processor: of the checkpoint, changed in place.
        names: of modalities, such as a task's `modalities`.

    Returns:
        The new ids, whose embeddings have learnt nothing yet; empty where nothing was lacking.

    Raises:
        ValueError: if no installed plugin brings one, or several do.
        ImportError: if the plugin that brings one cannot be loaded.
    """
    lacking = [name for name in sorted(names) if name not in processor.layout.ranges]
    if not lacking:
        return ()
    for name in lacking:
        processor.add_modality(find_modality(name).default())
    return tuple(grow_vocabulary(model, processor.layout))
