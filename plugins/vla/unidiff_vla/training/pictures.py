"""The image tokenizer of a data set's pictures, and the codes that it gives them."""

# Shapes: N pictures, H height, W width, h * w codes of a picture.

from pathlib import Path

import numpy as np
import torch

from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.training.image_tokenizer import (
    TrainImageTokenizerOptions,
    images_to_pixels,
    rare_colour_weights,
    small_detail_weights,
    train_image_tokenizer,
)

from .recipe import PolicyRecipe
from .recordings import Recordings

_ENCODE_BATCH = 256
_MOST_TOKENIZER_PICTURES = 60_000


def check_divisible(recordings: Recordings, recipe: PolicyRecipe) -> None:
    """Raise ValueError if the image tokenizer cannot halve the pictures as often as it should."""
    side, factor = (
        next(iter(recordings.pictures.values())).shape[1],
        2 ** len(recipe.tokenizer_widths),
    )
    if side % factor:
        raise ValueError(
            f"expected pictures whose side is a multiple of {factor}; got {side} px: scale the "
            "data set, or give the recipe fewer tokenizer_widths"
        )


def fit_image_tokenizer(
    recordings: Recordings, folder: Path, recipe: PolicyRecipe
) -> FSQImageTokenizer:
    """The image tokenizer of a data set's pictures; rare colours and small things count more."""
    if (folder / "model.safetensors").is_file():
        model: FSQImageTokenizer = FSQImageTokenizer.from_pretrained(folder)
        return model.eval()
    number, size = next(iter(recordings.pictures.values())).shape[:2]
    stride = max(1, number * len(recordings.pictures) // _MOST_TOKENIZER_PICTURES)
    pictures = np.concatenate([one[::stride] for one in recordings.pictures.values()])
    config = FSQImageTokenizerConfig(
        levels=recipe.levels,
        hidden_sizes=recipe.tokenizer_widths,
        num_encoder_blocks=2,
        num_decoder_blocks=2,
        image_size=size,
    )
    options = TrainImageTokenizerOptions(
        steps=recipe.tokenizer_steps,
        batch_size=recipe.tokenizer_batch,
        seed=recipe.seed,
        flip=False,
        bfloat16=recipe.bf16,
    )
    weights = small_detail_weights(pictures) * np.sqrt(rare_colour_weights(pictures))
    weights /= weights.mean(dtype=np.float64)
    return train_image_tokenizer(pictures, config, options, folder, pixel_weights=weights)


def encode(tokenizer: FSQImageTokenizer, pictures: np.ndarray) -> np.ndarray:
    """(N, h * w) codes of (N, H, W, 3) pictures."""
    parts = [
        tokenizer.get_image_tokens(images_to_pixels(pictures[start : start + _ENCODE_BATCH]))
        for start in range(0, len(pictures), _ENCODE_BATCH)
    ]
    return torch.cat(parts).numpy()
