"""Handing finished tokens of one row out: to its streamer, past its stopping criteria.

Of the caller's, only criteria run inside a step: what a streamer is to see waits until
the step has ended, so that an error in it finds every row in order.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Streamer(Protocol):
    """transformers' streamer; one that also has `put_draft(value)` is shown every step."""

    def put(self, value: Tensor) -> None:
        """Receive the prompt, then each run of finished tokens, as (n,) int64 on the CPU."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


StoppingCriterion = Callable[..., Any]


class Delivery:
    """Where the tokens of one row go."""

    def __init__(
        self, streamer: Streamer | None = None, criteria: Sequence[StoppingCriterion] = ()
    ) -> None:
        """Remember whom to tell.

        Raises:
            TypeError: if the streamer cannot take tokens.
        """
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise TypeError(f"a streamer needs put() and end(), got {type(streamer).__name__}")
        self.streamer = streamer
        self.criteria = criteria
        self._draft: list[int] = []
        self._num_shown = 0
        self._has_ended = False

    @property
    def wants_drafts(self) -> bool:
        """Whether the streamer shows unfinished canvases."""
        return hasattr(self.streamer, "put_draft")

    def num_kept(self, known: Sequence[int], ids: Sequence[int]) -> tuple[int, bool]:
        """How many of the new `ids` behind the `known` ones stay, and whether a criterion was met.

        The criteria see (1, n) ids after each new token, as in left-to-right decoding; tokens
        behind the first hit are dropped.
        """
        if self.criteria:
            everything = torch.tensor([[*known, *ids]], dtype=torch.int64)
            for kept in range(1, len(ids) + 1):
                seen = everything[:, : len(known) + kept]
                if any(_met(criterion, seen) for criterion in self.criteria):
                    return kept, True
        return len(ids), False

    def keep_draft(self, ids: Sequence[int]) -> None:
        """Remember a canvas as it stands, to be shown when the step has ended."""
        if self.wants_drafts:
            self._draft = list(ids)

    def start(self, prompt: Sequence[int]) -> None:
        """Show the prompt."""
        if self.streamer is not None and len(prompt):
            self.streamer.put(torch.tensor(prompt, dtype=torch.int64))

    def show(self, generated: Sequence[int]) -> None:
        """Show the draft, if there is one, and what is new in a row's tokens; nothing twice."""
        if self.streamer is None or self._has_ended:
            return
        draft, self._draft = self._draft, []
        if draft:
            self.streamer.put_draft(torch.tensor(draft, dtype=torch.int64))  # type: ignore[attr-defined]
        new, self._num_shown = generated[self._num_shown :], max(self._num_shown, len(generated))
        if new:
            self.streamer.put(torch.tensor(new, dtype=torch.int64))

    def end(self) -> None:
        """Tell the streamer, once, that nothing more comes."""
        if self.streamer is not None and not self._has_ended:
            self._has_ended = True
            self.streamer.end()


def streamers_of(
    streamer: Streamer | Sequence[Streamer | None] | None, num_rows: int
) -> list[Streamer | None]:
    """One streamer or None for each row; raises ValueError if one is to show several rows."""
    if isinstance(streamer, (list, tuple)):
        if len(streamer) != num_rows:
            raise ValueError(f"{len(streamer)} streamers for {num_rows} rows: pass one for each")
        return list(streamer)
    if streamer is None:
        return [None] * num_rows
    if num_rows != 1:
        raise ValueError(
            f"a streamer shows one row, got a batch of {num_rows}: stream it alone, or pass a list "
            "with one for each row"
        )
    return [streamer]  # type: ignore[list-item]


def _met(criterion: StoppingCriterion, ids: Tensor) -> bool:
    """Whether a criterion asks to stop after these (1, n) ids."""
    return bool(torch.as_tensor(criterion(ids, None)).all())
