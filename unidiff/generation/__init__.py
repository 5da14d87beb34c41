"""Decoding of masked diffusion: blocks, order, pace, streamers."""

from .config import UniDiffGenerationConfig
from .denoiser import Denoiser, Run
from .generate import generate
from .inputs import GenerationInputs
from .output import UniDiffGenerateOutput

__all__ = [
    "Denoiser",
    "GenerationInputs",
    "Run",
    "UniDiffGenerateOutput",
    "UniDiffGenerationConfig",
    "generate",
]
