"""`generate` for any denoiser: options and tensors in, finished rows out."""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from unidiff.tokens.layout import MODALITY_IDS

from .autoregressive import Autoregressive
from .blocks import Blocks
from .constraints import LogitsProcessor
from .denoiser import Denoiser
from .diffusion import BlockDiffusion
from .guidance import guidance_of
from .inputs import GenerationInputs, build_rows
from .lockstep import LockStep, Policy
from .output import UniDiffGenerateOutput, assemble
from .revision import revision_of
from .rows import Row
from .self_speculative import DRAFT_LENGTH, SelfSpeculative
from .strategies import unmasking_strategy
from .streaming import Delivery, StoppingCriterion, Streamer

logger = logging.getLogger(__name__)

LOOPS: dict[str, type[LockStep]] = {
    "diffusion": BlockDiffusion,
    "ar": Autoregressive,
    "self_speculative": SelfSpeculative,
    "auto": SelfSpeculative,
}


def generate(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    inputs: GenerationInputs,
    *,
    processors: Sequence[LogitsProcessor] = (),
    criteria: Sequence[StoppingCriterion] = (),
    streamer: Streamer | None = None,
    past: Any = None,
) -> UniDiffGenerateOutput:
    """Responses, or filled canvases, of a batch of prompts.

    Args:
        denoiser: the model.
        options: every option of `unidiff.generation.options.OPTIONS`; see `resolve_options`.
        inputs: prompts and, if exactly one canvas is to be filled, that canvas.
        processors: rules on (positions, vocabulary) logits.
        criteria: conditions on the (1, n) ids of a row that end it.
        streamer: is shown the prompt, each finished block and, if it wants them, drafts.
        past: cache of an earlier turn; what it shares with the prompt is not computed again.

    Raises:
        ValueError: if options, tensors and checkpoint do not fit together.
        TypeError: if a tensor has the wrong dtype, or `past` is no cache of the denoiser's.
    """
    reuses_cache = _check_fit(denoiser, options, inputs, past)
    if past is not None:
        denoiser.check_cache(past)
    rows = build_rows(denoiser, options, inputs)
    _check_grid(denoiser, rows)
    if max(_last_position(row) for row in rows) >= denoiser.max_positions:
        _warn_of_length(denoiser.max_positions)
    policy = _policy(denoiser, options, processors, reuses_cache)
    out = Delivery(streamer, criteria, len(rows))
    out.put(rows[0].prompt)
    active = [row for row in rows if not _finish_at_once(row)]
    finished_caches = {}
    if active:
        mode = options["decoding_mode"]
        needs_reading = bool(denoiser.logits_shift) or mode != "diffusion"
        cache = _start_cache(denoiser, active, past, needs_reading)
        loop = LOOPS[mode](denoiser, policy, active, cache, out)
        loop.run()
        finished_caches = loop.finished_caches
    out.end()
    pad = options["pad_token_id"]
    return assemble(
        rows,
        inputs.input_ids,
        denoiser.layout.pad_token_id if pad is None else pad,
        _handle(denoiser, rows, finished_caches) if policy.keeps_cache else None,
        _canvas_width(inputs),
        policy.keeps_log_probs,
        policy.keeps_trace,
    )


def _check_fit(
    denoiser: Denoiser[Any], options: Mapping[str, Any], inputs: GenerationInputs, past: Any
) -> bool:
    """Whether the cache is reused; raises ValueError if options and checkpoint disagree."""
    pattern, block_length = denoiser.attention_pattern, options["block_length"]
    if pattern == "block_causal" and block_length not in (None, denoiser.canvas_length):
        raise ValueError(
            f"block_length must equal the trained grid {denoiser.canvas_length} of block_causal "
            f"weights, got {block_length}: leave it out"
        )
    reuse = options["cache_reuse"]
    if reuse == "exact" and pattern == "full":
        raise ValueError(
            "cache_reuse='exact' is impossible with attention_pattern='full': later tokens change "
            "earlier keys; use cache_reuse='none'"
        )
    is_exact = pattern != "full" and reuse != "none"
    if past is not None and not is_exact:
        raise ValueError("past_key_values need cache_reuse='exact'")
    is_canvas = inputs.canvas is not None or inputs.canvas_modality_ids is not None
    mode = options["decoding_mode"]
    if mode != "diffusion" and (pattern != "causal_context" or is_canvas):
        raise ValueError(
            f"decoding_mode={mode!r} continues text with attention_pattern='causal_context'; this "
            f"checkpoint is {pattern!r}" + (" and a canvas was given" if is_canvas else "")
        )
    _check_revision(denoiser, options)
    if guidance_of(options).scales and pattern != "causal_context":
        raise ValueError(
            "guidance_scale needs attention_pattern='causal_context' in this version, "
            f"this checkpoint is {pattern!r}"
        )
    return is_exact


