"""Two tasks over spoken digits: a waveform in and its word out, a word in and a waveform out."""

# Shapes: N examples.

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from unidiff.plugins import ChatTask, DemoExample, Example, LoRADefaults, Metric, user

from .judge import recognise
from .speech import NUM_SAMPLES, WORDS, load_corpus

WHICH = "which digit is spoken?"
SAY = "say {word}."
_LORA = LoRADefaults(r=32, alpha=64, learning_rate=3e-3, steps=600, batch_size=32)
_PLOT = (128, 64)  # pixels of a drawn waveform
_COPIES = 10  # of each training utterance, all but the first varied
_LATEST, _SPEEDS, _GAINS = 400, (0.88, 1.12), (0.5, 1.0)  # samples; ratios


class HearDigit(ChatTask):
    """The user plays a digit, the model says which."""

    name = "hear_digit"
    summary = "Say which digit is spoken."
    modalities = frozenset({"text", "audio"})
    columns = {"audio": "waveform of at most 0.6 s at 8 kHz", "word": "the digit, as a word"}
    decoding = {
        "unmasking_strategy": "entropy_bound",
        "entropy_bound": 0.4,
        "block_length": 8,
        "max_new_tokens": 8,
        "do_sample": False,
    }
    lora = _LORA
    is_in_base = False

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user plays the waveform and asks."""
        return [user(played(example["audio"]), WHICH)]

    def answer(self, example: Example) -> str:
        """The word."""
        return str(example["word"])

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """The package's utterances, varied in "train"; no voice of "test" is in it."""
        return _Utterances(split, limit)

    def metrics(self) -> Mapping[str, Metric]:
        """Is it the word?"""
        return {
            "accuracy": lambda said, examples: np.array(
                [one.strip() == other["word"] for one, other in zip(said, examples, strict=True)],
                dtype=np.float64,
            )
        }

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Four utterances of voices that training has not heard."""
        return [_shown_heard(example) for example in _Utterances("test", 4 * (seed + 1))[-4:]]


class SayDigit(ChatTask):
    """The user names a digit, the model speaks it; a network that knows speech judges it."""

    name = "say_digit"
    summary = "Speak a digit."
    modalities = frozenset({"text", "audio"})
    columns = {"word": "the digit, as a word", "audio": "waveform of at most 0.6 s at 8 kHz"}
    decoding = {
        "unmasking_strategy": "random",  # what is certain first, or colder, ends in silence
        "max_denoising_steps": 48,
        "do_sample": True,
        "temperature": 1.0,
    }
    lora = _LORA
    wanted = "audio"
    is_in_base = False

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user names the digit."""
        return [user(SAY.format(word=example["word"]))]

    def answer(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The waveform."""
        return [played(example["audio"])]

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """The package's utterances, varied in "train"; no voice of "test" is in it."""
        return _Utterances(split, limit)

    def metrics(self) -> Mapping[str, Metric]:
        """Does the judge hear the word?"""
        return {"heard": _is_heard}

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Four digits."""
        return [_shown_said(WORDS[(seed + number) % len(WORDS)]) for number in range(4)]


def played(audio: Any) -> Mapping[str, Any]:
    """Part that plays a waveform: (n,) floats, or {"codes": ...}."""
    part = audio if isinstance(audio, Mapping) else {"audio": audio}
    return {**part, "type": "audio"}


def drawn(waveform: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 picture of a waveform: its loudest samples, column by column."""
    width, height = _PLOT
    image = Image.new("RGB", _PLOT, "white")
    draw = ImageDraw.Draw(image)
    for column, part in enumerate(np.array_split(np.asarray(waveform), width)):
        top, bottom = (height / 2 * (1 - value) for value in (part.max(), part.min()))
        draw.line([(column, top), (column, max(bottom, top + 1))], fill="black")
    return np.asarray(image)


def _shown_heard(example: Example) -> DemoExample:
    """An utterance for the demonstration."""
    return DemoExample(
        example,
        WHICH,
        example["word"],
        lambda said: bool(said.strip() == example["word"]),
        pictures=lambda said: [drawn(example["audio"])],
    )


def _shown_said(word: str) -> DemoExample:
    """A digit to say for the demonstration."""
    return DemoExample(
        {"word": word},
        SAY.format(word=word),
        word,
        lambda wave: bool(_is_heard([wave], [{"word": word}])[0]),
        said=lambda wave: f"judged: {WORDS[int(recognise(wave[None])[0])]}",
        pictures=lambda wave: [drawn(wave)],
    )


def _is_heard(waves: Sequence[np.ndarray], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64, 1 where the judge hears the example's word."""
    heard = recognise(np.stack(list(waves)))
    wanted = [WORDS.index(example["word"]) for example in examples]
    return (heard == np.array(wanted)).astype(np.float64)


def varied(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(4800,) float32: the utterance later, slower or faster, and softer."""
    places = np.arange(NUM_SAMPLES) * rng.uniform(*_SPEEDS) - rng.integers(_LATEST)
    known = np.arange(len(waveform))
    moved = np.interp(places, known, waveform, left=0.0, right=0.0)
    return (moved * rng.uniform(*_GAINS)).astype(np.float32)


class _Utterances(Sequence[Example]):
    """The package's utterances of a split; in training the same ones again, varied."""

    def __init__(self, split: str, limit: int | None) -> None:
        self.spoken = load_corpus(split)
        most = len(self.spoken) * (_COPIES if split == "train" else 1)
        self.length = most if limit is None else min(limit, most)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        """The example of an index, or those of a slice."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(self.length))]
        index = range(self.length)[index]
        copy, at = divmod(index, len(self.spoken))
        wave = self.spoken.waveforms[at]
        if copy:
            wave = varied(wave, np.random.default_rng(index))
        return {"audio": wave, "word": WORDS[int(self.spoken.digits[at])]}
