"""The task `fim`: a prefix and a suffix are known, the text between them is wanted.

The prompt is `<|bos|>` and the end of the prefix, as for a continuation; the canvas is the hole and
the begin of the suffix, pinned. So the canvas looks as in training, where a block of a text is seen
with part of it revealed, and the context may be long. (`<|infill|>` canvases hold everything, and
the bundled checkpoint knows them up to 64 tokens.)
"""

# Shapes: G generated ids, K canvas.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import BatchFeature

from unidiff.data.blocks import TrainingRow, one_block_row
from unidiff.plugins import DemoExample, Example, Metric, Task
from unidiff.tokens.prompts import prompts_with_canvases
from unidiff.tokens.sequence import TokenSequence, join, run_of
from unidiff.tokens.text import encode_plain

from .boundaries import Cut, cut
from .covers import Cover, allowed_V, left_covers, right_covers
from .lines import line_holes
from .metrics import edit_similarity, exact_match

DEFAULT_LENGTH = 12  # tokens of a hole of which nothing is known: the mean of a line of code


@dataclass(frozen=True)
class Hole:
    """A hole with its surroundings, ready to become a canvas.

    Attributes:
        cut: known tokens and characters around it.
        left: how the characters that it begins with are written.
        right: how those that it ends with are written.
        length: tokens from one cut to the other.
    """

    cut: Cut
    left: Cover
    right: Cover
    length: int

    @property
    def num_open(self) -> int:
        """Tokens that are neither known nor pinned."""
        return self.length - len(self.left.whole) - len(self.right.whole)


class HoleRequest(BatchFeature):
    """Arguments of `generate()` that remember which hole they are about.

    Attributes:
        hole: as above.
    """

    hole: Hole


