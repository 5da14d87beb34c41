"""The canvases being denoised, one in each row: what is known, masked, and spent.

Masked state is a boolean: a pinned token may well be the mask id (DESIGN decision 16).
"""

# Shapes: B rows, K widest canvas.

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

NEW = -1  # a column that comes from none


@dataclass(frozen=True)
class Canvas:
    """One row's canvas when it is opened.

    Attributes:
        ids: (k,) int64; read where pinned or drafted.
        pinned: (k,) bool, known tokens.
        drafted: (k,) bool, tokens that are shown, and that a revision may change.
        modality: (k,) int64 index into the layout's `modalities`.
        positions: (3, k) int64.
        first_index: index in the row of the first canvas token.
        budget: steps that each of its windows may take; None: one per masked position.
        window_stop: positions before it may be revealed now; the rest wait for `open_window`.
    """

    ids: np.ndarray
    pinned: np.ndarray
    drafted: np.ndarray
    modality: np.ndarray
    positions: np.ndarray
    first_index: int
    budget: int | None
    window_stop: int


@dataclass
class Canvases:
    """State of every row's canvas, right-padded to the widest; rows change canvas independently.

    Attributes:
        ids_BK: (B, K) int64, revealed or pinned tokens; the mask id where masked.
        masked_BK: (B, K) bool, still to reveal.
        pinned_BK: (B, K) bool, known from the start.
        in_window_BK: (B, K) bool, may be revealed now.
        modality_BK: (B, K) int64, index into the layout's `modalities`.
        position_B3K: (B, 3, K) int64.
        log_prob_BK: (B, K) float64, log-probability of each revealed token in nats.
        confidence_BK: (B, K) float64, confidence of each position when it was revealed.
        length_B: (B,) int64, real positions of each row; 0: the row waits to leave the batch.
        first_index_B: (B,) int64, index in the row of the canvas's first token.
        window_stop_B: (B,) int64, positions before it may be revealed now.
        step_B: (B,) int64, steps done in the window.
        budget_B: (B,) int64, steps the window may take.
        total_B: (B,) int64, positions masked or drafted when the window opened.
        post_B: (B,) int64, steps done in the window since no mask was left.
        num_returns_B: (B,) int64, steps of the window in which a revision masked positions again.
        is_restless_B: (B,) bool, whether a revision may still change the row without masks.
        is_fresh_B: (B,) bool, whether the row's block still awaits its first step.
    """

    ids_BK: Tensor
    masked_BK: Tensor
    pinned_BK: Tensor
    in_window_BK: Tensor
    modality_BK: Tensor
    position_B3K: Tensor
    log_prob_BK: Tensor
    confidence_BK: Tensor
    length_B: Tensor
    first_index_B: Tensor
    window_stop_B: Tensor
    step_B: Tensor
    budget_B: Tensor
    total_B: Tensor
    post_B: Tensor
    num_returns_B: Tensor
    is_restless_B: Tensor
    is_fresh_B: Tensor

    @classmethod
    def empty(cls, num_rows: int, width: int, device: torch.device) -> "Canvases":
        """Rows without a canvas."""
        flat, wide = (num_rows,), (num_rows, width)

        def zeros(shape: tuple[int, ...], dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            ids_BK=zeros(wide),
            masked_BK=zeros(wide, torch.bool),
            pinned_BK=zeros(wide, torch.bool),
            in_window_BK=zeros(wide, torch.bool),
            modality_BK=zeros(wide),
            position_B3K=zeros((num_rows, 3, width)),
            log_prob_BK=zeros(wide, torch.float64),
            confidence_BK=zeros(wide, torch.float64),
            length_B=zeros(flat),
            first_index_B=zeros(flat),
            window_stop_B=zeros(flat),
            step_B=zeros(flat),
            budget_B=zeros(flat) + 1,
            total_B=zeros(flat),
            post_B=zeros(flat),
            num_returns_B=zeros(flat),
            is_restless_B=zeros(flat, torch.bool),
            is_fresh_B=zeros(flat, torch.bool),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Canvases"]) -> "Canvases":
        """The rows of several, in order, padded to the widest."""
        width = max(part.ids_BK.shape[1] for part in parts)

        def joined(name: str) -> Tensor:
            tensors = [getattr(part, name) for part in parts]
            if name.endswith("K"):
                tensors = [pad(tensor, (0, width - tensor.shape[-1])) for tensor in tensors]
            return torch.cat(tensors)

        return cls(**{f.name: joined(f.name) for f in fields(cls)})

    def open(self, row: int, canvas: Canvas, mask_token_id: int) -> None:
        """Give a row a new canvas; what it held is lost."""
        length, device = len(canvas.ids), self.ids_BK.device
        pinned = torch.from_numpy(canvas.pinned).to(device)
        shown = pinned | torch.from_numpy(canvas.drafted).to(device)
        ids = torch.from_numpy(canvas.ids).to(device)
        self.close(row)
        self.ids_BK[row, :length] = torch.where(shown, ids, mask_token_id)
        self.masked_BK[row, :length] = ~shown
        self.pinned_BK[row, :length] = pinned
        self.modality_BK[row, :length] = torch.from_numpy(canvas.modality).to(device)
        self.position_B3K[row, :, :length] = torch.from_numpy(canvas.positions).to(device)
        self.log_prob_BK[row] = 0.0
        self.confidence_BK[row] = 0.0  # a draft was revealed by nobody
        self.length_B[row] = length
        self.first_index_B[row] = canvas.first_index
        self.is_fresh_B[row] = True
        num_drafted = int(canvas.drafted.sum())
        self.open_window(row, canvas.window_stop, canvas.budget, num_drafted)

    def open_window(self, row: int, stop: int, budget: int | None, num_drafted: int = 0) -> None:
        """Let the positions before `stop` be revealed in `budget` steps, counted afresh."""
        total = self.masked_BK[row, :stop].sum() + num_drafted
        self.in_window_BK[row, :stop] = True
        self.in_window_BK[row, stop:] = False
        self.window_stop_B[row] = stop
        self.step_B[row] = 0
        self.post_B[row] = 0
        self.num_returns_B[row] = 0
        self.is_restless_B[row] = False
        self.total_B[row] = total
        least = 2 if num_drafted else 1  # the last step gives nothing of a draft back
        self.budget_B[row] = total.clamp(min=least) if budget is None else budget

    def shorten(self, row: int, length: int) -> None:
        """Drop a row's canvas positions from `length` on; they must be masked."""
        self.masked_BK[row, length:] = False
        self.length_B[row] = length

    def stretch(self, row: int, source: np.ndarray, mask_token_id: int, first_own: int) -> None:
        """Rebuild a row's canvas from its columns; masked ones in the window may be among them.

        The window takes as many steps more, in proportion, as there are new masks.

        Args:
            row: the row.
            source: (k,) int64, the column that each new one was, or `NEW` for a masked one.
            mask_token_id: id of what is masked.
            first_own: columns before it keep their positions; those from it on stand in a line.
        """
        device, length = self.ids_BK.device, len(source)
        start_3 = self.position_B3K[row, :, first_own].clone()
        self._widen(length)
        index = torch.from_numpy(source).to(device)
        new = index == NEW
        fresh = {"ids_BK": mask_token_id, "masked_BK": True, "in_window_BK": True}
        for name in (f.name for f in fields(self) if f.name.endswith("_BK")):
            column = getattr(self, name)[row]
            column[:length] = column[index.clamp(min=0)].masked_fill(new, fresh.get(name, 0))
            column[length:] = 0
        offset = torch.arange(length - first_own, device=device)
        self.position_B3K[row, :, first_own:length] = start_3[:, None] + offset
        num_new = new.sum()
        more = (num_new * self.budget_B[row] + self.total_B[row] - 1) // self.total_B[row]
        self.window_stop_B[row] += length - self.length_B[row]
        self.length_B[row] = length
        self.budget_B[row] += more
        self.total_B[row] += num_new

    def _widen(self, width: int) -> None:
        """Make room for as many columns."""
        missing = width - self.ids_BK.shape[1]
        if missing > 0:
            for name in (f.name for f in fields(self) if f.name.endswith("K")):
                setattr(self, name, pad(getattr(self, name), (0, missing)))

    def close(self, row: int) -> None:
        """Take a row's canvas away; the row takes no part in forwards."""
        self.length_B[row] = 0
        self.masked_BK[row] = False
        self.pinned_BK[row] = False

    def select(self, rows: Sequence[int]) -> "Canvases":
        """The given rows, in that order."""
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.ids_BK.device)
        return Canvases(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def row_index(self) -> Tensor:
        """(B, K) index of each position in its row."""
        offset_K = torch.arange(self.ids_BK.shape[1], device=self.ids_BK.device)
        return self.first_index_B[:, None] + offset_K

    @property
    def progress(self) -> Tensor:
        """(B,) float, 0 at a window's first step, 1 at its last."""
        return (self.step_B / (self.budget_B - 1).clamp(min=1)).clamp(max=1.0)

    @property
    def is_open(self) -> Tensor:
        """(B, K) bool, masked positions inside the window."""
        return self.masked_BK & self.in_window_BK

    @property
    def is_real(self) -> Tensor:
        """(B, K) bool, columns that a row's canvas has; what stands behind them is left over."""
        offset_K = torch.arange(self.ids_BK.shape[1], device=self.ids_BK.device)
        return offset_K < self.length_B[:, None]

    def revisable(self, delivered_B: Tensor) -> Tensor:
        """(B, K) bool, revealed positions of the window that nobody has been given yet.

        Args:
            delivered_B: (B,) int64, leading canvas positions that are out of reach.
        """
        offset_K = torch.arange(self.ids_BK.shape[1], device=self.ids_BK.device)
        stop_B = torch.minimum(self.window_stop_B, self.length_B)
        inside_BK = (offset_K >= delivered_B[:, None]) & (offset_K < stop_B[:, None])
        return inside_BK & ~self.masked_BK & ~self.pinned_BK

    def first_end(self, end_ids_BE: Tensor) -> Tensor:
        """(B,) position of the first generated end token that has no mask before it, else -1.

        Args:
            end_ids_BE: (B, E) int64 end ids of each row, -1 for none.
        """
        if not end_ids_BE.shape[1]:
            return torch.full_like(self.length_B, -1)
        is_end_BKE = self.ids_BK[:, :, None] == end_ids_BE[:, None, :]
        settled_BK = self.masked_BK.cumsum(1) == 0
        is_end_BK = is_end_BKE.any(2) & settled_BK & self.is_real & ~self.pinned_BK
        return torch.where(is_end_BK.any(1), is_end_BK.int().argmax(1), -1)
