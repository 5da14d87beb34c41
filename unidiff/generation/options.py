"""Decoding options: names and defaults in one table, and the names that others give them."""

from typing import Any, NoReturn

import numpy as np
from torch import Tensor

GREEDY_CHOICES = ("mode", "median")
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
REVISIONS = ("secondary", "resample", "edit", "renoise")
GUIDANCE_LEVELS = ("logits", "posterior")
REMDM_SCHEDULES = ("cap", "rescale", "confidence", "loop")
DECODING_MODES = ("diffusion", "ar", "self_speculative", "auto", "ar_text")
CACHE_IMPLEMENTATIONS = ("dynamic", "static")
APPROXIMATE_CACHE_REUSES = ("prefix", "dual", "delayed", "interval", "elastic")
CACHE_REUSES = ("exact", "none", *APPROXIMATE_CACHE_REUSES)

# Option -> default. None: the documented value that follows from the checkpoint.
OPTIONS: dict[str, Any] = {
    "max_new_tokens": None,  # tokens; None: `max_length` less the prompt, else one canvas
    "max_infill_tokens": None,  # tokens that a canvas's holes may grow to; None: fixed holes
    "max_length": None,  # tokens of prompt columns and response together
    "block_length": None,  # tokens denoised together; None: the checkpoint's canvas_length
    "sub_block_length": None,  # text positions of a block revealed before the next ones; None: all
    "block_delimiters": None,  # token ids at which a block may end early (adaptive); None: fixed
    "delimiter_threshold": 0.3,  # least confidence of such a delimiter, in (0, 1]
    "delimiter_window": None,  # positions looked ahead for one; None: block_length
    "first_alone": False,  # whether a block's first position is revealed before all others
    "max_denoising_steps": None,  # forwards per (sub-)block; None: one per token of it
    "unmasking_strategy": "threshold",  # a name, or a callable as UnmaskingStrategy
    "confidence_threshold": 0.9,  # in (0, 1]
    "confidence_metric": "prob",
    "confidence_noise": 0.0,  # scale of the Gumbel noise on log confidence (cosine)
    "factor": 1.0,  # doubt taken at once (factor)
    "frechet_margin": 0.25,  # in [0, 1] (frechet)
    "entropy_bound": 0.1,  # nats (entropy_bound)
    "final_entropy_bound": None,  # nats at the block's end (entropy_bound); None: entropy_bound
    "local_entropy_bound": None,  # nats among near positions (entropy_bound); None: no such bound
    "final_local_entropy_bound": None,  # nats at the block's end; None: local_entropy_bound
    "local_reach": 2,  # distance along each axis at which positions are near (entropy_bound)
    "hierarchy_threshold": 0.4,  # least confidence of a run's best position (hierarchy)
    "remdm_schedule": "cap",  # when visible tokens are masked again (remdm)
    "remdm_eta": 0.05,  # how many, in [0, 1] (remdm)
    "revision": None,  # a name, or a critic: ids and revisable positions to scores
    "revision_threshold": 0.5,  # bound on probability (secondary) or score (critic)
    "revision_drop": 0.3,  # loss of probability since the reveal (secondary)
    "resample_share": 0.25,  # of a block, given back when it is full, in (0, 1] (resample)
    "resample_rounds": 1,  # how often (resample)
    "edit_threshold": 0.9,  # least probability of the other token (edit)
    "max_post_edit_steps": 16,  # forwards behind the last mask while tokens still change (edit)
    "stability_steps": 1,  # steps of unchanged likeliest tokens that may end a block (renoise)
    "stability_entropy": 0.005,  # mean entropy in nats below which they end it (renoise)
    "eos_early_rejection": None,  # factor on an end token's confidence at the first step; None: off
    "suppress_eos_before": 0,  # response tokens among which no end token may be
    "regex": None,  # what the response must match as a whole; needs `tokenizer=`
    "json_schema": None,  # JSON text or dictionary that the response must follow; likewise
    "choices": None,  # strings, one of which the response must be; likewise
    "adapter_names": None,  # adapter of each row, "__base__" for none; None: what is active
    "do_sample": False,
    "temperature": 1.0,  # 0 is greedy
    "greedy_choice": "mode",  # the likeliest token; "median": of actions and states the middle one
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
    "decoding_mode": "diffusion",  # auto: self_speculative while its drafts pay, else ar;
    # ar_text: ar where text is continued, diffusion where a canvas is given
    "draft_length": 2,  # tokens that a canvas drafts at a time (self_speculative)
    "draft_lookup": True,  # self_speculative also drafts what followed the same tokens before
    "guidance_scale": 1.0,  # classifier-free guidance; 1 is off; a list: one for each condition
    "guidance_schedule": "constant",  # over the steps of a block: also rising, falling
    "guidance_level": None,  # what is mixed; None: posterior for ancestral, else logits
    "guidance_interval": [0.0, 1.0],  # share of a block's steps in which guidance applies
    "guidance_refresh": 1,  # steps between forwards of the weaker branches; else their last logits
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
    "adapter_names",
)
# Options whose lists may hold None, the default.
NONE_PER_ROW = ("max_denoising_steps", "regex", "json_schema", "adapter_names")
BASE = "__base__"  # adapter name of a row that no adapter reads, as in peft
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
