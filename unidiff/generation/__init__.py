"""Decoding of masked diffusion: blocks, order, pace, streamers."""

from .config import UniDiffGenerationConfig
from .denoiser import Denoiser, Run
from .generate import generate
from .inputs import GenerationInputs
from .output import UniDiffGenerateOutput
from .session import DecodingSession

__all__ = [
    "DecodingSession",
    "Denoiser",
    "GenerationInputs",
    "Run",
    "UniDiffGenerateOutput",
    "UniDiffGenerationConfig",
    "generate",
]
