"""Spoken digits: "zero" to "nine" in many synthetic voices, and a prepared file of them.

`speak` and `utterances` call espeak-ng; `load_corpus` reads the file of the package and needs
nothing. The file is made by `python -m unidiff_audio.speech --out corpus.npz`.
"""

import argparse
import io
import os
import subprocess
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SAMPLE_RATE = 8000  # Hz
NUM_SAMPLES = 4800  # of every waveform: 0.6 seconds
CORPUS_FILE = Path(__file__).with_name("corpus.npz")

_ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-029", "en-gb-x-rp")
_VARIANTS = {
    "train": ("m1", "m2", "m3", "m5", "m6", "m7", "f1", "f2", "f4", "f5"),
    "test": ("m4", "m8", "f3"),
}
_SPEEDS = {"train": (170, 185, 200, 215, 230), "test": (178, 193, 208, 223)}  # words per minute
_PITCHES = (20, 35, 50, 65, 80)  # espeak-ng's scale of 0 to 99
_SEED_OF_SPLIT = {"train": 0, "test": 1}
_PEAK = 0.95  # of a normalised waveform
_SILENCE = 0.02  # of the peak: quieter samples at either end are cut off
_MU = 255  # of mu-law companding (ITU-T G.711)
_CORPUS_SIZES = {"train": 600, "test": 200}


class Request(NamedTuple):
    """One utterance to be spoken; the arguments of `speak`."""

    word: str
    voice: str
    speed: int
    pitch: int


@dataclass(frozen=True)
class Utterances:
    """Spoken digits.

    Attributes:
        waveforms: (N, 4800) float32 in [-1, 1] at 8 kHz.
        digits: (N,) int64, the digit that is spoken.
        voices: (N,) names of espeak-ng voices, such as "en-gb+m1".
    """

    waveforms: NDArray[np.float32]
    digits: NDArray[np.int64]
    voices: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.digits)


def voices(split: str) -> tuple[str, ...]:
    """Names of the voices of "train" or "test"; no voice is in both.

    Raises:
        ValueError: if the split is another.
    """
    _check_split(split)
    return tuple(f"{accent}+{variant}" for accent in _ACCENTS for variant in _VARIANTS[split])


def speak(word: str, voice: str, speed: int, pitch: int) -> NDArray[np.float32]:
    """A word spoken by espeak-ng.

    Args:
        word: one of `WORDS`.
        voice: one of `voices("train")` or `voices("test")`.
        speed: words per minute, 80 to 450.
        pitch: 0 to 99.

    Returns:
        (4800,) float32: 0.6 seconds at 8 kHz that start with the word, padded with zeros or cut,
        with peak 0.95.

    Raises:
        ValueError: if an argument is outside its range.
        RuntimeError: if espeak-ng is missing or fails.
    """
    if word not in WORDS:
        raise ValueError(f"word must be one of {', '.join(WORDS)}; got {word!r}")
    if voice not in voices("train") + voices("test"):
        raise ValueError(f"unknown voice {voice!r}; expected one of unidiff_audio.speech.voices()")
    if not 80 <= speed <= 450:
        raise ValueError(f"speed must be 80 to 450 words per minute; got {speed}")
    if not 0 <= pitch <= 99:
        raise ValueError(f"pitch must be 0 to 99; got {pitch}")
    return _synthesise(word, voice, speed, pitch).copy()


def requests(split: str, number: int, seed: int) -> list[Request]:
    """What `utterances` has spoken: `number` requests, each digit equally often within one.

    Raises:
        ValueError: if the split is neither "train" nor "test", or the number is below 1.
    """
    _check_split(split)
    if number < 1:
        raise ValueError(f"number must be >= 1; got {number}")
    random = np.random.default_rng([seed, _SEED_OF_SPLIT[split]])
    names = voices(split)
    drawn = []
    for digit in random.permutation(np.arange(number) % len(WORDS)):
        voice = names[random.integers(len(names))]
        speed = _SPEEDS[split][random.integers(len(_SPEEDS[split]))]
        pitch = _PITCHES[random.integers(len(_PITCHES))]
        drawn.append(Request(WORDS[digit], voice, speed, pitch))
    return drawn


