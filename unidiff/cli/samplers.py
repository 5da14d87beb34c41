"""Decoding options of each task where the user gives none."""

from typing import Any

TEXT: dict[str, Any] = {"max_new_tokens": 64}
ANSWER: dict[str, Any] = {"max_new_tokens": 32}
COMPLETION: dict[str, Any] = {"max_new_tokens": 64}
INFILLING: dict[str, Any] = {}
DRAWING: dict[str, Any] = {
    "unmasking_strategy": "cosine",
    "max_denoising_steps": 24,
    "do_sample": True,
    "temperature": 1.0,
    "confidence_noise": 2.0,
}
IMAGE_INFILLING: dict[str, Any] = {**DRAWING, "max_denoising_steps": 16}
ACTING: dict[str, Any] = {"unmasking_strategy": "static", "max_denoising_steps": 8}
