"""Self-speculation: the context rows read a draft left to right while canvases draft the next one.

Each round is one forward over a row's last token, the draft that follows it, and a masked canvas
behind each of them. The reading draws every token exactly as `ar` would, with the same random
number; as long as the draft says the same, the next token's reading is there already. So the
response is that of `ar`, token for token, greedy or sampled, whatever the drafts are worth. Of the
canvas behind the last right token, the first place stands for the token just drawn; the others are
the next draft. Where a row says again what it said before, the draft is what followed then.

Source: own design on the two readings of the weights (DESIGN decision 18); a draft that is compared
with the token itself, rather than accepted by a ratio of laws as in arXiv 2211.17192.
"""

# Shapes: B rows in the batch, T tokens of a run, K canvas tokens, N lines (a row and a place behind
# it), V ids.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .autoregressive import TEXT, Autoregressive
from .constraints import limit_to_modality
from .context import Context
from .denoiser import Denoiser, Run
from .drafts import Drafting
from .lockstep import Policy
from .rows import Row
from .sampling import likeliest

_LOOKUP_LENGTH = 8  # tokens of one that repeats what the row has said
_LEAST_ROOM = 3  # what a round draws, one token to try next, and the one that its reading adds


@dataclass(frozen=True)
class _Round:
    """One forward over drafts.

    Attributes:
        drafts: tokens that were tried, of each row of the batch.
        widths: places of each row's canvases.
        logits_NV: scores behind each live row's last known token and its draft's, row by row.
        predict: (M, V) predictions for the canvas tokens that are True in a (B, K) mask.
        mask_shape: (B, K), the weaker branches' canvases included.
    """

    drafts: list[list[int]]
    widths: list[int]
    logits_NV: Tensor
    predict: Callable[[Tensor], Tensor]
    mask_shape: torch.Size


@dataclass(frozen=True)
class _Line:
    """One context's part of a round.

    Attributes:
        ids: its pending tokens, and the draft.
        positions: (3, n) where they stand.
        first: index of the last pending one, the first whose successor is read.
        canvas_positions: (3, k) where the canvas tokens stand.
        behind: index among `ids` of the token that each of them stands behind.
    """

    ids: list[int]
    positions: np.ndarray
    first: int
    canvas_positions: np.ndarray
    behind: list[int]


