"""Spectrograms of speech, and waveforms that have a given spectrogram.

Shapes: B waveforms, N samples at 8 kHz, F = 129 frequencies of 31.25 Hz each, T frames.
"""

import math

import torch
from torch import Tensor

from unidiff_audio.speech import SAMPLE_RATE

NUM_FREQUENCIES = 129
_WINDOW = 2 * (NUM_FREQUENCIES - 1)  # samples: 32 ms
_FULL_SCALE = _WINDOW / 4  # magnitude of a sine of amplitude 1 under a Hann window
_MOMENTUM = 0.99  # of fast Griffin-Lim (Perraudin et al. 2013)
_TINY = 1e-9


def magnitudes(waveforms: Tensor, hop: int) -> Tensor:
    """(B, F, N // hop + 1) magnitudes of (B, N) waveforms; a full-scale sine has magnitude 1.

    Args:
        waveforms: (B, N) float.
        hop: samples between frames.
    """
    return _transform(waveforms, hop).abs() / _FULL_SCALE


def mel_filters(num_bands: int) -> Tensor:
    """(num_bands, F) float32 triangular filters from 0 to 4 kHz, evenly spaced in mel.

    Mel of f Hz: 2595 log10(1 + f / 700) (HTK). Each filter sums to 1.
    """
    highest = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, highest, num_bands + 2) / 2595) - 1)
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, NUM_FREQUENCIES)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    return filters / filters.sum(1, keepdim=True).clamp(min=_TINY)


def waveforms_of(magnitude: Tensor, hop: int, num_samples: int, rounds: int) -> Tensor:
    """Waveforms whose spectrogram is close to the given one; deterministic.

    The phase is found by fast Griffin-Lim from the same random phase at every call.

    Args:
        magnitude: (B, F, num_samples // hop + 1) float >= 0, scaled as by `magnitudes`.
        hop: samples between frames.
        num_samples: N.
        rounds: how often the phase is improved.

    Returns:
        (B, N) float, not clamped.
    """
    generator = torch.Generator().manual_seed(0)
    angles = torch.rand(magnitude.shape[1:], generator=generator) * 2 * math.pi
    scaled = magnitude * _FULL_SCALE
    estimate = torch.polar(scaled, angles.expand_as(scaled))
    previous = torch.zeros_like(estimate)
    for _ in range(rounds):
        consistent = _transform(_invert(estimate, hop, num_samples), hop)
        moved = consistent + _MOMENTUM * (consistent - previous)
        estimate = scaled * moved / moved.abs().clamp(min=_TINY)
        previous = consistent
    return _invert(estimate, hop, num_samples)


def _transform(waveforms: Tensor, hop: int) -> Tensor:
    window = torch.hann_window(_WINDOW)
    return torch.stft(
        waveforms, _WINDOW, hop, window=window, pad_mode="constant", return_complex=True
    )


def _invert(spectrum: Tensor, hop: int, num_samples: int) -> Tensor:
    return torch.istft(
        spectrum, _WINDOW, hop, window=torch.hann_window(_WINDOW), length=num_samples
    )
