"""Decoding options of each task where the user gives none.

Drawing, acting and library text are decoded as the suite `bundled` measures them, so a number in
the model card is about what the commands do. Answers are decoded as the checkpoint itself says.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

SUITE = "bundled"
TEXT: dict[str, Any] = {
    "max_new_tokens": 64,
    "unmasking_strategy": "cosine",
    "confidence_metric": "margin",
    "max_denoising_steps": 8,
    "block_length": 20,
}
_LONGEST_ANSWER = 48  # tokens, where the checkpoint does not say
TEXT_HOLES: dict[str, Any] = {"unmasking_strategy": "static", "max_denoising_steps": 3}
_LONGEST_HOLE = 12  # tokens, as measured; longer ones get more steps


def completing(model: Any) -> dict[str, Any]:
    """Options of continuing a text.

    Weights with a trained grid keep their own blocks, and a checkpoint that says how it is decoded
    is decoded so.
    """
    if {"unmasking_strategy", "decoding_mode"} & set(model.generation_config.given()):
        return {"max_new_tokens": TEXT["max_new_tokens"]}
    if model.config.attention_pattern != "block_causal":
        return dict(TEXT)
    return {name: value for name, value in TEXT.items() if name != "block_length"}


def answering(model: Any) -> dict[str, Any]:
    """Options of an answer; a checkpoint that says how long answers may become is obeyed."""
    is_said = model.generation_config.max_new_tokens is not None
    return {} if is_said else {"max_new_tokens": _LONGEST_ANSWER}


def filling(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Options of filling holes in a text, at the pace measured for short holes.

    Args:
        inputs: what a `for_...` method of the processor returned.
    """
    is_hole = ~inputs["pinned_mask"].bool() & (inputs["canvas_modality_ids"] >= 0)
    steps = TEXT_HOLES["max_denoising_steps"]
    rounds = -(-int(is_hole.sum(1).max()) // _LONGEST_HOLE)
    return {**TEXT_HOLES, "max_denoising_steps": steps * max(1, rounds)}


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
