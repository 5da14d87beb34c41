"""Training of the speech tokenizer: autoencode spectrograms, keep a resumable checkpoint, measure.

`python -m unidiff_audio.train_codec --out DIR --steps N --seed 0`. The loss is the mean absolute
error of the log spectrogram plus that of its log-mel spectrogram.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from unidiff_audio.codec import SpeechTokenizer, SpeechTokenizerConfig, log_spectrogram
from unidiff_audio.judge import accuracy
from unidiff_audio.spectrum import magnitudes, mel_filters
from unidiff_audio.speech import Utterances, load_corpus, utterances

_STATE_FILE = "training_state.pt"
_NUM_BANDS = 40
_MEL_HOP = 80  # samples: 10 ms
_MEL_FLOOR = 1e-3
_LARGEST_SHIFT = 400  # samples an utterance is moved by in training
_MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class TrainCodecOptions:
    """How `train_codec` trains.

    Attributes:
        steps: optimizer steps.
        batch_size: waveforms per step.
        lr: highest learning rate of the one-cycle schedule.
        seed: fixes initial weights and batches.
        mel_weight: weight of the log-mel error beside the log-magnitude error.
        save_every: steps between checkpoints.
        show_progress: draw a progress bar.
    """

    steps: int = 6000
    batch_size: int = 32
    lr: float = 3e-3
    seed: int = 0
    mel_weight: float = 1.0
    save_every: int = 500
    show_progress: bool = True

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: if a count or the learning rate is not positive.
        """
        for name in ("steps", "batch_size", "lr", "save_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0; got {getattr(self, name)}")


@dataclass(frozen=True)
class Measurement:
    """How good round trips of held-out utterances are.

    Attributes:
        mel_distance: mean absolute difference of log-mel spectrograms (40 bands), in nats.
        code_use: share of the codebook that occurs.
        accuracy_on_originals: of the judge.
        accuracy_on_round_trips: of the judge, on the decoded waveforms.
    """

    mel_distance: float
    code_use: float
    accuracy_on_originals: float
    accuracy_on_round_trips: float


def train_codec(
    waveforms: NDArray[np.float32],
    config: SpeechTokenizerConfig,
    options: TrainCodecOptions,
    output_dir: str | Path,
) -> SpeechTokenizer:
    """A tokenizer trained on the waveforms and saved in `output_dir`; resumes what it finds there.

    Args:
        waveforms: (N, 4800) float32 in [-1, 1].
        config: sizes of the tokenizer.
        options: how to train.
        output_dir: receives the weights and, until the last step, the training state.

    Returns:
        The tokenizer as saved (its weights are rounded to float16), in evaluation mode.

    Raises:
        ValueError: if a stored training state belongs to other options or sizes.
    """
    run = _TrainingRun(config, options, Path(output_dir))
    remaining = range(run.start(), options.steps)
    progress = tqdm(remaining, desc="speech tokenizer", disable=not options.show_progress)
    for step in progress:
        loss = run.update(_draw_batch(waveforms, options, step))
        if (step + 1) % options.save_every == 0 and step + 1 < options.steps:
            run.save(step + 1)
            progress.set_postfix(loss=f"{loss:.3f}")
    run.finish()
    return SpeechTokenizer.from_pretrained(output_dir)


def measure(tokenizer: SpeechTokenizer, spoken: Utterances) -> Measurement:
    """What round trips through the tokenizer do to the utterances."""
    lines = [tokenizer.encode(waveform) for waveform in spoken.waveforms]
    decoded = np.stack([tokenizer.decode(line) for line in lines])
    return Measurement(
        mel_distance=mel_distance(decoded, spoken.waveforms),
        code_use=len(np.unique(lines)) / tokenizer.num_codes,
        accuracy_on_originals=accuracy(spoken.waveforms, spoken.digits),
        accuracy_on_round_trips=accuracy(decoded, spoken.digits),
    )


