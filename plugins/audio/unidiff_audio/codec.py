"""Speech tokenizer: a waveform of 0.6 seconds becomes a line of integer codes and back.

A small convolutional autoencoder of log spectrograms with finite scalar quantization (FSQ) between
its halves. One code stands for 12.5 ms. The decoder returns a spectrogram; fast Griffin-Lim finds
a waveform that has it.

Shapes: B waveforms, F = 129 frequencies, T = 96 frames, n = 48 codes, d quantized dimensions.
"""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unidiff.tokens.image import FiniteScalarQuantizer
from unidiff_audio.spectrum import NUM_FREQUENCIES, magnitudes, waveforms_of
from unidiff_audio.speech import NUM_SAMPLES

PRETRAINED_FOLDER = Path(__file__).with_name("tokenizer")

_CONFIG_FILE = "config.json"
_WEIGHTS_FILE = "model.safetensors"
_HOP = 50  # samples between frames: 6.25 ms
_FRAMES_PER_CODE = 2
_NUM_FRAMES = NUM_SAMPLES // _HOP  # the one frame after them is a copy of the last
_GROUPS = 8
_FLOOR = 1e-3  # magnitudes far below this one are not heard: -60 dB
_ROUNDS = 32  # of Griffin-Lim: 8 ms per waveform
_LOUDEST = 1.0  # sample
_CENTRE = -4.0  # mean and spread of log magnitudes of speech, roughly
_SPREAD = 2.0
_LOUDEST_LOG = 0.0  # of a full-scale sine


@dataclass(frozen=True)
class SpeechTokenizerConfig:
    """Sizes of a `SpeechTokenizer`.

    Attributes:
        levels: values per quantized dimension.
        width: channels of every hidden layer, a multiple of 8.
        num_encoder_blocks: residual blocks before, and again after, frames are joined to codes.
        num_decoder_blocks: residual blocks at code resolution.
        num_frame_blocks: residual blocks of the decoder at frame resolution.
    """

    levels: tuple[int, ...] = (8, 6, 5)
    width: int = 96
    num_encoder_blocks: int = 1
    num_decoder_blocks: int = 4
    num_frame_blocks: int = 2

    def __post_init__(self) -> None:
        """Store the levels as a tuple and check the sizes.

        Raises:
            ValueError: if a level is below 2, or the width is not a positive multiple of 8.
        """
        object.__setattr__(self, "levels", tuple(self.levels))
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"levels must be one or more integers >= 2; got {self.levels}")
        if self.width < 1 or self.width % _GROUPS:
            raise ValueError(f"width must be a positive multiple of {_GROUPS}; got {self.width}")


