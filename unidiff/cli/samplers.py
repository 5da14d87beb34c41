"""Decoding options of each task where the user gives none.

Drawing and acting are decoded as the suite `bundled` measures them, so a number in the model card
is about what the commands do.
"""

from functools import cache
from typing import Any

SUITE = "bundled"
TEXT: dict[str, Any] = {"max_new_tokens": 64}
ANSWER: dict[str, Any] = {"max_new_tokens": 48}
TEXT_HOLES: dict[str, Any] = {"unmasking_strategy": "static"}  # one token per forward


def drawing(of: str = "scene") -> dict[str, Any]:
    """Options of drawing a "scene" or a "garment", and of filling holes in pictures."""
    return _measured(f"{of}_drawings")


def acting() -> dict[str, Any]:
    """Options of planning one chunk of actions."""
    return _measured("control")


def replan_every() -> int:
    """Actions carried out of each chunk."""
    return int(_suite()["control"]["replan_every"])


def _measured(group: str) -> dict[str, Any]:
    """Keywords of `generate()` that the suite uses for a group of metrics."""
    options = dict(_suite()[group]["sampler"])
    options.pop("batch_size", None)
    return options


@cache
def _suite() -> dict[str, Any]:
    """The suite's definition."""
    from unidiff.evaluation.suite import load_suite

    return load_suite(SUITE)
