"""Finite automata over token ids: a byte automaton or a list of choices, compiled to whole tokens.

Tokens that do the same in every state share a class, and the table of transitions has a column for
each class: a vocabulary of 32,768 ids and a JSON schema need a few hundred. Knows ids and bytes;
knows nothing of tokenizers, grammars or canvases.
"""

# Shapes: S states, C classes, V ids, E edges.

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

NUM_BYTES = 256
DEAD = -1  # in place of a next state: the token is impossible there
_NO_CLASS = 0  # class of ids that are possible nowhere
_NUM_KEPT = 32  # automata, and edges of one, remembered between calls


@dataclass(frozen=True)
class Edges:
    """Pairs of states that some permitted token connects.

    Sets of states are (S + 1,) bool; the last entry stands for `DEAD` and is False.

    Attributes:
        source_E: (E,) int64.
        target_E: (E,) int64.
        permit_C: (C,) bool, classes of the tokens.
    """

    source_E: np.ndarray
    target_E: np.ndarray
    permit_C: np.ndarray

    def forward(self, states: np.ndarray) -> np.ndarray:
        """(S + 1,) bool states one token after the given ones."""
        reached = np.zeros_like(states)
        reached[self.target_E[states[self.source_E]]] = True
        return reached

    def backward(self, states: np.ndarray) -> np.ndarray:
        """(S + 1,) bool states one token before the given ones."""
        reached = np.zeros_like(states)
        reached[self.source_E[states[self.target_E]]] = True
        return reached


