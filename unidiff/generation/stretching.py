"""Canvases that grow and shrink while they are denoised: holes of a length that nobody knows.

Some checkpoints have two tokens that stand for no text. A position that takes the one becomes two
masked positions, a position that takes the other leaves. What stands behind moves along, pinned
tokens too.

Source: DreamOn (Dream-org/DreamOn-v0-7B), its `diffusion_generate`; here a canvas at its limit
    never loses its end. Checked against its loop in tests/convert/test_dreamon.py.
"""

# Shapes: B rows, K canvas, N positions, V ids.

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unidiff.tokens.layout import MODALITY_IDS

from .canvas_rows import CanvasRows
from .canvases import NEW
from .denoiser import Denoiser
from .inputs import GenerationInputs
from .predictions import Predictions
from .rows import GivenCanvas

_EXPANSIONS_PER_TOKEN = 2  # a canvas may expand so often for each token that it may hold


class Stretching(CanvasRows):
    """Rows whose canvases change their length between steps."""

    @property
    def _limit(self) -> int | None:
        """Tokens that the holes of a canvas may grow to together; None: they keep their number."""
        return self.policy.max_infill_tokens

    def _limit_stretching(self, found: Predictions) -> Tensor:
        """(N, V) logits with -inf at the two tokens where a row may not take them."""
        layout, logits_NV = self.denoiser.layout, found.logits_NV
        if layout.expand_token_id is None or layout.delete_token_id is None:
            return logits_NV
        is_end = layout.delete_token_id in layout.end_token_ids
        expands = [self._may_expand(index) for index in range(len(self.rows))]
        deletes = [is_end if row.given is None else self._limit is not None for row in self.rows]
        for token, may in ((layout.expand_token_id, expands), (layout.delete_token_id, deletes)):
            column = token - found.first_id
            if not 0 <= column < logits_NV.shape[1]:
                continue  # codes of pictures are shown, say
            may_not_N = ~torch.tensor(may, device=logits_NV.device)[found.row_N]
            logits_NV[:, column] = logits_NV[:, column].masked_fill(may_not_N, -torch.inf)
        return logits_NV

    def _may_expand(self, index: int) -> bool:
        """Whether a row's canvas may grow now."""
        row, limit = self.rows[index], self._limit
        if row.given is None or limit is None:
            return False
        is_left = row.num_expansions < _EXPANSIONS_PER_TOKEN * limit
        return is_left and int((~row.given.pinned).sum()) < limit

    def _stretch(self) -> None:
        """Let positions that have taken one of the two tokens become two, or leave."""
        layout, canvases = self.denoiser.layout, self.canvases
        if self._limit is None or layout.expand_token_id is None:
            return
        asks_BK = canvases.ids_BK == layout.expand_token_id
        asks_BK = (asks_BK | (canvases.ids_BK == layout.delete_token_id)) & ~canvases.masked_BK
        asks_BK &= ~canvases.pinned_BK & canvases.in_window_BK & canvases.is_real
        for index in torch.nonzero(asks_BK.any(1))[:, 0].tolist():
            if self.rows[index].given is not None:
                self._stretch_row(index, np.flatnonzero(asks_BK[index].cpu().numpy()))

    def _stretch_row(self, index: int, places: np.ndarray) -> None:
        """Rebuild a row's canvas around the places that have taken one of the two tokens."""
        row, canvases = self.rows[index], self.canvases
        assert row.given is not None
        assert self._limit is not None
        length = int(canvases.length_B[index])
        copies: list[list[int]] = [[column] for column in range(length)]
        room = self._limit - int((~row.given.pinned).sum())
        for column in places.tolist():
            is_expand = int(canvases.ids_BK[index, column]) == self.denoiser.layout.expand_token_id
            num_new = 0 if not is_expand else 2 if room > 0 else 1
            room -= num_new - 1
            row.num_expansions += is_expand
            copies[column] = [NEW] * num_new
        source = np.array([one for columns in copies for one in columns], dtype=np.int64)
        first = row.num_delivered
        row.given = _stretched(row.given, source[first:] - np.where(source[first:] >= 0, first, 0))
        canvases.stretch(index, source, self.denoiser.layout.mask_token_id, first)


def _stretched(given: GivenCanvas, source: np.ndarray) -> GivenCanvas:
    """A canvas of columns of another one; `NEW` ones are masked text."""
    is_new = source == NEW
    return GivenCanvas(
        ids=np.where(is_new, 0, given.ids[source]),
        pinned=~is_new & given.pinned[source],
        drafted=~is_new & given.drafted[source],
        modality=np.where(is_new, MODALITY_IDS["text"], given.modality[source]),
    )


def check_stretching(
    denoiser: Denoiser[Any], options: Mapping[str, Any], inputs: GenerationInputs
) -> None:
    """Raise ValueError if a canvas is to stretch where something holds on to its columns.

    Args:
        denoiser: the model.
        options: every option.
        inputs: of the request.
    """
    modality = inputs.canvas_modality_ids
    has_canvas = inputs.canvas is not None or modality is not None
    if options["max_infill_tokens"] is None or not has_canvas:
        return
    holders = {
        "attention_pattern": denoiser.attention_pattern == "block_causal",
        "decoding_mode": options["decoding_mode"] != "diffusion",
        "noise_process": denoiser.noise_process != "absorbing",
        "revision": options["revision"] is not None or options["unmasking_strategy"] == "remdm",
        "guidance_scale": inputs.negative_input_ids is not None,
        "cache_reuse": options["cache_reuse"] not in (None, "exact", "none"),
        "canvas_allowed_ids": inputs.canvas_allowed_ids is not None,
        "regex": options["regex"] is not None,
        "json_schema": options["json_schema"] is not None,
        "choices": options["choices"] is not None,
        "return_trace": options["return_trace"],
    }
    held = [name for name, holds in holders.items() if holds]
    if modality is not None and bool((modality > MODALITY_IDS["text"]).any()):
        held.append("a canvas with something else than text")
    if held:
        raise ValueError(
            f"max_infill_tokens={options['max_infill_tokens']} lets the places of a canvas move, "
            f"which does not go with {held[0]}: pass max_infill_tokens=None for holes of fixed "
            "length"
        )
