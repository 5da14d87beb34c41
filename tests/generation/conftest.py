"""An exact denoiser without a network: conditionals of a table of probabilities."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import pytest
import torch
from torch import Tensor

from unidiff.generation.denoiser import Run
from unidiff.tokens.layout import IdRange, TokenLayout

NUM_IDS = 3  # ids 0, 1, 2; id 3 is the mask
MASK = 3


class ListCache:
    """Committed tokens and nothing else."""

    def __init__(self, num_rows: int) -> None:
        self.token_ids: list[list[int]] = [[] for _ in range(num_rows)]
        self.positions = [np.zeros((3, 0), dtype=np.int64) for _ in range(num_rows)]
        self.tail: list[list[int]] = [[] for _ in range(num_rows)]
        self.adapters: list[str | None] = [None] * num_rows
        self.soft: list[Tensor | None] = [None] * num_rows

    def select_rows(self, rows: Sequence[int]) -> Self:
        chosen = type(self)(len(rows))
        for name in ("token_ids", "positions", "tail", "soft"):
            setattr(chosen, name, [getattr(self, name)[row] for row in rows])
        return chosen

    def crop(self, lengths: Sequence[int]) -> None:
        self.token_ids = [ids[:n] for ids, n in zip(self.token_ids, lengths, strict=True)]


class TableDenoiser:
    """True conditionals of a joint distribution over the tokens behind a one-token prompt."""

    layout = TokenLayout(
        ranges={"text": IdRange(0, NUM_IDS + 1)},
        mask_token_id=MASK,
        pad_token_id=0,
        end_token_ids=(),
    )
    attention_pattern = "causal_context"
    logits_shift = 0
    vocab_size = NUM_IDS + 1
    device = torch.device("cpu")
    trained_on_visible = False
    max_positions = 100
    noise_process = "absorbing"
    uniform_prediction: str | None = None

    def __init__(self, joint: Tensor) -> None:
        """`joint`: probabilities, one axis of `NUM_IDS` per token."""
        self.joint = joint
        self.canvas_length = self.length = joint.ndim
        self.log_conditional = self._tabulate()

    def _tabulate(self) -> Tensor:
        """(4^L, L, 4) log conditional of each position for every pattern of known tokens."""
        table = torch.full(((NUM_IDS + 1) ** self.length, self.length, NUM_IDS + 1), -torch.inf)
        table = table.double()
        for code in range(table.shape[0]):
            digits = [code // (NUM_IDS + 1) ** i % (NUM_IDS + 1) for i in range(self.length)]
            known = tuple(slice(None) if d == MASK else slice(d, d + 1) for d in digits)
            part = self.joint[known]
            for position in range(self.length):
                others = [axis for axis in range(self.length) if axis != position]
                marginal = part.sum(others) if others else part
                if marginal.shape[0] == NUM_IDS:
                    table[code, position, :NUM_IDS] = (marginal / marginal.sum()).log()
        return table

    def new_cache(self, num_rows: int, adapters: Sequence[str | None] | None = None) -> ListCache:
        del adapters  # a table has none
        return ListCache(num_rows)

    def check_cache(self, cache: object) -> None:
        assert isinstance(cache, ListCache)

    def join_caches(self, caches: Sequence[ListCache]) -> ListCache:
        joined = ListCache(0)
        for cache in caches:
            joined.token_ids += cache.token_ids
            joined.positions += cache.positions
            joined.tail += cache.tail
            joined.soft += cache.soft
        return joined

    def _known(self, cache: ListCache) -> Tensor:
        """(B, L) known tokens behind the prompt, the mask elsewhere."""
        rows = [(ids[1:] + [MASK] * self.length)[: self.length] for ids in cache.token_ids]
        return torch.tensor(rows)

    def _conditionals(self, known_BL: Tensor) -> Tensor:
        """(B, L, V) log conditionals."""
        place_L = (NUM_IDS + 1) ** torch.arange(self.length)
        return self.log_conditional[(known_BL * place_L).sum(1)]

    def probe(
        self,
        cache: ListCache,
        canvas: Run,
        *,
        logits_at_BK: Tensor,
        commit: Run | None = None,
        id_range: tuple[int, int] | None = None,
    ) -> Tensor:
        if commit is not None:
            self.commit(cache, commit)
        known_BL = self._known(cache)
        row, column = torch.nonzero(
            torch.arange(canvas.ids_BT.shape[1]) < canvas.length_B[:, None], as_tuple=True
        )
        slot = canvas.position_3BT[0, row, column] - 1  # the prompt stands at 0
        known_BL[row, slot] = canvas.ids_BT[row, column]
        row, column = torch.nonzero(logits_at_BK, as_tuple=True)
        slot = canvas.position_3BT[0, row, column] - 1
        logits = self._conditionals(known_BL)[row, slot]
        return logits if id_range is None else logits[:, slice(*id_range)]

    def commit(
        self, cache: ListCache, run: Run, *, logits_at_BT: Tensor | None = None
    ) -> Tensor | None:
        asked = ListCache(0)  # what each token asked for follows, itself included
        for row, (ids, length) in enumerate(
            zip(run.ids_BT.tolist(), run.length_B.tolist(), strict=True)
        ):
            known = cache.token_ids[row]
            cache.token_ids[row] = known + ids[:length]
            position_3T = run.position_3BT[:, row, :length].numpy()
            cache.positions[row] = np.concatenate([cache.positions[row], position_3T], axis=1)
            if logits_at_BT is not None:
                places = [t for t in range(length) if logits_at_BT[row, t]]
                asked.token_ids += [known + ids[: t + 1] for t in places]
        return None if logits_at_BT is None else self.next_logits(asked)

    def verify(
        self, cache: ListCache, run: Run, canvas: Run, *, behind_BK: Tensor, logits_at_BT: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        num_before = [len(ids) for ids in cache.token_ids]
        logits = self.commit(cache, run, logits_at_BT=logits_at_BT)
        assert logits is not None
        committed = [list(ids) for ids in cache.token_ids]

        def predict(logits_at_BK: Tensor) -> Tensor:
            row, column = torch.nonzero(logits_at_BK, as_tuple=True)
            seen = ListCache(0)
            for r, behind in zip(row.tolist(), behind_BK[row, column].tolist(), strict=True):
                seen.token_ids.append(committed[r][: num_before[r] + behind + 1])
            slot = canvas.position_3BT[0, row, column] - 1
            return self._conditionals(self._known(seen))[torch.arange(len(row)), slot]

        return logits, predict

    def next_logits(self, cache: ListCache) -> Tensor:
        next_B = torch.tensor([len(ids) - 1 for ids in cache.token_ids]).clamp(max=self.length - 1)
        return self._conditionals(self._known(cache))[torch.arange(len(next_B)), next_B]


@pytest.fixture(scope="session")
def table_denoiser() -> TableDenoiser:
    """A peaked random joint over 3 tokens of 3 ids, strongly dependent."""
    weight = np.random.default_rng(12).gamma(0.4, size=(NUM_IDS,) * 3)
    return TableDenoiser(torch.from_numpy(weight / weight.sum()))
