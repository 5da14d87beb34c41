"""Whether an option's value is possible, by its name alone; `fit.py` knows what goes together."""

import sys
from numbers import Integral, Real
from typing import Any

from .grammar_checks import check_choices, check_regex, check_schema
from .options import (
    CACHE_IMPLEMENTATIONS,
    CACHE_REUSES,
    CONFIDENCE_METRICS,
    DECODING_MODES,
    GREEDY_CHOICES,
    GUIDANCE_LEVELS,
    NONE_PER_ROW,
    PER_ROW,
    REMDM_SCHEDULES,
    REVISIONS,
    UNIFORM_STRATEGIES,
    UNMASKING_STRATEGIES,
)

_LARGEST_COUNT = 2**31 - 1


def check_option(name: str, value: Any) -> None:
    """Raise ValueError or TypeError if an option's value is impossible; lists are per row."""
    if isinstance(value, (list, tuple)) and name in PER_ROW and name != "eos_token_id":
        for item in value:
            if item is not None:
                _CHECKS[name](name, item)  # not check_option: a row's value is no list again
            elif name not in NONE_PER_ROW:
                raise ValueError(f"{name} needs a value for every row, got None in {value!r}")
        return
    check = _CHECKS.get(name)
    if check is not None:
        check(name, value)


def check_count(name: str, value: Any, minimum: int, maximum: int | None = _LARGEST_COUNT) -> None:
    """Raise TypeError or ValueError unless a value is an integer in range; no `maximum`: None."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if int(value) < minimum:
        raise ValueError(f"{name} must be >= {minimum}, got {value}")
    if maximum is not None and int(value) > maximum:
        raise ValueError(f"{name} must be <= {maximum}, got {value}")


def _check_count(minimum: int, maximum: int | None = _LARGEST_COUNT) -> Any:
    """A check for integers from `minimum` to `maximum`; None: without end."""
    return lambda name, value: check_count(name, value, minimum, maximum)


def _check_number(low: float, high: float, low_included: bool) -> Any:
    """A check for finite numbers between two bounds, the upper one included where finite."""
    highest = min(high, sys.float_info.max)
    interval = f"{'[' if low_included else '('}{low:g}, {high:g}{']' if highest == high else ')'}"

    def check(name: str, value: Any) -> None:
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number:
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not (low <= value <= highest) or (value == low and not low_included):
            raise ValueError(f"{name} must be in {interval}, got {value}")

    return check


def _check_ids(name: str, value: Any) -> None:
    """Raise an error unless the value is an id, a list of ids, or a list of such lists."""
    for item in value if isinstance(value, (list, tuple)) else ():
        _check_ids(name, item)
    if isinstance(value, bool) or not isinstance(value, (Integral, list, tuple)):
        raise TypeError(f"{name} must be token ids (-1 for none), got {value!r}")
    if isinstance(value, Integral) and int(value) < -1:
        raise ValueError(f"{name} must be token ids (-1 for none), got {value}")


def _check_scales(name: str, value: Any) -> None:
    """A check for one scale or a list of them."""
    for item in value if isinstance(value, (list, tuple)) and value else [value]:
        _check_number(0.0, float("inf"), low_included=True)(name, item)


def _check_interval(name: str, value: Any) -> None:
    """Raise an error unless the value is two numbers in [0, 1], the smaller first."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise TypeError(f"{name} must be two numbers [start, stop], got {value!r}")
    for item in value:
        _check_number(0.0, 1.0, low_included=True)(name, item)
    if value[0] > value[1]:
        raise ValueError(f"{name} must have start <= stop, got {value!r}")


def _check_delimiters(name: str, value: Any) -> None:
    """Raise an error unless the value is a list of token ids, at least one."""
    if not isinstance(value, (list, tuple)) or not value:
        raise TypeError(f"{name} must be a list of token ids, got {value!r}")
    for item in value:
        _check_count(0)(name, item)


def _check_flag(name: str, value: Any) -> None:
    """Raise TypeError unless the value is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def _check_name(known: tuple[str, ...]) -> Any:
    """A check for one of the known names."""

    def check(name: str, value: Any) -> None:
        if value not in known:
            raise ValueError(f"{name} must be one of {known}, got {value!r}")

    return check


def _check_strings(name: str, value: Any) -> None:
    """Raise an error unless the value is a string that is not empty, or a list of such."""
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if not isinstance(item, str):
            raise TypeError(f"{name} must be a string or a list of strings, got {value!r}")
        if not item:
            raise ValueError(f"{name} must not be empty, got {value!r}")


def _check_strategy(name: str, value: Any) -> None:
    """A check for a strategy's name; a callable is a strategy of the caller's own."""
    if not callable(value):
        _check_name(UNMASKING_STRATEGIES + UNIFORM_STRATEGIES)(name, value)


def _check_revision(name: str, value: Any) -> None:
    """A check for a revision's name; a callable is a critic."""
    if not callable(value):
        _check_name(REVISIONS)(name, value)


