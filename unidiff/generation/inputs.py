"""What the caller passed, checked before the first forward and cut into rows without padding."""

# Shapes: B rows, L prompt columns, K canvas columns.

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.diffusion.random import row_seeds
from unidiff.tokens.layout import CANVAS_PADDING

from .context import Context
from .denoiser import Denoiser
from .guidance import guidance_of
from .options import BASE
from .rows import GivenCanvas, Row, RowSettings
from .soft import check_soft, soft_for


@dataclass(frozen=True)
class GenerationInputs:
    """The tensors of a request.

    Attributes:
        input_ids: (B, L) int prompt, padded anywhere. Only the mask says what is padding: a pad or
            mask id among the real tokens is a token like any other.
        attention_mask: (B, L), non-zero at real tokens; None: all are.
        position_ids: (B, L) or (3, B, L) int; None: derived from the tokens' modalities.
        canvas: (B, K) int ids, read where pinned or drafted; None: continue with text.
        pinned_mask: (B, K) bool, True at known canvas tokens.
        draft_mask: (B, K) bool, True at canvas tokens that are shown and may be revised; None: no
            token is.
        canvas_modality_ids: (B, K) int index into the layout's `modalities`, -1 behind a
            shorter row's canvas.
        negative_input_ids: (B, M) or (1, M) prompts of the weaker condition of guidance; a list
            of them, the weakest first, for several scales.
        negative_attention_mask: of the same shapes, non-zero at real tokens.
        canvas_allowed_ids: ids that each canvas position may take, see `allowed.allowed_masks`.
        tokenizer: what a grammar's text is written with.
        soft: (N, D) what stands at each row's soft positions, in order; None: no row has any.
        negative_position_ids: (3, B, M) int of each weaker prompt; None: as `position_ids`.
    """

    input_ids: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    canvas: Tensor | None = None
    pinned_mask: Tensor | None = None
    draft_mask: Tensor | None = None
    canvas_modality_ids: Tensor | None = None
    negative_input_ids: Tensor | Sequence[Tensor] | None = None
    negative_attention_mask: Tensor | Sequence[Tensor | None] | None = None
    canvas_allowed_ids: Any = None
    tokenizer: Any = None
    soft: Sequence[Tensor | None] | None = None
    negative_position_ids: Sequence[Tensor | None] | None = None


def build_rows(
    denoiser: Denoiser[Any], options: Mapping[str, Any], inputs: GenerationInputs
) -> list[Row]:
    """Rows of a request, ready to decode.

    Raises:
        TypeError: if something is no tensor or has the wrong dtype.
        ValueError: if shapes disagree, ids lie outside the layout, a canvas asks for what the
            checkpoint cannot do, or a row has no token to start from.
    """
    for name, value in vars(inputs).items():
        if name in ("canvas_allowed_ids", "tokenizer", "soft"):
            continue
        for tensor in as_list(value) if name.startswith("negative") else [value]:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    _check_ids(inputs.input_ids, "input_ids", denoiser, 2)
    num_rows, width = inputs.input_ids.shape
    if num_rows == 0:
        raise ValueError("input_ids has no rows: pass at least one prompt")
    contexts = _contexts(
        denoiser, options, inputs.input_ids, inputs.attention_mask, inputs.position_ids
    )
    for index, context in enumerate(contexts):
        context.soft = None if inputs.soft is None else inputs.soft[index]
        check_soft(context.ids, context.soft, denoiser.layout, f"row {index} of input_ids")
    _check_draft(options, inputs)
    canvases = _given_canvases(denoiser, inputs, num_rows)
    twins = _twins(denoiser, options, inputs, num_rows)
    settings = _settings(options, denoiser, num_rows, width)
    return [
        Row(index, settings[index], contexts[index], canvases[index], twins[index])
        for index in range(num_rows)
    ]


def _check_ids(ids: Tensor, name: str, denoiser: Denoiser[Any], ndim: int) -> None:
    """Raise TypeError or ValueError unless `ids` is an integer matrix of known ids."""
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise TypeError(f"{name} must be an integer tensor of token ids, got {ids.dtype}")
    if ids.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {tuple(ids.shape)}")
    denoiser.layout.check_ids(ids, denoiser.vocab_size)


