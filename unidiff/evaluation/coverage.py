"""How much of the real photographs' variety drawings cover, and how many drawings are copies."""

# Shapes: R real points, G generated points, F features.

import numpy as np

_CHUNK = 500


def squared_distances(first_AF: np.ndarray, second_BF: np.ndarray) -> np.ndarray:
    """(A, B) float64 squared Euclidean distances, never negative."""
    first = np.asarray(first_AF, dtype=np.float64)
    second = np.asarray(second_BF, dtype=np.float64)
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None]
    return np.maximum(squares - 2.0 * first @ second.T, 0.0)


def coverage(real_RF: np.ndarray, generated_GF: np.ndarray, k: int = 5) -> float:
    """Share of real points with a generated point nearer than their k-th nearest real neighbour.

    Args:
        real_RF: (R, F), more than k points.
        generated_GF: (G, F), at least one point.
        k: which neighbour; the point itself does not count.

    Raises:
        ValueError: if there are too few points.

    Source: Naeem et al. 2020, arXiv 2002.09797, the paper's coverage; checked against brute force
        in tests/evaluation/test_coverage.py.
    """
    if k < 1 or len(real_RF) <= k or len(generated_GF) == 0:
        raise ValueError(
            f"coverage needs more than k={k} real points and a generated one, got "
            f"{len(real_RF)} and {len(generated_GF)}"
        )
    covered = 0
    for start in range(0, len(real_RF), _CHUNK):
        part = real_RF[start : start + _CHUNK]
        among_real = squared_distances(part, real_RF)
        among_real[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        radius = np.partition(among_real, k - 1, axis=1)[:, k - 1]
        covered += int((squared_distances(part, generated_GF).min(1) < radius).sum())
    return covered / len(real_RF)


def repeated_share(codes_GK: np.ndarray) -> float:
    """Share of code sequences that repeat an earlier one; 0 for none.

    Raises:
        ValueError: if there is no sequence.
    """
    if len(codes_GK) == 0:
        raise ValueError("expected at least one code sequence, got none")
    return 1.0 - len(np.unique(codes_GK, axis=0)) / len(codes_GK)


def nearest_squared_error(pictures: np.ndarray, references: np.ndarray) -> np.ndarray:
    """(N,) mean squared difference per pixel of each picture to the nearest reference.

    Args:
        pictures: (N, H, W) uint8.
        references: (M, H, W) uint8.
    """
    size = int(np.prod(pictures.shape[1:]))
    flat = pictures.reshape(len(pictures), size).astype(np.float32)
    flat_square = (flat**2).sum(1)
    best = np.full(len(pictures), np.inf, dtype=np.float32)
    for start in range(0, len(references), 4096):
        part = references[start : start + 4096].reshape(-1, size).astype(np.float32)
        distance = flat_square[:, None] + (part**2).sum(1)[None] - 2.0 * flat @ part.T
        best = np.minimum(best, distance.min(1))
    return np.maximum(best, 0.0).astype(np.float64) / size
