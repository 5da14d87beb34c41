"""What both decode loops share: rows in lock step, admission, commits, compaction.

Rows are independent state machines that share forwards. They join between steps. A row that has
finished waits with an empty canvas until enough have finished for the batch to be compacted.
"""

# Shapes: B rows in the batch, T tokens to commit.

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .blocks import Blocks
from .constraints import LogitsProcessor
from .context import Context
from .denoiser import Denoiser, Run
from .guidance import Guidance
from .order import UnmaskingStrategy
from .revision import Revision
from .rows import Row, RowTensors
from .soft import give_soft

_COMPACT_AT = 0.25  # share of finished rows at which copying the cache pays


@dataclass(frozen=True)
class Policy:
    """Choices that all rows of a request share.

    Attributes:
        strategy: which masked positions to reveal.
        confidence_metric: name of the certainty that the strategy ranks by.
        blocks: how long blocks of text are.
        top_k: ids kept before drawing; None: all.
        top_p: probability mass kept before drawing.
        greedy_choice: what a greedy position takes, see `sampling.greedy_tokens`.
        guidance: how the branches of each row are mixed.
        reuses_cache: whether committed tokens are kept, or everything is recomputed each step.
        fuses_commit: whether a block is stored by the next canvas's first probe.
        prefill_chunk_length: prompt tokens per forward; None: all.
        keeps_cache: whether the caller wants the cache of finished rows.
        keeps_log_probs: whether to note each token's log-probability.
        revision: what may change revealed positions, or None.
        stability_steps: steps without a change of likeliest tokens that may end a block (renoise).
        stability_entropy: mean entropy in nats below which they do.
        mixes_posteriors: whether guidance mixes reverse posteriors rather than logits (ancestral).
        keeps_trace: whether to note every reveal.
        eos_early_rejection: factor on an end token's confidence at a block's first step, or None.
        suppress_eos_before: response tokens among which no end token may be.
        drafts_while_it_pays: whether self-speculation pauses where few draft tokens are kept.
        draft_length: tokens that a canvas drafts at a time in self-speculation.
        looks_up_drafts: whether self-speculation also drafts what a row has said before.
        max_infill_tokens: tokens that the holes of a canvas may grow to; None: they do not.
        processors: the caller's logits processors.
    """

    strategy: UnmaskingStrategy
    confidence_metric: str
    blocks: Blocks
    top_k: int | None = None
    top_p: float = 1.0
    greedy_choice: str = "mode"
    guidance: Guidance = field(default_factory=Guidance)
    reuses_cache: bool = True
    fuses_commit: bool = True
    prefill_chunk_length: int | None = None
    keeps_cache: bool = False
    keeps_log_probs: bool = False
    revision: Revision | None = None
    stability_steps: int = 1
    stability_entropy: float = 0.005
    mixes_posteriors: bool = False
    keeps_trace: bool = False
    eos_early_rejection: float | None = None
    suppress_eos_before: int = 0
    drafts_while_it_pays: bool = False
    draft_length: int = 2
    looks_up_drafts: bool = False
    max_infill_tokens: int | None = None
    processors: Sequence[LogitsProcessor] = ()