def _check_shape(tensor: Tensor, name: str, shape: Sequence[int]) -> None:
    """Raise ValueError unless a tensor has the shape."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")


def _contexts(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    input_ids: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None,
) -> list[Context]:
    """Contexts of padded prompts; an empty one starts from the bos token."""
    if attention_mask is not None:
        _check_shape(attention_mask, "attention_mask", input_ids.shape)
    position_3BL = None
    if position_ids is not None:
        if position_ids.ndim == 2:
            position_ids = position_ids.expand(3, *position_ids.shape)
        _check_shape(position_ids, "position_ids", (3, *input_ids.shape))
        if position_ids.is_floating_point() or position_ids.dtype == torch.bool:
            raise TypeError(f"position_ids must be integers, got {position_ids.dtype}")
        if position_ids.numel() and int(position_ids.min()) < 0:
            raise ValueError(f"position_ids must be >= 0, got {int(position_ids.min())}")
        position_3BL = position_ids.cpu().numpy().astype(np.int64)
    ids_BL = input_ids.cpu().numpy()
    real_BL = np.ones_like(ids_BL, dtype=bool)
    if attention_mask is not None:
        real_BL = attention_mask.cpu().numpy() != 0
    contexts = []
    for row, real_L in enumerate(real_BL):
        ids = ids_BL[row, real_L].tolist()
        positions = None if position_3BL is None else position_3BL[:, row, real_L]
        if not ids:
            ids, positions = [_start_token(options)], None
        contexts.append(Context.of(ids, denoiser.layout, positions))
    return contexts


def _start_token(options: Mapping[str, Any]) -> int:
    """The bos token; raises ValueError if there is none."""
    if options["bos_token_id"] is None:
        raise ValueError(
            "a prompt is empty and the checkpoint has no bos_token_id to start from: "
            "pass at least one token"
        )
    return int(options["bos_token_id"])


def _check_draft(options: Mapping[str, Any], inputs: GenerationInputs) -> None:
    """Raise ValueError or TypeError unless something reads the draft and may revise it."""
    draft = inputs.draft_mask
    if draft is None:
        return
    if inputs.canvas is None or inputs.pinned_mask is None:
        raise ValueError("draft_mask needs the canvas that holds the draft, and its pinned_mask")
    if draft.dtype != torch.bool:
        raise TypeError(f"draft_mask must be bool (True = drafted), got {draft.dtype}")
    _check_shape(draft, "draft_mask", inputs.canvas.shape)
    if options["revision"] not in ("secondary", "edit"):
        raise ValueError(
            "draft_mask needs revision='secondary' or 'edit', which read visible tokens and decide "
            f"what of a draft stays; got {options['revision']!r}: pin what shall stay as it is"
        )


def _given_canvases(
    denoiser: Denoiser[Any], inputs: GenerationInputs, num_rows: int
) -> list[GivenCanvas | None]:
    """The caller's canvases without padding, None for rows that continue with text."""
    canvas, pinned, modality = inputs.canvas, inputs.pinned_mask, inputs.canvas_modality_ids
    if canvas is None and pinned is not None:
        raise ValueError("pinned_mask needs the canvas whose tokens it pins")
    if canvas is None and modality is None:
        return [None] * num_rows
    if canvas is None and modality is not None:
        canvas = torch.full_like(modality, denoiser.layout.mask_token_id)
        pinned = torch.zeros_like(modality, dtype=torch.bool)
    assert canvas is not None
    _check_ids(canvas, "canvas", denoiser, 2)
    check_soft(canvas.flatten().tolist(), None, denoiser.layout, "the canvas")
    if pinned is None:
        raise ValueError("canvas needs pinned_mask: True where its tokens are known")
    if pinned.dtype != torch.bool:
        raise TypeError(f"pinned_mask must be bool (True = known), got {pinned.dtype}")
    _check_shape(pinned, "pinned_mask", canvas.shape)
    if modality is None:
        modality = torch.zeros_like(canvas)
        modality[pinned] = torch.from_numpy(
            denoiser.layout.modality_ids(canvas[pinned].cpu().numpy())
        ).to(canvas.device)
    if modality.is_floating_point() or modality.dtype == torch.bool:
        raise TypeError(f"canvas_modality_ids must be integers, got {modality.dtype}")
    if canvas.shape[0] != num_rows:
        raise ValueError(f"canvas has {canvas.shape[0]} rows, the prompts have {num_rows}")
    _check_shape(modality, "canvas_modality_ids", canvas.shape)
    draft = torch.zeros_like(pinned) if inputs.draft_mask is None else inputs.draft_mask
    columns = [part.cpu().numpy() for part in (canvas, pinned, draft, modality)]
    return [_given_canvas(denoiser, *(part[row] for part in columns)) for row in range(num_rows)]


