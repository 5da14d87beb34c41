"""Bins: half a bin of error inside the range, clipping outside, and no value that is not finite."""

import json

import numpy as np
import pytest

from unidiff.tokens.actions import BinTokenizer

BINS = BinTokenizer((-1.0, 0.0), (1.0, 10.0), num_bins=4, horizon=2)


def test_known_codes_and_centres():
    values = [[-1.0, 0.0], [0.1, 9.9]]
    assert BINS.encode(values).tolist() == [[0, 0], [2, 3]]
    assert BINS.decode(BINS.encode(values)).tolist() == [[-0.75, 1.25], [0.25, 8.75]]


def test_round_trip_is_within_half_a_bin_inside_the_range():
    bins = BinTokenizer((-1.0, 0.0), (1.0, 10.0), num_bins=256, horizon=8)
    values = np.random.default_rng(0).uniform((-1, 0), (1, 10), (500, 8, 2))
    codes = bins.encode(values)
    error = np.abs(bins.decode(codes) - values).max(axis=(0, 1))
    assert (error <= np.array([2, 10]) / 512 + 1e-6).all()
    assert codes.dtype == np.int64
    assert len(np.unique(codes)) == 256
    assert (bins.encode(bins.decode(codes)) == codes).all()


def test_what_lies_outside_takes_the_end_bins():
    assert BINS.encode([[-9.0, -9.0], [1.0, 10.0]]).tolist() == [[0, 0], [3, 3]]
    assert BINS.encode([[1e300, 99.0], [0, 0]])[0].tolist() == [3, 3]


def test_fit_uses_the_first_and_last_percentile_of_each_dimension():
    values = np.stack([np.arange(101.0), -10 * np.arange(101.0)], axis=1)
    bins = BinTokenizer.fit(values, num_bins=16)
    assert bins.low == pytest.approx((1, -990))
    assert bins.high == pytest.approx((99, -10))
    assert (bins.dim, bins.horizon, bins.num_tokens) == (2, None, 2)


def test_fit_treats_every_axis_but_the_last_as_samples():
    values = np.random.default_rng(1).normal(size=(30, 8, 2))
    assert BinTokenizer.fit(values).low == BinTokenizer.fit(values.reshape(-1, 2)).low


def test_a_constant_dimension_comes_back_exactly():
    bins = BinTokenizer.fit(np.full((20, 2), 3.25))
    codes = bins.encode([[3.25, 99.0]])
    assert bins.decode(codes).tolist() == [[3.25, 3.25]]
    assert bins.decode(np.array([[0, 255]])).tolist() == [[3.25, 3.25]]


def test_any_codes_decode_to_finite_values_in_the_range():
    codes = np.random.default_rng(2).integers(-(2**62), 2**62, (50, 2, 2))
    values = BINS.decode(codes)
    assert values.dtype == np.float32
    assert (values[..., 0] >= -1).all()
    assert (values[..., 0] <= 1).all()
    assert (values[..., 1] >= 0).all()
    assert (values[..., 1] <= 10).all()


def test_flat_codes_are_timestep_major():
    assert BINS.decode([0, 1, 2, 3]).tolist() == BINS.decode([[0, 1], [2, 3]]).tolist()
    assert BINS.decode(np.zeros((5, 4), dtype=int)).shape == (5, 2, 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        BINS.encode([[0, bad], [0, 0]])
    with pytest.raises(ValueError, match="finite"):
        BinTokenizer.fit([[0, bad], [0, 0]])


def test_wrong_shapes_and_types_are_refused():
    with pytest.raises(ValueError, match="shape"):
        BINS.encode([0.0, 1.0])
    with pytest.raises(ValueError, match="shape"):
        BINS.decode([0, 1, 2])
    with pytest.raises(TypeError, match="integers"):
        BINS.decode([[0.5, 1], [2, 3]])
    with pytest.raises(ValueError, match="shape"):
        BinTokenizer.fit(np.zeros((0, 2)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"low": (), "high": ()},
        {"low": (0,), "high": (1, 2)},
        {"low": (2,), "high": (1,)},
        {"low": (float("nan"),), "high": (1,)},
        {"low": (0,), "high": (1,), "num_bins": 1},
        {"low": (0,), "high": (1,), "horizon": 0},
    ],
)
def test_statistics_that_are_no_bins_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must|need"):
        BinTokenizer(**arguments)


def test_bins_survive_json_exactly():
    bins = BinTokenizer.fit(np.random.default_rng(3).normal(size=(99, 3)), 64, 5)
    assert BinTokenizer.from_dict(json.loads(json.dumps(bins.to_dict()))) == bins


def test_a_dictionary_with_other_keys_is_refused():
    with pytest.raises(ValueError, match="num_bins"):
        BinTokenizer.from_dict({"low": [0], "high": [1]})
