"""The judge: a small convolutional network that recognises the spoken digit of a waveform.

Trained on original utterances of the train voices only, never on what a codec or a model made:
`python -m unidiff_audio.judge --out judge.safetensors --seed 0`.
"""

import argparse
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from unidiff_audio.spectrum import magnitudes, mel_filters
from unidiff_audio.speech import NUM_SAMPLES, WORDS, Utterances, load_corpus, utterances

WEIGHTS_FILE = Path(__file__).with_name("judge.safetensors")

_HOP = 80  # samples: 10 ms
_NUM_BANDS = 40
_FLOOR = 1e-3  # magnitudes far below this one are not heard: -60 dB
_WIDTHS = (24, 40, 56)
_BATCH = 64
_LEARNING_RATE = 4e-3
_LARGEST_SHIFT = 800  # samples an utterance is moved by in training
_LOUDEST_NOISE = 0.03


class Judge(nn.Module):
    """Logits of the ten digits from the log-mel spectrogram of a waveform."""

    def __init__(self) -> None:
        super().__init__()
        self.filters: Tensor
        self.register_buffer("filters", mel_filters(_NUM_BANDS), persistent=False)
        layers: list[nn.Module] = []
        num_channels = 1
        for width in _WIDTHS:
            layers += [nn.Conv2d(num_channels, width, 3, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            num_channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(num_channels * 5, len(WORDS)))

    def forward(self, waveforms: Tensor) -> Tensor:
        """(N, 10) logits of (N, 4800) float waveforms in [-1, 1]."""
        mel = torch.log(self.filters @ magnitudes(waveforms, _HOP) + _FLOOR)
        centred = mel - mel.mean((1, 2), keepdim=True)
        hidden = self.layers(centred.unsqueeze(1))
        logits: Tensor = self.head(hidden.amax(3).flatten(1))  # the loudest moment of each band
        return logits


def recognise(waveforms: ArrayLike | Tensor) -> NDArray[np.int64]:
    """The digits that the judge of the package hears.

    Args:
        waveforms: (N, 4800) float in [-1, 1] at 8 kHz.

    Returns:
        (N,) int64 in 0 to 9.

    Raises:
        ValueError: if the shape is another, or a sample is not finite.
    """
    batch = torch.as_tensor(waveforms, dtype=torch.float32)
    if batch.ndim != 2 or batch.shape[1] != NUM_SAMPLES:
        raise ValueError(
            f"waveforms must have shape (N, {NUM_SAMPLES}); got {tuple(batch.shape)}. "
            "Stack them, and pad each with zeros"
        )
    if not torch.isfinite(batch).all():
        raise ValueError("waveforms must be finite; got NaN or infinity")
    with torch.no_grad():
        return _judge()(batch).argmax(1).numpy()


def accuracy(waveforms: ArrayLike | Tensor, digits: NDArray[np.int64]) -> float:
    """Share, in [0, 1], of (N, 4800) waveforms whose (N,) digit the judge hears.

    Raises:
        ValueError: as `recognise`, or if the numbers of waveforms and digits differ.
    """
    heard = recognise(waveforms)
    if heard.shape != np.shape(digits):
        raise ValueError(f"got {len(heard)} waveforms but digits of shape {np.shape(digits)}")
    return float(np.mean(heard == digits))


def train_judge(spoken: Utterances, steps: int, seed: int, show_progress: bool = True) -> Judge:
    """A judge trained on the utterances, in evaluation mode.

    Args:
        spoken: the utterances; each is shown moved in time, with noise, louder and softer.
        steps: optimizer steps, >= 1.
        seed: fixes initial weights, dropout, batches and noise.
        show_progress: draw a progress bar.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Judge().train()
        optimizer = AdamW(model.parameters(), _LEARNING_RATE, weight_decay=0.05)
        schedule = OneCycleLR(optimizer, _LEARNING_RATE, steps + 1, pct_start=0.2)
        random = np.random.default_rng(seed)
        for _ in tqdm(range(steps), desc="judge", disable=not show_progress):
            rows = random.integers(len(spoken), size=_BATCH)
            logits = model(_disturbed(spoken.waveforms[rows], random))
            targets = torch.from_numpy(spoken.digits[rows])
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits, targets, label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a judge, print its accuracy on the held-out voices, write its weights."""
    parser = argparse.ArgumentParser(description="Train the judge of spoken digits.")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--number", type=int, default=3000, help="utterances to train on")
    options = parser.parse_args(arguments)
    model = train_judge(
        utterances("train", options.number, options.seed), options.steps, options.seed
    )
    temporary = Path(f"{options.out}.partial")
    save_file(model.state_dict(), temporary)
    os.replace(temporary, options.out)
    held_out = load_corpus("test")
    with torch.no_grad():
        heard = model(torch.from_numpy(held_out.waveforms)).argmax(1).numpy()
    print(f"accuracy on {len(held_out)} held-out utterances: {np.mean(heard == held_out.digits)}")


def _disturbed(waveforms: NDArray[np.float32], random: np.random.Generator) -> Tensor:
    """(B, 4800): each moved in time, with noise, and made softer."""
    moved = np.stack([np.roll(row, random.integers(_LARGEST_SHIFT)) for row in waveforms])
    levels = random.uniform(0, _LOUDEST_NOISE, (len(moved), 1))
    noisy = moved + random.normal(size=moved.shape) * levels
    return torch.from_numpy((noisy * random.uniform(0.3, 1, (len(moved), 1))).astype(np.float32))


@lru_cache(maxsize=1)
def _judge() -> Judge:
    with torch.random.fork_rng(devices=[]):  # the random state is the caller's
        model = Judge()
    model.load_state_dict(load_file(WEIGHTS_FILE))
    return model.eval()


if __name__ == "__main__":
    main()
