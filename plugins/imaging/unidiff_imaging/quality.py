"""How near a picture is to another: PSNR and SSIM, and the Frechet distance of two sets.

PSNR and SSIM are scikit-image's. Pictures that are equal count as `MOST_DB`.
"""

# Shapes: N pictures, F features.

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unidiff.plugins import Example, Metric

from .judges import JUDGED_SIZE, garment_judge
from .pixels import as_pixels, fitted_to

# An example and the (H, W) of its picture -> (H, W) bool, the pixels that count.
Where = Callable[[Example, tuple[int, int]], np.ndarray]
MOST_DB = 99.0  # of two equal pictures
_PEAK = 255
_WINDOW = 7  # px, scikit-image's default window of SSIM


def psnr_db(picture: np.ndarray, reference: np.ndarray, where: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, at most `MOST_DB`; NaN where there is nothing to compare.

    Args:
        picture: (H, W, 3) uint8.
        reference: the same shape.
        where: (H, W) bool, the pixels that count; None: all.
    """
    chosen = np.ones(picture.shape[:2], dtype=bool) if where is None else where
    if not chosen.any():
        return float("nan")
    first, second = reference[chosen], picture[chosen]
    if np.array_equal(first, second):
        return MOST_DB
    return min(MOST_DB, float(peak_signal_noise_ratio(first, second, data_range=_PEAK)))


def ssim(picture: np.ndarray, reference: np.ndarray, where: np.ndarray | None = None) -> float:
    """Structural similarity in [-1, 1]: the mean of its map over the pixels that count.

    Args:
        picture: (H, W, 3) uint8.
        reference: the same shape.
        where: (H, W) bool; None: all. NaN where there is none. The others, which the windows of
            7 x 7 px around counted pixels also see, are the reference's in both pictures.
    """
    chosen = np.ones(picture.shape[:2], dtype=bool) if where is None else where
    if not chosen.any():
        return float("nan")
    compared = np.where(chosen[..., None], picture, reference)
    _, parts = structural_similarity(
        reference, compared, win_size=_WINDOW, channel_axis=2, data_range=_PEAK, full=True
    )
    return float(parts[chosen].mean())


def frechet_distance(features_AF: np.ndarray, others_BF: np.ndarray) -> float:
    """Frechet distance of two sets of points under the normal laws of their means and covariances.

    Args:
        features_AF: (A, F), A >= 2.
        others_BF: (B, F), B >= 2.

    Raises:
        ValueError: if a set has fewer than two points.

    Source: FID, arXiv 1706.08500, equation 6, with the features of the garment judge instead of
        Inception's; tests compare it with the closed form of diagonal laws. The estimate of few
        points is too large: compare sets of one size only.
    """
    if min(len(features_AF), len(others_BF)) < 2:
        raise ValueError(
            f"a Frechet distance needs 2 pictures on each side at least, got {len(features_AF)} "
            f"and {len(others_BF)}"
        )
    (mean, law), (other_mean, other_law) = _moments(features_AF), _moments(others_BF)
    root = _root(law)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other_law @ root), 0.0, None)).sum()
    squares = ((mean - other_mean) ** 2).sum() + np.trace(law) + np.trace(other_law)
    return max(0.0, float(squares - 2.0 * cross))


def _moments(features_AF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F,) mean and (F, F) covariance."""
    points = np.asarray(features_AF, dtype=np.float64)
    return points.mean(0), np.cov(points, rowvar=False)


def _root(matrix_FF: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix_FF)
    return (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T


def picture_distance(pictures: Sequence[Any], references: Sequence[Any]) -> float:
    """Frechet distance of two sets of pictures in the features of the garment judge, in grey.

    NaN where a picture has another size than the judge sees.
    """
    sets = [[as_pixels(one) for one in side] for side in (pictures, references)]
    if any(one.shape[:2] != (JUDGED_SIZE, JUDGED_SIZE) for side in sets for one in side):
        return float("nan")
    first, second = (garment_judge().features(np.stack(side)) for side in sets)
    return frechet_distance(first, second)


def distance_to(column: str) -> Metric:
    """Metric: the Frechet distance between the results and the examples' own pictures."""

    def measure(results: Sequence[Any], examples: Sequence[Example]) -> float:
        """One number of all examples."""
        return picture_distance(results, [example[column] for example in examples])

    return measure


def psnr_to(column: str, where: Where | None = None) -> Metric:
    """Metric: (N,) dB of each picture against the one in a column of its example.

    Args:
        column: of the reference.
        where: the pixels that count; None: all.
    """
    return _compared(psnr_db, column, where)


def ssim_to(column: str, where: Where | None = None) -> Metric:
    """Metric: (N,) structural similarity of each picture to the one in a column of its example.

    Args:
        column: of the reference.
        where: the pixels that count; None: all.
    """
    return _compared(ssim, column, where)


def _compared(compare: Any, column: str, where: Where | None) -> Metric:
    """Metric that compares each picture with its example's reference, at the picture's size."""

    def measure(results: Sequence[Any], examples: Sequence[Example]) -> np.ndarray:
        """One number for each example."""
        scores = []
        for result, example in zip(results, examples, strict=True):
            picture = as_pixels(result)
            reference = fitted_to(example[column], picture.shape)
            chosen = None if where is None else where(example, picture.shape[:2])
            scores.append(compare(picture, reference, chosen))
        return np.array(scores)

    return measure
