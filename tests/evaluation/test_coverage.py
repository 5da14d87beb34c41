"""Coverage and copies on points where the answer is known."""

import numpy as np
import pytest

from unidiff.evaluation.coverage import (
    coverage,
    nearest_squared_error,
    repeated_share,
    squared_distances,
)


def brute_force(real, generated, k):
    covered = 0
    for i, point in enumerate(real):
        others = sorted(np.linalg.norm(point - other) for j, other in enumerate(real) if j != i)
        covered += min(np.linalg.norm(point - other) for other in generated) < others[k - 1]
    return covered / len(real)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_coverage_equals_brute_force(k):
    rng = np.random.default_rng(k)
    real, generated = rng.normal(size=(40, 3)), rng.normal(0.5, 1.0, size=(15, 3))
    assert coverage(real, generated, k) == pytest.approx(brute_force(real, generated, k))


def test_coverage_does_not_depend_on_how_the_points_are_chunked(monkeypatch):
    rng = np.random.default_rng(1)
    real, generated = rng.normal(size=(40, 3)), rng.normal(0.5, 1.0, size=(15, 3))
    whole = coverage(real, generated)
    monkeypatch.setattr("unidiff.evaluation.coverage._CHUNK", 7)
    assert coverage(real, generated) == whole


def test_copies_of_all_points_cover_everything_and_one_far_point_nothing():
    real = np.random.default_rng(0).normal(size=(30, 2))
    assert coverage(real, real) == 1.0
    assert coverage(real, np.full((1, 2), 1e3)) == 0.0


def test_a_single_mode_covers_its_own_cluster_only():
    cluster = np.random.default_rng(0).normal(size=(20, 2)) * 0.1
    real = np.concatenate([cluster, cluster + 100.0])
    assert coverage(real, cluster) == 0.5


def test_coverage_needs_more_real_points_than_neighbours():
    with pytest.raises(ValueError, match="more than k=5"):
        coverage(np.zeros((5, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="generated"):
        coverage(np.zeros((9, 2)), np.zeros((0, 2)))


def test_squared_distances_are_exact_and_never_negative():
    points = np.array([[1e4, 1.0], [1e4, 1.0 + 1e-6]])
    assert (squared_distances(points, points) >= 0).all()
    assert squared_distances(np.array([[0.0, 3.0]]), np.array([[4.0, 0.0]])) == 25.0


def test_repeated_share_counts_what_came_before():
    codes = np.array([[1, 2], [1, 2], [2, 1], [1, 2]])
    assert repeated_share(codes) == 0.5
    assert repeated_share(codes[:1]) == 0.0
    with pytest.raises(ValueError, match="at least one"):
        repeated_share(codes[:0])


def test_nearest_squared_error_finds_the_nearest_reference():
    references = np.zeros((3, 4, 4), dtype=np.uint8)
    references[1] = 10
    references[2] = 200
    pictures = np.full((2, 4, 4), 13, dtype=np.uint8)
    pictures[1] = 200
    assert nearest_squared_error(pictures, references).tolist() == [9.0, 0.0]
