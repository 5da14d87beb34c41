"""Decoding options: names and defaults in one table, foreign names, checks of the values."""

import sys
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from .grammar_checks import check_choices, check_regex, check_schema

CONFIDENCE_METRICS = ("prob", "margin", "entropy", "sampled_prob")
UNMASKING_STRATEGIES = (
    "static",
    "random",
    "sequential",
    "threshold",
    "dynamic",
    "relative_threshold",
    "factor",
    "frechet",
    "entropy_bound",
    "cosine",
    "ascending",
    "timetable",
    "first_hitting",
    "hierarchy",
    "remdm",
)
UNIFORM_STRATEGIES = ("ancestral",)  # only under uniform noise
REVISIONS = ("secondary", "edit", "renoise")
GUIDANCE_LEVELS = ("logits", "posterior")
REMDM_SCHEDULES = ("cap", "rescale", "confidence", "loop")
DECODING_MODES = ("diffusion", "ar", "self_speculative", "auto")
CACHE_IMPLEMENTATIONS = ("dynamic", "static")
APPROXIMATE_CACHE_REUSES = ("prefix", "dual", "delayed", "interval", "elastic")
CACHE_REUSES = ("exact", "none", *APPROXIMATE_CACHE_REUSES)

# Option -> default. None: the documented value that follows from the checkpoint.
OPTIONS: dict[str, Any] = {
    "max_new_tokens": None,  # tokens; None: `max_length` less the prompt, else one canvas
    "max_length": None,  # tokens of prompt columns and response together
    "block_length": None,  # tokens denoised together; None: the checkpoint's canvas_length
    "sub_block_length": None,  # text positions of a block revealed before the next ones; None: all
    "block_delimiters": None,  # token ids at which a block may end early (adaptive); None: fixed
    "delimiter_threshold": 0.3,  # least confidence of such a delimiter, in (0, 1]
    "delimiter_window": None,  # positions looked ahead for one; None: block_length
    "max_denoising_steps": None,  # forwards per (sub-)block; None: one per token of it
    "unmasking_strategy": "threshold",  # a name, or a callable as UnmaskingStrategy
    "confidence_threshold": 0.9,  # in (0, 1]
    "confidence_metric": "prob",
    "confidence_noise": 0.0,  # scale of the Gumbel noise on log confidence (cosine)
    "factor": 1.0,  # doubt taken at once (factor)
    "frechet_margin": 0.25,  # in [0, 1] (frechet)
    "entropy_bound": 0.1,  # nats (entropy_bound)
    "hierarchy_threshold": 0.4,  # least confidence of a run's best position (hierarchy)
    "remdm_schedule": "cap",  # when visible tokens are masked again (remdm)
    "remdm_eta": 0.05,  # how many, in [0, 1] (remdm)
    "revision": None,  # a name, or a critic: ids and revisable positions to scores
    "revision_threshold": 0.5,  # bound on probability (secondary) or score (critic)
    "revision_drop": 0.3,  # loss of probability since the reveal (secondary)
    "edit_threshold": 0.9,  # least probability of the other token (edit)
    "max_post_edit_steps": 16,  # forwards behind the last mask while tokens still change (edit)
    "stability_steps": 1,  # steps of unchanged likeliest tokens that may end a block (renoise)
    "stability_entropy": 0.005,  # mean entropy in nats below which they end it (renoise)
    "eos_early_rejection": None,  # factor on an end token's confidence at the first step; None: off
    "suppress_eos_before": 0,  # response tokens among which no end token may be
    "regex": None,  # what the response must match as a whole; needs `tokenizer=`
    "json_schema": None,  # JSON text or dictionary that the response must follow; likewise
    "choices": None,  # strings, one of which the response must be; likewise
    "do_sample": False,
    "temperature": 1.0,  # 0 is greedy
    "top_k": None,  # tokens kept; None or 0: all
    "top_p": 1.0,  # probability mass kept
    "seed": None,  # None: drawn by the operating system, returned as `row_seeds`
    "eos_token_id": None,  # None: the layout's end ids; -1: never stop
    "bos_token_id": None,  # what an empty prompt starts from
    "pad_token_id": None,  # None: the layout's
    "stop_strings": None,  # needs `tokenizer=`
    "cache_reuse": None,  # None: "exact", or "none" for full attention
    "reuse_interval": None,  # steps between full refreshes; None: the kind's own
    "reuse_prompt_interval": 100,  # steps between refreshes of the prompt (interval)
    "reuse_share": 0.25,  # of the response, recomputed between refreshes, in (0, 1] (interval)
    "reuse_gamma": 0.9,  # least cosine of attention that still counts as unchanged (elastic)
    "reuse_window": None,  # masked positions recomputed every step (elastic); None: those to reveal
    "decoding_mode": "diffusion",  # auto: self_speculative while its drafts pay, else ar
    "draft_length": 2,  # tokens that a canvas drafts at a time (self_speculative)
    "draft_lookup": True,  # self_speculative also drafts what followed the same tokens before
    "guidance_scale": 1.0,  # classifier-free guidance; 1 is off; a list: one for each condition
    "guidance_schedule": "constant",  # over the steps of a block: also rising, falling
    "guidance_level": None,  # what is mixed; None: posterior for ancestral, else logits
    "guidance_interval": [0.0, 1.0],  # share of a block's steps in which guidance applies
    "prefill_chunk_length": None,  # prompt tokens per forward; None: all at once
    "cache_implementation": "dynamic",  # "static": shapes that seldom change, for torch.compile
    "prepack_weights": False,  # decode from a second, faster copy of the weights (CPU)
    "fuse_commit": True,  # store a block in the forward that starts the next one
    "return_dict_in_generate": False,
    "use_cache": True,  # whether the output carries `past_key_values` for the next turn
    "return_trace": False,  # step, place and confidence of every reveal
    "return_logprobs": False,  # log-probability of each token when it was revealed, nats
}
PER_ROW = (
    "max_new_tokens",
    "max_denoising_steps",
    "confidence_threshold",
    "temperature",
    "seed",
    "eos_token_id",
    "regex",
    "json_schema",
)
_LARGEST_COUNT = 2**31 - 1
# Options whose lists may hold None, the default.
NONE_PER_ROW = ("max_denoising_steps", "regex", "json_schema")
# Another project's name -> ours.
FOREIGN_NAMES = {
    "gen_length": "max_new_tokens",
    "max_gen_toks": "max_new_tokens",
    "canvas_length": "block_length",
    "block_size": "block_length",
    "bd_size": "block_length",
    "small_block_size": "sub_block_length",
    "delimiter_ids": "block_delimiters",
    "dllm_block_length": "block_length",
    "steps": "max_denoising_steps",
    "num_steps": "max_denoising_steps",
    "denoising_steps": "max_denoising_steps",
    "diffusion_steps": "max_denoising_steps",
    "num_inference_steps": "max_denoising_steps",
    "dllm_denoising_steps": "max_denoising_steps",
    "remasking": "unmasking_strategy",
    "remasking_strategy": "unmasking_strategy",
    "alg": "unmasking_strategy",
    "schedule": "unmasking_strategy",
    "dllm_unmasking_strategy": "unmasking_strategy",
    "threshold": "confidence_threshold",
    "dynamic_threshold": "confidence_threshold",
    "dllm_confidence_threshold": "confidence_threshold",
    "alg_temp": "confidence_noise",
    "eb_threshold": "entropy_bound",
    "low_threshold": "hierarchy_threshold",
    "editing_threshold": "edit_threshold",
    "stability_threshold": "stability_steps",
    "logits_eos_inf": "suppress_eos_before",
    "confidence_eos_eot_inf": "eos_early_rejection",
    "cfg_scale": "guidance_scale",
    "cfg": "guidance_scale",
    "dual_cache": "cache_reuse",
    "cache_gamma": "reuse_gamma",
    "prompt_interval_steps": "reuse_prompt_interval",
    "gen_interval_steps": "reuse_interval",
    "transfer_ratio": "reuse_share",
    "use_block_cache": "cache_reuse",
    "generator": "seed",
    "prefill_chunk_size": "prefill_chunk_length",
}