def utterances(split: str, number: int, seed: int = 0) -> Utterances:
    """Digits spoken now by espeak-ng; the same arguments give the same utterances.

    800 of them took 8 seconds on one core.

    Args:
        split: "train" or "test": their voices and speeds are disjoint.
        number: how many.
        seed: fixes words, voices, speeds and pitches.

    Raises:
        ValueError: if the split is neither "train" nor "test", or the number is below 1.
        RuntimeError: if espeak-ng is missing or fails.
    """
    drawn = requests(split, number, seed)
    waveforms = np.stack([speak(*request) for request in drawn])
    digits = np.array([WORDS.index(request.word) for request in drawn])
    return Utterances(waveforms, digits, tuple(request.voice for request in drawn))


def load_corpus(split: str) -> Utterances:
    """The prepared utterances of the package: 600 of "train", 200 of "test"; needs no espeak-ng.

    They are those of `utterances(split, number, seed=0)`, stored as 8-bit mu-law.

    Raises:
        ValueError: if the split is neither "train" nor "test".
    """
    _check_split(split)
    with np.load(CORPUS_FILE) as stored:
        names = tuple(str(name) for name in stored[f"{split}_voices"])
        return Utterances(_expand(stored[f"{split}_mu_law"]), stored[f"{split}_digits"], names)


def write_corpus(path: str | Path) -> None:
    """Have the prepared corpus spoken and write it as a compressed .npz file of 8-bit mu-law.

    Raises:
        RuntimeError: if espeak-ng is missing or fails.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for split, number in _CORPUS_SIZES.items():
        spoken = utterances(split, number)
        arrays[f"{split}_mu_law"] = _compress(spoken.waveforms)
        arrays[f"{split}_digits"] = spoken.digits
        arrays[f"{split}_voices"] = np.array(spoken.voices)
    temporary = Path(f"{path}.partial")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(temporary, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the prepared corpus: `python -m unidiff_audio.speech --out corpus.npz`."""
    parser = argparse.ArgumentParser(description="Write the prepared corpus of spoken digits.")
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    write_corpus(parser.parse_args(arguments).out)


@lru_cache(maxsize=10_000)
def _synthesise(word: str, voice: str, speed: int, pitch: int) -> NDArray[np.float32]:
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    try:
        answer = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise RuntimeError(
            "espeak-ng is not installed: run `apt install espeak-ng`, or use the prepared "
            "utterances of unidiff_audio.speech.load_corpus()"
        ) from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"`{' '.join(command)}` failed: {error.stderr.decode()}") from error
    with wave.open(io.BytesIO(answer.stdout)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    return _fit(resample_poly(samples, SAMPLE_RATE, rate))


def _fit(samples: NDArray[np.float64]) -> NDArray[np.float32]:
    """(4800,) float32: silence cut off at both ends, padded or cut at the end, normalised."""
    loudness = np.abs(samples)
    if loudness.max(initial=0) == 0:
        raise RuntimeError("espeak-ng returned silence; reinstall its voices (espeak-ng-data)")
    heard = np.flatnonzero(loudness > _SILENCE * loudness.max())
    kept = samples[heard[0] : heard[-1] + 1][:NUM_SAMPLES]
    padded = np.zeros(NUM_SAMPLES)
    padded[: len(kept)] = kept * (_PEAK / np.abs(kept).max())
    return padded.astype(np.float32)


def _compress(waveforms: NDArray[np.float32]) -> NDArray[np.int8]:
    """Mu-law bytes in -127 to 127 of samples in [-1, 1]; silence stays 0 exactly."""
    companded = np.sign(waveforms) * np.log1p(_MU * np.abs(waveforms)) / np.log1p(_MU)
    return np.round(companded * 127).astype(np.int8)


def _expand(companded: NDArray[np.int8]) -> NDArray[np.float32]:
    scaled = companded.astype(np.float32) / 127
    expanded = np.sign(scaled) * np.expm1(np.abs(scaled) * np.log1p(_MU)) / _MU
    return expanded.astype(np.float32)


def _check_split(split: str) -> None:
    if split not in _VARIANTS:
        raise ValueError(f'split must be "train" or "test"; got {split!r}')


if __name__ == "__main__":
    main()
