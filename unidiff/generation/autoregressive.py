"""The other reading of the same weights: each context row predicts its successor.

A row continues with text, or fills a caller's canvas from its first place to its last: each token
is one of its place's modality, and a pinned one is read when its turn comes, by those behind it.
"""

# Shapes: B rows in the batch, N lines (a row and a place behind it), V ids.

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform
from unidiff.tokens.layout import MODALITY_IDS

from .confidence import log_probability
from .constraints import apply_processors, check_scores, limit_to_modality, suppress_ends
from .lockstep import LockStep
from .order import DRAW_TOKEN
from .rows import Row
from .ruled import limit_next
from .sampling import MEDIAN, choose_tokens, greedy_tokens

TEXT = MODALITY_IDS["text"]


class Autoregressive(LockStep):
    """Rows continued left to right: each forward commits a token and reads the next one."""

    @property
    def fuses(self) -> bool:
        """Always: the forward that commits a token is the one that chooses the next."""
        return True

    def select(self, rows: Sequence[int]) -> None:
        """Nothing to do: all state is the rows' own."""

    def join(self, rows: Sequence[Row]) -> None:
        """Put the pinned tokens that open a canvas behind the prompt."""
        for row in rows:
            if pinned := row.pinned_next:
                row.take(pinned, [0.0] * len(pinned))
                self.read_next(row, pinned)

    def step(self) -> None:
        """One commit of each live row's pending tokens, and the token that follows."""
        run = self.pending_run([None] * len(self.contexts))
        assert run is not None
        self.denoiser.commit(self.cache, run)
        live = self.live
        for index in live:
            self.rows[index].num_forwards += len(self.rows[index].contexts)
        logits_NV = self.read(self.next_logits(live), live, [()] * len(live))
        for index, token, log_prob in zip(live, *self.draw(logits_NV, live), strict=True):
            self.append(index, token, log_prob)

    def next_logits(self, rows: Sequence[int]) -> Tensor:
        """(N, V) scores of the token after the last committed one of the given rows."""
        logits_BV = self.denoiser.next_logits(self.cache)
        return self.policy.guidance.mix(logits_BV)[self.index_of(rows)]

    def read(
        self, logits_NV: Tensor, rows: Sequence[int], drafts: Sequence[Sequence[int]]
    ) -> Tensor:
        """(N, V) scores of the places' tokens under the caller's rules.

        Args:
            logits_NV: scores, one line for each place.
            rows: row of the batch of each line.
            drafts: tokens that stand between the row's known ones and the line's place.
        """
        policy, denoiser = self.policy, self.denoiser
        row_N = self.index_of(rows)
        places = [len(self.rows[i].generated) + len(d) for i, d in zip(rows, drafts, strict=True)]
        kinds = [modality_at(self.rows[i], at) for i, at in zip(rows, places, strict=True)]
        logits_NV = limit_to_modality(
            logits_NV, self.index_of(kinds), denoiser.layout, denoiser.vocab_size, None
        )
        early_N = torch.tensor(places, device=row_N.device) < policy.suppress_eos_before
        logits_NV = suppress_ends(logits_NV, self.tensors.end_ids_BE[row_N], early_N, 0)
        logits_NV = limit_next(logits_NV, [self.rows[i] for i in rows], drafts)
        if policy.processors:
            pairs = zip(rows, drafts, strict=True)
            known = [[*self.rows[i].known_ids, *draft] for i, draft in pairs]
            line_N = torch.arange(len(known), device=row_N.device)
            logits_NV = apply_processors(policy.processors, logits_NV, line_N, known)
        return logits_NV

    def draw(
        self, logits_NV: Tensor, rows: Sequence[int], offsets: Sequence[int] | None = None
    ) -> tuple[list[int], list[float]]:
        """(tokens, log-probabilities in nats) of each line.

        Args:
            logits_NV: scores, one line for each place.
            rows: row of the batch of each line.
            offsets: tokens between the row's known ones and the line's place; None: none.
        """
        row_N = self.index_of(rows)
        choice, modality_N = self.policy.greedy_choice, None
        ahead = [0] * len(rows) if offsets is None else offsets
        places = [len(self.rows[i].generated) + n for i, n in zip(rows, ahead, strict=True)]
        if choice == MEDIAN:
            kinds = [modality_at(self.rows[i], at) for i, at in zip(rows, places, strict=True)]
            modality_N = self.index_of(kinds)
        token_N = greedy_tokens(logits_NV, modality_N, choice)
        if not self.tensors.is_greedy:
            index = [len(self.rows[i].prompt) + at for i, at in zip(rows, places, strict=True)]
            token_N = choose_tokens(
                logits_NV,
                self.tensors.temperature_B[row_N],
                uniform(self.tensors.seed_B[row_N], DRAW_TOKEN, self.index_of(index), 0),
                self.policy.top_k,
                self.policy.top_p,
                token_N,
            )
        log_prob_N = log_probability(logits_NV, token_N)
        check_scores(logits_NV, log_prob_N, bool(self.policy.processors))
        return token_N.tolist(), log_prob_N.tolist()

    def append(self, index: int, token: int, log_prob: float) -> None:
        """Add one token to a row, still to be committed; end the row if it is the last.

        The pinned ones behind it come with it.
        """
        row = self.rows[index]
        if self.policy.keeps_trace:
            row.trace.note(row.num_forwards, len(row.generated), token, math.exp(log_prob))
        criterion_met = row.take([token], [log_prob])
        pinned = row.pinned_next
        row.take(pinned, [0.0] * len(pinned))
        if row.is_filled:
            row.finish_reason = "canvas"
        elif row.given is None and (criterion_met or token in row.settings.end_ids):
            row.finish_reason = "stop"
        elif row.given is None and row.room <= 0:
            row.finish_reason = "length"
        else:
            self.read_next(row, [token, *pinned])

    def read_next(self, row: Row, ids: Sequence[int]) -> None:
        """Put the last generated tokens of a row behind its contexts, to be committed."""
        stop = len(row.generated)
        kinds = [modality_at(row, place) for place in range(stop - len(ids), stop)]
        for context in row.contexts:
            context.extend(ids, kinds, context.next_positions(kinds))

    def index_of(self, values: Sequence[int]) -> Tensor:
        """(N,) int64 of the given numbers, on the model's device."""
        return torch.tensor(list(values), dtype=torch.int64, device=self.denoiser.device)


def modality_at(row: Row, place: int) -> int:
    """Modality of a place of the response: text where the caller gave no canvas."""
    return TEXT if row.given is None else int(row.given.modality[place])
