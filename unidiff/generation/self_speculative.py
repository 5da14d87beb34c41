"""Self-speculation: the canvas drafts a block in one step, the commit reads it left to right.

A draft token is kept with probability min(1, p / q), p the autoregressive law and q the canvas's;
the first one refused is drawn anew from what p has more than q. The response then follows the
autoregressive law exactly, whatever the draft is worth (DESIGN decision 18; speculative sampling,
arXiv 2211.17192, algorithm 1). Greedy decoding is the case of one-hot laws.
"""

# Shapes: B rows in the batch, D draft tokens, N lines (a row and a place behind it), V ids.

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from unidiff.diffusion.random import uniform

from .autoregressive import TEXT, Autoregressive
from .constraints import limit_to_modality
from .denoiser import Run
from .drafts import Acceptance, Drafts, Lines, Verdict
from .order import DRAW_TOKEN
from .pace import leading_run
from .rows import Row
from .ruled import limit_next
from .sampling import inverse_cdf, probabilities

DRAW_DRAFT, DRAW_ACCEPT = 3, 4  # purposes of a row's random numbers, besides those of `order`


class SelfSpeculative(Autoregressive):
    """Rows continued by verified drafts."""

    acceptances: Mapping[int, Acceptance] = {}

    def join(self, rows: Sequence[Row]) -> None:
        """Start with a trial for every row."""
        self.acceptances = {
            row.index: self.acceptances.get(row.index, Acceptance()) for row in self.rows
        }

    def step(self) -> None:
        """One draft for each live row, and as many of its tokens as the reading accepts."""
        live = self.live
        drafts = self._draft([self._draft_length(index) for index in range(len(self.rows))])
        logits_NV = self.read(self.next_logits(live), live, [()] * len(live))
        is_plain_N = torch.tensor([index not in drafts.ids for index in live])
        if bool(is_plain_N.any()):
            self._speak([i for i in live if i not in drafts.ids], logits_NV[is_plain_N])
        drafting = list(drafts.ids)
        first = Lines(drafting, [1] * len(drafting), 0, logits_NV[~is_plain_N])
        verdicts = self._judge(drafts, first)
        self._verify(drafts, verdicts)
        for index, verdict in verdicts.items():
            self._settle(index, verdict)
        held = self.cache.token_ids
        kept = [min(len(ids), c.num_cached) for ids, c in zip(held, self.contexts, strict=True)]
        if any(len(ids) > length for ids, length in zip(held, kept, strict=True)):
            self.cache.crop(kept)

    def _draft_length(self, index: int) -> int:
        """Tokens to draft for a row; the reading adds one more, so the last is never drafted."""
        row = self.rows[index]
        paused = self.policy.drafts_while_it_pays and self.acceptances[row.index].pause
        if row.finish_reason is not None or paused:
            return 0
        return min(self.policy.blocks.length, row.room - 1)

    def _speak(self, rows: Sequence[int], logits_NV: Tensor) -> None:
        """Append the next token of rows that did not draft."""
        for index, token, log_prob in zip(rows, *self.draw(logits_NV, rows), strict=True):
            acceptance = self.acceptances[self.rows[index].index]
            acceptance.pause = max(0, acceptance.pause - 1)
            self.append(index, token, log_prob)

    def _draft(self, lengths: Sequence[int]) -> Drafts:
        """Commit what is pending and draft `lengths[b]` tokens behind it, in one forward."""
        pending = self.pending_run([None] * len(self.contexts))
        assert pending is not None
        for index in self.live:
            self.rows[index].num_forwards += len(self.rows[index].contexts)
        if not any(lengths):
            self.denoiser.commit(self.cache, pending)
            return Drafts({}, torch.zeros(0, 0), {}, {})
        mask_id = self.denoiser.layout.mask_token_id
        canvas = self._behind([[mask_id] * length for length in lengths])
        logits_NV = self.denoiser.probe(
            self.cache, canvas, logits_at_BK=_real(canvas), commit=pending
        )
        drafts = self._drawn(logits_NV, {i: n for i, n in enumerate(lengths) if n})
        for index, ids in drafts.ids.items():
            self.rows[index].out.keep_draft(ids)
        return drafts

    def _behind(self, ids: Sequence[Sequence[int]]) -> Run:
        """A run of text tokens behind each row's context, and again behind its weaker branches'."""
        ids = [*ids] * self.policy.guidance.num_branches
        positions = [
            context.next_positions([TEXT] * len(row))
            for context, row in zip(self.contexts, ids, strict=True)
        ]
        return Run.of(ids, positions, self.denoiser.device)

    def _drawn(self, logits_NV: Tensor, counts: dict[int, int]) -> Drafts:
        """Drafts from the canvases' scores, one line for each of a row's `counts` places."""
        rows = [index for index, count in counts.items() for _ in range(count)]
        logits_NV = self.policy.guidance.mix(logits_NV)
        # Any law of the draft keeps the reading's, so the caller's processors are left to it.
        layout, vocab_size = self.denoiser.layout, self.denoiser.vocab_size
        kind_N = torch.full((len(rows),), TEXT, device=logits_NV.device)
        logits_NV = limit_to_modality(logits_NV, kind_N, layout, vocab_size, None)
        law_NV = self._law(logits_NV, rows)
        keys = {index: self.rows[index].num_forwards for index in counts}
        places = [place for count in counts.values() for place in range(count)]
        number_N = self._uniform(DRAW_DRAFT, rows, places, keys)
        drawn = inverse_cdf(law_NV, number_N).tolist()
        starts = dict(zip(counts, [0, *accumulate(counts.values())], strict=False))
        for index in counts:
            if self.rows[index].rule is not None:
                lines = slice(starts[index], starts[index] + counts[index])
                drawn[lines] = self._redrawn(
                    index, logits_NV[lines], law_NV[lines], number_N[lines]
                )
        ids = {index: drawn[starts[index] : starts[index] + n] for index, n in counts.items()}
        return Drafts(ids, law_NV, starts, keys)

    def _redrawn(
        self, index: int, logits_NV: Tensor, law_NV: Tensor, number_N: Tensor
    ) -> list[int]:
        """A row's draft, left to right under its rule; the laws are written into `law_NV`."""
        draft: list[int] = []
        for line in range(len(logits_NV)):
            one = slice(line, line + 1)
            limited_NV = limit_next(logits_NV[one], [self.rows[index]], [draft])
            law_NV[one] = self._law(limited_NV, [index])
            draft += inverse_cdf(law_NV[one], number_N[one]).tolist()
        return draft

    def _law(self, logits_NV: Tensor, rows: Sequence[int]) -> Tensor:
        """(N, V) float64 probabilities that tokens of the given rows are drawn with."""
        temperature_N = self.tensors.temperature_B[self.index_of(rows)]
        return probabilities(logits_NV, temperature_N, self.policy.top_k, self.policy.top_p)

    def _uniform(
        self, draw: int, rows: Sequence[int], places: Sequence[int], keys: dict[int, int]
    ) -> Tensor:
        """(N,) random numbers, one for each row and place behind its known tokens."""
        pairs = zip(rows, places, strict=True)
        index_N = self.index_of([len(self.rows[row].known_ids) + place for row, place in pairs])
        key_N = self.index_of([keys[row] for row in rows])
        return uniform(self.tensors.seed_B[self.index_of(rows)], draw, index_N, key_N)

    def _judge(self, drafts: Drafts, lines: Lines) -> dict[int, Verdict]:
        """Which draft tokens are kept from each row's first line on, and the token behind them.

        A row with more lines than its draft has places left gets a token of the reading's own when
        all of them are kept.
        """
        if not lines.rows:
            return {}
        row_N, offset_N = lines.line_rows, lines.line_offsets
        place_N = [lines.first + offset for offset in offset_N]
        has_draft = [p < len(drafts.ids[r]) for r, p in zip(row_N, place_N, strict=True)]
        triples = list(zip(row_N, place_N, has_draft, strict=True))
        id_N = self.index_of([drafts.ids[r][p] if has else 0 for r, p, has in triples])
        draft_N = self.index_of([drafts.starts[r] + p if has else 0 for r, p, has in triples])
        law_NV = self._law(lines.logits_NV, row_N)
        number_N = self._uniform(DRAW_ACCEPT, row_N, place_N, drafts.keys)
        chance_N = drafts.law_NV[draft_N, id_N]
        holds_N = number_N * chance_N < law_NV.gather(1, id_N[:, None])[:, 0]
        holds_N &= torch.tensor(has_draft, device=holds_N.device)
        holds_RD = holds_N.new_zeros(len(lines.rows), max(lines.counts))
        which_N = [place for place, count in enumerate(lines.counts) for _ in range(count)]
        holds_RD[which_N, offset_N] = holds_N
        kept = leading_run(holds_RD).tolist()
        next_token = self._next_tokens(drafts, lines, kept, law_NV)
        token_N = torch.where(holds_N, id_N, 0)
        verdicts, start = {}, 0
        log_prob_NV = lines.logits_NV.log_softmax(-1)
        for row, count, num_kept, token in zip(
            lines.rows, lines.counts, kept, next_token, strict=True
        ):
            tokens = token_N[start : start + num_kept].tolist()
            tokens += [token] if num_kept < count else []
            line = torch.arange(start, start + len(tokens), device=log_prob_NV.device)
            log_probs = log_prob_NV[line, self.index_of(tokens)].tolist()
            verdicts[row] = Verdict(tokens, log_probs, num_kept)
            start += count
        return verdicts

    def _next_tokens(
        self, drafts: Drafts, lines: Lines, kept: Sequence[int], law_NV: Tensor
    ) -> list[int]:
        """The token at each row's first line that was not kept; of no meaning where all were."""
        starts = [0, *accumulate(lines.counts)][:-1]
        last = [min(k, n - 1) for k, n in zip(kept, lines.counts, strict=True)]
        rest_RV = law_NV[self.index_of([s + k for s, k in zip(starts, last, strict=True)])]
        places = [lines.first + k for k in last]
        for line, (row, place) in enumerate(zip(lines.rows, places, strict=True)):
            if place < len(drafts.ids[row]):  # refused: what the reading has more than the draft
                draft_V = drafts.law_NV[drafts.starts[row] + place]
                rest_RV[line] = (rest_RV[line] - draft_V).clamp(min=0.0)
        number_R = self._uniform(DRAW_TOKEN, lines.rows, places, drafts.keys)
        return inverse_cdf(rest_RV, number_R).tolist()

    def _verify(self, drafts: Drafts, verdicts: dict[int, Verdict]) -> None:
        """Read the drafts whose first token was kept, and complete their verdicts."""
        passed = dict.fromkeys(i for i, verdict in verdicts.items() if verdict.num_kept)
        if not passed:
            return
        run = self._behind([drafts.ids[i] if i in passed else [] for i in range(len(self.rows))])
        logits_NV = self.denoiser.commit(self.cache, run, logits_at_BT=_real(run))
        assert logits_NV is not None
        logits_NV = self.policy.guidance.mix(logits_NV)
        counts = [len(drafts.ids[index]) for index in passed]
        before = [drafts.ids[i][: place + 1] for i in passed for place in range(len(drafts.ids[i]))]
        rows = [i for i, count in zip(passed, counts, strict=True) for _ in range(count)]
        rest = self._judge(
            drafts, Lines(list(passed), counts, 1, self.read(logits_NV, rows, before))
        )
        for index, more in rest.items():
            self.rows[index].num_forwards += len(self.rows[index].contexts)
            verdict = verdicts[index]
            verdict.tokens += more.tokens
            verdict.log_probs += more.log_probs
            verdict.num_kept += more.num_kept
            verdict.num_forwards += 1

    def _settle(self, index: int, verdict: Verdict) -> None:
        """Append a verdict's tokens up to the row's end; the kept ones are already committed."""
        row = self.rows[index]
        self.acceptances[row.index].note(len(verdict.tokens), verdict.num_forwards)
        num_before = [len(context) for context in row.contexts]
        num_taken = 0
        for token, log_prob in zip(verdict.tokens, verdict.log_probs, strict=True):
            if row.finish_reason is None:
                self.append(index, token, log_prob)
                num_taken += 1
        if verdict.num_forwards > 1:
            for context, before in zip(row.contexts, num_before, strict=True):
                context.num_cached = before + min(verdict.num_kept, num_taken)


def _real(run: Run) -> Tensor:
    """(B, T) bool, True at the real tokens of a run."""
    place_T = torch.arange(run.ids_BT.shape[1], device=run.ids_BT.device)
    return place_T < run.length_B[:, None]
