"""FAST: the published encoding, the stated error, and a chunk for whatever ids there are."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.fft import dct
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.trainers import BpeTrainer

from unidiff.tokens.dct import dct_matrix
from unidiff.tokens.fast import FastTokenizer, largest_integer


def walks(seed, count=200, horizon=16, dim=3):
    """Smooth chunks whose last dimension jumps; values of +-1 would be ties of rounding."""
    chunks = np.random.default_rng(seed).normal(0, 0.15, (count, horizon, dim)).cumsum(axis=1)
    chunks[..., -1] = 0.83 * np.sign(chunks[..., -1])
    return chunks


@pytest.fixture(scope="module")
def fast():
    return FastTokenizer.fit(walks(0), is_gripper=(False, False, True))


def normalised(fast, values):
    """Values as shares of the range, -1 to 1, clipped."""
    low, high = np.array(fast.low), np.array(fast.high)
    return 2 * (np.clip(values, low, high) - low) / (high - low) - 1


def test_codes_are_the_merged_text_of_rounded_coefficients(fast):
    chunk = walks(1)[0]
    integers = np.around(dct(normalised(fast, chunk), axis=0, norm="ortho") * 10).astype(int)
    text = "".join(chr(i - fast.min_token) for i in integers.reshape(-1))
    bpe = Tokenizer.from_str(fast.bpe)
    codes = fast.encode(chunk)
    assert codes.tolist() == bpe.encode(text).ids
    assert bpe.decode(codes.tolist()) == text


def test_merges_shorten_what_they_were_fitted_to(fast):
    codes = fast.encode(walks(0))
    lengths = (codes != fast.padding_code).sum(axis=1)
    assert lengths.mean() < 0.6 * 16 * 3
    assert codes.shape[1] == lengths.max()
    assert 81 < fast.padding_code == fast.num_codes - 1 <= 1024
    assert (codes <= fast.padding_code).all()


@pytest.mark.parametrize(("scale", "seed"), [(3.0, 0), (10.0, 1), (25.0, 2)])
def test_error_is_half_an_integer_per_coefficient(scale, seed):
    fast = FastTokenizer.fit(walks(seed), scale=scale)
    values = np.concatenate(
        [walks(seed + 50), np.random.default_rng(seed).normal(0, 3, (200, 16, 3))]
    )
    decoded = fast.decode(fast.encode(values)).astype(np.float64)
    error = normalised(fast, decoded) - normalised(fast, values)
    assert ((error**2).sum(axis=1) <= 16 / (2 * scale) ** 2 + 1e-5).all()
    pointwise = np.abs(dct_matrix(16)).sum(axis=0) / (2 * scale)
    assert (np.abs(error) <= pointwise[:, None] + 1e-5).all()


def test_the_extreme_chunks_can_be_written(fast):
    worst = np.sign(dct_matrix(16))[:, :, None] * np.array(fast.high)
    integers = np.around(dct(normalised(fast, worst), axis=1, norm="ortho") * 10)
    assert integers.max() == largest_integer(16, 10) == 40
    assert fast.written.tolist() == list(range(-40, 41))
    again = normalised(fast, fast.decode(fast.encode(worst)).astype(np.float64))
    assert ((again - normalised(fast, worst)) ** 2).sum(axis=1).max() <= 16 / 20**2 + 1e-5


def test_any_ids_give_finite_chunks_in_the_range(fast):
    rng = np.random.default_rng(5)
    codes = rng.integers(0, fast.num_codes, (100_000, 24))
    codes[::3] = rng.integers(-(2**62), 2**62, (len(codes[::3]), 24))
    values = fast.decode(codes)
    assert values.shape == (100_000, 16, 3)
    assert np.isfinite(values).all()
    assert (values >= np.array(fast.low, dtype=np.float32)).all()
    assert (values <= np.array(fast.high, dtype=np.float32)).all()


def test_codes_of_the_wrong_number_are_cut_and_filled_with_zeros(fast):
    codes = fast.encode(walks(6)[0])
    whole = fast.decode(codes)
    assert np.array_equal(fast.decode([*codes, *codes]), whole)
    assert np.array_equal(
        fast.decode([-1, *codes[:3], 10**9, *codes[3:], fast.padding_code]), whole
    )
    means = fast.decode(codes[:1])
    assert means.shape == (16, 3)
    middle = (np.array(fast.low) + fast.high) / 2
    for nothing in ([], [[]], [fast.padding_code], [-5, 2**40]):
        assert np.allclose(fast.decode(nothing), middle, atol=1e-6)
    assert fast.decode(np.zeros((0, 5), dtype=int)).shape == (0, 16, 3)


def test_a_batch_is_filled_with_the_padding_code(fast):
    chunks = walks(7, count=20)
    codes = fast.encode(chunks.reshape(4, 5, 16, 3))
    assert codes.shape[:2] == (4, 5)
    for row, chunk in zip(codes.reshape(20, -1), chunks, strict=True):
        alone = fast.encode(chunk)
        assert row.tolist() == [*alone, *[fast.padding_code] * (len(row) - len(alone))]
    assert np.array_equal(fast.decode(codes)[1, 2], fast.decode(fast.encode(chunks[7])))


def test_a_fixed_length_pads_and_cuts(fast):
    fixed = replace(fast, length=20)
    codes = fixed.encode(walks(8))
    assert codes.shape == (200, 20)
    assert (fixed.grid, fixed.num_tokens) == ((20, 1), 20)
    free = fast.encode(walks(8)[0])
    assert codes[0].tolist() == [*free, *[fast.padding_code] * 20][:20]
    with pytest.raises(ValueError, match="length"):
        _ = fast.num_tokens


def test_the_same_chunks_give_the_same_merges(fast):
    assert FastTokenizer.fit(walks(0), is_gripper=(False, False, True)) == fast
    assert pickle.loads(pickle.dumps(fast)) == fast


def test_the_published_byte_level_merges_are_read():
    """Merges as the publication makes them: bytes of the text, an alphabet from min to max."""
    chunks = np.clip(walks(9), -1, 1)
    integers = np.around(dct(chunks, axis=1, norm="ortho") * 10).astype(int).reshape(200, -1)
    low = int(integers.min())
    texts = ["".join(chr(i - low) for i in row) for row in integers]
    bpe = ByteLevelBPETokenizer()
    trainer = BpeTrainer(
        vocab_size=1024,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=[chr(i) for i in range(integers.max() - low + 1)],
        max_token_length=10000,
    )
    bpe._tokenizer.train_from_iterator(texts, trainer)
    fast = FastTokenizer((-1.0,) * 3, (1.0,) * 3, bpe.to_str(), 16, 10.0, min_token=low)
    codes = fast.encode(chunks)
    for row, text in zip(codes, texts, strict=True):
        expected = bpe.encode(text).ids
        assert row[: len(expected)].tolist() == expected
    error = fast.decode(codes) - chunks
    assert ((error**2).sum(axis=1) <= 16 / 20**2 + 1e-5).all()
    seen = np.unique(integers)
    unseen = next(i for i in range(low, 41) if i not in fast.written)
    assert unseen not in seen
    assert fast.written[unseen + 40] in (unseen - 1, unseen + 1)
    beyond = np.ones((16, 3)) * np.array([1, -1, 1])
    assert np.isfinite(fast.decode(fast.encode(beyond))).all()
    broken = np.random.default_rng(0).integers(0, fast.num_codes, (1000, 30))
    assert (np.abs(fast.decode(broken)) <= 1).all()


def test_coefficients_out_of_range_are_zero(fast):
    shifted = replace(fast, scale=2.0, min_token=fast.min_token)  # 8 is the largest that it has
    codes = fast.encode(np.tile(np.array(fast.high), (16, 1)))  # means are 40
    middle = (np.array(fast.low) + fast.high) / 2
    assert np.allclose(shifted.decode(codes), middle, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bpe": "{}"}, "tokenizer.json"),
        ({"bpe": "cut sh"}, "tokenizer.json"),
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"min_token": 1}, "min_token"),
        ({"min_token": -300}, "zero"),
        ({"min_token": -60_000}, "characters"),
        ({"horizon": None}, "horizon"),
        ({"length": 0}, "length"),
    ],
)
def test_what_cannot_write_a_chunk_is_refused(fast, change, message):
    with pytest.raises(ValueError, match=message):
        replace(fast, **change)


def test_a_vocabulary_without_room_for_the_integers_is_refused():
    with pytest.raises(ValueError, match="81 integers"):
        FastTokenizer.fit(walks(0), vocab_size=80)
    assert FastTokenizer.fit(walks(0), vocab_size=81).num_codes == 82
    with pytest.raises(ValueError, match="scale"):
        FastTokenizer.fit(walks(0), scale=-1)


def test_codes_must_be_integers(fast):
    with pytest.raises(TypeError, match="integers"):
        fast.decode([0.5])


def test_merges_are_kept_as_json_in_the_dictionary(fast):
    values = json.loads(json.dumps(fast.to_dict(), sort_keys=True))
    assert values["kind"] == "fast"
    assert "merges" in values["bpe"]["model"]
    assert FastTokenizer.from_dict(values) == fast
