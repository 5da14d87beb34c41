"""Automata over tokens: composed from bytes, from choices, with end tokens."""

from itertools import product

import numpy as np
import pytest
from small_grammars import random_automaton, texts

from unidiff.generation.automaton import (
    DEAD,
    NUM_BYTES,
    choice_automaton,
    token_automaton,
    with_end_tokens,
)

TOKENS = [b"a", b"b", b"ab", b"ba", b"aab", b"c", None, b"", b"bb", b"abab"]


def random_byte_table(seed: int) -> tuple[np.ndarray, int, np.ndarray]:
    """An automaton over the bytes a and b; every other byte is impossible."""
    generator = np.random.default_rng(seed)
    table = np.full((5, NUM_BYTES), DEAD, dtype=np.int32)
    table[:, [97, 98]] = generator.integers(-1, 5, size=(5, 2))
    return table, 0, generator.random(5) < 0.5


def walk_bytes(table: np.ndarray, state: int, text: bytes) -> int:
    for byte in text:
        if state != DEAD:
            state = int(table[state, byte])
    return state


@pytest.mark.parametrize("seed", range(8))
def test_a_token_goes_where_its_bytes_go(seed: int) -> None:
    table, start, final_S = random_byte_table(seed)
    automaton = token_automaton(table, start, final_S, TOKENS)
    for state, (token, text) in product(range(5), enumerate(TOKENS)):
        expected = walk_bytes(table, state, text) if text else DEAD
        assert automaton.walk(state, [token]) == expected
    assert automaton.start == start
    assert (automaton.final_S == final_S).all()


def test_tokens_that_do_the_same_share_a_class() -> None:
    table = np.full((1, NUM_BYTES), DEAD, dtype=np.int32)
    table[0, ord("a") : ord("d")] = 0  # [abc]*
    automaton = token_automaton(table, 0, np.array([True]), [b"a", b"bc", b"cab", b"x", b"ax"])
    assert automaton.class_V.tolist() == [1, 1, 1, 0, 0]
    assert automaton.next_SC.tolist() == [[DEAD, 0]]


def test_choices_accept_exactly_themselves() -> None:
    choices = [[1, 2], [1, 2, 3], [0], [3, 1]]
    automaton = choice_automaton(choices, vocab_size=5)
    found = set().union(*(texts(automaton, length) for length in range(5)))
    assert found == {tuple(choice) for choice in choices}


def test_end_tokens_follow_final_states_only_and_then_themselves_only() -> None:
    plain = choice_automaton([[1], [1, 2]], vocab_size=6)
    automaton = with_end_tokens(plain, (4, 5))
    expected = {(1, 2), (1, 4), (1, 5), (1, 2, 4), (1, 4, 4), (1, 4, 5), (1, 5, 4), (1, 5, 5)}
    expected |= {(1,), (1, 2, 5)}
    assert set().union(*(texts(automaton, length) for length in range(4))) == expected
    assert with_end_tokens(plain, ()) is plain


def test_end_id_that_also_is_text_only_ends() -> None:
    automaton = with_end_tokens(choice_automaton([[1, 2], [2]], vocab_size=3), (2,))
    assert texts(automaton, 2) == set()


@pytest.mark.parametrize("seed", range(8))
def test_shortest_length_is_that_of_the_shortest_text(seed: int) -> None:
    automaton = random_automaton(np.random.default_rng(seed), 5, 3)
    edges = automaton.edges(automaton.permit(np.ones(3, dtype=bool), with_end=False))
    lengths = [length for length in range(6) if texts(automaton, length)]
    assert automaton.shortest_length(edges) == min(lengths, default=None)


def test_permit_holds_the_classes_of_the_ids_and_the_end_as_asked() -> None:
    automaton = with_end_tokens(choice_automaton([[0, 1]], vocab_size=4), (3,))
    ids = np.array([True, False, False, False])
    for with_end in (True, False):
        permit_C = automaton.permit(ids, with_end)
        assert permit_C[automaton.class_V[0]]
        assert not permit_C[automaton.class_V[1]]
        assert permit_C[automaton.class_V[3]] == with_end
