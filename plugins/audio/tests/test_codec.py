"""The speech tokenizer: intelligible round trips, strict input, exact files."""

import numpy as np
import pytest
import torch
from unidiff_audio import codec
from unidiff_audio.codec import PRETRAINED_FOLDER, SpeechTokenizer, SpeechTokenizerConfig
from unidiff_audio.speech import Utterances, load_corpus
from unidiff_audio.train_codec import measure, mel_distance

SMALL = SpeechTokenizerConfig(levels=(4, 3), width=8, num_decoder_blocks=1, num_frame_blocks=1)


@pytest.fixture(scope="module")
def tokenizer():
    return SpeechTokenizer.from_pretrained()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return SpeechTokenizer(SMALL).eval()


def test_round_trip_stays_intelligible(tokenizer):
    spoken = load_corpus("test")
    measured = measure(tokenizer, spoken)
    assert measured.accuracy_on_round_trips >= 0.95 * measured.accuracy_on_originals
    assert measured.accuracy_on_originals >= 0.97
    assert measured.mel_distance < 0.2
    assert measured.code_use > 0.95


def test_codes_in_range_and_deterministic(tokenizer):
    waveform = load_corpus("test").waveforms[0]
    codes = tokenizer.encode(waveform)
    assert codes.shape == (48,) == (tokenizer.grid[1],)
    assert codes.dtype == np.int64
    assert codes.min() >= 0
    assert codes.max() < tokenizer.num_codes == 240
    np.testing.assert_array_equal(codes, tokenizer.encode(torch.from_numpy(waveform)))
    decoded = tokenizer.decode(codes)
    assert decoded.shape == (4800,)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, tokenizer.decode(torch.from_numpy(codes)))


def test_any_codes_decode_to_a_valid_waveform(tokenizer):
    random = np.random.default_rng(0)
    for _ in range(10):
        decoded = tokenizer.decode(random.integers(240, size=48))
        assert np.isfinite(decoded).all()
        assert np.abs(decoded).max() <= 1


def test_loud_reconstruction_is_scaled_into_range(small, monkeypatch):
    monkeypatch.setattr(codec, "waveforms_of", lambda *arguments: torch.full((1, 4800), 3.0))
    assert small.decode(np.zeros(48, np.int64)).max() == 1


def test_extreme_spectrogram_stays_finite(small):
    extreme = SpeechTokenizer(SMALL).eval()
    extreme.load_state_dict(small.state_dict())
    torch.nn.init.constant_(extreme.decoder[-1].bias, 1e4)
    assert np.isfinite(extreme.decode(np.zeros(48, np.int64))).all()


def test_short_waveform_is_padded(tokenizer):
    waveform = load_corpus("test").waveforms[0][:3000]
    padded = np.pad(waveform, (0, 1800))
    np.testing.assert_array_equal(tokenizer.encode(waveform), tokenizer.encode(padded))


def test_shipped_files_are_small():
    assert sum(path.stat().st_size for path in PRETRAINED_FOLDER.iterdir()) < 1_500_000


def test_save_and_load_bit_identical(tmp_path, small):
    small.save_pretrained(tmp_path / "first")
    loaded = SpeechTokenizer.from_pretrained(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "second")
    assert loaded.config == SMALL
    assert not loaded.training
    assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["config.json", "model.safetensors"]
    for name in names:
        stored = (tmp_path / "first" / name).read_bytes()
        assert stored == (tmp_path / "second" / name).read_bytes()
    waveform = load_corpus("test").waveforms[0]
    again = SpeechTokenizer.from_pretrained(tmp_path / "second")
    codes = loaded.encode(waveform)
    np.testing.assert_array_equal(codes, again.encode(waveform))
    np.testing.assert_array_equal(loaded.decode(codes), again.decode(codes))


def test_stored_as_float16(tmp_path, small):
    small.save_pretrained(tmp_path)
    count = sum(weight.numel() for weight in small.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 2 * count + 10_000


def test_missing_file_says_how_to_make_one(tmp_path, small):
    small.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json; make one with"):
        SpeechTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros((1, 4800), np.float32), ValueError, "shape"),
        (np.zeros(4801, np.float32), ValueError, "n <= 4800"),
        (np.zeros(0, np.float32), ValueError, "shape"),
        (np.zeros(4800, np.int16), TypeError, "32768"),
        (np.array([0, np.nan], np.float32), ValueError, "finite"),
        (np.array([0, np.inf], np.float32), ValueError, "finite"),
        (np.array([0, -1.5], np.float32), ValueError, "peak of 1.5"),
    ],
)
def test_bad_waveforms(small, value, error, message):
    with pytest.raises(error, match=message):
        small.encode(value)


@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (np.zeros(47, np.int64), ValueError, r"shape \(48,\)"),
        (np.zeros((1, 48), np.int64), ValueError, r"shape \(48,\)"),
        (np.full(48, 12), ValueError, "0 to 11; got 12 to 12"),
        (np.full(48, -1), ValueError, "0 to 11; got -1"),
        (np.zeros(48), TypeError, "integers"),
        (np.zeros(48, bool), TypeError, "integers"),
    ],
)
def test_bad_codes(small, codes, error, message):
    with pytest.raises(error, match=message):
        small.decode(codes)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"levels": ()}, "levels"), ({"levels": (8, 1)}, "levels"), ({"width": 12}, "width")],
)
def test_bad_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        SpeechTokenizerConfig(**sizes)


def test_mel_distance_measures_loudness():
    waveforms = load_corpus("test").waveforms[:2]
    assert mel_distance(waveforms, waveforms) == 0
    # Noise stands far above the floor, so that halving it moves every band by ln 2.
    noise = np.random.default_rng(0).normal(size=(2, 4800)).astype(np.float32)
    assert mel_distance(noise, noise / 2) == pytest.approx(np.log(2), abs=0.02)
    assert mel_distance(noise / 2, noise) == pytest.approx(np.log(2), abs=0.02)


def test_measure_counts_codes_and_errors(small, monkeypatch):
    spoken = load_corpus("test")
    few = Utterances(spoken.waveforms[:4], spoken.digits[:4], spoken.voices[:4])
    monkeypatch.setattr(small, "encode", lambda value: np.arange(48) % 3)
    monkeypatch.setattr(small, "decode", lambda codes: few.waveforms[0])
    measured = measure(small, few)
    assert measured.code_use == 3 / 12
    assert measured.accuracy_on_round_trips == np.mean(few.digits == few.digits[0])
