"""TencentARC's SEED-Voken: image tokenizers Open-MAGVIT2 and IBQ as Lightning saved them.

A file holds the weights twice, as of the last step and as their average over the steps, by which
the authors evaluate; the losses of the training, with networks of their own, stand beside them.
There is no `config.json`: every size is read off the shapes.

Source: TencentARC's `lfqgan.py`, `ibqgan.py`, `ema.py` and `configs/`, in own words.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from unidiff.tokens.checkpoint import REMEDY, some

from .family import ForeignFolder
from .image_names import ibq_rules, open_magvit_rules
from .keys import Rule, Unread

_AVERAGES = "model_ema."  # before the name of a weight, which has no dots there
_LOSSES = "loss."
_CODES_PER_SIDE = 16  # of the pictures that every one of them was trained on
_BLOCK = re.compile(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight")
Anything = TypeVar("Anything")


def averaged(path: Path, tensors: Mapping[str, Anything]) -> dict[str, Anything]:
    """Weights at their average over the steps, under their own names, where a file has averages.

    Args:
        path: of the file, for errors.
        tensors: all that it holds.

    Raises:
        ValueError: if it has them of some of the weights only.
    """
    own = {name: one for name, one in tensors.items() if not name.startswith(_AVERAGES)}
    if len(own) == len(tensors):
        return own
    places = {name: _AVERAGES + name.replace(".", "") for name in own}
    lacking = [n for n in own if places[n] not in tensors and not n.startswith(_LOSSES)]
    if lacking:
        raise ValueError(
            f"{path} has averages ({_AVERAGES}*) of some weights and none of {some(lacking)}: "
            f"{REMEDY}"
        )
    return {name: tensors.get(places[name], one) for name, one in own.items()}


def is_open_magvit(folder: ForeignFolder) -> bool:
    """Known by the norms that follow the code; its tokenizers of video have more dimensions."""
    shape = folder.shapes.get("encoder.conv_in.weight", ())
    return "decoder.adaptive.0.gamma.weight" in folder.shapes and len(shape) == 4


def is_ibq(folder: ForeignFolder) -> bool:
    """Known by four residual blocks a level where taming-transformers' VQGAN has two.

    The names are the same, and that one looks codes up by distance.
    """
    wanted = {"encoder.down.0.block.3.conv1.weight", "quantize.embedding.weight"}
    return not folder.config and wanted <= set(folder.shapes)


def open_magvit_settings(folder: ForeignFolder) -> dict[str, Any]:
    """Open-MAGVIT2: 2^18 or 2^14 codes."""
    sizes, blocks = _levels(folder)
    return {
        "level_sizes": sizes,
        "num_blocks": blocks[0],
        "code_size": folder.shapes["encoder.conv_out.weight"][0],
        "image_size": _CODES_PER_SIDE << (len(sizes) - 1),
    }


def ibq_settings(folder: ForeignFolder) -> dict[str, Any]:
    """IBQ: a code book of up to 2^18 rows, with attention at code resolution."""
    sizes, blocks = _levels(folder)
    count, size = folder.shapes["quantize.embedding.weight"]
    last = len(sizes) - 1
    return {
        "encoder_sizes": sizes,
        "encoder_blocks": blocks,
        "encoder_attention": [last],
        "decoder_sizes": sizes[::-1],
        "decoder_blocks": [one + 1 for one in blocks[::-1]],
        "decoder_attention": [0],
        "latent_size": folder.shapes["encoder.conv_out.weight"][0],
        "code_size": size,
        "codebook_size": count,
        "lookup": "product",
        "image_size": _CODES_PER_SIDE << last,
    }


def open_magvit_names(folder: ForeignFolder) -> Sequence[Rule]:
    """The names of Open-MAGVIT2's tensors in a folder."""
    return [*open_magvit_rules(len(_levels(folder)[0])), *_losses(folder)]


def ibq_names(folder: ForeignFolder) -> Sequence[Rule]:
    """The names of IBQ's tensors in a folder."""
    return [*ibq_rules(len(_levels(folder)[0])), *_losses(folder)]


def _levels(folder: ForeignFolder) -> tuple[list[int], list[int]]:
    """Channels and number of residual blocks of the encoder's levels, the finest first.

    Raises:
        KeyError: if there is none, or one is left out.
    """
    channels: dict[int, int] = {}
    counts: dict[int, int] = {}
    for name, shape in folder.shapes.items():
        if match := _BLOCK.fullmatch(name):
            level = int(match[1])
            channels[level], counts[level] = shape[0], counts.get(level, 0) + 1
    numbers = range(max(len(counts), 1))
    return [channels[n] for n in numbers], [counts[n] for n in numbers]


def _losses(folder: ForeignFolder) -> list[Rule]:
    """What was there for the training only."""
    return [Unread(name) for name in folder.shapes if name.startswith(_LOSSES)]
