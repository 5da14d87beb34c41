"""From a token sequence to a training row: which wanted tokens are denoised together.

A run of wanted text is cut into blocks of log-uniform length; a wanted image or action chunk is
one block. Training thereby contains what decoding asks: any canvas length, and a canvas that
reaches beyond the end of the turn.
"""

# Shapes: L sequence.

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from unidiff.tokens.layout import MODALITY_IDS, TokenLayout
from unidiff.tokens.positions import sequence_positions
from unidiff.tokens.sequence import TokenSequence

IGNORED = -100
NO_BLOCK = -1


@dataclass(frozen=True)
class BlockOptions:
    """How wanted tokens become blocks.

    Attributes:
        max_block_length: longest block of text. Under `grid` it is the block length itself.
        min_block_length: shortest one that is cut; lengths are log-uniform between the two.
        prob_end_fill: probability that the last block of the last turn reaches beyond the end
            token, as a canvas at decoding does; the surplus positions learn the end token.
        prob_merge: probability that a wanted run is merged with the last block before it; what
            stands between them is pinned.
        grid: blocks aligned to multiples of `max_block_length` from the row's first token, for
            `block_causal` models; prompt tokens inside the first one are pinned.
        left_to_right: rows without a canvas, whose wanted tokens of every modality stand in the
            context: for weights that are trained by the autoregressive reading alone.
    """

    max_block_length: int = 32
    prob_end_fill: float = 0.7
    prob_merge: float = 0.0
    grid: bool = False
    left_to_right: bool = False
    min_block_length: int = 1

    def __post_init__(self) -> None:
        """Check ranges, and that there are either blocks on a grid or none."""
        if self.grid and self.left_to_right:
            raise ValueError("left_to_right rows have no blocks: leave out grid")
        if not 1 <= self.min_block_length <= self.max_block_length:
            raise ValueError(
                "block lengths must satisfy 1 <= min_block_length <= max_block_length, got "
                f"{self.min_block_length} and {self.max_block_length}"
            )


@dataclass(frozen=True)
class TrainingRow:
    """One sample, ready to be padded or packed.

    Attributes:
        input_ids: (L,) int64 clean ids.
        modality_ids: (L,) int64.
        position_ids: (3, L) int64.
        labels: (L,) int64, the clean id where a loss is taken, `IGNORED` elsewhere.
        block_ids: (L,) int64, block of a canvas token (pinned ones too), `NO_BLOCK` for context.
        context_mask: (L,) bool, tokens that enter the clean context.
        token_index: (L,) int64, index inside the sample; end-fill continues after the end token.
    """

    input_ids: np.ndarray
    modality_ids: np.ndarray
    position_ids: np.ndarray
    labels: np.ndarray
    block_ids: np.ndarray
    context_mask: np.ndarray
    token_index: np.ndarray

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.input_ids)


def log_uniform_length(rng: np.random.Generator, longest: int, shortest: int = 1) -> int:
    """A length from `shortest` to `longest` whose logarithm is uniform."""
    drawn = int(np.exp(rng.uniform(np.log(shortest), np.log(longest + 1))))
    return min(longest, max(shortest, drawn))


def one_block_row(sequence: TokenSequence, layout: TokenLayout, first: int) -> TrainingRow:
    """Row whose tokens from index `first` on form one canvas; unwanted ones in it are pinned.

    Raises:
        ValueError: if nothing behind `first` is wanted, or something before it is.
    """
    wanted = sequence.is_wanted_L
    if not wanted[first:].any() or wanted[:first].any():
        raise ValueError(f"wanted tokens must exist and all lie at or behind index {first}")
    index = np.arange(len(sequence))
    block = np.where(index >= first, 0, NO_BLOCK)
    return _row(sequence, layout, block, index < first)


