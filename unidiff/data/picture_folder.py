"""A folder of pictures as one array, for training an image tokenizer."""

# Shapes: N pictures.

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unidiff.tokens.image_processing import UniDiffImageProcessor

from .examples import load_examples


def folder_pictures(
    folder: Path, image_processor: UniDiffImageProcessor, on_bad: str = "raise"
) -> tuple[NDArray[np.uint8], int]:
    """Every picture below a folder at the processor's size, and how many could not be decoded.

    Args:
        folder: with pictures in it or in its sub-folders.
        image_processor: pads or shrinks them.
        on_bad: "raise" on pictures that cannot be decoded, or "skip" them.

    Returns:
        (N, H, W, 3) uint8 in the order of the files' names, and the number left out.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no pictures, or some that cannot be decoded.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give one with pictures in it")
    examples = load_examples(folder, ["image"], on_bad=on_bad)
    fitted = [
        np.asarray(
            image_processor.postprocess(
                image_processor(example["image"], return_tensors="pt")["pixel_values"]
            )[0]
        )
        for example in examples
    ]
    return np.stack(fitted), len(examples.bad)


def held_out_split(
    number: int, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices to train on, indices held out); at least one of each.

    Args:
        number: of pictures.
        share: held out, in (0, 1).
        seed: decides which.

    Raises:
        ValueError: if there are fewer than two, or the share is not in (0, 1).
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"the held-out share must lie in (0, 1), got {share}")
    if number < 2:
        raise ValueError(
            f"got {number} picture: two at least are needed, one to train on and one to measure"
        )
    count = min(number - 1, max(1, round(share * number)))
    order = np.random.default_rng(seed).permutation(number)
    return np.sort(order[count:]), np.sort(order[:count])