def mel_distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean absolute difference, in nats, of the log-mel spectrograms of (N, 4800) waveforms."""
    filters = mel_filters(_NUM_BANDS)
    mels = [
        torch.log(filters @ magnitudes(torch.from_numpy(waveforms), _MEL_HOP) + _MEL_FLOOR)
        for waveforms in (first, second)
    ]
    return (mels[0] - mels[1]).abs().mean().item()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a tokenizer, save it, print what round trips of the held-out voices lose."""
    parser = argparse.ArgumentParser(description="Train the tokenizer of spoken digits.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--steps", type=int, default=TrainCodecOptions.steps)
    parser.add_argument("--seed", type=int, default=TrainCodecOptions.seed)
    parser.add_argument("--number", type=int, default=3000, help="utterances to train on")
    chosen = parser.parse_args(arguments)
    options = TrainCodecOptions(steps=chosen.steps, seed=chosen.seed)
    waveforms = utterances("train", chosen.number, chosen.seed).waveforms
    tokenizer = train_codec(waveforms, SpeechTokenizerConfig(), options, chosen.out)
    print(json.dumps(asdict(measure(tokenizer, load_corpus("test"))), indent=2))


class _TrainingRun:
    """Model, optimizer and schedule of one run, and their checkpoint on disk."""

    def __init__(
        self, config: SpeechTokenizerConfig, options: TrainCodecOptions, folder: Path
    ) -> None:
        self.options = options
        self.folder = folder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.model = SpeechTokenizer(config).train()
        self.filters = mel_filters(_NUM_BANDS)
        self.optimizer = AdamW(
            self.model.parameters(), options.lr, betas=(0.9, 0.95), weight_decay=0.01
        )
        total = options.steps + 1  # the schedule counts its initial value as a step
        self.schedule = OneCycleLR(self.optimizer, options.lr, total, pct_start=0.15)

    def identity(self) -> dict[str, object]:
        """What must agree for a stored state to be continued."""
        cosmetic = ("show_progress", "save_every")
        kept = {key: value for key, value in asdict(self.options).items() if key not in cosmetic}
        return kept | asdict(self.model.config)

    def start(self) -> int:
        """Number of steps already done: 0, or those of the state found on disk, which is loaded."""
        path = self.folder / _STATE_FILE
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        if state["identity"] != self.identity():
            raise ValueError(
                f"{path} belongs to another run ({state['identity']}); expected "
                f"{self.identity()}. Delete it or choose another folder"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return state["step"]

    def update(self, waveforms: Tensor) -> float:
        """Loss of a (B, 4800) batch before the step that it causes."""
        loss = self._loss(self.model(waveforms), log_spectrogram(waveforms))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(self.model.parameters(), _MAX_GRAD_NORM)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def save(self, step: int) -> None:
        """Write the state under a temporary name, then rename it: never half a file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{_STATE_FILE}.partial"
        state = {
            "identity": self.identity(),
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        torch.save(state, temporary)
        os.replace(temporary, self.folder / _STATE_FILE)

    def finish(self) -> None:
        """Save the weights for `from_pretrained` and drop the training state."""
        self.model.save_pretrained(self.folder)
        (self.folder / _STATE_FILE).unlink(missing_ok=True)

    def _loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, F, T) log spectrograms."""
        mel_error = self._mel(predicted) - self._mel(target)
        mel_loss = mel_error.abs().mean()
        return (predicted - target).abs().mean() + self.options.mel_weight * mel_loss

    def _mel(self, spectrogram: Tensor) -> Tensor:
        return torch.log(self.filters @ torch.exp(spectrogram))


def _draw_batch(waveforms: NDArray[np.float32], options: TrainCodecOptions, step: int) -> Tensor:
    """(B, 4800) waveforms, moved in time and made softer; depends on seed and step only."""
    random = np.random.default_rng([options.seed, step])
    rows = random.integers(len(waveforms), size=options.batch_size)
    shifts = random.integers(_LARGEST_SHIFT, size=options.batch_size)
    moved = [np.roll(waveforms[row], shift) for row, shift in zip(rows, shifts, strict=True)]
    gains = random.uniform(0.5, 1, (options.batch_size, 1)).astype(np.float32)
    return torch.from_numpy(np.stack(moved) * gains)


if __name__ == "__main__":
    main()
