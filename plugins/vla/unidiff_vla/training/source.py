"""Recorded frames as a training source: what is seen and told, answered by a chunk."""

# Shapes: N frames, C cameras, h * w codes of a picture, T timesteps, D dimensions.

import math
from dataclasses import dataclass, field

import numpy as np

from unidiff.data.blocks import TrainingRow
from unidiff.data.tasks import RowMaker


@dataclass(frozen=True)
class CodedFrames:
    """Frames whose pictures, states and chunks are codes.

    Attributes:
        pictures: (N, C, h * w) image codes.
        states: (N, d) state codes.
        chunks: (N, T, D) action codes.
        instruction_index: (N,) index into `instructions`.
        instructions: the sentences.
        task_of: number of the task of each sentence.
        still: (T, D) action codes of doing nothing.
        episode_index: (N,) number of the episode; an episode's frames follow each other.
    """

    pictures: np.ndarray
    states: np.ndarray
    chunks: np.ndarray
    instruction_index: np.ndarray
    instructions: tuple[str, ...]
    task_of: tuple[int, ...]
    still: np.ndarray
    episode_index: np.ndarray

    def __len__(self) -> int:
        return len(self.states)

    @property
    def picture_grid(self) -> tuple[int, int]:
        """(rows, columns) of a picture's codes; pictures are square."""
        side = math.isqrt(self.pictures.shape[2])
        return side, side

    def after_chunk(self, index: int) -> int:
        """The frame that is seen after frame `index`'s chunk, or its episode's last one."""
        later = self.episode_index[index : index + self.chunks.shape[1] + 1]
        return index + int((later == later[0]).sum()) - 1


@dataclass(frozen=True)
class Recorded:
    """Pictures, state and an instruction, answered by the chunk that follows.

    Attributes:
        maker: conversations to rows.
        frames: what was recorded.
        still_share: see `PolicyRecipe`.
        future_share: see `PolicyRecipe`.
        name: in the mixture.
    """

    maker: RowMaker
    frames: CodedFrames
    still_share: float = 0.0
    future_share: float = 0.0
    name: str = "recorded"
    _wordings: dict[int, list[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the sentences by task."""
        wordings: dict[int, list[int]] = {}
        for sentence, task in enumerate(self.frames.task_of):
            wordings.setdefault(task, []).append(sentence)
        object.__setattr__(self, "_wordings", wordings)

    def __len__(self) -> int:
        """Frames."""
        return len(self.frames)

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one frame: in any wording of its task, or told otherwise and kept still."""
        frames = self.frames
        task = frames.task_of[int(frames.instruction_index[index])]
        chunk, after = frames.chunks[index], frames.after_chunk(index)
        others = [one for one in self._wordings if one != task]
        if others and rng.random() < self.still_share:
            task = others[int(rng.integers(len(others)))]
            chunk, after = frames.still, index
        sentences = self._wordings[task]
        told = frames.instructions[sentences[int(rng.integers(len(sentences)))]]
        user = [{"type": "image", "codes": codes} for codes in frames.pictures[index]]
        user.append({"type": "state", "codes": frames.states[index]})
        user.append({"type": "text", "text": told})
        answer = [{"type": "action", "codes": chunk}]
        if self.future_share and rng.random() < self.future_share:
            answer.insert(0, {"type": "image", "codes": frames.pictures[after, 0]})
        messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        return self.maker.conversation(messages, rng)