class LockStep(ABC):
    """A batch of rows decoded together; subclasses say what one step is."""

    def __init__(self, denoiser: Denoiser[Any], policy: Policy) -> None:
        """Start without rows."""
        self.denoiser = denoiser
        self.policy = policy
        self.rows: list[Row] = []
        self.cache = denoiser.new_cache(0)
        self.takes_part: list[bool] = []  # whose weaker branches are read now
        self.asleep: Any = None  # cache of all weaker branches while no row reads them
        self.tensors = RowTensors.of(self.rows, denoiser.device)

    @abstractmethod
    def step(self) -> None:
        """One forward over all live rows and everything that follows from it."""

    @abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Keep the state of these rows only."""

    @abstractmethod
    def join(self, rows: Sequence[Row]) -> None:
        """Make the state of rows that now stand behind the others in the batch."""

    def advance(self) -> None:
        """One step of all live rows, with the commits that it needs first."""
        if not self.policy.reuses_cache:
            self._forget()
        self._seat_branches()
        self._commit_ahead()
        self.step()

    def admit(self, rows: Sequence[Row], cache: Any) -> None:
        """Let rows join between steps; those that have finished leave.

        Args:
            rows: rows not yet begun.
            cache: one row of each, then those of their weaker branches.
        """
        live, num_branches = self.live, self.policy.guidance.num_branches
        self._wake()
        self._keep(live)
        if live and num_branches == 1:
            cache = self.denoiser.join_caches([self.cache, cache])
        elif live:
            pairs = [(self.cache, len(live)), (cache, len(rows))]
            cache = self.denoiser.join_caches(
                [
                    part.select_rows(range(branch * count, (branch + 1) * count))
                    for branch in range(num_branches)
                    for part, count in pairs
                ]
            )
        self.rows, self.cache = [*self.rows, *rows], cache
        self.takes_part = [False] * len(self.rows)
        self.tensors = RowTensors.of(self.rows, self.denoiser.device)
        self.join(rows)

    def finish(self, index: int, reason: str) -> None:
        """End a row."""
        self.rows[index].finish_reason = reason

    @property
    def live(self) -> list[int]:
        """Rows of the batch that are not finished."""
        return [i for i, row in enumerate(self.rows) if row.finish_reason is None]

    @property
    def uses_branches(self) -> list[bool]:
        """Rows whose weaker branches are read by the next forward."""
        return [True] * len(self.rows)

    @property
    def seats_branches(self) -> bool:
        """Whether the cache holds the weaker branches behind the rows."""
        return self.policy.guidance.num_branches > 1 and self.asleep is None

    def num_contexts(self, index: int) -> int:
        """Contexts of a row that the next forward reads."""
        return len(self.rows[index].contexts) if self.takes_part[index] else 1

    @property
    def contexts(self) -> list[Context]:
        """Contexts in the cache's row order: the rows', then each weaker branch's of all rows."""
        branches = range(self.policy.guidance.num_branches if self.seats_branches else 1)
        return [row.contexts[branch] for branch in branches for row in self.rows]

    @property
    def commit_limits(self) -> list[int | None]:
        """What the next forward may commit of each context: all, or nothing of what it skips."""
        num_branches = len(self.contexts) // len(self.rows)
        skipped = [None if takes_part else 0 for takes_part in self.takes_part]
        return [None] * len(self.rows) + skipped * (num_branches - 1)

    def pending_run(self, limits: Sequence[int | None]) -> Run | None:
        """The next tokens to commit of each context, at most `limits`; None if there are none."""
        taken = [
            context.take_pending(limit)
            for context, limit in zip(self.contexts, limits, strict=True)
        ]
        if not any(ids for ids, _ in taken):
            return None
        return Run.of([ids for ids, _ in taken], [p for _, p in taken], self.denoiser.device)

    def _forget(self) -> None:
        """Empty the cache, so that the next forward recomputes every token."""
        for row in self.rows:
            for context in row.contexts:
                context.num_cached = 0 if row.finish_reason is None else len(context)
        names = [row.settings.adapter for row in self.rows]
        num_seats = len(self.contexts)
        self.cache = self.denoiser.new_cache(num_seats, names * (num_seats // len(names)))
        give_soft(self.cache, self.contexts)
        if self.asleep is not None:
            num_twins = self.policy.guidance.num_branches - 1
            self.asleep = self.denoiser.new_cache(num_twins * len(names), names * num_twins)
            twins = [row.contexts[1 + n] for n in range(num_twins) for row in self.rows]
            give_soft(self.asleep, twins)

    def _seat_branches(self) -> None:
        """Put the weaker branches into the cache if a row reads them, take them out if none does.

        A branch that sleeps commits nothing; it catches up when it is read again. With
        `logits_shift=1` they stay: caches are joined without the reading of their last tokens.
        """
        if self.policy.guidance.num_branches == 1:
            return
        self.takes_part = self.uses_branches
        if self.denoiser.logits_shift:
            return
        num_rows, is_read = len(self.rows), any(self.takes_part)
        if is_read:
            self._wake()
        elif self.asleep is None and not is_read:
            num_seats = num_rows * self.policy.guidance.num_branches
            self.asleep = self.cache.select_rows(range(num_rows, num_seats))
            self.cache = self.cache.select_rows(range(num_rows))

    def _wake(self) -> None:
        """Put sleeping branches into the cache, behind the rows."""
        if self.asleep is not None:
            self.cache = self.denoiser.join_caches([self.cache, self.asleep])
            self.asleep = None

    def _commit_ahead(self) -> None:
        """Commit what the next forward shall not carry: long prompts, or all if unfused."""
        while any(limits := self._limits_ahead()):
            before = [context.num_cached for context in self.contexts]
            run = self.pending_run(limits)
            assert run is not None
            self.denoiser.commit(self.cache, run)
            for place, (context, start) in enumerate(zip(self.contexts, before, strict=True)):
                if context.num_cached > max(start, context.num_prompt):
                    self.rows[place % len(self.rows)].num_forwards += 1

    def _limits_ahead(self) -> list[int]:
        """Tokens of each context to commit before the next step's own forward."""
        pairs = zip(self.contexts, self.commit_limits, strict=True)
        return [0 if limit == 0 else self._due_ahead(context) for context, limit in pairs]

    def _due_ahead(self, context: Context) -> int:
        """Tokens of a context to commit before the next step's own forward."""
        chunk = self.policy.prefill_chunk_length
        prompt_left = context.num_prompt - context.num_cached
        if chunk is not None and prompt_left > chunk:
            return chunk
        return 0 if self.fuses else context.num_pending

    @property
    def fuses(self) -> bool:
        """Whether a step's forward also commits."""
        return self.policy.fuses_commit

    def compact(self) -> None:
        """Let finished rows leave the batch once they are many."""
        live = self.live
        if live and len(self.rows) - len(live) >= _COMPACT_AT * len(self.rows):
            self._keep(live)

    def _keep(self, live: Sequence[int]) -> None:
        """Let all rows but these leave the batch."""
        if len(live) == len(self.rows):
            return
        branches = range(self.policy.guidance.num_branches)
        kept = [branch * len(self.rows) + index for branch in branches for index in live]
        if self.asleep is None:
            self.cache = self.cache.select_rows(kept)
        else:
            twins = [place - len(self.rows) for place in kept[len(live) :]]
            self.cache = self.cache.select_rows(live)
            self.asleep = self.asleep.select_rows(twins)
        self.rows = [self.rows[i] for i in live]
        self.takes_part = [False] * len(self.rows)
        self.tensors = RowTensors.of(self.rows, self.denoiser.device)
        self.select(live)
