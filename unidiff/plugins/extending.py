"""A checkpoint learns of new kinds of tokens: processor and model grow by them."""

from collections.abc import Iterable
from typing import Any

from unidiff.model.growth import grow_vocabulary

from .registry import find_modality


def add_modalities(model: Any, processor: Any, names: Iterable[str]) -> tuple[int, ...]:
    """Add what the checkpoint lacks of some modalities, as the plugins that bring them have it.

    A processor that has them already is left as it is; the model grows to hold its ids.

    Args:
        model: `UniDiffForBlockDiffusion`, changed in place.
        processor: of the checkpoint, changed in place.
        names: of modalities, such as a task's `modalities`.

    Returns:
        The ids that the model did not have, whose embeddings have learnt nothing yet.

    Raises:
        ValueError: if no installed plugin brings one, or several do.
            Nothing is changed then.
        ImportError: if the plugin that brings one cannot be loaded.
    """
    lacking = [name for name in sorted(names) if name not in processor.layout.ranges]
    for modality in [find_modality(name).default() for name in lacking]:
        processor.add_modality(modality)
    if model.config.layout.holds(processor.layout):
        return ()
    return tuple(grow_vocabulary(model, processor.layout))
