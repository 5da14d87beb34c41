"""Drafts of self-speculation, the lines that judge them, and whether drafting pays."""

# Shapes: D draft tokens, N lines (a row and a place behind it), V ids.

from dataclasses import dataclass

from torch import Tensor

# `auto` judges the draft by tokens per forward: a forward over a block costs more than one over a
# token (1.6 times for 32 on the CPU of research/inference.md section 6), so 1 would not pay.
_LEAST_RATE = 1.25
_NUM_TRIAL_ROUNDS = 4
_FIRST_PAUSE = 64  # tokens; doubled after each trial that failed


@dataclass
class Acceptance:
    """Whether drafting pays for one row, by what was accepted.

    Attributes:
        num_rounds: drafts of the present trial.
        num_tokens: tokens they gave.
        num_forwards: forwards they took.
        pause: tokens still to come without a draft.
        next_pause: length of the next pause.
    """

    num_rounds: int = 0
    num_tokens: int = 0
    num_forwards: int = 0
    pause: int = 0
    next_pause: int = _FIRST_PAUSE

    def note(self, num_tokens: int, num_forwards: int) -> None:
        """Count a round; start a pause when a trial was not worth it."""
        self.num_rounds += 1
        self.num_tokens += num_tokens
        self.num_forwards += num_forwards
        if self.num_rounds < _NUM_TRIAL_ROUNDS:
            return
        if self.num_tokens < _LEAST_RATE * self.num_forwards:
            self.pause, self.next_pause = self.next_pause, 2 * self.next_pause
        self.num_rounds = self.num_tokens = self.num_forwards = 0


@dataclass(frozen=True)
class Drafts:
    """The canvases' proposals.

    Attributes:
        ids: draft tokens of each row that drafts.
        law_NV: (N, V) float64 law q of every draft token, row by row.
        starts: first line of each row in it.
        keys: counter of each row's random numbers in this round.
    """

    ids: dict[int, list[int]]
    law_NV: Tensor
    starts: dict[int, int]
    keys: dict[int, int]


@dataclass(frozen=True)
class Lines:
    """Places whose reading is known: consecutive places of each row, row by row.

    Attributes:
        rows: rows of the batch, each once.
        counts: places of each.
        first: place of a row's first line behind its known tokens.
        logits_NV: (N, V) scores p under the caller's rules.
    """

    rows: list[int]
    counts: list[int]
    first: int
    logits_NV: Tensor

    @property
    def line_rows(self) -> list[int]:
        """Row of each line."""
        return [r for r, n in zip(self.rows, self.counts, strict=True) for _ in range(n)]

    @property
    def line_offsets(self) -> list[int]:
        """Each line's number within its row."""
        return [offset for count in self.counts for offset in range(count)]


@dataclass
class Verdict:
    """What the reading made of a draft.

    Attributes:
        tokens: tokens of the response, the last one not from the draft unless all was kept.
        log_probs: of each, nats.
        num_kept: leading tokens that are the draft's.
        num_forwards: forwards of the round.
    """

    tokens: list[int]
    log_probs: list[float]
    num_kept: int
    num_forwards: int = 1
