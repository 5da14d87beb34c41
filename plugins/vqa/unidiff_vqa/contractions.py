"""Contractions written without an apostrophe, and how they are written with it.

Forms that are words without their apostrophe (hell, ill, its, lets, shed, shell, well, were, wed)
are left out.

Source: the kinds of forms that the evaluation of VQA v2 maps (Goyal et al. 2017).
"""

from itertools import combinations

_NEGATED = (
    *("ai", "are", "ca", "could", "did", "do", "does", "had", "has", "have", "is", "might"),
    *("must", "need", "ought", "sha", "should", "was", "were", "wo", "would"),
)
_WITH_HAVE = (
    *("could", "i", "might", "must", "not", "should", "they", "we", "what", "when", "where"),
    *("who", "would", "you"),
)
_PEOPLE = ("somebody", "someone", "something")
_WITH_WOULD = ("he", "how", "it", "that", "there", "they", "where", "who", "you", *_PEOPLE)
_WITH_WILL = ("how", "it", "they", "what", "who", "why", "you", *_PEOPLE)
_WITH_IS = ("he", "how", "she", "that", "there", "what", "where", "who", "why", *_PEOPLE)
_WITH_ARE = ("there", "they", "what", "why", "you")
_SINGLE = ("i'm", "ma'am", "o'clock", "'twas", "y'all", "y'all'll", "y'all'd've")
_TWICE = (
    *("couldn't've", "hadn't've", "mightn't've", "shouldn't've", "wouldn't've", "you'd've"),
    *(f"{word}'d've" for word in ("he", "i", "it", "she", "there", "they", "we", "who")),
    *(f"{word}'d've" for word in _PEOPLE),
)


def _without_some(form: str) -> list[str]:
    """Every way of leaving out one or more of a form's apostrophes."""
    places = [index for index, letter in enumerate(form) if letter == "'"]
    left_out = [
        chosen for count in range(1, len(places) + 1) for chosen in combinations(places, count)
    ]
    return ["".join(x for i, x in enumerate(form) if i not in chosen) for chosen in left_out]


_FORMS = (
    *(f"{word}n't" for word in _NEGATED),
    *(f"{word}'ve" for word in _WITH_HAVE),
    *(f"{word}'d" for word in _WITH_WOULD),
    *(f"{word}'ll" for word in _WITH_WILL),
    *(f"{word}'s" for word in _WITH_IS),
    *(f"{word}'re" for word in _WITH_ARE),
    *_SINGLE,
    *_TWICE,
)
CONTRACTIONS = {bare: form for form in _FORMS for bare in _without_some(form)}