@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """A deterministic automaton whose alphabet is the ids of a vocabulary.

    Attributes:
        next_SC: (S, C) int32 next state, `DEAD` where there is none.
        class_V: (V,) int64 class of each id.
        start: the state before the first token.
        final_S: (S,) bool, states in which a text may end.
        end_class: class of the end tokens, which lead from every final state to a state that only
            they can follow; None: there are none.
    """

    next_SC: np.ndarray
    class_V: np.ndarray
    start: int
    final_S: np.ndarray
    end_class: int | None = None
    _edges: dict[bytes, Edges] = field(default_factory=dict, init=False, repr=False)

    @property
    def num_states(self) -> int:
        """S."""
        return len(self.next_SC)

    def set_of(self, states: np.ndarray) -> np.ndarray:
        """(S + 1,) bool, True at the given states, `DEAD` ones left out."""
        chosen = np.zeros(self.num_states + 1, dtype=bool)
        chosen[states] = True
        chosen[DEAD] = False
        return chosen

    @cached_property
    def finals(self) -> np.ndarray:
        """(S + 1,) bool, the final states."""
        return np.append(self.final_S, False)

    def walk(self, state: int, ids: Sequence[int]) -> int:
        """The state after the ids, `DEAD` if one of them is impossible."""
        for token in ids:
            if state == DEAD:
                return DEAD
            state = int(self.next_SC[state, self.class_V[token]])
        return state

    def permit(self, ids_V: np.ndarray, with_end: bool) -> np.ndarray:
        """(C,) bool classes of the given (V,) bool ids; that of the end tokens as asked."""
        permit_C = np.bincount(self.class_V[ids_V], minlength=self.next_SC.shape[1]) > 0
        if self.end_class is not None:
            permit_C[self.end_class] = with_end
        return permit_C

    def edges(self, permit_C: np.ndarray) -> Edges:
        """The pairs of states that tokens of the (C,) bool classes connect; kept once computed."""
        key = permit_C.tobytes()
        if key not in self._edges:
            if len(self._edges) >= _NUM_KEPT:
                self._edges.clear()
            source, place = np.nonzero((self.next_SC != DEAD) & permit_C)
            pairs = np.unique(source * self.num_states + self.next_SC[source, place])
            self._edges[key] = Edges(pairs // self.num_states, pairs % self.num_states, permit_C)
        return self._edges[key]

    def shortest_length(self, edges: Edges) -> int | None:
        """Tokens of the shortest text, end tokens not counted; None if there is no text at all."""
        states, length = self.set_of(np.array([self.start])), 0
        seen = np.zeros_like(states)
        while (states & ~seen).any():
            if (states & self.finals).any():
                return length
            seen |= states
            states = edges.forward(states)
            length += 1
        return None


@lru_cache(maxsize=_NUM_KEPT)
def with_end_tokens(automaton: TokenAutomaton, end_ids: tuple[int, ...]) -> TokenAutomaton:
    """The automaton with end tokens behind its final states; the same one if there are none.

    Args:
        automaton: over texts; what it makes of the end ids themselves is forgotten.
        end_ids: ids that end a text and may repeat behind it.
    """
    if not end_ids:
        return automaton
    num_states, end_class = automaton.next_SC.shape
    next_SC = np.full((num_states + 1, end_class + 1), DEAD, dtype=np.int32)
    next_SC[:num_states, :end_class] = automaton.next_SC
    next_SC[:num_states, end_class][automaton.final_S] = num_states
    next_SC[num_states, end_class] = num_states
    class_V = automaton.class_V.copy()
    class_V[[*end_ids]] = end_class
    final_S = np.append(automaton.final_S, True)
    return TokenAutomaton(next_SC, class_V, automaton.start, final_S, end_class)


def token_automaton(
    next_SB: np.ndarray, start: int, final_S: np.ndarray, token_bytes: Sequence[bytes | None]
) -> TokenAutomaton:
    """The automaton over tokens that accepts what an automaton over bytes does.

    Args:
        next_SB: (S, 256) int next state of each byte, `DEAD` where there is none.
        start: first state.
        final_S: (S,) bool.
        token_bytes: the bytes of each id; None or empty: never possible.
    """
    num_states = len(next_SB)
    steps = np.where(next_SB == DEAD, num_states, next_SB).astype(np.int32)
    steps = np.concatenate([steps, np.full((1, NUM_BYTES), num_states, dtype=np.int32)])
    columns = _Columns(np.full(num_states + 1, num_states, dtype=np.int32))
    length_V = np.array([len(token or b"") for token in token_bytes], dtype=np.int64)
    class_V = np.zeros(len(token_bytes), dtype=np.int64)
    class_V[length_V > 0] = columns.add(np.arange(num_states + 1, dtype=np.int32))
    joined = np.frombuffer(b"".join(token or b"" for token in token_bytes), dtype=np.uint8)
    begin_V = np.cumsum(length_V) - length_V
    for depth in range(int(length_V.max(initial=0))):
        live = np.nonzero((length_V > depth) & (class_V != _NO_CLASS))[0]
        key = class_V[live] * NUM_BYTES + joined[begin_V[live] + depth]
        distinct, inverse = np.unique(key, return_inverse=True)
        after = [
            columns.add(steps[columns.states[pair // NUM_BYTES], pair % NUM_BYTES])
            for pair in distinct.tolist()
        ]
        class_V[live] = np.array(after, dtype=np.int64)[inverse]
    used, class_V = np.unique(np.append(_NO_CLASS, class_V), return_inverse=True)
    next_SC = np.stack([columns.states[one][:num_states] for one in used.tolist()], axis=1)
    next_SC[next_SC == num_states] = DEAD
    return TokenAutomaton(next_SC, class_V[1:], start, final_S)


def choice_automaton(choices: Sequence[Sequence[int]], vocab_size: int) -> TokenAutomaton:
    """The automaton of a few token sequences, each at least one token long."""
    used = sorted({token for choice in choices for token in choice})
    class_V = np.zeros(vocab_size, dtype=np.int64)
    class_V[used] = np.arange(1, len(used) + 1)
    tree: list[dict[int, int]] = [{}]
    final = []
    for choice in choices:
        state = 0
        for token in choice:
            if token not in tree[state]:
                tree[state][token] = len(tree)
                tree.append({})
            state = tree[state][token]
        final.append(state)
    next_SC = np.full((len(tree), len(used) + 1), DEAD, dtype=np.int32)
    for state, branches in enumerate(tree):
        for token, after in branches.items():
            next_SC[state, class_V[token]] = after
    final_S = np.zeros(len(tree), dtype=bool)
    final_S[final] = True
    return TokenAutomaton(next_SC, class_V, 0, final_S)


class _Columns:
    """Distinct maps from a state to a state, numbered; number 0 leads nowhere."""

    def __init__(self, nowhere: np.ndarray) -> None:
        self.states = [nowhere]
        self._number = {nowhere.tobytes(): _NO_CLASS}

    def add(self, states: np.ndarray) -> int:
        """The number of an (S + 1,) int32 map."""
        key = states.tobytes()
        if key not in self._number:
            self._number[key] = len(self.states)
            self.states.append(states)
        return self._number[key]
