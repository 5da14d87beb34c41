"""The task `infilling`: a text with several holes, alone or below a picture with a hole."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any

import numpy as np
from transformers import BatchFeature

from unidiff.cli import samplers
from unidiff.data.sources.garments import (
    CLASS_NAMES,
    load_fashion_mnist,
    pad_to_canvas,
    with_article,
)
from unidiff.plugins import DemoExample, Example, InfillTask, Metric
from unidiff.plugins.pictures import with_hole
from unidiff.tokens.layout import MODALITY_IDS
from unidiff.tokens.text import encode_plain

from .lines import SPLITS, line_holes
from .metrics import edit_similarity, exact_match

DEFAULT_LENGTH = 4  # tokens of a hole of which nothing is known
NEAR = 60  # characters kept beside the holes of a text
GRID = 8  # rows and columns of a mask of the bundled checkpoint's codes


class Infilling(InfillTask):
    """Texts around holes, and the texts in them."""

    name = "infilling"
    summary = "Fill several holes: in a text, or in a picture and its text together."
    modalities = frozenset({"text", "image"})
    columns = {
        "texts": "list of the known texts, one more than there are holes",
        "middles": "list of what belongs into the holes",
    }

    def parts(self, processor: Any, example: Example) -> Sequence[Mapping[str, Any]]:
        """A picture where there is one, then the text; see `columns`.

        `image` and `hole` (bool, True where unknown) add a picture; `lengths` are tokens of the
        holes, else those of `middles`, else `DEFAULT_LENGTH`. A space before a hole is its own.

        Raises:
            ValueError: if texts and holes do not fit together.
        """
        holes = _holes(processor.tokenizer, example)
        ids: list[int] = []
        is_hole: list[bool] = []
        for text, hole in zip_longest(example["texts"], holes):
            known = text if hole is None else text.removesuffix(" ")
            wanted = [] if hole is None else hole
            tokens = encode_plain(processor.tokenizer, known)
            ids += [*tokens, *wanted]
            is_hole += [*[False] * len(tokens), *[True] * len(wanted)]
        text_part = {"type": "text", "ids": np.array(ids, np.int64), "is_hole": np.array(is_hole)}
        if example.get("image") is None:
            return [text_part]
        hole = np.asarray(example.get("hole", np.zeros((GRID, GRID), dtype=bool)))
        codes = processor.image_codes(example["image"])
        return [{"type": "image", "codes": codes, "is_hole": hole}, text_part]

    def parse(self, processor: Any, ids: np.ndarray, inputs: BatchFeature) -> dict[str, Any]:
        """`text` as a whole, `holes` as a list of texts, `image` where there is one."""
        value = super().parse(processor, ids, inputs)
        result = dict(value) if isinstance(value, Mapping) else {"text": value}
        open_K = ~np.asarray(inputs["pinned_mask"][0])
        text_K = np.asarray(inputs["canvas_modality_ids"][0]) == MODALITY_IDS["text"]
        runs = np.split(np.arange(len(ids)), np.flatnonzero(np.diff(open_K & text_K)) + 1)
        filled = [run for run in runs if (open_K & text_K)[run[0]]]
        result["holes"] = [str(processor.decode(ids[run])).strip() for run in filled]
        return result

    def options_for(self, processor: Any, example: Example) -> Mapping[str, Any]:
        """A drawing's sampler where a picture is to be filled, else that of holes in a text."""
        if example.get("image") is not None:
            return samplers.drawing()
        return samplers.filling(self.build(processor, example))

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Library code with two lines missing, and photographs with a hole in them and their text.

        The two take turns; "test" has held-out modules and test photographs.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {sorted(SPLITS)}, got {split!r}")
        number = 1000 if limit is None else limit
        texts = _two_lines(split)[: (number + 1) // 2]
        pictures = [_photograph(split, index) for index in range(number // 2)]
        mixed = [one for pair in zip_longest(texts, pictures) for one in pair if one is not None]
        return mixed[:number]

    def metrics(self) -> Mapping[str, Metric]:
        """Edit similarity and exact match, each the mean over an example's holes."""
        return {"edit_similarity": edit_similarity, "exact_match": exact_match}

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """One photograph whose middle and whose name are missing."""
        example = _photograph("test", seed)
        shown = np.asarray(example["image"])
        (answer,) = example["middles"]

        def pictures(result: Mapping[str, Any]) -> list[np.ndarray]:
            filled = np.asarray(result["image"].convert("RGB"))
            return [with_hole(shown, example["hole"]), filled, shown]

        return [
            DemoExample(
                example,
                "____".join(example["texts"]),
                answer,
                is_right=lambda result: result["holes"][0] == answer,
                said=lambda result: str(result["text"]),
                pictures=pictures,
                section="Fill a picture and its text together",
            )
        ]


def _holes(tokenizer: Any, example: Example) -> list[list[int]]:
    """Ids of each hole: those of its text, or as many as it is long."""
    if example.get("lengths") is not None:
        holes = [[0] * int(length) for length in example["lengths"]]
    elif "middles" in example:
        pairs = zip(example["texts"], example["middles"], strict=False)
        holes = [encode_plain(tokenizer, " " * text.endswith(" ") + one) for text, one in pairs]
    else:
        holes = [[0] * DEFAULT_LENGTH for _ in example["texts"][1:]]
    if len(example["texts"]) != len(holes) + 1 or not all(holes):
        raise ValueError(
            f"{len(holes)} holes, each of at least one token, stand between {len(holes) + 1} "
            f"texts ('' where there is none); got {len(example['texts'])} texts and holes of "
            f"{[len(one) for one in holes]} tokens"
        )
    return holes


@lru_cache(maxsize=4)
def _two_lines(split: str) -> tuple[Example, ...]:
    """Stretches of code with a line missing, and the next but one."""
    found = []
    for one in line_holes(split):
        lines = one["suffix"].split("\n")
        if len(lines) < 4 or not lines[2].strip():
            continue
        second = lines[2].strip()
        indent = lines[2][: len(lines[2]) - len(lines[2].lstrip())]
        between = f"{lines[0]}\n{lines[1]}\n{indent}"
        behind = "\n" + "\n".join(lines[3:])
        if len(between) + len(one["middle"]) + len(second) <= NEAR:
            texts = [one["prefix"][-NEAR:], between, behind[:NEAR]]
            found.append({"texts": texts, "middles": [one["middle"], second]})
    return tuple(found[:1000])


def _photograph(split: str, number: int) -> Example:
    """A photograph with a square hole, and a sentence about it without its noun."""
    images, labels = _photographs(split)
    rng = np.random.default_rng([number, split == "test"])
    index = int(rng.integers(len(labels)))
    hole = np.zeros((GRID, GRID), dtype=bool)
    row, column = rng.integers(1, 4, size=2)
    hole[row : row + 4, column : column + 4] = True
    article, _, noun = with_article(CLASS_NAMES[int(labels[index])]).rpartition(" ")
    texts = [f"a photo of {article} " if article else "a photo of ", "."]
    picture = pad_to_canvas(images[index : index + 1])[0]
    return {"texts": texts, "middles": [noun], "image": picture, "hole": hole}


@lru_cache(maxsize=2)
def _photographs(split: str) -> tuple[np.ndarray, np.ndarray]:
    """(photographs, labels) of Fashion-MNIST."""
    images, labels = load_fashion_mnist("test" if split == "test" else "train")
    return images, labels
