"""Where a text may be cut so that its tokens do not tell what stands on the other side.

A tokenizer cuts a text into words first and each word into tokens, so the tokens of a text that
ends inside a word are tokens that training never showed there. A safe end is one that the
tokenizer would find whatever follows: the words before it come out the same for every kind of
continuation. What lies between the safe end and the hole is written anew, held to its characters.
One assumption: beside a space or a line end, the hole has none of its own (a line does not end in
spaces), so that a hole that is a whole line is cut at the line.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any

from unidiff.tokens.text import encode_plain

BOUNDARIES = ("unbiased", "naive")
# One neighbour of each kind that a rule for words can tell apart, with and without space between.
NEIGHBOURS = (
    *("a", "Z", "0", ".", "_", "(", "'", "-", "\u00e9", "\u4e00", " ", "  ", "\t", "\n", "\r\n"),
    *(" a", "  a", " .", "\n a", "\n\n", "a ", "0 ", ". ", "\n ", "'s", "s'", "-shirt", "t", " t"),
)
_NEAR = 400  # characters beside the cut whose words are compared


@dataclass(frozen=True)
class Cut:
    """The known text on both sides of a hole, as tokens.

    Attributes:
        before: ids that stand before the hole's canvas.
        left: characters that the canvas must begin with; "" where the cut was safe.
        right: characters that it must end with.
        after: ids that stand behind it.
    """

    before: list[int]
    left: str
    right: str
    after: list[int]


def cut(tokenizer: Any, prefix: str, suffix: str, boundary: str = "unbiased") -> Cut:
    """Tokens of what is known, cut where it is safe ("unbiased") or at the hole ("naive").

    Raises:
        ValueError: if `boundary` is neither.
    """
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {BOUNDARIES}, got {boundary!r}")
    stop, start = len(prefix), 0
    if boundary == "unbiased":
        stop, start = safe_stop(tokenizer, prefix), safe_start(tokenizer, suffix)
    return Cut(
        encode_plain(tokenizer, prefix[:stop]),
        prefix[stop:],
        suffix[:start],
        encode_plain(tokenizer, suffix[start:]),
    )


def safe_stop(tokenizer: Any, text: str) -> int:
    """Number of characters of `text` whose tokens are the same whatever follows."""
    first = max(0, len(text) - _NEAR)
    near = text[first:]
    shared: list[int] | None = None
    for neighbour in _neighbours(near[-1:], 0):
        ends = [end for end in word_ends(tokenizer, near + neighbour) if end <= len(near)]
        shared = ends if shared is None else _common(shared, ends)
    return first + shared[-1] if shared else 0


def safe_start(tokenizer: Any, text: str) -> int:
    """Index from which on the tokens of `text` are the same whatever comes before."""
    near = text[:_NEAR]
    shared: list[int] | None = None
    for neighbour in _neighbours(near[:1], -1):
        ends = word_ends(tokenizer, neighbour + near)
        starts = [len(near), *(end - len(neighbour) for end in reversed([0, *ends[:-1]]))]
        starts = [start for start in starts if start >= 0]
        shared = starts if shared is None else _common(shared, starts)
    return shared[-1] if shared else len(text)


def _neighbours(known: str, near: int) -> list[str]:
    """What may stand in the hole beside a known character, nothing included.

    Args:
        known: the character, "" at the end of everything.
        near: index of the neighbour's character beside it.
    """
    kept = [one for one in NEIGHBOURS if not (known.isspace() and one[near].isspace())]
    return ["", *kept]


@lru_cache(maxsize=65536)
def _words(backend: Any, text: str) -> tuple[int, ...]:
    """`word_ends` of one tokenizer's words."""
    if backend.pre_tokenizer is None:
        return (len(text),)
    return tuple(stop for _, (_, stop) in backend.pre_tokenizer.pre_tokenize_str(text))


def word_ends(tokenizer: Any, text: str) -> list[int]:
    """Character index behind each word; a tokenizer without words has a single one."""
    return list(_words(tokenizer.backend_tokenizer, text)) if text else []


def _common(first: list[int], second: list[int]) -> list[int]:
    """The longest list that both begin with."""
    pairs = zip(first, second, strict=False)
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
