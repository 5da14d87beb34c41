"""Training sources of the bundled checkpoint: one small class for each kind of sample.

Each makes a conversation (or a row to fill in) from a prepared part and cuts it into blocks.
Formats are those the processor builds at decoding; tests/tokens/test_processor.py holds the two
together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.infill import infill_prompt_length, infill_sequence
from unidiff.tokens.sequence import SequenceEncoder, join, run_of
from unidiff.tokens.text import decode_plain

from .blocks import BlockOptions, TrainingRow, blocks_row, one_block_row
from .prepared import Arrays, training_scene
from .sources.garments import draw_caption, draw_drawing_request, garment_conversation
from .sources.scene_language import caption, drawing_request, scene_conversation

PROB_CONDITION_DROPPED = 0.1
SHORT_BLOCK = 8
LONGEST_LINE = 32  # tokens


@dataclass(frozen=True)
class RowMaker:
    """What every source needs to make rows.

    Attributes:
        encoder: conversations to tokens.
        blocks: how wanted tokens become blocks.
    """

    encoder: SequenceEncoder
    blocks: BlockOptions = field(default_factory=BlockOptions)

    @cached_property
    def line_end_ids(self) -> np.ndarray:
        """Ids of the text tokens that hold a line end."""
        tokenizer = self.encoder.tokenizer
        texts = [decode_plain(tokenizer, [index]) for index in range(len(tokenizer))]
        return np.flatnonzero(["\n" in text for text in texts])

    def conversation(self, messages: Sequence[Any], rng: np.random.Generator) -> TrainingRow:
        """Row of a conversation, its answers wanted."""
        sequence = self.encoder.conversation(messages)
        return blocks_row(sequence, self.encoder.layout, self.blocks, rng)

    def infill(self, parts: Sequence[Any]) -> TrainingRow:
        """Row of one canvas behind `<|bos|><|infill|>`, known parts pinned."""
        sequence = infill_sequence(self.encoder, parts)
        layout = self.encoder.layout
        return one_block_row(sequence, layout, first=infill_prompt_length(layout))


def image_messages(codes: np.ndarray, turns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Conversation whose first user turn shows an image."""
    messages: list[dict[str, Any]] = []
    for number, (user, assistant) in enumerate(turns):
        content: list[dict[str, Any]] = [{"type": "text", "text": user}]
        if number == 0:
            content.insert(0, {"type": "image", "codes": codes})
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": assistant})
    return messages


def drawing_messages(request: str | None, codes: np.ndarray) -> list[dict[str, Any]]:
    """A drawing request, or a dropped condition for None, answered by an image."""
    asked = {"type": "uncond"} if request is None else {"type": "text", "text": request}
    return [
        {"role": "user", "content": [asked]},
        {"role": "assistant", "content": [{"type": "image", "codes": codes}]},
    ]


def _request(text: str, rng: np.random.Generator) -> str | None:
    """The text, or None where the condition is dropped (classifier-free guidance)."""
    return None if rng.random() < PROB_CONDITION_DROPPED else text


@dataclass(frozen=True)
class GarmentTalk:
    """A photograph and one to three turns about it."""

    maker: RowMaker
    arrays: Arrays
    name: str = "garment_talk"

    def __len__(self) -> int:
        """Photographs."""
        return len(self.arrays["labels"])

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one conversation."""
        codes = garment_codes(self.arrays, index, rng)
        turns = garment_conversation(
            int(self.arrays["labels"][index]), rng, int(rng.integers(1, 4))
        )
        return self.maker.conversation(image_messages(codes, turns), rng)


@dataclass(frozen=True)
class GarmentDrawing:
    """A request for a garment, answered by a photograph."""

    maker: RowMaker
    arrays: Arrays
    name: str = "garment_drawing"

    def __len__(self) -> int:
        """Photographs."""
        return len(self.arrays["labels"])

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one request."""
        codes = garment_codes(self.arrays, index, rng)
        request = draw_drawing_request(int(self.arrays["labels"][index]), rng)
        return self.maker.conversation(drawing_messages(_request(request, rng), codes), rng)