class SelfSpeculative(Autoregressive):
    """Rows continued by verified drafts."""

    def __init__(self, denoiser: Denoiser[Any], policy: Policy) -> None:
        """Start without rows."""
        super().__init__(denoiser, policy)
        self.drafting: dict[int, Drafting] = {}  # what is known of each row, by its number

    def join(self, rows: Sequence[Row]) -> None:
        """Know nothing of the new rows, and forget those that left."""
        self.drafting = {row.index: self.drafting.get(row.index, Drafting()) for row in self.rows}

    def step(self) -> None:
        """One forward for all live rows: as many tokens as their drafts foresaw, and one more."""
        places = range(len(self.rows))
        drafts, widths = [self._draft(i) for i in places], [self._width(i) for i in places]
        live = self.live
        if not any(drafts) and not any(widths):
            super().step()
            for index in live:
                self._of(index).note(0, 1)
            return
        for index in live:
            self.rows[index].out.keep_draft(drafts[index])
        now = self._forward(drafts, widths)
        num_kept = {i: self._take(i, drafts[i], said) for i, said in self._answers(now).items()}
        self._draft_anew(num_kept, now)
        held = self.cache.token_ids
        kept = [min(len(ids), c.num_cached) for ids, c in zip(held, self.contexts, strict=True)]
        if any(len(ids) > length for ids, length in zip(held, kept, strict=True)):
            self.cache.crop(kept)

    def _of(self, index: int) -> Drafting:
        """What is known of a row of the batch."""
        return self.drafting[self.rows[index].index]

    def _draft(self, index: int) -> list[int]:
        """Tokens to try; the reading adds one more, so the last of a response is never drafted."""
        row = self.rows[index]
        return [] if row.finish_reason is not None else self._of(index).ids[: row.room - 1]

    def _wants_draft(self, index: int) -> bool:
        """Whether a row goes on and does not pause."""
        paused = self.policy.drafts_while_it_pays and self._of(index).pause
        return self.rows[index].finish_reason is None and not paused

    def _look_up(self, index: int) -> None:
        """Draft what followed when the row said the same before."""
        known = self._of(index)
        known.ids = known.repetitions.look_up(self.rows[index].known_ids, _LOOKUP_LENGTH)
        known.is_looked_up = bool(known.ids)

    def _width(self, index: int) -> int:
        """Places of a row's canvases: the token that the round draws, then a draft.

        None while the row repeats itself: it will draft from that again.
        """
        room, known = self.rows[index].room, self._of(index)
        repeats = known.is_looked_up and bool(known.ids)
        if not self._wants_draft(index) or repeats or room < _LEAST_ROOM:
            return 0
        return min(self.policy.draft_length + 1, room - 1)

    def _forward(self, drafts: list[list[int]], widths: list[int]) -> _Round:
        """Commit what is pending and the drafts, with a canvas behind each token that may be last.

        The weaker branches of guidance try the same drafts.
        """
        lines = [
            self._line(context, drafts[number % len(drafts)], widths[number % len(drafts)])
            for number, context in enumerate(self.contexts)
        ]
        device = self.denoiser.device
        run = Run.of([line.ids for line in lines], [line.positions for line in lines], device)
        canvas = Run.of(
            [[self.denoiser.layout.mask_token_id] * len(line.behind) for line in lines],
            [line.canvas_positions for line in lines],
            device,
        )
        asked_BT = torch.zeros(run.ids_BT.shape, dtype=torch.bool, device=device)
        behind_BK = torch.zeros_like(canvas.ids_BT)
        for number, line in enumerate(lines):
            asked_BT[number, line.first : len(line.ids)] = True
            behind_BK[number, : len(line.behind)] = self.index_of(line.behind)
        logits_NV, predict = self.denoiser.verify(
            self.cache, run, canvas, behind_BK=behind_BK, logits_at_BT=asked_BT
        )
        for index in self.live:
            self.rows[index].num_forwards += len(self.rows[index].contexts)
        logits_NV = self.policy.guidance.mix(logits_NV)
        return _Round(drafts, widths, logits_NV, predict, behind_BK.shape)

    def _line(self, context: Context, draft: list[int], width: int) -> _Line:
        """A context's part of the forward; nothing for a row that has finished."""
        ids, position_3N = context.take_pending()
        ahead = context.next_positions([TEXT] * (len(draft) + width))
        starts = range(len(draft) + 1) if width else ()
        canvases = [ahead[:, start : start + width] for start in starts]
        last = len(ids) - 1
        return _Line(
            ids=ids + draft,
            positions=np.hstack([position_3N, ahead[:, : len(draft)]]),
            first=max(last, 0),
            canvas_positions=np.hstack([ahead[:, :0], *canvases]),
            behind=[last + start for start in starts for _ in range(width)],
        )

    def _answers(self, now: _Round) -> dict[int, list[tuple[int, float]]]:
        """What the reading says at each place of each live row: (token, log-probability in nats).

        Places behind one where it contradicts the draft mean nothing. The caller's processors do
        not see them.
        """
        live, start, starts = self.live, 0, {}
        for index in live:
            starts[index] = start
            start += len(now.drafts[index]) + 1
        said: dict[int, list[tuple[int, float]]] = {index: [] for index in live}
        num_places = max(map(len, now.drafts)) + 1
        stride = 1 if self.policy.processors else num_places
        for first in range(0, num_places, stride):
            lines = [
                (index, place)
                for index in live
                if [token for token, _ in said[index]] == now.drafts[index][:first]
                for place in range(first, min(first + stride, len(now.drafts[index]) + 1))
            ]
            if not lines:
                break
            rows, places = [index for index, _ in lines], [place for _, place in lines]
            line_N = self.index_of([starts[index] + place for index, place in lines])
            before = [now.drafts[index][:place] for index, place in lines]
            logits_NV = self.read(now.logits_NV[line_N], rows, before)
            tokens, log_probs = self.draw(logits_NV, rows, places)
            for index, token, log_prob in zip(rows, tokens, log_probs, strict=True):
                said[index].append((token, log_prob))
        return said

    def _take(self, index: int, draft: list[int], said: list[tuple[int, float]]) -> int:
        """Append what the reading says to its first contradiction; how much the draft had right."""
        row = self.rows[index]
        num_cached = [context.num_cached for context in row.contexts]
        num_taken = 0
        for (token, log_prob), tried in zip(said, [*draft, None], strict=False):
            self.append(index, token, log_prob)
            num_taken += 1
            if token != tried or row.finish_reason is not None:
                break
        for context, before in zip(row.contexts, num_cached, strict=True):
            context.num_cached = before + num_taken - 1
        self._of(index).note(len(draft), num_taken)
        return num_taken - 1

    def _draft_anew(self, num_kept: dict[int, int], now: _Round) -> None:
        """Read the next draft off the canvas behind each row's last right token."""
        going_on = [index for index in num_kept if self._wants_draft(index)]
        for index in num_kept:
            self._of(index).ids = []
        if self.policy.looks_up_drafts:
            for index in going_on:
                self._look_up(index)
        drafting = [i for i in going_on if now.widths[i] and not self._of(i).ids]
        if not drafting:
            return
        asked_BK = torch.zeros(now.mask_shape, dtype=torch.bool, device=self.denoiser.device)
        for index in drafting:
            first = num_kept[index] * now.widths[index] + 1  # behind the place of the token drawn
            rows = range(index, len(asked_BK), len(self.rows))
            asked_BK[list(rows), first : first + now.widths[index] - 1] = True
        logits_NV = self.policy.guidance.mix(now.predict(asked_BK))
        # Any draft keeps the law, so the caller's rules are left to the reading.
        kind_N = torch.full((len(logits_NV),), TEXT, device=logits_NV.device)
        layout, vocab_size = self.denoiser.layout, self.denoiser.vocab_size
        ids = likeliest(limit_to_modality(logits_NV, kind_N, layout, vocab_size, None)).tolist()
        for index in drafting:
            count = now.widths[index] - 1
            self._of(index).ids, ids = ids[:count], ids[count:]
            self._of(index).is_looked_up = False
