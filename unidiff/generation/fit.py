"""Whether options, tensors and checkpoint fit together, and the policy that the options name."""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from unidiff.tokens.layout import MODALITY_IDS

from .blocks import Blocks
from .branches import check_branches
from .constraints import LogitsProcessor
from .denoiser import WHOLE_PATTERNS, Denoiser
from .guidance import guidance_of
from .inputs import GenerationInputs
from .lockstep import Policy
from .reuse import check_reuse, is_approximate
from .revision import revision_of
from .rows import Row
from .strategies import unmasking_strategy
from .stretching import check_stretching
from .uniform_noise import check_noise

logger = logging.getLogger(__name__)

_BY_SHARE = ("final_entropy_bound", "final_local_entropy_bound")


def check_options(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> bool:
    """Whether the cache is exact.

    Raises:
        ValueError: if options and checkpoint disagree.
    """
    pattern, block_length = denoiser.attention_pattern, options["block_length"]
    if pattern == "block_causal" and block_length not in (None, denoiser.canvas_length):
        raise ValueError(
            f"block_length must equal the trained grid {denoiser.canvas_length} of block_causal "
            f"weights, got {block_length}: leave it out"
        )
    check_reuse(pattern, options)
    if pattern == "prefix" and options["prefill_chunk_length"] is not None:
        raise ValueError(
            "prefill_chunk_length cuts a prompt whose tokens see all of it under "
            "attention_pattern='prefix': leave it out"
        )
    mode = options["decoding_mode"]
    if mode == "ar_text":
        raise ValueError(
            "decoding_mode='ar_text' goes by what a call of generate() asks for: in a session say "
            "'ar' for texts or 'diffusion' for canvases"
        )
    if mode != "diffusion" and pattern != "causal_context":
        raise ValueError(
            f"decoding_mode={mode!r} continues text with attention_pattern='causal_context'; this "
            f"checkpoint is {pattern!r}"
        )
    check_noise(denoiser, options)
    if options["max_infill_tokens"] is not None and denoiser.layout.expand_token_id is None:
        raise ValueError(
            f"max_infill_tokens={options['max_infill_tokens']} needs a checkpoint with a token for "
            "one position more, as DreamOn has; the holes of this one keep their length: leave it "
            "out"
        )
    _check_revision(denoiser, options)
    _check_steps(options)
    _check_guidance(denoiser, options)
    return pattern != "full" and options["cache_reuse"] != "none"


def check_request(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    inputs: GenerationInputs,
    past: Any,
    is_exact: bool,
) -> None:
    """Check a request against the session that it is for.

    Raises:
        ValueError: if the mode cannot fill its canvas, or `past` cannot be used.
        TypeError: if `past` is no cache of the denoiser's.
    """
    _check_steps(options)
    mode = options["decoding_mode"]
    has_canvas = inputs.canvas is not None or inputs.canvas_modality_ids is not None
    if mode not in ("diffusion", "ar") and has_canvas:
        raise ValueError(
            f"decoding_mode={mode!r} continues text, and a canvas was given: leave out one of "
            "them, or fill the canvas with 'diffusion' or 'ar'"
        )
    rules = [name for name in ("regex", "json_schema", "choices") if options[name] is not None]
    rules += [] if inputs.canvas_allowed_ids is None else ["canvas_allowed_ids"]
    if mode == "ar" and has_canvas and rules:
        raise ValueError(
            f"decoding_mode='ar' fills a canvas under no {rules[0]}: leave it out, or use "
            "'diffusion'"
        )
    check_stretching(denoiser, options, inputs)
    if past is not None and not is_exact:
        raise ValueError("past_key_values need cache_reuse='exact'")
    if past is not None:
        denoiser.check_cache(past)


def check_rows(denoiser: Denoiser[Any], rows: Sequence[Row], past: Any) -> None:
    """Check built rows, and warn if one reaches behind the trained positions.

    Raises:
        ValueError: if a canvas crosses the trained grid, `past` has too few rows or was read by
            other adapters, or the rows' adapters cannot be decoded together.
    """
    _check_grid(denoiser, rows)
    check_branches(denoiser, rows)
    names = [row.settings.adapter for row in rows]
    if given := sorted({name for name in names if name is not None}):
        denoiser.check_adapters(given)
    if past is not None and len(past.token_ids) < len(rows):
        raise ValueError(
            f"past_key_values holds {len(past.token_ids)} rows, the prompts need {len(rows)}"
        )
    if past is not None and past.adapters[: len(rows)] != names:
        raise ValueError(
            f"past_key_values was computed with adapter_names={past.adapters}, and this call has "
            f"{names}: leave it out"
        )
    if max(_last_position(row) for row in rows) >= denoiser.max_positions:
        _warn_of_length(denoiser.max_positions)


def _check_revision(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError if the options ask for a revision that cannot be."""
    revision, mode = revision_of(options), options["decoding_mode"]
    moving = [name for name in _BY_SHARE if options[name] is not None]
    if options["revision"] == "renoise" and moving:
        raise ValueError(
            f"{moving[0]} goes by the share of a block that is revealed, and "
            "revision='renoise' decides the whole block anew in every step: leave it out"
        )
    if revision is None:
        return
    if mode != "diffusion":
        raise ValueError(f"a revision needs decoding_mode='diffusion', got {mode!r}")
    if options["unmasking_strategy"] == "remdm" and options["revision"] is not None:
        raise ValueError("unmasking_strategy='remdm' brings its own revision: leave `revision` out")
    if revision.reads_visible and not denoiser.trained_on_visible:
        raise ValueError(
            f"revision={options['revision']!r} reads what the model says of visible tokens, and "
            "this checkpoint was not trained on them (trained_on_visible=False): use "
            "revision='resample', unmasking_strategy='remdm' or a critic"
        )


def _check_steps(options: Mapping[str, Any]) -> None:
    """Raise ValueError if tokens are to be given back and no step is left to reveal them anew."""
    steps = options["max_denoising_steps"]
    each = steps if isinstance(steps, (list, tuple)) else [steps]
    if options["revision"] == "secondary" and 1 in each:
        raise ValueError(
            "revision='secondary' gives tokens back that a later step reveals, and with "
            f"max_denoising_steps={steps} the first step is the last: use at least 2, or leave "
            "revision out"
        )


def _check_guidance(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError if guidance is to skip steps where it cannot."""
    mode, refresh = options["decoding_mode"], options["guidance_refresh"]
    counts_steps = {
        "guidance_interval": list(options["guidance_interval"]) != [0.0, 1.0],
        "guidance_refresh": refresh != 1,
    }
    for name, is_set in counts_steps.items():
        if mode != "diffusion" and is_set:
            raise ValueError(
                f"{name} counts denoising steps, decoding_mode={mode!r} has none: leave it out"
            )
    if refresh == 1:
        return
    if denoiser.noise_process == "uniform":
        raise ValueError(
            f"guidance_refresh={refresh} mixes what was said of masked positions in earlier steps; "
            "under this checkpoint's 'uniform' noise (ancestral, renoise, guidance_level="
            "'posterior') they show another token in every step: use guidance_refresh=1"
        )
    revision = revision_of(options)
    if revision is not None and revision.reads_visible:
        raise ValueError(
            f"guidance_refresh={refresh} holds nothing of visible tokens, which revision="
            f"{options['revision']!r} reads: use guidance_refresh=1, revision='resample', "
            "unmasking_strategy='remdm' or a critic"
        )


def _check_grid(denoiser: Denoiser[Any], rows: Sequence[Row]) -> None:
    """Raise ValueError if a given canvas crosses a border of the trained grid."""
    grid = denoiser.canvas_length
    for row in rows:
        if denoiser.attention_pattern != "block_causal" or row.given is None:
            continue
        offset = len(row.context) % grid
        if offset + len(row.given.ids) > grid:
            raise ValueError(
                f"row {row.index}: a canvas of {len(row.given.ids)} tokens that starts {offset} "
                f"tokens into a block does not fit the trained grid of {grid} (block_causal)"
            )


def _last_position(row: Row) -> int:
    """Highest position that the prompt and the longest response would take."""
    before = int(row.context.positions.max(initial=0))
    if row.given is not None:
        after = row.context.next_positions(row.given.modality.tolist())
        return max(before, int(after.max(initial=0)))
    if row.room <= 0:
        return before
    first = row.context.next_positions([MODALITY_IDS["text"]])
    return max(before, int(first.max()) + row.room - 1)


@lru_cache(maxsize=64)  # once for each limit
def _warn_of_length(max_positions: int) -> None:
    """Say that a request reaches behind the positions seen in training."""
    logger.warning(
        "prompt and response together reach position %d or beyond, which the model has not seen "
        "in training (max_position_embeddings=%d): expect worse answers there",
        max_positions,
        max_positions,
    )


def policy_of(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    processors: Sequence[LogitsProcessor],
    is_exact: bool,
) -> Policy:
    """Choices shared by all rows."""
    chunk = options["prefill_chunk_length"]
    if chunk is not None and denoiser.layout.prefix_end_token_id is not None:
        raise ValueError(
            f"prefill_chunk_length={chunk} cuts prompts, and the first tokens of this checkpoint's "
            "prompts see each other: leave it out"
        )
    if chunk is not None and denoiser.attention_pattern == "block_causal":
        chunk = max(1, chunk // denoiser.canvas_length) * denoiser.canvas_length
    return Policy(
        strategy=unmasking_strategy(options),
        confidence_metric=options["confidence_metric"],
        blocks=_blocks(denoiser, options),
        top_k=options["top_k"],
        top_p=options["top_p"],
        greedy_choice=options["greedy_choice"],
        guidance=guidance_of(options),
        reuses_cache=is_exact or is_approximate(options),
        fuses_commit=options["fuse_commit"],
        prefill_chunk_length=chunk,
        keeps_cache=(is_exact and options["return_dict_in_generate"] and options["use_cache"]),
        keeps_log_probs=options["return_logprobs"],
        revision=revision_of(options),
        stability_steps=options["stability_steps"],
        stability_entropy=options["stability_entropy"],
        mixes_posteriors=(
            options["unmasking_strategy"] == "ancestral" and options["guidance_level"] != "logits"
        ),
        keeps_trace=options["return_trace"],
        eos_early_rejection=options["eos_early_rejection"],
        suppress_eos_before=options["suppress_eos_before"],
        drafts_while_it_pays=options["decoding_mode"] == "auto",
        draft_length=options["draft_length"],
        looks_up_drafts=options["draft_lookup"],
        max_infill_tokens=options["max_infill_tokens"],
        processors=processors,
    )


def _blocks(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> Blocks:
    """How long blocks are; raises ValueError if the checkpoint has no such blocks."""
    pattern, length = denoiser.attention_pattern, options["block_length"] or denoiser.canvas_length
    sub_length, delimiters = options["sub_block_length"], options["block_delimiters"]
    if delimiters is not None and pattern == "block_causal":
        raise ValueError(
            "block_delimiters need weights without a trained grid, this checkpoint is "
            "'block_causal': leave them out, or move borders inside a block by sub_block_length"
        )
    if sub_length is not None and pattern in WHOLE_PATTERNS:
        raise ValueError(
            "sub_block_length divides a block that is committed whole; with "
            f"attention_pattern={pattern!r} block_length itself is what is revealed together"
        )
    if options["first_alone"] and pattern in WHOLE_PATTERNS:
        raise ValueError(
            "first_alone takes the first token of a block from the block before, which "
            f"attention_pattern={pattern!r} never finishes: leave it out"
        )
    if sub_length is not None and sub_length > length:
        raise ValueError(f"sub_block_length={sub_length} is longer than the block of {length}")
    return Blocks(
        length,
        sub_length,
        tuple(delimiters or ()),
        options["delimiter_threshold"],
        options["delimiter_window"],
    )