_CHECKS = {
    "max_new_tokens": _check_count(0),
    "max_infill_tokens": _check_count(1),
    "max_length": _check_count(0),
    "block_length": _check_count(1),
    "sub_block_length": _check_count(1),
    "first_alone": _check_flag,
    "block_delimiters": _check_delimiters,
    "delimiter_threshold": _check_number(0.0, 1.0, low_included=False),
    "delimiter_window": _check_count(1),
    "max_denoising_steps": _check_count(1),
    "unmasking_strategy": _check_strategy,
    "confidence_threshold": _check_number(0.0, 1.0, low_included=False),
    "confidence_metric": _check_name(CONFIDENCE_METRICS),
    "confidence_noise": _check_number(0.0, float("inf"), low_included=True),
    "factor": _check_number(0.0, float("inf"), low_included=False),
    "frechet_margin": _check_number(0.0, 1.0, low_included=True),
    "entropy_bound": _check_number(0.0, float("inf"), low_included=True),
    "final_entropy_bound": _check_number(0.0, float("inf"), low_included=True),
    "local_entropy_bound": _check_number(0.0, float("inf"), low_included=True),
    "final_local_entropy_bound": _check_number(0.0, float("inf"), low_included=True),
    "local_reach": _check_count(0),
    "hierarchy_threshold": _check_number(0.0, 1.0, low_included=True),
    "remdm_schedule": _check_name(REMDM_SCHEDULES),
    "remdm_eta": _check_number(0.0, 1.0, low_included=True),
    "revision": _check_revision,
    "revision_threshold": _check_number(0.0, 1.0, low_included=True),
    "revision_drop": _check_number(0.0, 1.0, low_included=True),
    "resample_share": _check_number(0.0, 1.0, low_included=False),
    "resample_rounds": _check_count(1),
    "edit_threshold": _check_number(0.0, 1.0, low_included=True),
    "max_post_edit_steps": _check_count(0),
    "stability_steps": _check_count(0),
    "stability_entropy": _check_number(0.0, float("inf"), low_included=True),
    "eos_early_rejection": _check_number(0.0, 1.0, low_included=True),
    "suppress_eos_before": _check_count(0),
    "regex": check_regex,
    "json_schema": check_schema,
    "choices": check_choices,
    "adapter_names": _check_strings,
    "do_sample": _check_flag,
    "temperature": _check_number(0.0, float("inf"), low_included=True),
    "greedy_choice": _check_name(GREEDY_CHOICES),
    "top_k": _check_count(0),
    "top_p": _check_number(0.0, 1.0, low_included=False),
    "seed": _check_count(-(2**63), None),
    "eos_token_id": _check_ids,
    "bos_token_id": _check_count(0),
    "pad_token_id": _check_count(0),
    "use_cache": _check_flag,
    "cache_reuse": _check_name(CACHE_REUSES),
    "reuse_interval": _check_count(1),
    "reuse_prompt_interval": _check_count(1),
    "reuse_share": _check_number(0.0, 1.0, low_included=False),
    "reuse_gamma": _check_number(-1.0, float("inf"), low_included=True),
    "reuse_window": _check_count(1),
    "decoding_mode": _check_name(DECODING_MODES),
    "draft_length": _check_count(1),
    "draft_lookup": _check_flag,
    "guidance_scale": _check_scales,
    "guidance_schedule": _check_name(("constant", "rising", "falling")),
    "guidance_level": _check_name(GUIDANCE_LEVELS),
    "guidance_interval": _check_interval,
    "guidance_refresh": _check_count(1),
    "prefill_chunk_length": _check_count(1),
    "stop_strings": _check_strings,
    "cache_implementation": _check_name(CACHE_IMPLEMENTATIONS),
    "prepack_weights": _check_flag,
    "fuse_commit": _check_flag,
    "return_dict_in_generate": _check_flag,
    "return_logprobs": _check_flag,
    "return_trace": _check_flag,
}