def garment_codes(arrays: Arrays, index: int, rng: np.random.Generator) -> np.ndarray:
    """Codes of a photograph, or of its mirror image half of the time."""
    return arrays["mirrored" if rng.random() < 0.5 else "codes"][index]


@dataclass(frozen=True)
class SceneTalk:
    """A scene and three to six turns about it."""

    maker: RowMaker
    arrays: Arrays
    name: str = "scene_talk"

    def __len__(self) -> int:
        """Scenes."""
        return len(self.arrays["codes"])

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one conversation."""
        turns = scene_conversation(training_scene(index), rng, int(rng.integers(3, 7)))
        return self.maker.conversation(image_messages(self.arrays["codes"][index], turns), rng)


@dataclass(frozen=True)
class SceneDrawing:
    """A request for a scene of one or two objects, answered by its picture."""

    maker: RowMaker
    arrays: Arrays
    name: str = "scene_drawing"
    _small: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find the scenes that a request describes completely."""
        object.__setattr__(self, "_small", np.flatnonzero(self.arrays["num_objects"] <= 2))

    def __len__(self) -> int:
        """Scenes of one or two objects."""
        return len(self._small)

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one request."""
        seed = int(self._small[index])
        request = _request(drawing_request(training_scene(seed), rng), rng)
        return self.maker.conversation(drawing_messages(request, self.arrays["codes"][seed]), rng)


@dataclass(frozen=True)
class Demonstrated:
    """A camera frame, the hand position and an instruction, answered by an action chunk."""

    maker: RowMaker
    arrays: Arrays
    states: BinTokenizer
    actions: BinTokenizer
    name: str = "demonstrated"

    def __len__(self) -> int:
        """Recorded samples."""
        return len(self.arrays["states"])

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one replanning point."""
        user = [
            {"type": "image", "codes": self.arrays["codes"][index]},
            {"type": "state", "codes": self.states.encode(self.arrays["states"][index])},
            {"type": "text", "text": str(self.arrays["instructions"][index])},
        ]
        chunk = self.actions.encode(self.arrays["chunks"][index])
        answer = [{"type": "action", "codes": chunk}]
        messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
        return self.maker.conversation(messages, rng)