class SpeechTokenizer(nn.Module):
    """Turns waveforms in [-1, 1] at 8 kHz into lines of 48 codes and back.

    Attributes:
        name: "audio".
        plugin: "audio", the entry point that brings it.
        num_codes: number of different codes.
        grid: (1, 48): rows and columns of the codes of one waveform.
        config: its sizes.
    """

    name = "audio"
    plugin = "audio"
    grid = (1, _NUM_FRAMES // _FRAMES_PER_CODE)

    def __init__(self, config: SpeechTokenizerConfig | None = None) -> None:
        super().__init__()
        self.config = config or SpeechTokenizerConfig()
        self.num_codes = math.prod(self.config.levels)
        self.encoder = _build_encoder(self.config)
        self.quantizer = FiniteScalarQuantizer(list(self.config.levels))
        self.decoder = _build_decoder(self.config)

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, F, T) reconstructed log spectrogram of (B, 4800) waveforms; differentiable.

        Gradients pass the rounding unchanged. The target is `log_spectrogram(waveforms)`.
        """
        return self._log_spectrogram_of(self._quantized(waveforms))

    @torch.no_grad()
    def encode(self, value: ArrayLike | Tensor) -> NDArray[np.int64]:
        """Codes of one waveform.

        Args:
            value: (n,) float in [-1, 1] at 8 kHz, 1 <= n <= 4800; zeros are added behind it.

        Returns:
            (48,) int64 in [0, num_codes).

        Raises:
            ValueError: if the shape is wrong, a sample is not finite or lies outside [-1, 1].
            TypeError: if the samples are not floats.
        """
        waveform = _checked_waveform(value)
        padded = F.pad(waveform, (0, NUM_SAMPLES - len(waveform)))
        codes = self.quantizer.to_codes(self._quantized(padded.unsqueeze(0)))
        return codes.flatten().numpy()

    @torch.no_grad()
    def decode(self, codes: ArrayLike | Tensor) -> NDArray[np.float32]:
        """The waveform of a line of codes; deterministic and always finite.

        Args:
            codes: (48,) integers in [0, num_codes).

        Returns:
            (4800,) float32 in [-1, 1] at 8 kHz.

        Raises:
            ValueError: if the shape is wrong or a code is out of range.
            TypeError: if the codes are not integers.
        """
        line = self._checked_codes(codes)
        spectrogram = self._log_spectrogram_of(self.quantizer.to_values(line.reshape(1, 1, -1)))
        magnitude = (torch.exp(spectrogram) - _FLOOR).clamp(min=0)
        full = F.pad(magnitude, (0, 1), mode="replicate")
        waveform = waveforms_of(full, _HOP, NUM_SAMPLES, _ROUNDS)[0]
        return (waveform / waveform.abs().max().clamp(min=_LOUDEST)).numpy()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (float16); each appears whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{_WEIGHTS_FILE}.partial"
        weights = {key: weight.half().contiguous() for key, weight in self.state_dict().items()}
        save_file(weights, temporary)
        os.replace(temporary, folder / _WEIGHTS_FILE)
        temporary = folder / f"{_CONFIG_FILE}.partial"
        temporary.write_text(json.dumps(asdict(self.config), indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, folder / _CONFIG_FILE)

    @classmethod
    def from_pretrained(cls, folder: str | Path = PRETRAINED_FOLDER) -> Self:
        """The tokenizer of a folder, in float32 and evaluation mode; by default the package's.

        Raises:
            FileNotFoundError: if the folder lacks config.json or model.safetensors.
        """
        folder = Path(folder)
        for file in (_CONFIG_FILE, _WEIGHTS_FILE):
            if not (folder / file).is_file():
                raise FileNotFoundError(
                    f"{folder} has no {file}; make one with "
                    f"`python -m unidiff_audio.train_codec --out {folder}`"
                )
        settings = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
        with torch.device("meta"):  # draws no initial weights: the random state is the caller's
            model = cls(SpeechTokenizerConfig(**settings))
        stored = load_file(folder / _WEIGHTS_FILE)
        model.load_state_dict({key: weight.float() for key, weight in stored.items()}, assign=True)
        return model.eval()

    @classmethod
    def default(cls) -> Self:
        """The tokenizer of the package."""
        return cls.from_pretrained()

    def _quantized(self, waveforms: Tensor) -> Tensor:
        """(B, d, 1, n) quantized values of (B, 4800) waveforms."""
        latent = self.encoder(_normalised(log_spectrogram(waveforms)))
        return self.quantizer.quantize(latent.float().unsqueeze(2))

    def _log_spectrogram_of(self, values: Tensor) -> Tensor:
        """(B, F, T) of (B, d, 1, n) quantized values."""
        normalised: Tensor = self.decoder(values.squeeze(2)).float()
        return (normalised * _SPREAD + _CENTRE).clamp(min=math.log(_FLOOR), max=_LOUDEST_LOG)

    def _checked_codes(self, codes: ArrayLike | Tensor) -> Tensor:
        line = torch.as_tensor(codes)
        if line.is_floating_point() or line.is_complex() or line.dtype == torch.bool:
            raise TypeError(f"codes must be integers; got {line.dtype}")
        if line.shape != (self.grid[1],):
            raise ValueError(f"codes must have shape ({self.grid[1]},); got {tuple(line.shape)}")
        if line.min() < 0 or line.max() >= self.num_codes:
            raise ValueError(
                f"codes must be in 0 to {self.num_codes - 1}; got {int(line.min())} to "
                f"{int(line.max())}. Subtract the start of the audio id range first"
            )
        return line.to(torch.int64)


def log_spectrogram(waveforms: Tensor) -> Tensor:
    """(B, F, T) natural logarithm of the magnitudes of (B, 4800) waveforms, floored at -60 dB."""
    return torch.log(magnitudes(waveforms, _HOP)[..., :_NUM_FRAMES] + _FLOOR)


def _normalised(spectrogram: Tensor) -> Tensor:
    return (spectrogram - _CENTRE) / _SPREAD


class _ResidualBlock(nn.Module):
    """Two normalised convolutions of width 3 added to their (B, width, length) input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_GROUPS, width)
        self.conv_in = nn.Conv1d(width, width, 3, padding=1)
        self.norm_out = nn.GroupNorm(_GROUPS, width)
        self.conv_out = nn.Conv1d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        update = self.conv_in(F.silu(self.norm_in(hidden)))
        result: Tensor = hidden + self.conv_out(F.silu(self.norm_out(update)))
        return result