def _given_canvas(
    denoiser: Denoiser[Any],
    ids: np.ndarray,
    pinned: np.ndarray,
    drafted: np.ndarray,
    modality: np.ndarray,
) -> GivenCanvas:
    """One row's canvas, checked against the layout."""
    length = int((modality != CANVAS_PADDING).sum())
    if (modality[:length] == CANVAS_PADDING).any():
        raise ValueError("canvas_modality_ids: padding (-1) must stand behind the canvas")
    ids, pinned, modality = ids[:length], pinned[:length], modality[:length]
    drafted = drafted[:length]
    names = denoiser.layout.modalities
    if length and (modality.min() < 0 or modality.max() >= len(names)):
        raise ValueError(
            f"canvas_modality_ids must lie in [0, {len(names)}), the index into {names}"
        )
    for kind in np.unique(modality):
        denoiser.layout.range_of(names[kind])
    if (drafted & pinned).any():
        raise ValueError("draft_mask and pinned_mask overlap: a pinned token never changes")
    if (drafted & (ids == denoiser.layout.mask_token_id)).any():
        raise ValueError("a draft holds the mask token: leave draft_mask False there")
    wrong = (pinned | drafted) & (denoiser.layout.modality_ids(ids) != modality)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(
            f"canvas position {at} is given as id {ids[at]}, which is no "
            f"{names[modality[at]]} token: encode it with the layout first"
        )
    return GivenCanvas(ids.astype(np.int64), pinned, drafted, modality.astype(np.int64))


def _twins(
    denoiser: Denoiser[Any], options: Mapping[str, Any], inputs: GenerationInputs, num_rows: int
) -> list[list[Context]]:
    """Contexts of each row's weaker branches, one for each scale of the guidance."""
    scales = guidance_of(options).scales
    if not scales:
        return [[] for _ in range(num_rows)]
    negatives = as_list(inputs.negative_input_ids)
    masks = as_list(inputs.negative_attention_mask) or [None] * len(negatives)
    if len(negatives) != len(scales) or len(masks) != len(scales):
        raise ValueError(
            f"guidance_scale={options['guidance_scale']} needs negative_input_ids: one prompt of a "
            f"weaker condition for each of its {len(scales)} scales, got {len(negatives)} and "
            f"{len(masks)} masks"
        )
    positions = as_list(inputs.negative_position_ids) or [None] * len(negatives)
    branches = [
        _branch(denoiser, options, negative, mask, num_rows, position)
        for negative, mask, position in zip(negatives, masks, positions, strict=True)
    ]
    twins = [list(row) for row in zip(*branches, strict=True)]
    for index, row in enumerate(twins):
        own = None if inputs.soft is None else inputs.soft[index]
        for twin in row:  # a weaker prompt shows its row's pictures or none
            twin.soft = soft_for(twin.ids, own, denoiser.layout)
            check_soft(twin.ids, twin.soft, denoiser.layout, f"row {index} of negative_input_ids")
    return twins


