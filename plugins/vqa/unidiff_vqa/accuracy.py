"""VQA accuracy: agreement with human answers after both are brought into one form.

The form is that of the VQA v2 evaluation: lower case, no articles, number words as digits,
contractions with their apostrophe, punctuation removed where it is no part of a number.
"""

# Shapes: N answers.

import re
from collections.abc import Sequence

import numpy as np

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0", **{word: str(number) for number, word in enumerate(_WORDS)}}
_ARTICLES = frozenset({"a", "an", "the"})
_CONTRACTED = (
    *("aren't", "can't", "couldn't", "didn't", "doesn't", "don't", "hadn't", "hasn't", "haven't"),
    *("isn't", "mightn't", "mustn't", "needn't", "shan't", "shouldn't", "wasn't", "weren't"),
    *("won't", "wouldn't", "could've", "might've", "must've", "should've", "would've", "that's"),
    *("there's", "they're", "they've", "we've", "what's", "where's", "who's", "you're", "you've"),
    *("i'm", "i've"),
)
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTED}
_SPLIT_COMMA = re.compile(r"(?<=\d),(?=\d)")
_LONE_PERIOD = re.compile(r"(?<!\d)\.|\.(?!\d)")
_PUNCTUATION = re.compile(r"[;/\[\]\"{}()=+\\_\-<>@`,?!:]")


def normalised(answer: str) -> str:
    """The answer in the form in which answers are compared.

    Source: Goyal et al. 2017, arXiv 1612.00837, and the rules published with its evaluation;
        checked in tests/test_accuracy.py on cases worked out by hand.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip().lower()
    text = _PUNCTUATION.sub(" ", _SPLIT_COMMA.sub("", text))
    text = _LONE_PERIOD.sub("", text)
    words = [_NUMBERS.get(word, word) for word in text.split()]
    words = [_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES]
    return " ".join(words)


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