def reject_option(name: str) -> NoReturn:
    """Raise the ValueError for a name that is not an option."""
    if name in FOREIGN_NAMES:
        raise ValueError(f"{name!r} is called {FOREIGN_NAMES[name]!r} here")
    raise ValueError(f"unknown decoding option {name!r}; the options are {sorted(OPTIONS)}")


def plain_option(name: str, value: Any) -> Any:
    """An option's value without arrays and tensors: Python numbers, and lists of them.

    Args:
        name: the option.
        value: anything; a tensor or array of no dimension is a number, except that a `seed` is the
            key of one row, as `row_seeds[i]` of an output is.
    """
    if isinstance(value, Tensor) and value.ndim == 0 and name == "seed":
        return [value.item()]
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain_option("", item) for item in value]
    return value


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
    "max_length": _check_count(0),
    "block_length": _check_count(1),
    "sub_block_length": _check_count(1),
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
    "hierarchy_threshold": _check_number(0.0, 1.0, low_included=True),
    "remdm_schedule": _check_name(REMDM_SCHEDULES),
    "remdm_eta": _check_number(0.0, 1.0, low_included=True),
    "revision": _check_revision,
    "revision_threshold": _check_number(0.0, 1.0, low_included=True),
    "revision_drop": _check_number(0.0, 1.0, low_included=True),
    "edit_threshold": _check_number(0.0, 1.0, low_included=True),
    "max_post_edit_steps": _check_count(0),
    "stability_steps": _check_count(0),
    "stability_entropy": _check_number(0.0, float("inf"), low_included=True),
    "eos_early_rejection": _check_number(0.0, 1.0, low_included=True),
    "suppress_eos_before": _check_count(0),
    "regex": check_regex,
    "json_schema": check_schema,
    "choices": check_choices,
    "do_sample": _check_flag,
    "temperature": _check_number(0.0, float("inf"), low_included=True),
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
    "prefill_chunk_length": _check_count(1),
    "stop_strings": _check_strings,
    "cache_implementation": _check_name(CACHE_IMPLEMENTATIONS),
    "prepack_weights": _check_flag,
    "fuse_commit": _check_flag,
    "return_dict_in_generate": _check_flag,
    "return_logprobs": _check_flag,
    "return_trace": _check_flag,
}
