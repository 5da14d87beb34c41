"""Holes in held-out library text and its continuation: how near is what the model writes?

A score compares token by token with what the library says. Other texts may be as good, so the
numbers are low; they serve to compare settings of one model on the same inputs.
"""

# Shapes: N stretches, L tokens of a stretch.

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unidiff.data.sources.library_text import iter_documents
from unidiff.diffusion.random import hash_integers
from unidiff.tokens.text import encode_plain

from .context import EvaluationContext, Settings


@dataclass(frozen=True)
class Stretch:
    """A piece of held-out text of which a run of tokens is wanted.

    Attributes:
        ids: (L,) int64.
        start: first wanted token.
        stop: behind the last one.
    """

    ids: np.ndarray
    start: int
    stop: int

    @property
    def wanted(self) -> list[int]:
        """The ids that stand there."""
        return [int(one) for one in self.ids[self.start : self.stop]]


def fill_holes(context: EvaluationContext, settings: Settings, number: int) -> dict[str, Any]:
    """Scores of the filled holes.

    Args:
        context: who answers.
        settings: `stretch_length` and `hole_lengths` (shortest, longest) in tokens, `sampler`.
        number: of holes.
    """
    shortest, longest = settings["hole_lengths"]
    stretches = []
    for index, ids in enumerate(held_out_stretches(context, settings["stretch_length"], number)):
        length = shortest + index % (longest - shortest + 1)
        place = int(hash_integers(context.seed, index)) % (len(ids) - length + 1)
        stretches.append(Stretch(ids, place, place + length))
    filled = context.responder.fillings(stretches, settings["sampler"], context.seed)
    return _scores(filled, stretches)


def continue_text(context: EvaluationContext, settings: Settings, number: int) -> dict[str, Any]:
    """Scores of continuations.

    Args:
        context: who answers.
        settings: `prompt_length` and `sampler`, whose `max_new_tokens` are compared.
        number: of texts.
    """
    begin = settings["prompt_length"]
    length = begin + settings["sampler"]["max_new_tokens"]
    found = held_out_stretches(context, length, number)
    stretches = [Stretch(ids, begin, length) for ids in found]
    written = context.responder.continuations(stretches, settings["sampler"], context.seed)
    return _scores(written, stretches)


def held_out_stretches(context: EvaluationContext, length: int, number: int) -> list[np.ndarray]:
    """`number` different stretches of `length` tokens, each inside one held-out document.

    Raises:
        ValueError: if the held-out documents do not hold so many.
    """
    tokenizer = context.processor.tokenizer
    documents = [encode_plain(tokenizer, text) for _, text in iter_documents("heldout")]
    places = [
        (index, start)
        for index, ids in enumerate(documents)
        for start in range(0, len(ids) - length + 1, length)
    ]
    if len(places) < number:
        raise ValueError(f"the held-out text has {len(places)} stretches of {length} tokens only")
    keys = hash_integers(context.seed, torch.arange(len(places), dtype=torch.int64)).numpy()
    chosen = [places[index] for index in np.argsort(keys, kind="stable")[:number].tolist()]
    return [np.array(documents[i][start : start + length], np.int64) for i, start in chosen]


def edit_similarity(said: list[int], truth: list[int]) -> float:
    """1 less the edit distance (insertions, deletions, exchanges) over the longer length."""
    longest = max(len(said), len(truth))
    if not longest:
        return 1.0
    above = list(range(len(truth) + 1))
    for row, one in enumerate(said, start=1):
        line = [row]
        for column, other in enumerate(truth, start=1):
            exchanged = above[column - 1] + (one != other)
            line.append(min(exchanged, above[column] + 1, line[-1] + 1))
        above = line
    return 1.0 - above[-1] / longest


def _scores(written: list[list[int]], stretches: list[Stretch]) -> dict[str, Any]:
    """(N,) scores by name."""
    pairs = [(said, one.wanted) for said, one in zip(written, stretches, strict=True)]
    return {
        "edit_similarity": np.array([edit_similarity(said, truth) for said, truth in pairs]),
        "exact_match": np.array([said == truth for said, truth in pairs], dtype=np.float64),
    }
