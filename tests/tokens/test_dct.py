"""Frequencies: the transform is scipy's, and a chunk comes back within the stated error."""

import numpy as np
import pytest
from scipy.fft import dct

from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.dct import DctTokenizer, dct_matrix

LOW, HIGH = (-1.0, 0.0, 5.0), (1.0, 10.0, 5.0)


def rough_chunks(seed, horizon, count=50):
    """Chunks that reach beyond the range: noise, walks, and jumps from end to end."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(-1.2, 1.2, (count, horizon, 3))
    walks = rng.normal(0, 0.2, (count, horizon, 3)).cumsum(axis=1)
    jumps = np.sign(rng.normal(size=(count, horizon, 3)))
    shares = (np.concatenate([noise, walks, jumps]) + 1) / 2
    return np.array(LOW) + shares * (np.array(HIGH) - LOW)


def normalised(tokenizer, values):
    """Values as shares of the range, -1 to 1, clipped; the constant dimension left out."""
    low, high = np.array(tokenizer.low[:2]), np.array(tokenizer.high[:2])
    return 2 * (np.clip(values[..., :2], low, high) - low) / (high - low) - 1


@pytest.mark.parametrize("horizon", [1, 2, 7, 32])
def test_the_transform_is_that_of_scipy_and_orthonormal(horizon):
    matrix = dct_matrix(horizon)
    values = np.random.default_rng(0).normal(size=(horizon, 5))
    assert np.allclose(matrix @ values, dct(values, axis=0, norm="ortho"))
    assert np.allclose(matrix @ matrix.T, np.eye(horizon))
    with pytest.raises(ValueError, match="read-only"):
        matrix[0] = 0


@pytest.mark.parametrize("num_bins", [3, 16, 255, 256])
@pytest.mark.parametrize(("horizon", "kept"), [(1, None), (8, None), (8, 3), (25, 10), (32, 32)])
def test_error_is_half_a_step_per_kept_frequency_and_the_dropped_energy(num_bins, horizon, kept):
    tokenizer = DctTokenizer(LOW, HIGH, num_bins, horizon, kept)
    values = rough_chunks(num_bins + horizon, horizon)
    clean = normalised(tokenizer, values)
    decoded = tokenizer.decode(tokenizer.encode(values))
    error = normalised(tokenizer, decoded.astype(np.float64)) - clean
    dropped = (dct(clean, axis=1, norm="ortho")[:, kept or horizon :] ** 2).sum(axis=1)
    bound = ((tokenizer.steps / 2) ** 2).sum() + dropped
    assert ((error**2).sum(axis=1) <= bound + 1e-5).all()
    if kept in (None, horizon):
        pointwise = np.abs(dct_matrix(horizon)).T @ tokenizer.steps / 2
        assert (np.abs(error) <= pointwise[:, None] + 1e-5).all()


def test_the_stated_steps_reach_every_chunk_and_no_further():
    tokenizer = DctTokenizer((-1.0,), (1.0,), 255, 8)
    worst = np.sign(dct_matrix(8))[:, :, None]  # row k has the largest coefficient k
    codes = tokenizer.encode(worst)
    assert [int(codes[k, k, 0]) for k in range(8)] == [254] * 8
    assert [int(code) for code in np.diagonal(tokenizer.encode(-worst)[..., 0])] == [0] * 8


def test_codes_are_frequency_major_and_a_constant_has_a_mean_only():
    tokenizer = DctTokenizer((-1.0, -1.0), (1.0, 1.0), 256, 4)
    codes = tokenizer.encode(np.tile([1.0, -0.5], (4, 1)))
    assert codes.tolist() == [[254, 63], [127, 127], [127, 127], [127, 127]]
    flat = codes.reshape(-1)
    assert tokenizer.decode(flat).tolist() == tokenizer.decode(codes).tolist()
    assert np.allclose(tokenizer.decode(codes), [[1.0, -64 / 127]] * 4)


def test_truncation_makes_it_shorter_and_keeps_what_is_smooth():
    whole, short = (DctTokenizer((-1.0,), (1.0,), 256, 16, kept) for kept in (None, 4))
    assert (whole.num_tokens, short.num_tokens, short.grid) == (16, 4, (4, 1))
    smooth = np.cos(np.pi * (np.arange(16) + 0.5) * 2 / 16)[:, None]
    assert np.abs(short.decode(short.encode(smooth)) - smooth).max() < 0.02
    assert (short.encode(smooth) == whole.encode(smooth)[:4]).all()


def test_any_codes_decode_to_finite_values_in_the_range():
    tokenizer = DctTokenizer(LOW, HIGH, 256, 8, 6)
    rng = np.random.default_rng(3)
    codes = rng.integers(-(2**40), 2**40, (100_000, tokenizer.num_tokens))
    codes[::2] %= 256
    values = tokenizer.decode(codes)
    assert values.shape == (100_000, 8, 3)
    assert np.isfinite(values).all()
    assert (values >= np.array(LOW)).all()
    assert (values <= np.array(HIGH)).all()
    assert (values[..., 2] == 5).all()


def test_the_last_code_of_an_even_number_stands_for_the_largest_level():
    tokenizer = DctTokenizer((-1.0,), (1.0,), 4, 1)
    assert tokenizer.decode(np.arange(4)[:, None])[:, 0, 0].tolist() == [-1, 0, 1, 1]
    two = DctTokenizer((-1.0,), (1.0,), 4, 2)
    assert np.allclose(two.decode([0, 2]), [[0], [-1]], atol=1e-6)
    assert np.allclose(two.decode([0, 3]), [[0], [-1]], atol=1e-6)
    assert np.allclose(two.decode_mean(np.eye(4)[[0, 3]]), [[0], [-1]], atol=1e-6)


@pytest.mark.parametrize(
    "tokenizer",
    [
        BinTokenizer((-1.0, 0.0), (1.0, 10.0), 16, 4),
        DctTokenizer((-1.0, 0.0), (1.0, 10.0), 15, 4, 3),
    ],
)
def test_the_mean_of_a_certain_distribution_is_the_decoded_code(tokenizer):
    codes = np.random.default_rng(4).integers(0, 15, (5, *tokenizer.grid))
    certain = 3.0 * np.eye(tokenizer.num_bins)[codes]  # weights need not sum to 1
    assert np.allclose(tokenizer.decode_mean(certain), tokenizer.decode(codes), atol=1e-6)
    flat = certain.reshape(5, tokenizer.num_tokens, -1)
    assert np.allclose(tokenizer.decode_mean(flat), tokenizer.decode(codes), atol=1e-6)


def test_the_mean_lies_between_the_centres():
    bins = BinTokenizer((0.0,), (4.0,), 4)
    assert bins.decode_mean([[0.5, 0.0, 0.5, 0.0]]).tolist() == [1.5]
    assert bins.decode_mean([[0.0, 0.25, 0.25, 0.5]]).tolist() == [2.75]


@pytest.mark.parametrize("size", [1e308, 5e-324])
def test_weights_of_any_size_have_a_mean(size):
    bins = BinTokenizer((0.0,), (4.0,), 4)
    assert bins.decode_mean([[size, 0.0, size, size]]).tolist() == pytest.approx([13 / 6])


@pytest.mark.parametrize(
    "weights",
    [[[0.5, 0.5]], [[0, 0, 0, 0]], [[1, -1, 1, 0]], [[np.nan, 1, 0, 0]], [[[[1, 0, 0, 0]] * 2]]],
)
def test_what_is_no_distribution_is_refused(weights):
    with pytest.raises(ValueError, match=r"probabilities|finite"):
        BinTokenizer((0.0,), (4.0,), 4).decode_mean(weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_bins": 2, "horizon": 4}, "num_bins"),
        ({}, "horizon"),
        ({"horizon": 4, "num_frequencies": 5}, "num_frequencies"),
        ({"horizon": 4, "num_frequencies": 0}, "num_frequencies"),
    ],
)
def test_what_cannot_hold_coefficients_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DctTokenizer((-1.0,), (1.0,), **options)


def test_chunks_of_a_data_set_need_three_axes():
    with pytest.raises(ValueError, match=r"\(N, T, D\)"):
        DctTokenizer.fit(np.zeros((8, 2)))