def blocks_row(
    sequence: TokenSequence,
    layout: TokenLayout,
    options: BlockOptions,
    rng: np.random.Generator,
) -> TrainingRow:
    """Row whose wanted runs are cut into blocks.

    Args:
        sequence: tokens with `is_wanted_L`.
        layout: grids and end ids.
        options: lengths and probabilities.
        rng: source of every choice; pass one derived from (run seed, sample) so that it can be
            made again.

    Raises:
        ValueError: if no token is wanted, or pictures are read as features.
    """
    if not sequence.is_wanted_L.any():
        raise ValueError("a training sequence needs at least one wanted token")
    if layout.soft_token_id is not None and (sequence.ids_L == layout.soft_token_id).any():
        raise ValueError(
            "a training row holds no pictures that are read as features of a tower: train this "
            "checkpoint on texts, or one that reads pictures as codes"
        )
    if options.left_to_right:
        return _canvas_free_row(sequence, layout)
    if options.grid:
        return _grid_row(sequence, layout, options.max_block_length)
    block = np.full(len(sequence), NO_BLOCK)
    number = -1
    runs = _wanted_runs(sequence)
    for run_number, (first, stop) in enumerate(runs):
        is_text = sequence.modality_L[first] == MODALITY_IDS["text"]
        merges = run_number > 0 and rng.random() < options.prob_merge
        if merges:
            first = int(np.flatnonzero(block == number)[0])
            block[first:stop] = number
            continue
        while first < stop:
            length = stop - first
            if is_text:
                bounds = options.max_block_length, options.min_block_length
                length = min(length, log_uniform_length(rng, *bounds))
            number += 1
            block[first : first + length] = number
            first += length
    context = _needed_context(sequence, block)
    row = _row(sequence, layout, block, context)
    ends_text = sequence.ids_L[runs[-1][1] - 1] in layout.end_token_ids
    if ends_text and rng.random() < options.prob_end_fill:
        longest = max(1, options.max_block_length // 2)
        return _with_end_fill(row, log_uniform_length(rng, longest), runs[-1][1])
    return row


def _wanted_runs(sequence: TokenSequence) -> list[tuple[int, int]]:
    """(first, stop) of each run of wanted tokens of one modality."""
    key = np.where(sequence.is_wanted_L, sequence.modality_L, -1)
    cuts = np.flatnonzero(np.diff(key)) + 1
    bounds = np.r_[0, cuts, len(key)]
    return [(int(a), int(b)) for a, b in pairwise(bounds) if key[a] >= 0]


def _needed_context(sequence: TokenSequence, block: np.ndarray) -> np.ndarray:
    """(L,) bool: tokens that a later canvas or a text reading needs clean.

    A trailing image or action block, and the delimiters behind it, are read by nobody.
    """
    last = int(np.flatnonzero(sequence.is_wanted_L)[-1])
    if sequence.modality_L[last] == MODALITY_IDS["text"]:
        return np.arange(len(sequence)) <= last
    first = int(np.flatnonzero(block == block[last])[0])
    return np.arange(len(sequence)) < first


def _row(
    sequence: TokenSequence, layout: TokenLayout, block: np.ndarray, context: np.ndarray
) -> TrainingRow:
    """Row with positions; tokens that are in neither stream are dropped."""
    positions, _ = sequence_positions(sequence.modality_L, layout)
    kept = context | (block != NO_BLOCK)
    labels = np.where(sequence.is_wanted_L, sequence.ids_L, IGNORED)
    return TrainingRow(
        input_ids=sequence.ids_L[kept],
        modality_ids=sequence.modality_L[kept],
        position_ids=positions[:, kept],
        labels=labels[kept],
        block_ids=block[kept],
        context_mask=context[kept],
        token_index=np.arange(len(sequence))[kept],
    )


def _with_end_fill(row: TrainingRow, count: int, stop: int) -> TrainingRow:
    """The row with `count` end tokens behind its last block, in the canvas only."""
    last = int(np.flatnonzero(row.token_index == stop - 1)[0])
    steps = np.arange(1, count + 1)
    extra = np.full(count, last)
    grown = {
        name: np.concatenate([getattr(row, name), getattr(row, name)[extra]])
        for name in ("input_ids", "modality_ids", "labels", "block_ids")
    }
    return TrainingRow(
        **grown,
        position_ids=np.concatenate([row.position_ids, row.position_ids[:, extra] + steps], axis=1),
        context_mask=np.concatenate([row.context_mask, np.zeros(count, dtype=bool)]),
        token_index=np.concatenate([row.token_index, row.token_index[extra] + steps]),
    )


def _grid_row(sequence: TokenSequence, layout: TokenLayout, length: int) -> TrainingRow:
    """Row on the grid of a `block_causal` model: every block with a wanted token is a canvas."""
    grid = np.arange(len(sequence)) // length
    with_wanted = np.unique(grid[sequence.is_wanted_L])
    block = np.where(np.isin(grid, with_wanted), grid, NO_BLOCK)
    return _row(sequence, layout, block, np.ones(len(sequence), dtype=bool))


def _canvas_free_row(sequence: TokenSequence, layout: TokenLayout) -> TrainingRow:
    """Row of everything down to the last wanted token, all of it context."""
    last = int(np.flatnonzero(sequence.is_wanted_L)[-1])
    no_block = np.full(len(sequence), NO_BLOCK)
    return _row(sequence, layout, no_block, np.arange(len(sequence)) <= last)
