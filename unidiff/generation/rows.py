"""One row of a request: its prompt, its own settings, and what has come of it so far."""

# Shapes: B rows, K canvas.

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unidiff.tokens.layout import MODALITY_IDS

from .canvases import Canvas
from .context import Context
from .rules import Rule
from .streaming import Delivery
from .trace import Trace


@dataclass(frozen=True)
class GivenCanvas:
    """A canvas that the caller built, without padding.

    Attributes:
        ids: (k,) int64; read where pinned or drafted.
        pinned: (k,) bool.
        drafted: (k,) bool, shown from the start, and free to be revised.
        modality: (k,) int64 index into the layout's `modalities`.
    """

    ids: np.ndarray
    pinned: np.ndarray
    drafted: np.ndarray
    modality: np.ndarray


@dataclass(frozen=True)
class RowSettings:
    """What each row may set for itself.

    Attributes:
        seed: key of the row's random numbers, int64.
        max_new_tokens: tokens to generate at most.
        max_denoising_steps: steps per block; None: one per masked position.
        confidence_threshold: in (0, 1].
        temperature: 0 is greedy.
        end_ids: ids that end the row; empty: none does.
        adapter: name of the adapter that reads the row; None: what is active.
    """

    seed: int
    max_new_tokens: int
    max_denoising_steps: int | None
    confidence_threshold: float
    temperature: float
    end_ids: tuple[int, ...]
    adapter: str | None = None


@dataclass
class Row:
    """State of one row while it is decoded.

    Attributes:
        index: number of the row; no two that are decoded together have the same.
        settings: the row's own options.
        context: clean tokens that the canvas follows; the whole prompt at first.
        given: the caller's canvas, or None to continue with text.
        twins: contexts of the weaker branches of guidance, in the order of its scales.
        prompt: the prompt's ids, real tokens only.
        generated: tokens of the response, or of the canvas.
        log_probs: log-probability of each of them when it was revealed, nats; 0 where pinned.
        num_delivered: leading tokens of the canvas that are prompt or already in `generated`.
        num_forwards: forwards that chose one of its tokens or stored a generated one.
        num_expansions: how often a position of its canvas has become two.
        finish_reason: "stop", "length" or "canvas" once finished.
        trace: its reveals, if they were asked for.
        rule: what its text or canvas may hold; None: anything.
        out: where its tokens go.
    """

    index: int
    settings: RowSettings
    context: Context
    given: GivenCanvas | None = None
    twins: list[Context] = field(default_factory=list)
    prompt: list[int] = field(init=False)
    generated: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    num_delivered: int = 0
    num_forwards: int = 0
    num_expansions: int = 0
    finish_reason: str | None = None
    trace: Trace = field(default_factory=Trace)
    rule: Rule | None = None
    out: Delivery = field(default_factory=Delivery)

    def __post_init__(self) -> None:
        """Remember the prompt before a part of it moves into the first canvas."""
        self.prompt = list(self.context.ids)

    def at_start(self, index: int) -> "Row":
        """A row to decode, numbered `index`, that leaves this one, not yet begun, as it is."""
        row = copy(self)
        row.index, row.context = index, self.context.copy()
        row.twins = [twin.copy() for twin in self.twins]
        row.generated, row.log_probs, row.trace = [], [], Trace()
        return row

    def take(self, ids: Sequence[int], log_probs: Sequence[float]) -> bool:
        """Append finished tokens and their log-probabilities; True if a criterion ended the row."""
        kept, is_met = len(ids), False
        if self.given is None:
            kept, is_met = self.out.num_kept(self.known_ids, ids)
        self.generated += ids[:kept]
        self.log_probs += log_probs[:kept]
        return is_met

    @property
    def room(self) -> int:
        """Tokens that may still be generated."""
        return self.settings.max_new_tokens - len(self.generated)

    @property
    def num_chosen(self) -> int:
        """Tokens of the response that were not pinned."""
        reached = slice(len(self.generated))
        num_pinned = 0 if self.given is None else int(self.given.pinned[reached].sum())
        return len(self.generated) - num_pinned

    @property
    def is_filled(self) -> bool:
        """Whether the caller's canvas is full; never where there is none."""
        return self.given is not None and len(self.generated) == len(self.given.ids)

    @property
    def pinned_next(self) -> list[int]:
        """Pinned tokens of the caller's canvas that follow what is generated."""
        if self.given is None:
            return []
        first = len(self.generated)
        free = np.flatnonzero(~self.given.pinned[first:])
        stop = first + int(free[0]) if len(free) else len(self.given.ids)
        return [int(one) for one in self.given.ids[first:stop]]

    @property
    def contexts(self) -> list[Context]:
        """The context, and those of the weaker branches."""
        return [self.context, *self.twins]

    @property
    def known_ids(self) -> list[int]:
        """Prompt and response so far."""
        return self.prompt + self.generated

    def first_canvas(
        self, block_length: int | None, num_settled: int, window: int | None
    ) -> Canvas:
        """The canvas that follows the prompt; moves prompt tokens into it as a pinned prefix.

        Args:
            block_length: positions of the canvas; None: the whole response (`full`).
            num_settled: prompt tokens that stay context; the others open the canvas.
            window: text positions revealed before the next ones; None: all. Those of a block are
                counted from its beginning, prompt tokens included.
        """
        if self.given is not None:
            own = self.given
        else:
            num_prefix = len(self.context) - num_settled
            length = self.room
            if block_length is not None:
                length = min(block_length - num_prefix, self.room)
            own = _masked_text(length)
        positions = self.context.next_positions(own.modality.tolist())
        prefix = self.context.split(num_settled)
        self.num_delivered = len(prefix)
        stop = len(prefix) + len(own.ids)
        known = np.ones(len(prefix), dtype=bool)
        if window is not None and self.given is None:
            begun = 0 if block_length is None else len(prefix) % window
            stop = min(stop, len(prefix) - begun + window)
        return Canvas(
            ids=np.concatenate([np.asarray(prefix.ids, dtype=np.int64), own.ids]),
            pinned=np.concatenate([known, own.pinned]),
            drafted=np.concatenate([~known, own.drafted]),
            modality=np.concatenate([np.asarray(prefix.modality, dtype=np.int64), own.modality]),
            positions=np.concatenate([prefix.positions, positions], axis=1),
            first_index=num_settled,
            budget=self.settings.max_denoising_steps,
            window_stop=stop,
        )

    def next_canvas(self, block_length: int, window: int | None) -> Canvas:
        """The canvas after a committed block: masked text as long as there is room."""
        own = _masked_text(min(block_length, self.room))
        self.num_delivered = 0
        return Canvas(
            **vars(own),
            positions=self.context.next_positions(own.modality.tolist()),
            first_index=len(self.context),
            budget=self.settings.max_denoising_steps,
            window_stop=len(own.ids) if window is None else min(len(own.ids), window),
        )


