"""Recorded frames as a training source: what is seen and told, answered by a chunk."""

# Shapes: N frames, C cameras, h * w codes of a picture, T timesteps, D dimensions.

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from unidiff.data.blocks import IGNORED, TrainingRow
from unidiff.data.tasks import RowMaker
from unidiff.tokens.layout import MODALITY_IDS
from unidiff.tokens.sequence import SequenceEncoder

TURN = 0.25  # of the bins: a larger jump of the action is a turn


@dataclass(frozen=True)
class CodedFrames:
    """Frames whose pictures, states and chunks are codes.

    Attributes:
        pictures: (N, C, h * w) image codes.
        states: (N, d) state codes.
        chunks: (N, T, D) action codes.
        instruction_index: (N,) index into `instructions`.
        instructions: the sentences, recorded ones and others that training may tell.
        task_of: number of the task of each sentence; below 0 of a sentence that is none's.
        still: (T, D) action codes of doing nothing.
        episode_index: (N,) number of the episode; an episode's frames follow each other.
        is_fresh: (N,) bool, False where the pictures are those of an earlier frame; such frames are
            not drawn.
        turns: (M,) frames, in order, at which the expert turned to something else (`turns_of`).
    """

    pictures: np.ndarray
    states: np.ndarray
    chunks: np.ndarray
    instruction_index: np.ndarray
    instructions: tuple[str, ...]
    task_of: tuple[int, ...]
    still: np.ndarray
    episode_index: np.ndarray
    is_fresh: np.ndarray
    turns: np.ndarray

    def __len__(self) -> int:
        return len(self.states)

    @property
    def picture_grid(self) -> tuple[int, int]:
        """(rows, columns) of a picture's codes; pictures are square."""
        side = math.isqrt(self.pictures.shape[2])
        return side, side

    def later(self, index: int, num_steps: int) -> int:
        """The frame that many steps after frame `index`, or its episode's last one."""
        return min(index + num_steps, int(self.last[index]))

    @cached_property
    def last(self) -> np.ndarray:
        """(N,) the last frame of each frame's episode."""
        ends = np.append(np.flatnonzero(np.diff(self.episode_index)), len(self) - 1)
        return ends[np.searchsorted(ends, np.arange(len(self)))]

    @cached_property
    def drawn(self) -> np.ndarray:
        """(M,) fresh frames."""
        return np.flatnonzero(self.is_fresh)

    @cached_property
    def approaches(self) -> np.ndarray:
        """(M,) fresh frames with at least two turns to come in their episode."""
        second = np.append(self.turns, [len(self)] * 2)[
            np.searchsorted(self.turns, np.arange(len(self)), side="right") + 1
        ]
        return np.flatnonzero((second <= self.last) & self.is_fresh)

    def turns_after(self, index: int, number: int) -> list[int]:
        """The next turns after frame `index`, at most at its episode's last frame."""
        last = int(self.last[index])
        first = int(np.searchsorted(self.turns, index, side="right"))
        ahead = [min(int(turn), last) for turn in self.turns[first : first + number]]
        return ahead + [last] * (number - len(ahead))


def turns_of(actions: np.ndarray, num_bins: int, episode_index: np.ndarray) -> np.ndarray:
    """Frames whose action differs by more than `TURN` from the one before, (M,).

    An expert goes to one place and then to the next; where it turns, it has arrived. Keyframes as
    in arXiv 2105.14829, section IV, but found by jumps of the action instead of stops.

    Args:
        actions: (N, D) action codes, recorded without noise.
        num_bins: of each dimension.
        episode_index: (N,) as of `CodedFrames`.
    """
    jumps = (np.abs(np.diff(actions.astype(np.int64), axis=0)) > TURN * num_bins).any(1)
    return 1 + np.flatnonzero(jumps & (np.diff(episode_index) == 0))


