"""The tokens that can write the known characters at the begin or the end of a hole.

Of the characters between a safe cut and a hole, some are whole tokens and the rest is the begin of
one token that goes on into the hole. Every way to divide them is one cover; a text has exactly one,
so the probabilities of the covers are those of disjoint events, and they are the chain of the
model's own predictions: whole tokens one after the other, then all tokens that go on as they must.
Choosing a cover by these and the rest under it is exact at one end of a hole. Where both ends are
cut inside a word, the right end's cover is chosen given the left end's whole tokens only.

Source: the byte-token representation lemma (Phan et al. 2024, "Exact byte-level probabilities from
    tokenized language models for FIM-tasks and model ensembles"), carried over from left-to-right
    models to canvases; checked against an enumerated law in tests/test_covers.py.
"""

# Shapes: V ids, C covers.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from unidiff.tokens.text import encode_plain
from unidiff.tokens.token_bytes import token_bytes

from .boundaries import NEIGHBOURS


@dataclass(frozen=True)
class Cover:
    """One way to write the known characters at one end of a hole.

    Attributes:
        whole: ids of the tokens that lie inside them, from left to right.
        rest: characters that the next token into the hole holds and goes on from; "" if none.
    """

    whole: tuple[int, ...]
    rest: str


def left_covers(tokenizer: Any, known: str) -> list[Cover]:
    """Covers of the characters that a hole begins with, the fewest whole tokens first."""
    return list(_covers(tokenizer, known, True))


def right_covers(tokenizer: Any, known: str) -> list[Cover]:
    """Covers of the characters that a hole ends with, the fewest whole tokens first."""
    return list(_covers(tokenizer, known, False))


@lru_cache(maxsize=16384)
def _covers(tokenizer: Any, known: str, is_left: bool) -> tuple[Cover, ...]:
    """Covers at one end: every division whose whole tokens some text has there.

    A run of tokens out of a text is what the tokenizer makes of its characters, so the whole
    tokens are found by cutting the known characters anywhere, beside every kind of neighbour.
    """
    found = set()
    for place in range(len(known) + 1):
        inner, rest = (known[:place], known[place:]) if is_left else (known[place:], known[:place])
        for neighbour in ("", *NEIGHBOURS):
            text = inner + neighbour if is_left else neighbour + inner
            ids, places = _tokens(tokenizer, text)
            edge = len(inner) if is_left else len(neighbour)
            if edge in places:
                count = places.index(edge)
                found.add(Cover(tuple(ids[:count] if is_left else ids[count:]), rest))
    kept = {one for one in found if not one.rest or _goes_on(tokenizer, one.rest, is_left)}
    # A token that is just the rest counts as going on, so the cover that ends with it is the same.
    shorter = {one.whole for one in kept if one.rest}
    kept = {
        one
        for one in kept
        if one.rest
        or not one.whole
        or (one.whole[:-1] if is_left else one.whole[1:]) not in shorter
    }
    return tuple(sorted(kept, key=lambda one: (len(one.whole), len(one.rest), one.whole)))


def _goes_on(tokenizer: Any, rest: str, is_left: bool) -> bool:
    """Whether some token begins (or ends) so."""
    return bool(allowed_V(tokenizer, *((rest, "") if is_left else ("", rest))).any())


@lru_cache(maxsize=4096)
def allowed_V(tokenizer: Any, start: str, end: str) -> np.ndarray:
    """(V,) bool, tokens that begin with `start` and end with `end`, which do not overlap in them.

    Args:
        tokenizer: a fast tokenizer.
        start: characters that a hole's first open token holds; "": any.
        end: characters that its last open token holds; "": any.
    """
    first, last = start.encode(), end.encode()
    least = len(first) + len(last)
    return np.array(
        [
            text is not None
            and len(text) >= max(1, least)
            and text.startswith(first)
            and text.endswith(last)
            for text in _bytes(tokenizer)
        ]
    )


@lru_cache(maxsize=4)
def _bytes(tokenizer: Any) -> list[bytes | None]:
    """`token_bytes`, once for each tokenizer."""
    return token_bytes(tokenizer)


def _tokens(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """(ids, characters before each and in all) of a text; -1 inside a character."""
    ids = encode_plain(tokenizer, text)
    place_of, size = {0: 0}, 0
    for number, character in enumerate(text, start=1):
        size += len(character.encode())
        place_of[size] = number
    places, position = [0], 0
    for token in ids:
        position += len(_bytes(tokenizer)[token] or b"")
        places.append(place_of.get(position, -1))
    return ids, places


def states(covers: Sequence[Cover], is_left: bool) -> list[tuple[int, ...]]:
    """The runs of whole tokens whose next prediction the covers' probabilities need."""
    found: set[tuple[int, ...]] = set()
    for cover in covers:
        for count in range(len(cover.whole) + bool(cover.rest)):
            found.add(cover.whole[:count] if is_left else cover.whole[len(cover.whole) - count :])
    return sorted(found, key=lambda one: (len(one), one))


def cover_log_probs(
    tokenizer: Any,
    covers: Sequence[Cover],
    is_left: bool,
    next_log_probs: Mapping[tuple[int, ...], np.ndarray],
) -> np.ndarray:
    """(C,) float64 log-probability of each cover, in nats, up to a common constant.

    Args:
        tokenizer: that the covers are written with.
        covers: C of them, of one end.
        is_left: whether that is the begin of the hole.
        next_log_probs: for each of `states`, (V,) log-probabilities of the next open token into
            the hole, where those tokens stand at its end.
    """
    totals = []
    for cover in covers:
        order = cover.whole if is_left else cover.whole[::-1]
        total = 0.0
        for count, token in enumerate(order):
            known = order[:count] if is_left else order[:count][::-1]
            total += float(next_log_probs[known][token])
        if cover.rest:
            ends = (cover.rest, "") if is_left else ("", cover.rest)
            going_on = next_log_probs[cover.whole][: len(allowed_V(tokenizer, *ends))]
            total += float(np.logaddexp.reduce(going_on[allowed_V(tokenizer, *ends)]))
        totals.append(total)
    return np.array(totals)
