"""What a row's own tokens foresee."""

from unidiff.generation.drafts import Repetitions


def test_what_followed_the_same_three_tokens_is_foreseen() -> None:
    assert Repetitions().look_up([1, 2, 3, 4, 5, 1, 2, 3], 3) == [4, 5, 1]


def test_two_tokens_do_where_three_never_stood_before() -> None:
    assert Repetitions().look_up([7, 2, 3, 4, 9, 2, 3], 2) == [4, 9]


def test_one_token_is_not_enough_and_nothing_follows_the_row_itself() -> None:
    assert Repetitions().look_up([3, 4, 9, 3], 2) == []
    assert Repetitions().look_up([3, 4], 2) == []
    assert Repetitions().look_up([], 2) == []


def test_the_latest_occurrence_counts() -> None:
    assert Repetitions().look_up([1, 2, 8, 1, 2, 9, 1, 2], 1) == [9]


def test_a_growing_row_foresees_what_a_row_of_its_length_does() -> None:
    ids = [1, 2, 1, 2, 1, 2, 3, 1, 2, 3, 3, 3, 3, 1]
    growing = Repetitions()
    for length in range(len(ids) + 1):
        assert growing.look_up(ids[:length], 4) == Repetitions().look_up(ids[:length], 4)
