"""Lines of library code to fill in: single-line holes, whole or from inside the line on."""

from collections.abc import Iterator
from functools import lru_cache

import torch

from unidiff.data.sources.library_text import PROSE_SUFFIX, TOPICS_MODULE, iter_documents
from unidiff.diffusion.random import hash_integers
from unidiff.plugins import Example

SPLITS = {"train": "train", "test": "heldout"}
SHORTEST_LINE = 4  # characters without the spaces around them
LONGEST_LINE = 96  # characters
KEPT_BEFORE, KEPT_BEHIND = 1600, 800  # characters of the module that an example keeps


@lru_cache(maxsize=4)
def line_holes(split: str, from_inside: bool = False, seed: int = 0) -> tuple[Example, ...]:
    """Every line of a split's modules as a hole, in an order that a hash decides.

    A whole line is what stands between its indentation and the spaces at its end. A hole from
    inside starts at a random character of the line, behind a letter or a digit and before one.

    Args:
        split: "train" or "test"; the second are modules that training never sees.
        from_inside: holes that start inside a word.
        seed: of the order, and of where a hole from inside starts.

    Returns:
        Examples of `prefix`, `middle` and `suffix`.

    Raises:
        ValueError: if there is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {sorted(SPLITS)}, got {split!r}")
    lines = list(_lines(split))
    keys, draws = hash_integers(seed, torch.arange(2 * len(lines)).reshape(2, -1)).tolist()
    found = []
    for number in sorted(range(len(lines)), key=keys.__getitem__):
        text, start, stop = lines[number]
        if from_inside:
            places = [i for i in range(start + 1, stop) if text[i - 1 : i + 1].isalnum()]
            if not places:
                continue
            start = places[draws[number] % len(places)]
        example = {
            "prefix": text[max(0, start - KEPT_BEFORE) : start],
            "middle": text[start:stop],
            "suffix": text[stop : stop + KEPT_BEHIND],
        }
        found.append(example)
    return tuple(found)


def _lines(split: str) -> Iterator[tuple[str, int, int]]:
    """(module, first character, character behind the last) of each line that may be a hole."""
    for name, text in iter_documents(SPLITS[split]):  # type: ignore[arg-type]
        if name.endswith(PROSE_SUFFIX) or name.startswith(TOPICS_MODULE):
            continue
        place = 0
        for line in text.split("\n"):
            content = line.strip()
            start = place + len(line) - len(line.lstrip())
            if place and SHORTEST_LINE <= len(content) <= LONGEST_LINE:
                yield text, start, start + len(content)
            place += len(line) + 1
