"""Training of the image tokenizer: autoencode uint8 images, keep a resumable checkpoint, measure.

Images are shown left-right flipped half of the time. The loss of a batch is the mean logarithm of
each image's squared error, which is its PSNR up to a constant, plus a small absolute error.
"""

import logging
import math
import os
import shutil
from collections.abc import Iterator
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

from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig

from .precision import native_bfloat16

_logger = logging.getLogger(__name__)

_STATE_FILE = "training_state.pt"
_EVALUATION_BATCH = 250
_SIZES = ("levels", "hidden_sizes", "num_encoder_blocks", "num_decoder_blocks", "num_stage_blocks")


@dataclass(frozen=True)
class TrainImageTokenizerOptions:
    """How `train_image_tokenizer` trains.

    Measured with the defaults and the default config on 50 % Fashion-MNIST, 35 % scenes and 15 %
    tabletop frames: 26.4, 33.7 and 33.2 dB on held-out images, in 10 minutes on one CPU thread.

    Attributes:
        steps: optimizer steps.
        batch_size: images per step.
        lr: highest learning rate of the one-cycle schedule.
        seed: fixes initial weights, batches and flips.
        weight_decay: of AdamW.
        absolute_weight: weight of the mean absolute error beside the logarithmic squared error.
        error_floor: squared error (in [-1, 1] units) below which an image no longer matters.
        max_grad_norm: gradients are clipped to this norm.
        flip: show images mirrored left to right half of the time.
        bfloat16: run the convolutions in bfloat16 where the processor knows it (a residual block
            ran 1.6 times faster on a CPU with avx512_bf16).
        save_every: steps between checkpoints.
        show_progress: draw a progress bar.
    """

    steps: int = 8000
    batch_size: int = 32
    lr: float = 3e-3
    seed: int = 0
    weight_decay: float = 0.01
    absolute_weight: float = 0.1
    error_floor: float = 1e-3
    max_grad_norm: float = 1.0
    flip: bool = True
    bfloat16: bool = True
    save_every: int = 500
    show_progress: bool = True

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ValueError: if a count, the learning rate or the error floor is not positive.
        """
        for name in ("steps", "batch_size", "lr", "error_floor", "max_grad_norm", "save_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0; got {getattr(self, name)}")


def train_image_tokenizer(
    images: NDArray[np.uint8],
    config: FSQImageTokenizerConfig,
    options: TrainImageTokenizerOptions,
    output_dir: str | Path,
    sampling_weights: NDArray[np.floating] | None = None,
    pixel_weights: NDArray[np.floating] | None = None,
    start: FSQImageTokenizer | None = None,
) -> FSQImageTokenizer:
    """A tokenizer trained on the images and saved in `output_dir`; resumes what it finds there.

    Args:
        images: (N, H, W, 3) uint8. H and W are multiples of the config's downsample factor.
        config: sizes of the tokenizer.
        options: how to train.
        output_dir: receives the weights and, until the last step, the training state.
        sampling_weights: (N,) float >= 0. How often each image is drawn, relative to the others;
            None draws all alike.
        pixel_weights: (N, H, W) float >= 0 with mean about one, what an error at each pixel counts
            (`rare_colour_weights`, `small_detail_weights`); None: one.
        start: a tokenizer of the same sizes whose weights training begins with; None: fresh ones.

    Returns:
        The trained tokenizer in evaluation mode.

    Raises:
        ValueError: if the images, the weights or a stored training state do not fit.
    """
    check_images(images)
    _check_pixel_weights(images, pixel_weights)
    cumulative = _cumulative_weights(len(images), sampling_weights)
    run = _TrainingRun(config, options, Path(output_dir))
    if start is not None:
        run.begin_with(start)
    remaining = range(run.start(), options.steps)
    progress = tqdm(remaining, desc="image tokenizer", disable=not options.show_progress)
    for step in progress:
        pixels, weights = _draw_batch(images, pixel_weights, cumulative, options, step)
        loss = run.update(pixels, weights)
        if (step + 1) % options.save_every == 0 and step + 1 < options.steps:
            run.save(step + 1)
            progress.set_postfix(loss=f"{loss:.3f}")
    run.finish()
    return run.model.eval()


def rare_colour_weights(
    images: NDArray[np.uint8], most: float = 20.0, num_levels: int = 8
) -> NDArray[np.float16]:
    """(N, H, W) weights of pixels, larger where the colour is rare, with mean about one.

    A marker of ten pixels then counts against the thousands of a table. Colours are told apart by
    `num_levels` levels of each channel; a weight is the inverse square root of the share of pixels
    of that colour.

    Args:
        images: (N, H, W, 3) uint8.
        most: largest weight in terms of the smallest.
        num_levels: in 1..256.

    Raises:
        ValueError: if the images do not fit, or a number is out of range.

    Source: own derivation; checked in tests/training/test_image_tokenizer.py.
    """
    check_images(images)
    if most < 1 or not 1 <= num_levels <= 256:
        raise ValueError(f"expected most >= 1 and num_levels in 1..256; got {most=} {num_levels=}")
    colour = np.zeros(images.shape[:3], dtype=np.int32)
    for channel in range(3):
        level = images[..., channel].astype(np.int32) * num_levels // 256
        colour = colour * num_levels + level
    share = np.bincount(colour.ravel(), minlength=num_levels**3) / colour.size
    weight = 1 / np.sqrt(np.maximum(share, 1e-12))
    weight = np.minimum(weight, most * weight[share > 0].min())
    return (weight / (weight * share).sum()).astype(np.float16)[colour]


def small_detail_weights(
    images: NDArray[np.uint8], strength: float = 20.0, reach: int = 4
) -> NDArray[np.float16]:
    """(N, H, W) weights of pixels, larger where a pixel differs from its surroundings; mean one.

    A puck of nine pixels then counts more than as many pixels of an arm of the same colour.

    Args:
        images: (N, H, W, 3) uint8.
        strength: 1 + strength is the weight, before it is scaled, of a pixel that differs from the
            mean around it by the whole range in all channels.
        reach: pixels to each side whose mean is taken; beyond the border the image is mirrored.

    Raises:
        ValueError: if the images do not fit, or a number is out of range.

    Source: own derivation; checked in tests/training/test_image_tokenizer.py.
    """
    check_images(images)
    if not 0 <= strength <= 1e3 or not 1 <= reach < min(images.shape[1:3]):
        raise ValueError(
            f"expected strength in [0, 1000] and reach in [1, {min(images.shape[1:3])}); got "
            f"{strength=} {reach=}"
        )
    parts = [
        _difference_from_surroundings(images[first : first + _EVALUATION_BATCH], reach)
        for first in range(0, len(images), _EVALUATION_BATCH)
    ]
    weight = 1 + strength * np.concatenate(parts)
    return (weight / weight.mean(dtype=np.float64)).astype(np.float16)


def _difference_from_surroundings(images: NDArray[np.uint8], reach: int) -> NDArray[np.float32]:
    """(N, H, W) mean over channels of the distance to the mean around a pixel, in [0, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    padded = torch.nn.functional.pad(pixels, (reach,) * 4, mode="reflect")
    side = 2 * reach + 1
    rows = torch.nn.functional.avg_pool2d(padded, (side, 1), stride=1)  # one way, then the other:
    around = torch.nn.functional.avg_pool2d(rows, (1, side), stride=1)  # 2 n sums instead of n * n
    return (pixels - around).abs().mean(1).numpy()


def reconstruction_psnr(model: FSQImageTokenizer, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each reconstruction, (N,) dB, of (N, H, W, 3) uint8 images.

    Reconstructions are clamped but not rounded to bytes. An exact one counts as 100 dB.

    Raises:
        ValueError: if the images have another shape or type.
    """
    psnr = []
    for pixels in _evaluation_batches(images):
        decoded = model.decode(model.encode(pixels))
        error = ((decoded - pixels) / 2).double().square().mean((1, 2, 3))
        psnr.append(-10 * torch.log10(error.clamp(min=1e-10)))
    return torch.cat(psnr).numpy()


def code_use(model: FSQImageTokenizer, images: NDArray[np.uint8]) -> float:
    """Share of the codebook, in [0, 1], that occurs in (N, H, W, 3) uint8 images.

    Raises:
        ValueError: if the images have another shape or type.
    """
    is_used = torch.zeros(model.codebook_size, dtype=torch.bool)
    for pixels in _evaluation_batches(images):
        is_used[model.encode(pixels).flatten()] = True
    return is_used.double().mean().item()


def images_to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """(N, 3, H, W) float32 pixels in [-1, 1] of (N, H, W, 3) uint8 images."""
    channels_first = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return channels_first.contiguous().float() / 127.5 - 1


def check_images(images: NDArray[np.uint8]) -> None:
    """Raise unless the array holds at least one RGB image of bytes.

    Raises:
        ValueError: if the shape is not (N, H, W, 3) with N >= 1, or the type is not uint8.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
        raise ValueError(
            "images must be a non-empty (N, H, W, 3) uint8 array; "
            f"got {images.shape} {images.dtype}. Repeat a grey channel three times"
        )


class _TrainingRun:
    """Model, optimizer and schedule of one run, and their checkpoint on disk."""

    def __init__(
        self, config: FSQImageTokenizerConfig, options: TrainImageTokenizerOptions, folder: Path
    ) -> None:
        self.options = options
        self.uses_bfloat16 = native_bfloat16(options.bfloat16)
        self.folder = folder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)  # only inside the fork: the caller's state is untouched
            self.model = FSQImageTokenizer(config)
        self.optimizer = AdamW(
            self.model.parameters(),
            options.lr,
            betas=(0.9, 0.95),
            weight_decay=options.weight_decay,
        )
        total = options.steps + 1  # the schedule counts its initial value as a step
        self.schedule = OneCycleLR(self.optimizer, options.lr, total, pct_start=0.15)

    def identity(self) -> dict[str, object]:
        """What must agree for a stored state to be continued."""
        cosmetic = ("show_progress", "save_every")
        kept = {key: value for key, value in asdict(self.options).items() if key not in cosmetic}
        config = self.model.config
        kept.update((name, getattr(config, name)) for name in _SIZES)
        return kept

    def begin_with(self, model: FSQImageTokenizer) -> None:
        """Take a tokenizer's weights; raises ValueError if it has other sizes."""
        wanted, given = (
            {name: getattr(one.config, name) for name in _SIZES} for one in (self.model, model)
        )
        if wanted != given:
            raise ValueError(f"start must be a tokenizer of the sizes {wanted}; got {given}")
        self.model.load_state_dict(model.state_dict())

    def start(self) -> int:
        """Number of steps already done: 0, or those of the state found on disk, which is loaded."""
        path = self.folder / _STATE_FILE
        self.model.train()
        if not path.exists():
            return 0
        state = torch.load(path, weights_only=True)
        if state["identity"] != self.identity():
            raise ValueError(
                f"{path} belongs to another run ({state['identity']}); expected "
                f"{self.identity()}. Delete it or choose another output_dir"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        _logger.info("resuming the image tokenizer at step %d", state["step"])
        return state["step"]

    def update(self, pixels: Tensor, weights: Tensor | None) -> float:
        """Loss of a (B, 3, H, W) batch, (B, 1, H, W) weights, before the step that it causes."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.uses_bfloat16):
            reconstruction = self.model(pixels).reconstruction
        loss = _reconstruction_loss(reconstruction.float() - pixels, weights, self.options)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip_grad_norm_(self.model.parameters(), self.options.max_grad_norm)
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
        temporary = self.folder / "partial"
        self.model.save_pretrained(temporary)
        for path in sorted(temporary.iterdir()):
            os.replace(path, self.folder / path.name)
        shutil.rmtree(temporary)
        (self.folder / _STATE_FILE).unlink(missing_ok=True)


def _reconstruction_loss(
    error: Tensor, weights: Tensor | None, options: TrainImageTokenizerOptions
) -> Tensor:
    """Scalar loss of a (B, 3, H, W) error in [-1, 1] units with (B, 1, H, W) weights."""
    squared, absolute = error.square(), error.abs()
    if weights is not None:
        squared, absolute = squared * weights, absolute * weights
    logarithm = torch.log(squared.mean((1, 2, 3)) + options.error_floor).mean()
    return logarithm + options.absolute_weight * absolute.mean()


def _check_pixel_weights(images: NDArray[np.uint8], weights: NDArray[np.floating] | None) -> None:
    """Raise ValueError unless there is a finite weight >= 0 for every pixel, or none at all."""
    if weights is None:
        return
    if weights.shape != images.shape[:3] or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(
            f"pixel_weights must be {images.shape[:3]} finite numbers >= 0; got shape "
            f"{weights.shape}"
        )


def _cumulative_weights(
    num_images: int, weights: NDArray[np.floating] | None
) -> NDArray[np.float64]:
    """(N,) float64 cumulative probabilities of drawing each image."""
    if weights is None:
        weights = np.ones(num_images)
    if weights.shape != (num_images,) or not np.all(weights >= 0) or not weights.sum() > 0:
        raise ValueError(
            f"sampling_weights must be ({num_images},) numbers >= 0 with a positive sum; "
            f"got shape {weights.shape}"
        )
    cumulative = np.cumsum(weights, dtype=np.float64)
    if not math.isfinite(cumulative[-1]):
        raise ValueError("sampling_weights must be finite")
    return cumulative / cumulative[-1]


def _draw_batch(
    images: NDArray[np.uint8],
    pixel_weights: NDArray[np.floating] | None,
    cumulative: NDArray[np.float64],
    options: TrainImageTokenizerOptions,
    step: int,
) -> tuple[Tensor, Tensor | None]:
    """(B, 3, H, W) pixels of one step and their (B, 1, H, W) weights, if there are any.

    They depend on the seed and the step only, so runs resume.
    """
    random = np.random.default_rng([options.seed, step])
    rows = np.searchsorted(cumulative, random.random(options.batch_size), side="right")
    rows = np.minimum(rows, len(images) - 1)
    batch = images[rows]
    weights = None if pixel_weights is None else pixel_weights[rows].astype(np.float32)
    if options.flip:
        is_flipped = random.random(options.batch_size) < 0.5
        batch = np.where(is_flipped[:, None, None, None], batch[:, :, ::-1], batch)
        if weights is not None:
            weights = np.where(is_flipped[:, None, None], weights[:, :, ::-1], weights)
    return images_to_pixels(batch), None if weights is None else torch.from_numpy(weights)[:, None]


def _evaluation_batches(images: NDArray[np.uint8]) -> Iterator[Tensor]:
    check_images(images)
    for start in range(0, len(images), _EVALUATION_BATCH):
        yield images_to_pixels(images[start : start + _EVALUATION_BATCH])