def _masked_text(length: int) -> GivenCanvas:
    """Text positions of which nothing is known."""
    nothing = np.zeros(length, dtype=bool)
    modality = np.full(length, MODALITY_IDS["text"], dtype=np.int64)
    return GivenCanvas(np.zeros(length, dtype=np.int64), nothing, nothing, modality)


@dataclass(frozen=True)
class RowTensors:
    """Settings of the rows in a batch as tensors.

    Attributes:
        seed_B: (B,) int64.
        threshold_B: (B,) float64.
        temperature_B: (B,) float64.
        end_ids_BE: (B, E) int64, -1 where a row has fewer end ids.
        num_prompt_B: (B,) int64, tokens of the prompt.
        is_greedy: whether no row draws its tokens at random.
    """

    seed_B: Tensor
    threshold_B: Tensor
    temperature_B: Tensor
    end_ids_BE: Tensor
    num_prompt_B: Tensor
    is_greedy: bool

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device) -> "RowTensors":
        """Tensors of these rows; a row with a given canvas ends nowhere."""
        settings = [row.settings for row in rows]
        ends = [() if row.given is not None else row.settings.end_ids for row in rows]
        width = max((len(end) for end in ends), default=0)
        padded = [[*end, *[-1] * (width - len(end))] for end in ends]
        return cls(
            seed_B=torch.tensor([s.seed for s in settings], dtype=torch.int64, device=device),
            threshold_B=torch.tensor(
                [s.confidence_threshold for s in settings], dtype=torch.float64, device=device
            ),
            temperature_B=torch.tensor(
                [s.temperature for s in settings], dtype=torch.float64, device=device
            ),
            end_ids_BE=torch.tensor(padded, dtype=torch.int64, device=device).view(
                len(rows), width
            ),
            num_prompt_B=torch.tensor(
                [len(row.prompt) for row in rows], dtype=torch.int64, device=device
            ),
            is_greedy=all(s.temperature == 0 for s in settings),
        )
