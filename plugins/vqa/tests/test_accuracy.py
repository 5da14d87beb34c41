"""VQA accuracy on cases worked out by hand."""

import pytest
from unidiff_vqa.accuracy import normalised, vqa_accuracy


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ("The red circle.", "red circle"),
        ("two", "2"),
        ("None", "0"),
        ("dont", "don't"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("yes, it is!", "yes it is"),
        ("left-hand", "left hand"),
        ("left -hand", "left hand"),
        ("a one-two -three", "onetwo 3"),
        ("1,000-2", "10002"),
        ("it is .5", "it is .5"),
        ("at 3:30.", "at 3:30"),
        ("couldnt've", "couldn't've"),
        ("its shed", "its shed"),
        ("An Apple\n", "apple"),
        ("", ""),
    ],
)
def test_answers_are_brought_into_one_form(said, form):
    assert normalised(said) == form


def test_one_reference_is_equality():
    assert vqa_accuracy(["A dress", "bag"], [["dress"], ["dress"]]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("matches", "score"),
    # of ten people, m say the same: left out one of them m times, another 10 - m times
    [
        (0, 0.0),
        (1, 0.9 / 3),
        (2, (2 * 1 / 3 + 8 * 2 / 3) / 10),
        (3, (3 * 2 / 3 + 7) / 10),
        (4, 1.0),
    ],
)
def test_several_references_count_up_to_three_matches(matches, score):
    references = ["yes"] * matches + ["no"] * (10 - matches)
    assert vqa_accuracy(["yes"], [references])[0] == pytest.approx(score)


def test_no_reference_is_an_error():
    with pytest.raises(ValueError, match="at least one reference"):
        vqa_accuracy(["yes"], [[]])
