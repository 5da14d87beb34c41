"""Image tokenizers from a folder or a file, ours and those that others publish."""

from pathlib import Path
from typing import Any

import torch
from transformers import MODEL_MAPPING, AutoConfig

from . import emu3, image, open_magvit, vq  # noqa: F401  registers the classes of image tokenizers
from .checkpoint import REMEDY
from .foreign import converting, is_own
from .image_tokenizer import ImageTokenizer


def load_image_tokenizer(
    source: str | Path, *, allow_pickle: bool = False, **kwargs: Any
) -> ImageTokenizer:
    """An image tokenizer, ours or one of those that others publish, in float32, to be used.

    Args:
        source: folder or repository of it, or a file of weights as LlamaGen publishes one; those of
            others must be on the disk.
        allow_pickle: whether weights may be read that are no safetensors; only if you trust them.
        kwargs: of transformers' `from_pretrained`, such as `subfolder`.

    Raises:
        OSError: if there is none.
        TypeError: if the folder holds something else.
        ValueError: if its weights are incomplete, or nobody's image tokenizers have this layout.
    """
    place = Path(source, kwargs.get("subfolder", ""))
    if place.is_file() or (place.is_dir() and not is_own(place)):
        load = converting("load_foreign_image_tokenizer", "image_tokenizers")
        foreign: ImageTokenizer = load(place, allow_pickle=allow_pickle)
        return foreign
    config = AutoConfig.from_pretrained(source, **kwargs)
    # Not AutoModel: in a repository that is an adapter it would load that, whatever the subfolder.
    kind = MODEL_MAPPING[type(config)]
    if not issubclass(kind, ImageTokenizer):
        raise TypeError(f"{source} holds a {kind.__name__}, which is no image tokenizer")
    model, report = kind.from_pretrained(
        source, config=config, dtype=torch.float32, output_loading_info=True, **kwargs
    )
    if report["missing_keys"]:
        raise ValueError(
            f"the image tokenizer of {source} lacks the weights {sorted(report['missing_keys'])}: "
            f"{REMEDY}"
        )
    tokenizer: ImageTokenizer = model.eval().requires_grad_(False)
    return tokenizer