def as_list(value: Any) -> list[Any]:
    """A list as it is, None as the empty one, anything else alone in one."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _branch(
    denoiser: Denoiser[Any],
    options: Mapping[str, Any],
    negative: Tensor,
    mask: Tensor | None,
    num_rows: int,
    position_ids: Tensor | None,
) -> list[Context]:
    """Contexts of one weaker branch; a single prompt holds for all rows."""
    _check_ids(negative, "negative_input_ids", denoiser, 2)
    if negative.shape[0] == 1 and num_rows > 1:
        negative = negative.expand(num_rows, -1)
        mask = None if mask is None else mask.expand(num_rows, -1)
    if negative.shape[0] != num_rows:
        raise ValueError(
            f"negative_input_ids has {negative.shape[0]} rows, the prompts have {num_rows}"
        )
    return _contexts(denoiser, options, negative, mask, position_ids)


def _settings(
    options: Mapping[str, Any], denoiser: Denoiser[Any], num_rows: int, width: int
) -> list[RowSettings]:
    """Each row's own options; a list gives one value per row."""
    for name in ("bos_token_id", "pad_token_id", "eos_token_id"):
        _check_known(name, options[name], denoiser.vocab_size)
    limit = options["max_new_tokens"]
    if limit is None and options["max_length"] is not None:
        limit = max(0, options["max_length"] - width)
    if limit is None:
        limit = denoiser.canvas_length
    temperature = options["temperature"] if options["do_sample"] else 0.0
    limits = per_row("max_new_tokens", limit, num_rows)
    steps = per_row("max_denoising_steps", options["max_denoising_steps"], num_rows)
    thresholds = per_row("confidence_threshold", options["confidence_threshold"], num_rows)
    temperatures = per_row("temperature", temperature, num_rows)
    seeds = _seeds(options["seed"], num_rows)
    ends = _end_ids(options["eos_token_id"], denoiser, num_rows)
    names = _adapters(options["adapter_names"], num_rows)
    return [
        RowSettings(
            seeds[i], limits[i], steps[i], thresholds[i], temperatures[i], ends[i], names[i]
        )
        for i in range(num_rows)
    ]


def _check_known(name: str, value: Any, vocab_size: int) -> None:
    """Raise ValueError if an option's id, or one in its lists, lies outside the vocabulary."""
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, (list, tuple)):
            _check_known(name, item, vocab_size)
        elif item is not None and item >= vocab_size:
            raise ValueError(f"{name} must lie in [0, {vocab_size}), the vocabulary; got {item}")


def per_row(name: str, value: Any, num_rows: int) -> list[Any]:
    """One value per row of an option that may be a list; raises ValueError at a wrong length."""
    if not isinstance(value, (list, tuple)):
        return [value] * num_rows
    if len(value) != num_rows:
        raise ValueError(f"{name} has {len(value)} values for {num_rows} rows")
    return list(value)


def _seeds(seed: Any, num_rows: int) -> list[int]:
    """Row keys: a list is taken as it is, a number expanded, None drawn from the system."""
    if isinstance(seed, (list, tuple)):
        return [_signed(item) for item in per_row("seed", seed, num_rows)]
    if seed is None:
        seed = secrets.randbits(63)
    return [int(key) for key in row_seeds(seed, num_rows)]


def _adapters(names: Any, num_rows: int) -> list[str | None]:
    """Adapter of each row; None in a list is the base, None alone what is active."""
    if names is None:
        return [None] * num_rows
    return [BASE if name is None else name for name in per_row("adapter_names", names, num_rows)]


def _signed(value: int) -> int:
    """A seed as int64, wrapped to 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _end_ids(value: Any, denoiser: Denoiser[Any], num_rows: int) -> list[tuple[int, ...]]:
    """End ids of each row; a flat list holds for all rows, a list of lists has one per row."""
    if value is None:
        value = list(denoiser.layout.end_token_ids)
    if isinstance(value, (list, tuple)) and any(isinstance(v, (list, tuple)) for v in value):
        return [_end_ids(item, denoiser, 1)[0] for item in per_row("eos_token_id", value, num_rows)]
    ids = list(value) if isinstance(value, (list, tuple)) else [value]
    return [tuple(int(i) for i in ids if i is not None and i >= 0)] * num_rows
