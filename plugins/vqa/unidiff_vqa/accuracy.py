"""VQA accuracy: agreement with human answers after both are brought into one form.

The form is that of the VQA v2 evaluation: lower case, no articles, number words as digits,
contractions with their apostrophe, no punctuation but a decimal point.
"""

# Shapes: N answers.

import re
from collections.abc import Sequence

import numpy as np

from .contractions import CONTRACTIONS

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_WORDS)}}
_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")


def normalised(answer: str) -> str:
    """The answer in the form in which answers are compared.

    A punctuation mark that stands beside a space anywhere in the answer vanishes everywhere in it,
    and so do all marks where a comma stands between digits; any other becomes a space. A period
    stays before a digit.

    Source: the rules published with the evaluation of VQA v2 (Goyal et al. 2017, arXiv
        1612.00837), applied to every answer, also where all people agree; checked in
        tests/test_accuracy.py on cases worked out by hand.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip().lower()
    words = [_NUMBERS.get(word, word) for word in _without_marks(text).split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_marks(text: str) -> str:
    """The text without punctuation."""
    is_number = _COMMA_IN_NUMBER.search(text) is not None
    kept = text
    for mark in _PUNCTUATION:
        is_beside_space = f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if is_beside_space or is_number else " ")
    return _PERIOD.sub("", kept)


def vqa_accuracy(answers: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """(N,) scores in [0, 1] of answers against what people answered.

    With several references an answer scores min(matches / 3, 1) against all references but one,
    averaged over the one that is left out; with a single reference, equality.

    Args:
        answers: N answers.
        references: N lists of at least one answer each.

    Raises:
        ValueError: if a list of references is empty.
    """
    pairs = zip(answers, references, strict=True)
    return np.array([_score(answer, known) for answer, known in pairs], dtype=np.float64)


def _score(answer: str, references: Sequence[str]) -> float:
    """Score of one answer."""
    if not references:
        raise ValueError("an answer needs at least one reference to be compared with, got none")
    said = normalised(answer)
    matches = [said == normalised(one) for one in references]
    if len(matches) == 1:
        return float(matches[0])
    total = sum(matches)
    return float(np.mean([min((total - match) / 3, 1.0) for match in matches]))
