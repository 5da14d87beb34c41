"""What both decode loops share: rows in lock step, commits, compaction, finishing.

Rows are independent state machines that share forwards. A row that has finished waits with an empty
canvas until enough have finished for the batch to be compacted.
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
from .streaming import Delivery

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
        guidance: how the branches of each row are mixed.
        reuses_cache: whether committed tokens are kept, or everything is recomputed each step.
        fuses_commit: whether a block is stored by the next canvas's first probe.
        prefill_chunk_length: prompt tokens per forward; None: all.
        keeps_cache: whether the caller wants the cache of finished rows.
        keeps_log_probs: whether to note each token's log-probability.
        revision: what may change revealed positions, or None.
        keeps_trace: whether to note every reveal.
        eos_early_rejection: factor on an end token's confidence at a block's first step, or None.
        suppress_eos_before: response tokens among which no end token may be.
        drafts_while_it_pays: whether self-speculation pauses where few draft tokens are kept.
        looks_up_drafts: whether self-speculation also drafts what a row has said before.
        processors: the caller's logits processors.
    """

    strategy: UnmaskingStrategy
    confidence_metric: str
    blocks: Blocks
    top_k: int | None = None
    top_p: float = 1.0
    guidance: Guidance = field(default_factory=Guidance)
    reuses_cache: bool = True
    fuses_commit: bool = True
    prefill_chunk_length: int | None = None
    keeps_cache: bool = False
    keeps_log_probs: bool = False
    revision: Revision | None = None
    keeps_trace: bool = False
    eos_early_rejection: float | None = None
    suppress_eos_before: int = 0
    drafts_while_it_pays: bool = False
    looks_up_drafts: bool = False
    processors: Sequence[LogitsProcessor] = ()


class LockStep(ABC):
    """A batch of rows decoded together; subclasses say what one step is."""

    def __init__(
        self,
        denoiser: Denoiser[Any],
        policy: Policy,
        rows: Sequence[Row],
        cache: Any,
        out: Delivery,
    ) -> None:
        """Start with rows that are not finished; `cache` holds one row of each, twins behind."""
        self.denoiser = denoiser
        self.policy = policy
        self.rows = list(rows)
        self.cache = cache
        self.out = out
        self.finished_caches: dict[int, Any] = {}
        self.tensors = RowTensors.of(self.rows, denoiser.device)

    @abstractmethod
    def step(self) -> None:
        """One forward over all live rows and everything that follows from it."""

    @abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Keep the state of these rows only."""

    def run(self) -> None:
        """Decode until every row has finished."""
        while self.live:
            if not self.policy.reuses_cache:
                self._forget()
            self._commit_ahead()
            self.step()
            self._compact()

    @property
    def live(self) -> list[int]:
        """Rows of the batch that are not finished."""
        return [i for i, row in enumerate(self.rows) if row.finish_reason is None]

    @property
    def contexts(self) -> list[Context]:
        """Contexts in the cache's row order: the rows', then each weaker branch's of all rows."""
        branches = range(self.policy.guidance.num_branches)
        return [row.contexts[branch] for branch in branches for row in self.rows]

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
        self.cache = self.denoiser.new_cache(len(self.contexts))

    def _commit_ahead(self) -> None:
        """Commit what the next forward shall not carry: long prompts, or all if unfused."""
        while any(limits := [self._due_ahead(context) for context in self.contexts]):
            before = [row.context.num_cached for row in self.rows]
            run = self.pending_run(limits)
            assert run is not None
            self.denoiser.commit(self.cache, run)
            for row, start in zip(self.rows, before, strict=True):
                if row.context.num_cached > max(start, len(row.prompt)):
                    row.num_forwards += len(row.contexts)

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

    def _compact(self) -> None:
        """Let finished rows leave the batch once they are many."""
        live = self.live
        if len(self.rows) - len(live) < _COMPACT_AT * len(self.rows) or len(live) == len(self.rows):
            return
        if self.policy.keeps_cache:
            for index in sorted(set(range(len(self.rows))) - set(live)):
                self.finished_caches[self.rows[index].index] = self.cache.select_rows([index])
        if not live:
            return
        branches = range(self.policy.guidance.num_branches)
        kept = [branch * len(self.rows) + index for branch in branches for index in live]
        self.cache = self.cache.select_rows(kept)
        self.rows = [self.rows[i] for i in live]
        self.tensors = RowTensors.of(self.rows, self.denoiser.device)
        self.select(live)
