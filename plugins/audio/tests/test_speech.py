"""The corpus: what is asked of espeak-ng, what it returns, what the package ships."""

import io
import shutil
import subprocess
import wave

import numpy as np
import pytest
from unidiff_audio import speech

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")


@pytest.fixture
def fake_espeak(monkeypatch):
    """Replaces espeak-ng; returns a function that sets the samples it is to speak."""
    speech._synthesise.cache_clear()
    spoken = {}

    def run(command, **options):
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(speech.SAMPLE_RATE)
            writer.writeframes(spoken["samples"].astype("<i2").tobytes())
        return subprocess.CompletedProcess(command, 0, stdout=file.getvalue())

    monkeypatch.setattr(speech.subprocess, "run", run)
    yield lambda samples: spoken.update(samples=np.asarray(samples))
    speech._synthesise.cache_clear()


def test_shipped_corpus_has_all_digits_equally_often():
    for split, number in (("train", 600), ("test", 200)):
        spoken = speech.load_corpus(split)
        assert spoken.waveforms.shape == (number, 4800)
        assert spoken.waveforms.dtype == np.float32
        assert np.abs(spoken.waveforms).max() <= 1
        np.testing.assert_array_equal(np.bincount(spoken.digits), number // 10)
        assert len(spoken) == len(spoken.voices) == number


def test_test_voices_and_speeds_are_not_in_train():
    assert not set(speech.voices("train")) & set(speech.voices("test"))
    train, test = (speech.load_corpus(split) for split in ("train", "test"))
    assert set(train.voices) <= set(speech.voices("train"))
    assert set(test.voices) <= set(speech.voices("test"))
    speeds = [{asked.speed for asked in speech.requests(s, 300, 0)} for s in ("train", "test")]
    assert not speeds[0] & speeds[1]


def test_shipped_corpus_is_what_seed_0_asks_for():
    for split in ("train", "test"):
        spoken = speech.load_corpus(split)
        drawn = speech.requests(split, len(spoken), seed=0)
        assert spoken.voices == tuple(request.voice for request in drawn)
        assert [speech.WORDS[digit] for digit in spoken.digits] == [r.word for r in drawn]


def test_requests_depend_on_seed_and_split_only():
    assert speech.requests("train", 40, 3) == speech.requests("train", 40, 3)
    assert speech.requests("train", 40, 3) != speech.requests("train", 40, 4)


def test_mu_law_keeps_silence_and_is_close():
    samples = np.linspace(-1, 1, 2001, dtype=np.float32)
    expanded = speech._expand(speech._compress(samples))
    assert np.abs(expanded - samples).max() < 0.025
    assert np.abs(expanded - samples)[np.abs(samples) < 0.01].max() < 5e-4
    assert expanded[1000] == 0


def test_waveform_starts_with_the_word_and_is_normalised(fake_espeak):
    fake_espeak(np.concatenate([np.zeros(500), np.full(100, 8000.0), np.zeros(700)]))
    waveform = speech.speak("one", "en-us+m1", 170, 50)
    assert waveform.shape == (4800,)
    assert waveform.dtype == np.float32
    assert np.abs(waveform).max() == pytest.approx(0.95)
    assert np.flatnonzero(np.abs(waveform) > 0.5)[0] < 20
    assert not waveform[130:].any()


def test_long_word_is_cut(fake_espeak):
    fake_espeak(np.full(6000, 8000.0))
    assert speech.speak("one", "en-us+m1", 170, 50).shape == (4800,)


def test_changing_an_utterance_does_not_change_the_next(fake_espeak):
    fake_espeak(np.full(100, 8000.0))
    speech.speak("one", "en-us+m1", 170, 50)[:] = 0
    assert speech.speak("one", "en-us+m1", 170, 50).any()


def test_silence_is_an_error(fake_espeak):
    fake_espeak(np.zeros(100))
    with pytest.raises(RuntimeError, match="silence"):
        speech.speak("one", "en-us+m1", 170, 50)


def test_missing_espeak_says_what_to_install(monkeypatch):
    def run(command, **options):
        raise FileNotFoundError(command[0])

    speech._synthesise.cache_clear()
    monkeypatch.setattr(speech.subprocess, "run", run)
    with pytest.raises(RuntimeError, match="apt install espeak-ng"):
        speech.speak("one", "en-us+m1", 170, 50)


def test_failing_espeak_says_why(monkeypatch):
    def run(command, **options):
        assert options["check"]  # as the real one, it raises only when asked to
        raise subprocess.CalledProcessError(1, command, stderr=b"no voices found")

    speech._synthesise.cache_clear()
    monkeypatch.setattr(speech.subprocess, "run", run)
    with pytest.raises(RuntimeError, match="no voices found"):
        speech.speak("one", "en-us+m1", 170, 50)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("ten", "en-us+m1", 170, 50), "word must be one of zero"),
        (("one", "en-us+m9", 170, 50), "unknown voice"),
        (("one", "en-us+m1", 79, 50), "speed must be"),
        (("one", "en-us+m1", 451, 50), "speed must be"),
        (("one", "en-us+m1", 170, -1), "pitch must be"),
        (("one", "en-us+m1", 170, 100), "pitch must be"),
    ],
)
def test_bad_requests(request_, message):
    with pytest.raises(ValueError, match=message):
        speech.speak(*request_)


def test_bad_split_and_number():
    for call in (speech.load_corpus, speech.voices, lambda split: speech.requests(split, 1, 0)):
        with pytest.raises(ValueError, match='"train" or "test"'):
            call("dev")
    with pytest.raises(ValueError, match="number must be >= 1"):
        speech.requests("train", 0, 0)


@needs_espeak
def test_espeak_speaks_the_same_word_again():
    first = speech.utterances("test", 10, seed=5)
    speech._synthesise.cache_clear()
    second = speech.utterances("test", 10, seed=5)
    np.testing.assert_array_equal(first.waveforms, second.waveforms)
    assert first.voices == second.voices
    assert sorted(first.digits) == list(range(10))


@needs_espeak
def test_corpus_command_writes_what_load_corpus_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(speech, "_CORPUS_SIZES", {"train": 10, "test": 10})
    monkeypatch.setattr(speech, "CORPUS_FILE", tmp_path / "corpus.npz")
    speech.main(["--out", str(tmp_path / "corpus.npz")])
    stored = speech.load_corpus("test")
    spoken = speech.utterances("test", 10, seed=0)
    assert np.abs(stored.waveforms - spoken.waveforms).max() < 0.025
    np.testing.assert_array_equal(stored.digits, spoken.digits)
    assert stored.voices == spoken.voices
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.npz"]
