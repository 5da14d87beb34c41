"""One request to a decoding session: what was asked, how far it is, and what has come of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .denoiser import Denoiser
from .inputs import GenerationInputs
from .output import UniDiffGenerateOutput, assemble
from .rows import Row
from .soft import give_soft


class Request:
    """A submitted request; `DecodingSession.submit` makes it.

    Attributes:
        number: place in the session's order of submission, from 0.
        inputs: its tensors.
        options: every option with the value that holds for it.
        rows: its rows as they were before the first step, in the caller's order.
        past: cache of an earlier turn, or None.
        is_cancelled: whether it was ended before its time.
    """

    def __init__(
        self,
        number: int,
        inputs: GenerationInputs,
        options: Mapping[str, Any],
        rows: Sequence[Row],
        past: Any,
    ) -> None:
        """A request of which nothing has been decoded."""
        self.number = number
        self.inputs = inputs
        self.options = options
        self.rows = list(rows)
        self.past = past
        self.is_cancelled = False
        self._ended: dict[int, Row] = {}
        self._handle: Any = None
        self._caches: dict[int, Any] = {}

    @property
    def is_finished(self) -> bool:
        """Whether all of its rows have ended."""
        return len(self._ended) == len(self.rows)

    @property
    def output(self) -> UniDiffGenerateOutput:
        """What `generate` would return, rows in the caller's order.

        Of a cancelled request: what its rows had by then, `finish_reason` "cancelled".

        Raises:
            RuntimeError: if rows are still to be decoded.
        """
        if not self.is_finished:
            raise RuntimeError(
                f"request {self.number} has ended {len(self._ended)} of its {len(self.rows)} rows: "
                "call the session's step() until is_finished"
            )
        rows = [self._ended[position] for position in range(len(self.rows))]
        return assemble(
            rows,
            self.inputs.input_ids,
            self.options["pad_token_id"],
            self._handle,
            _canvas_width(self.inputs),
            self.options["return_logprobs"],
            self.options["return_trace"],
        )

    def end_row(self, position: int, row: Row, cache: Any) -> None:
        """Note an ended row and, if the next turn wants it, its cache."""
        self._ended[position] = row
        self._caches[position] = cache

    def join_caches(self, denoiser: Denoiser[Any]) -> None:
        """Make the handle for the next turn of the ended rows' caches."""
        caches = [
            self._caches[position] or denoiser.new_cache(1, [row.settings.adapter])
            for position, row in enumerate(self.rows)
        ]
        handle = denoiser.join_caches(caches)
        for position, row in self._ended.items():
            handle.tail[position] = row.known_ids[len(handle.token_ids[position]) :]
        self._handle, self._caches = handle, {}


def finish_at_once(row: Row) -> bool:
    """Finish a row that has nothing to fill; whether it had nothing."""
    if row.given is not None and row.given.pinned.all():
        row.generated = row.given.ids.tolist()
        row.log_probs = [0.0] * len(row.generated)
        row.finish_reason = "canvas"
    elif row.given is None and row.room <= 0:
        row.finish_reason = "length"
    return row.finish_reason is not None


def start_cache(
    denoiser: Denoiser[Any], rows: Sequence[Row], past: Any, needs_reading: bool
) -> Any:
    """Cache of rows that begin; holds what their prompts share with `past`, a row for each.

    Args:
        denoiser: the model.
        rows: rows not yet begun; what the cache holds of them is noted in their contexts.
        past: cache of an earlier turn with these rows in this order; None: nothing is shared.
        needs_reading: whether the reading of the last prompt token is asked for, so that the token
            is always computed.
    """
    if past is None:
        cache = denoiser.new_cache(len(rows), [row.settings.adapter for row in rows])
        give_soft(cache, [row.context for row in rows])
        return cache
    grid = denoiser.canvas_length if denoiser.attention_pattern == "block_causal" else 1
    for index, row in enumerate(rows):
        shared = row.context.common_prefix(
            past.token_ids[index], past.positions[index], past.soft[index]
        )
        layout, held = denoiser.layout, past.token_ids[index]
        if shared < max(layout.prefix_length(row.context.ids), layout.prefix_length(held)):
            shared = 0  # those before the border have seen what stands there
        settled = len(row.context) // grid * grid
        if denoiser.attention_pattern == "prefix":  # a longer prompt changes every key
            shared = 0
        if needs_reading:
            shared = min(shared, settled - 1)
        row.context.num_cached = max(shared, 0) // grid * grid
    past.crop([row.context.num_cached for row in rows])
    give_soft(past, [row.context for row in rows])
    return past


def _canvas_width(inputs: GenerationInputs) -> int | None:
    """Columns of the canvas that the caller gave, None for text."""
    for tensor in (inputs.canvas, inputs.canvas_modality_ids):
        if tensor is not None:
            return int(torch.as_tensor(tensor).shape[1])
    return None
