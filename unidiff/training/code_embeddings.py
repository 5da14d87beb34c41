"""Starting embeddings in which neighbouring codes are neighbours.

An FSQ code is a point of a small lattice and a bin is a place on a line, but fresh embeddings know
nothing of that and must learn it from data. Random Fourier features of those coordinates give inner
products that fall off with distance (Rahimi and Recht 2007, "Random features for large-scale kernel
machines", section 3.1); training starts there and is free to leave. Checked in
tests/training/test_code_embeddings.py.
"""

# Shapes: N codes, C coordinates, D width.

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unidiff.model.modeling import UniDiffForBlockDiffusion

LATTICE_FREQUENCIES = (0.5, 3.0)  # radians per half range, log-uniform between
LINE_FREQUENCIES = (1.0, 60.0)
SHARE_OF_NOISE = 0.25  # of the standard deviation, so that no two codes start alike


def lattice_coordinates(levels: Sequence[int]) -> np.ndarray:
    """(N, C) coordinates in [-1, 1] of every code of an FSQ codebook, the first digit fastest."""
    codes = np.arange(int(np.prod(levels)))
    digits = []
    for level in levels:
        digits.append(codes % level / max(1, level - 1) * 2.0 - 1.0)
        codes = codes // level
    return np.stack(digits, axis=1)


def fourier_embeddings(
    coordinates_NC: np.ndarray,
    width: int,
    frequencies: tuple[float, float],
    deviation: float,
    rng: np.random.Generator,
) -> Tensor:
    """(N, D) float32 random Fourier features with the given standard deviation.

    Args:
        coordinates_NC: (N, C) float in [-1, 1].
        width: D.
        frequencies: lowest and highest frequency; each feature draws its own, log-uniformly.
        deviation: of the entries.
        rng: source of directions, frequencies and phases.
    """
    num_coordinates = coordinates_NC.shape[1]
    direction = rng.normal(size=(num_coordinates, width))
    direction /= np.linalg.norm(direction, axis=0) / np.sqrt(num_coordinates)
    lowest, highest = (math.log(value) for value in frequencies)
    frequency = np.exp(rng.uniform(lowest, highest, size=width))
    phase = rng.uniform(0, 2 * np.pi, size=width)
    features = np.sqrt(2.0) * np.cos(coordinates_NC @ (direction * frequency) + phase)
    noise = SHARE_OF_NOISE * rng.normal(size=features.shape)
    return torch.from_numpy(deviation * (features + noise)).float()


@torch.no_grad()
def initialise_code_embeddings(
    model: UniDiffForBlockDiffusion, levels: Sequence[int], seed: int
) -> None:
    """Overwrite the fresh embeddings of image codes, action bins and state bins.

    Args:
        model: freshly initialised, embeddings tied.
        levels: FSQ levels of the image tokenizer.
        seed: decides the features.

    Raises:
        ValueError: if the levels do not give as many codes as the layout has image ids.
    """
    layout, config = model.config.layout, model.config
    rng = np.random.default_rng(seed)
    weight = model.model.embed_tokens.weight
    for modality, id_range in layout.ranges.items():
        if modality == "text":
            continue
        if modality == "image":
            coordinates, frequencies = lattice_coordinates(levels), LATTICE_FREQUENCIES
        else:
            coordinates = np.linspace(-1.0, 1.0, id_range.size)[:, None]
            frequencies = LINE_FREQUENCIES
        if len(coordinates) != id_range.size:
            raise ValueError(
                f"levels {list(levels)} give {len(coordinates)} codes, but the layout has "
                f"{id_range.size} {modality} ids: pass the levels of its image tokenizer"
            )
        rows = fourier_embeddings(
            coordinates, config.hidden_size, frequencies, config.initializer_range, rng
        )
        weight[id_range.start : id_range.stop] = rows.to(weight)