def _check_revision(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError if the options ask for a revision that cannot be."""
    revision, mode = revision_of(options), options["decoding_mode"]
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


def _policy(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    processors: Sequence[LogitsProcessor],
    reuses_cache: bool,
) -> Policy:
    """Choices shared by all rows."""
    chunk = options["prefill_chunk_length"]
    if chunk is not None and denoiser.attention_pattern == "block_causal":
        chunk = max(1, chunk // denoiser.canvas_length) * denoiser.canvas_length
    return Policy(
        strategy=unmasking_strategy(options),
        confidence_metric=options["confidence_metric"],
        blocks=_blocks(denoiser, options),
        top_k=options["top_k"],
        top_p=options["top_p"],
        guidance=guidance_of(options),
        reuses_cache=reuses_cache,
        fuses_commit=options["fuse_commit"],
        prefill_chunk_length=chunk,
        keeps_cache=(reuses_cache and options["return_dict_in_generate"] and options["use_cache"]),
        keeps_log_probs=options["return_logprobs"],
        revision=revision_of(options),
        keeps_trace=options["return_trace"],
        eos_early_rejection=options["eos_early_rejection"],
        suppress_eos_before=options["suppress_eos_before"],
        drafts_while_it_pays=options["decoding_mode"] == "auto",
        looks_up_drafts=options["draft_lookup"],
        processors=processors,
    )


def _blocks(denoiser: Denoiser[Any], options: Mapping[str, Any]) -> Blocks:
    """How long blocks are; raises ValueError if the checkpoint has no such blocks."""
    pattern, length = denoiser.attention_pattern, options["block_length"] or denoiser.canvas_length
    if LOOPS[options["decoding_mode"]] is SelfSpeculative:
        length = options["block_length"] or DRAFT_LENGTH
    sub_length, delimiters = options["sub_block_length"], options["block_delimiters"]
    if delimiters is not None and pattern == "block_causal":
        raise ValueError(
            "block_delimiters need weights without a trained grid, this checkpoint is "
            "'block_causal': leave them out, or move borders inside a block by sub_block_length"
        )
    if sub_length is not None and pattern == "full":
        raise ValueError(
            "sub_block_length divides a block that is committed whole; with "
            "attention_pattern='full' block_length itself is what is revealed together"
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


def _finish_at_once(row: Row) -> bool:
    """Finish a row that has nothing to fill; whether it had nothing."""
    if row.given is not None and row.given.pinned.all():
        row.generated = row.given.ids.tolist()
        row.log_probs = [0.0] * len(row.generated)
        row.finish_reason = "canvas"
    elif row.given is None and row.room <= 0:
        row.finish_reason = "length"
    return row.finish_reason is not None


def _start_cache(
    denoiser: Denoiser[Any], rows: Sequence[Row], past: Any, needs_reading: bool
) -> Any:
    """Cache of the rows, then of their twins; holds what the prompts share with `past`."""
    num_twins = sum(len(row.twins) for row in rows)
    if past is None:
        return denoiser.new_cache(len(rows) + num_twins)
    num_past = len(past.token_ids)
    if num_past <= max(row.index for row in rows):
        raise ValueError(f"past_key_values holds {num_past} rows, the prompts need more")
    cache = past.select_rows([row.index for row in rows])
    grid = denoiser.canvas_length if denoiser.attention_pattern == "block_causal" else 1
    for index, row in enumerate(rows):
        shared = row.context.common_prefix(cache.token_ids[index], cache.positions[index])
        settled = len(row.context) // grid * grid
        if needs_reading:
            shared = min(shared, settled - 1)
        row.context.num_cached = max(shared, 0) // grid * grid
    cache.crop([row.context.num_cached for row in rows])
    if num_twins:
        cache = denoiser.join_caches([cache, denoiser.new_cache(num_twins)])
    return cache


def _handle(denoiser: Denoiser[Any], rows: Sequence[Row], finished: Mapping[int, Any]) -> Any:
    """Cache of all rows in the caller's order, with the tokens that were never committed."""
    handle = denoiser.join_caches(
        [finished[row.index] if row.index in finished else denoiser.new_cache(1) for row in rows]
    )
    for index, row in enumerate(rows):
        handle.tail[index] = row.known_ids[len(handle.token_ids[index]) :]
    return handle


def _canvas_width(inputs: GenerationInputs) -> int | None:
    """Columns of the canvas that the caller gave, None for text."""
    for tensor in (inputs.canvas, inputs.canvas_modality_ids):
        if tensor is not None:
            return int(torch.as_tensor(tensor).shape[1])
    return None