@dataclass(frozen=True)
class LibraryText:
    """A stretch of library text to continue, or with holes to fill.

    Attributes:
        maker: encoder and blocks.
        arrays: the prepared part.
        length: tokens of a stretch.
        prob_infill: share of the stretches with holes.
        line_share: share of those whose one hole is a line, or a line's end, in a whole stretch;
            the others are cut to 16 to 64 tokens with one to three holes anywhere.
        short_share: share of the stretches to continue that are cut into blocks of at most
            `SHORT_BLOCK` tokens, the length of the drafts of self-speculation.
        name: name in the mixture.
    """

    maker: RowMaker
    arrays: Arrays
    length: int = 128
    prob_infill: float = 0.2
    line_share: float = 0.0
    short_share: float = 0.0
    name: str = "library_text"

    def __len__(self) -> int:
        """Stretches in one epoch."""
        return max(1, len(self.arrays["ids"]) // self.length)

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one stretch; its start is shifted at random so that epochs differ."""
        ids = self.arrays["ids"][self._window(index, rng)].astype(np.int64)
        if rng.random() < self.prob_infill:
            ids, is_hole = self._with_holes(ids, rng)
            return self.maker.infill([{"type": "text", "ids": ids, "is_hole": is_hole}])
        begin = run_of([self.maker.encoder.special("<|bos|>")], "text")
        sequence = join([begin, run_of(ids, "text", wanted=True)])
        blocks = self.maker.blocks
        if self.short_share and rng.random() < self.short_share:
            blocks = replace(blocks, max_block_length=SHORT_BLOCK)
        return blocks_row(sequence, self.maker.encoder.layout, blocks, rng)

    def _with_holes(
        self, ids: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a stretch, or of its beginning, and (L,) bool where they are to be filled."""
        if self.line_share and rng.random() < self.line_share:
            is_hole = line_hole(np.isin(ids, self.maker.line_end_ids), rng)
            if is_hole.any():
                return ids, is_hole
        ids = ids[: int(rng.integers(16, 65))]
        return ids, holes(len(ids), rng)

    def _window(self, index: int, rng: np.random.Generator) -> slice:
        """A window inside one document, where that is long enough."""
        start = index * self.length + int(rng.integers(self.length))
        starts = self.arrays["starts"]
        document = min(int(np.searchsorted(starts, start, side="right")), len(starts) - 1)
        stop = min(start + self.length, int(starts[document]), len(self.arrays["ids"]))
        start = max(int(starts[document - 1]), min(start, stop - self.length))
        return slice(start, max(stop, start + 1))


@dataclass(frozen=True)
class PictureInfill:
    """A picture with a hole, alone or together with its caption, also with holes."""

    maker: RowMaker
    garments: Arrays
    scenes: Arrays
    name: str = "picture_infill"

    def __len__(self) -> int:
        """Pictures of both kinds."""
        return len(self.garments["labels"]) + len(self.scenes["codes"])

    def row(self, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row of one picture, with its caption half of the time."""
        if index < len(self.garments["labels"]):
            codes = garment_codes(self.garments, index, rng)
            text = draw_caption(int(self.garments["labels"][index]), rng)
        else:
            seed = index - len(self.garments["labels"])
            codes = self.scenes["codes"][seed]
            text = caption(training_scene(seed), rng)
        image_holes = rectangle(self.maker.encoder.layout.image_grid, rng)
        parts: list[Any] = [{"type": "image", "codes": codes, "is_hole": image_holes}]
        if rng.random() < 0.5:
            ids = self.maker.encoder.text(text).ids_L
            parts.append({"type": "text", "ids": ids, "is_hole": holes(len(ids), rng)})
        return self.maker.infill(parts)


def holes(length: int, rng: np.random.Generator) -> np.ndarray:
    """(L,) bool with one to three runs True, at least one token in all."""
    is_hole = np.zeros(length, dtype=bool)
    for _ in range(int(rng.integers(1, 4))):
        size = min(length, 1 + int(rng.exponential(max(1.0, length / 8))))
        start = int(rng.integers(0, length - size + 1))
        is_hole[start : start + size] = True
    return is_hole


def line_hole(is_line_end: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(L,) bool, True in one line from its begin or, half of the time, from inside it to its end.

    Args:
        is_line_end: (L,) bool, tokens that hold a line end; none of them is in the hole.
        rng: chooses the line and where the hole begins.

    Returns:
        All False where no line of at most `LONGEST_LINE` tokens lies between two line ends.
    """
    is_hole = np.zeros(len(is_line_end), dtype=bool)
    ends = np.flatnonzero(is_line_end)
    lengths = np.diff(ends) - 1
    fitting = np.flatnonzero((lengths >= 1) & (lengths <= LONGEST_LINE))
    if len(fitting):
        line = int(fitting[rng.integers(len(fitting))])
        start, stop = int(ends[line]) + 1, int(ends[line + 1])
        if rng.random() < 0.5:
            start = int(rng.integers(start, stop))
        is_hole[start:stop] = True
    return is_hole


def rectangle(grid: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(rows * columns,) bool, True inside a random rectangle of at least 2 x 2 cells."""
    is_hole = np.zeros(grid, dtype=bool)
    size = [int(rng.integers(2, side + 1)) for side in grid]
    corner = [int(rng.integers(0, side - s + 1)) for side, s in zip(grid, size, strict=True)]
    is_hole[corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = True
    return is_hole.reshape(-1)