class FillInTheMiddle(Task):
    """The text between a prefix and a suffix.

    Attributes:
        boundary: "unbiased" cuts where tokens do not depend on the hole; "naive" cuts at the hole.
        before: tokens of the prefix that are read.
        canvas_length: tokens of hole and suffix together; a longer hole still gets `least_after`.
        least_after: tokens of the suffix that are read in any case.
    """

    name = "fim"
    summary = "Fill in the middle: the text between a prefix and a suffix."
    modalities = frozenset({"text"})
    columns = {
        "prefix": "text before the hole",
        "middle": "what belongs into it",
        "suffix": "text behind it",
    }
    # One token a forward: in few forwards a line loses two points of edit similarity.
    decoding = {
        "unmasking_strategy": "static",
        "confidence_metric": "entropy",
        "do_sample": False,
    }

    def __init__(
        self,
        boundary: str = "unbiased",
        before: int = 96,
        canvas_length: int = 48,
        least_after: int = 8,
    ) -> None:
        self.boundary = boundary
        self.before = before
        self.canvas_length = canvas_length
        self.least_after = least_after

    def hole(self, processor: Any, example: Example) -> Hole:
        """The hole of an example.

        Args:
            processor: as for `build`.
            example: `prefix` and `suffix`; `length` in tokens between the cuts, else that of
                `middle`, else `DEFAULT_LENGTH`; `left` and `right` name the covers to use, else
                the first of each.

        Raises:
            ValueError: if the hole is shorter than the characters that it must hold.
        """
        tokenizer = processor.tokenizer
        known = cut(tokenizer, example["prefix"], example["suffix"], self.boundary)
        left = example.get("left") or left_covers(tokenizer, known.left)[0]
        right = example.get("right") or right_covers(tokenizer, known.right)[0]
        length = example.get("length")
        if length is None and "middle" in example:
            length = len(self._wanted(processor, known, example))
        length = DEFAULT_LENGTH if length is None else int(length)
        hole = Hole(known, left, right, length)
        if hole.num_open < 1 or allowed_ids(tokenizer, hole)[0] == []:
            raise ValueError(
                f"a hole of {length} tokens is too short for {known.left!r} and {known.right!r}, "
                "the ends of the words that it cuts: make it longer"
            )
        return hole

    def _wanted(self, processor: Any, known: Cut, example: Example) -> list[int]:
        """Ids of what belongs between the cuts, as the whole text has them; at least one."""
        tokenizer = processor.tokenizer
        if self.boundary == "naive":
            return encode_plain(tokenizer, example["middle"] or " ")
        whole = encode_plain(tokenizer, example["prefix"] + example["middle"] + example["suffix"])
        wanted = whole[len(known.before) : len(whole) - len(known.after)]
        return wanted or encode_plain(tokenizer, " ")

    def build(self, processor: Any, example: Example) -> BatchFeature:
        """Arguments of `generate()`; see `hole` for the columns that are read."""
        hole = self.hole(processor, example)
        begin, canvas = self.sequences(processor, hole)
        request = HoleRequest(prompts_with_canvases([begin], [canvas], processor.layout).data)
        request.hole = hole
        return request

    def sequences(self, processor: Any, hole: Hole) -> tuple[TokenSequence, TokenSequence]:
        """Prompt and canvas; the open tokens are wanted."""
        mask = [processor.layout.mask_token_id] * hole.num_open
        parts = [
            run_of(hole.left.whole, "text"),
            run_of(mask, "text", wanted=True),
            run_of(hole.right.whole, "text"),
            self._after(hole.cut, hole.length),
        ]
        return self._begin(processor, hole.cut), join(parts)

    def _begin(self, processor: Any, known: Cut) -> TokenSequence:
        """The prompt: the token that begins a text, and the end of the prefix."""
        before = known.before[-self.before :] if self.before else []
        return run_of([processor.encoder.special("<|bos|>"), *before], "text")

    def _after(self, known: Cut, length: int) -> TokenSequence:
        """The begin of the suffix that shares the canvas with the hole."""
        return run_of(known.after[: max(self.least_after, self.canvas_length - length)], "text")

    def parse(self, processor: Any, ids: np.ndarray, inputs: BatchFeature) -> str:
        """The text of the hole, without the known characters that its tokens hold too."""
        return self.middle(processor, ids, inputs.hole)

    def middle(self, processor: Any, ids: np.ndarray, hole: Hole) -> str:
        """As `parse`, of the (G,) ids of a hole's canvas."""
        text = str(processor.decode(ids[: hole.length], skip_special_tokens=True))
        return text[len(hole.cut.left) : len(text) - len(hole.cut.right)]

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The prompt and the canvas with the hole's text, all of it wanted."""
        del rng
        known = cut(processor.tokenizer, example["prefix"], example["suffix"], self.boundary)
        ids = self._wanted(processor, known, example)
        begin = self._begin(processor, known)
        parts = [begin, run_of(ids, "text", wanted=True), self._after(known, len(ids))]
        return one_block_row(join(parts), processor.layout, first=len(begin))

    def options_for(self, processor: Any, example: Example) -> Mapping[str, Any]:
        """The decoding options, and the ids that the ends of the hole may take."""
        hole = self.hole(processor, example)
        _, canvas = self.sequences(processor, hole)
        allowed = allowed_canvas(processor.tokenizer, hole, len(canvas))
        if allowed is None:
            return self.decoding
        return {**self.decoding, "canvas_allowed_ids": allowed}

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Single lines of the standard library's code; "test" are held-out modules."""
        return line_holes(split)[:limit]

    def metrics(self) -> Mapping[str, Metric]:
        """Edit similarity and exact match of the hole's text."""
        return {"edit_similarity": edit_similarity, "exact_match": exact_match}

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """Three held-out lines, short enough to be read."""
        short = [one for one in self.dataset("test") if len(one["middle"]) <= 24]
        return [_shown(one) for one in short[3 * seed : 3 * seed + 3]]


def allowed_ids(tokenizer: Any, hole: Hole) -> tuple[list[int] | None, list[int] | None]:
    """Ids of the first and of the last open token; None where any may stand."""
    if hole.num_open == 1:
        both = _ids(tokenizer, hole.left.rest, hole.right.rest)
        return both, both
    return _ids(tokenizer, hole.left.rest, ""), _ids(tokenizer, "", hole.right.rest)


def allowed_canvas(tokenizer: Any, hole: Hole, width: int) -> list[list[int] | None] | None:
    """`canvas_allowed_ids` of a canvas of `width` tokens; None where any token may stand."""
    if not hole.left.rest and not hole.right.rest:
        return None
    first, last = allowed_ids(tokenizer, hole)
    allowed: list[list[int] | None] = [None] * width
    place = len(hole.left.whole)
    allowed[place] = first
    if last is not None:
        allowed[place + hole.num_open - 1] = last
    return allowed


def _ids(tokenizer: Any, start: str, end: str) -> list[int] | None:
    """Ids that begin and end so; None where that is no limit."""
    if not start and not end:
        return None
    found: list[int] = np.flatnonzero(allowed_V(tokenizer, start, end)).tolist()
    return found


def _shown(example: Example) -> DemoExample:
    """An example with its last and its next line."""
    before = example["prefix"].rsplit("\n", 2)[-2:]
    behind = example["suffix"].split("\n", 2)[:2]
    given = "\n".join(before) + "____" + "\n".join(behind)
    return DemoExample(example, given, example["middle"], section="Fill in a line of code")
