"""Handing finished tokens out: to the row, to the caller's streamer, past the stopping criteria."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .rows import Row


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
    """Appends finished tokens to rows; cuts them where a stopping criterion is met."""

    def __init__(
        self, streamer: Streamer | None, criteria: Sequence[StoppingCriterion], num_rows: int
    ) -> None:
        """Remember whom to tell.

        Raises:
            TypeError: if the streamer cannot take tokens.
            ValueError: if a streamer is to show more than one row.
        """
        if streamer is not None and not (hasattr(streamer, "put") and hasattr(streamer, "end")):
            raise TypeError(f"a streamer needs put() and end(), got {type(streamer).__name__}")
        if streamer is not None and num_rows != 1:
            raise ValueError(
                f"a streamer shows one row, got a batch of {num_rows}: stream it alone"
            )
        self.streamer = streamer
        self.criteria = criteria

    @property
    def wants_drafts(self) -> bool:
        """Whether the streamer shows unfinished canvases."""
        return hasattr(self.streamer, "put_draft")

    def put(self, ids: Sequence[int]) -> None:
        """Show tokens that will not change any more."""
        if self.streamer is not None and len(ids):
            self.streamer.put(torch.tensor(ids, dtype=torch.int64))

    def put_draft(self, ids: Sequence[int]) -> None:
        """Show a canvas as it stands."""
        if self.streamer is not None:
            self.streamer.put_draft(torch.tensor(ids, dtype=torch.int64))  # type: ignore[attr-defined]

    def end(self) -> None:
        """Tell the streamer that nothing more comes."""
        if self.streamer is not None:
            self.streamer.end()

    def take(self, row: Row, ids: Sequence[int], log_probs: Sequence[float]) -> bool:
        """Append finished tokens to a row; True if a stopping criterion ended it.

        The criteria see the row's prompt and response after each new token, as in left-to-right
        decoding; tokens behind the first hit are dropped.
        """
        stop, length = False, len(ids)
        if self.criteria and row.given is None:
            known = torch.tensor([[*row.known_ids, *ids]], dtype=torch.int64)
            first = known.shape[1] - len(ids) + 1
            for end in range(first, known.shape[1] + 1):
                if any(_met(criterion, known[:, :end]) for criterion in self.criteria):
                    stop, length = True, end - first + 1
                    break
        row.generated += ids[:length]
        row.log_probs += log_probs[:length]
        self.put(ids[:length])
        return stop


def _met(criterion: StoppingCriterion, ids: Tensor) -> bool:
    """Whether a criterion asks to stop after these (1, n) ids."""
    return bool(torch.as_tensor(criterion(ids, None)).all())
