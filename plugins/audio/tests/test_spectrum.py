"""Spectrograms: their scale, and the mel filters."""

import math

import torch
from unidiff_audio.spectrum import NUM_FREQUENCIES, magnitudes, mel_filters, waveforms_of

TONE = torch.sin(2 * math.pi * 1000 * torch.arange(4800) / 8000).unsqueeze(0)  # 1 kHz


def test_full_scale_sine_has_magnitude_1():
    spectrum = magnitudes(TONE, 50)
    assert spectrum.shape == (1, NUM_FREQUENCIES, 97)
    middle = spectrum[0, :, 40]
    assert middle.argmax() == 32  # of 31.25 Hz each
    torch.testing.assert_close(middle.max(), torch.tensor(1.0), atol=1e-3, rtol=0)


def test_mel_filters_average_and_rise_in_frequency():
    filters = mel_filters(40)
    torch.testing.assert_close(filters.sum(1), torch.ones(40))
    centres = filters @ torch.arange(NUM_FREQUENCIES).float()
    assert (centres.diff() > 0).all()


def test_waveform_has_the_spectrogram():
    spectrum = magnitudes(TONE, 50)
    again = magnitudes(waveforms_of(spectrum, 50, 4800, rounds=32), 50)
    assert (again - spectrum).norm() < 0.1 * spectrum.norm()