def _build_encoder(config: SpeechTokenizerConfig) -> nn.Sequential:
    width = config.width
    layers: list[nn.Module] = [nn.Conv1d(NUM_FREQUENCIES, width, 3, padding=1)]
    layers += [_ResidualBlock(width) for _ in range(config.num_encoder_blocks)]
    layers += [nn.Conv1d(width, width, 4, stride=_FRAMES_PER_CODE, padding=1)]
    layers += [_ResidualBlock(width) for _ in range(config.num_encoder_blocks)]
    layers += [nn.GroupNorm(_GROUPS, width), nn.SiLU(), nn.Conv1d(width, len(config.levels), 1)]
    return nn.Sequential(*layers)


def _build_decoder(config: SpeechTokenizerConfig) -> nn.Sequential:
    width = config.width
    layers: list[nn.Module] = [nn.Conv1d(len(config.levels), width, 3, padding=1)]
    layers += [_ResidualBlock(width) for _ in range(config.num_decoder_blocks)]
    layers += [nn.ConvTranspose1d(width, width, 4, stride=_FRAMES_PER_CODE, padding=1)]
    layers += [_ResidualBlock(width) for _ in range(config.num_frame_blocks)]
    layers += [nn.GroupNorm(_GROUPS, width), nn.SiLU()]
    layers += [nn.Conv1d(width, NUM_FREQUENCIES, 3, padding=1)]
    return nn.Sequential(*layers)


def _checked_waveform(value: ArrayLike | Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        array = np.ascontiguousarray(np.asarray(value))
        if array.dtype.kind not in "biuf":
            raise TypeError(f"a waveform must be an array of floats; got {type(value).__name__}")
        value = torch.from_numpy(array)
    waveform = value
    if not waveform.is_floating_point():
        raise TypeError(
            f"a waveform must be floats in [-1, 1]; got {waveform.dtype}. "
            "Divide 16-bit samples by 32768"
        )
    if waveform.ndim != 1 or not 1 <= len(waveform) <= NUM_SAMPLES:
        raise ValueError(
            f"a waveform must have shape (n,) with 1 <= n <= {NUM_SAMPLES} (0.6 s at 8 kHz); "
            f"got {tuple(waveform.shape)}. Cut it, or encode one channel and one waveform at a time"
        )
    waveform = waveform.detach().float()
    if not torch.isfinite(waveform).all():
        raise ValueError("a waveform must be finite; got NaN or infinity")
    if waveform.abs().max() > _LOUDEST:
        raise ValueError(
            f"samples must be in [-1, 1]; got a peak of {float(waveform.abs().max()):.4g}. "
            "Divide the waveform by its peak"
        )
    return waveform