@dataclass(frozen=True)
class Recorded:
    """Pictures, state and an instruction, answered by the chunk that follows.

    Attributes:
        maker: conversations to rows.
        frames: what was recorded.
        still_share: see `PolicyRecipe`.
        future_share: see `PolicyRecipe`.
        waypoints: see `PolicyRecipe`.
        num_turns: see `PolicyRecipe`.
        approach_share: see `PolicyRecipe`.
        name: in the mixture.
    """

    maker: RowMaker
    frames: CodedFrames
    still_share: float = 0.0
    future_share: float = 0.0
    waypoints: tuple[int, ...] = ()
    num_turns: int = 0
    approach_share: float = 0.0
    name: str = "recorded"
    _wordings: dict[int, list[int]] = field(init=False, repr=False, compare=False)
    _others: dict[int, list[list[int]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the sentences by task; ValueError if pictures to foresee are not there."""
        if self.future_share and not self.frames.is_fresh.all():
            raise ValueError(
                "future_share needs a picture at every step, and this data set was recorded with "
                "look_every > 1"
            )
        wordings: dict[int, list[int]] = {}
        for sentence, task in enumerate(self.frames.task_of):
            wordings.setdefault(task, []).append(sentence)
        object.__setattr__(self, "_wordings", wordings)
        seen = np.unique(self.frames.instruction_index)
        recorded = {self.frames.task_of[one] for one in seen}
        others = {task: _besides(task, wordings, recorded) for task in recorded}
        object.__setattr__(self, "_others", others)

    def __len__(self) -> int:
        """Fresh frames."""
        return len(self.frames.drawn)

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of a fresh frame: in any wording of its task, or told otherwise and kept still."""
        frames = self.frames
        index = int(frames.drawn[index])
        if self.approach_share and rng.random() < self.approach_share and len(frames.approaches):
            index = int(rng.choice(frames.approaches))
        task = frames.task_of[int(frames.instruction_index[index])]
        chunk, pace = frames.chunks[index], 1
        kinds = self._others[task]
        if kinds and rng.random() < self.still_share:
            others = kinds[int(rng.integers(len(kinds)))] if len(kinds) > 1 else kinds[0]
            task = others[int(rng.integers(len(others)))]
            chunk, pace = frames.still, 0  # it sees what it saw, and stays where it is
        sentences = self._wordings[task]
        told = frames.instructions[sentences[int(rng.integers(len(sentences)))]]
        user = [{"type": "image", "codes": codes} for codes in frames.pictures[index]]
        user.append({"type": "state", "codes": frames.states[index]})
        user.append({"type": "text", "text": told})
        answer = [{"type": "action", "codes": chunk}]
        if self.future_share and rng.random() < self.future_share:
            after = frames.later(index, pace * len(chunk))
            answer.insert(0, {"type": "image", "codes": frames.pictures[after, 0]})
        messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        row = self.maker.conversation(messages, rng)
        ahead = [frames.later(index, pace * n) for n in self.waypoints]
        ahead += frames.turns_after(index, self.num_turns) if pace else [index] * self.num_turns
        if not ahead:
            return row
        return with_states(row, frames.states[ahead].reshape(-1), self.maker.encoder)


def _besides(task: int, known: Iterable[int], recorded: set[int]) -> list[list[int]]:
    """Known tasks besides a known one, recorded ones and others apart; none of an unknown one."""
    others = [one for one in known if one >= 0 and one != task and task >= 0]
    kinds = [[one for one in others if (one in recorded) is kind] for kind in (True, False)]
    return [one for one in kinds if one]


def with_states(row: TrainingRow, codes: np.ndarray, encoder: SequenceEncoder) -> TrainingRow:
    """The row with a canvas of state tokens behind its answer, which sees the prompt alone.

    Args:
        row: of a prompt and an answer at its end.
        codes: (n,) state codes.
        encoder: knows ids.
    """
    opening, _ = encoder.delimiters("state")
    first = row.token_index[np.argmax(row.labels != IGNORED)]  # it sees the context before that
    ids = np.r_[opening, encoder.layout.encode("state", codes)]
    state = encoder.layout.modality_id("state")
    kinds = np.r_[MODALITY_IDS["text"], np.full(len(codes), state)]
    step = 1 + np.arange(len(ids))
    return TrainingRow(
        input_ids=np.r_[row.input_ids, ids],
        modality_ids=np.r_[row.modality_ids, kinds],
        position_ids=np.c_[row.position_ids, np.tile(row.position_ids.max() + step, (3, 1))],
        labels=np.r_[row.labels, IGNORED, ids[1:]],
        block_ids=np.r_[row.block_ids, np.full(len(ids), row.block_ids.max() + 1)],
        context_mask=np.r_[row.context_mask, np.zeros(len(ids), dtype=bool)],
        token_index=np.r_[row.token_index, first + step - 1],
    )
