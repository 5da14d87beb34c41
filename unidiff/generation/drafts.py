"""What self-speculation knows of one row: the tokens to try next, and whether trying pays."""

from collections.abc import Sequence
from dataclasses import dataclass, field

# `auto` goes by tokens per round. A round over a draft and its canvases takes longer than one over
# a single token, so that 1 would not pay.
_LEAST_RATE = 1.4
_NUM_TRIAL_ROUNDS = 4
_FIRST_PAUSE = 64  # tokens; doubled after each trial that failed
_MATCH_LENGTHS = (3, 2)  # tokens that have to stand at the end and earlier in the row


@dataclass
class Repetitions:
    """Where each short run of a row's tokens last stood, to foresee that it goes on as it did.

    Source: prompt lookup decoding, as a draft; what is measured of it is in `bench speculation`.

    Attributes:
        ends: index behind the last occurrence of each run, the row's end excepted.
        num_seen: leading tokens of the row that were looked at.
    """

    ends: dict[tuple[int, ...], int] = field(default_factory=dict)
    num_seen: int = 0

    def look_up(self, ids: Sequence[int], count: int) -> list[int]:
        """At most `count` tokens that followed the row's last ones earlier; none if none did."""
        for end in range(self.num_seen, len(ids)):
            for length in _MATCH_LENGTHS:
                if end >= length:
                    self.ends[tuple(ids[end - length : end])] = end
        self.num_seen = max(self.num_seen, len(ids))
        for length in _MATCH_LENGTHS:
            end = self.ends.get(tuple(ids[-length:]))
            if end is not None and len(ids) > length:
                return list(ids[end : end + count])
        return []


@dataclass
class Drafting:
    """The draft of one row, and how the ones before it fared.

    Attributes:
        ids: tokens that the next round reads as if they were the row's.
        num_rounds: drafts of the present trial.
        num_tokens: tokens they gave.
        pause: tokens still to come without a draft.
        next_pause: length of the next pause.
        repetitions: what the row's own tokens foresee.
        is_looked_up: whether the draft is theirs, and not a canvas's.
    """

    ids: list[int] = field(default_factory=list)
    num_rounds: int = 0
    num_tokens: int = 0
    pause: int = 0
    next_pause: int = _FIRST_PAUSE
    repetitions: Repetitions = field(default_factory=Repetitions)
    is_looked_up: bool = False

    def note(self, num_drafted: int, num_tokens: int) -> None:
        """Count a round that gave `num_tokens`; start a pause when a trial was not worth it."""
        self.pause = max(0, self.pause - num_tokens)
        if not num_drafted:
            return
        self.num_rounds += 1
        self.num_tokens += num_tokens
        if self.num_rounds < _NUM_TRIAL_ROUNDS:
            return
        if self.num_tokens < _LEAST_RATE * self.num_rounds:
            self.pause, self.next_pause = self.next_pause, 2 * self.next_pause
        self.num_rounds = self.num_tokens = 0
