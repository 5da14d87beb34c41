"""Canvases of guidance's weaker branches: their own end of a prompt, then the row's own canvas.

A branch has another prompt than its row. Where the end of the prompt lies inside the canvas (all of
it under `full`, what does not fill a block under `block_causal`) the branch's canvas differs in its
first tokens and perhaps in length; behind them both hold the same tokens, column by column.
"""

# Shapes: B rows, C weaker branches, K columns of the rows' canvases, W of the branches'.

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .context import Context
from .denoiser import Denoiser, Run
from .rows import Row


class Branches:
    """Where the canvases of the weaker branches stand; their tokens are the rows' own.

    Attributes:
        prefixes: ends of prompts inside the canvas, of each row and branch.
        prefix_ids_BCW: (B, C, W) int64 their ids.
        num_prefix_BC: (B, C) int64 their lengths.
        num_own_B: (B,) int64, length of the prompt's end in the row's own canvas.
        position_BC3W: (B, C, 3, W) int64.
    """

    def __init__(self, num_rows: int, num_branches: int, width: int, device: torch.device) -> None:
        """Branches without a canvas, of at most `width` columns."""
        whole = (num_rows, num_branches)
        self.prefixes: list[list[Context]] = [[] for _ in range(num_rows)]
        self.prefix_ids_BCW = torch.zeros(*whole, width, dtype=torch.int64, device=device)
        self.num_prefix_BC = torch.zeros(whole, dtype=torch.int64, device=device)
        self.num_own_B = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.position_BC3W = torch.zeros(*whole, 3, width, dtype=torch.int64, device=device)

    def join(self, num_rows: int, width: int) -> None:
        """Make room for further rows, with branches of at most `width` columns."""
        _, num_branches, held = self.prefix_ids_BCW.shape
        more = Branches(num_rows, num_branches, max(width, held), self.num_own_B.device)
        wider = (0, max(width, held) - held)
        self.prefixes += more.prefixes
        self.num_own_B = torch.cat([self.num_own_B, more.num_own_B])
        self.num_prefix_BC = torch.cat([self.num_prefix_BC, more.num_prefix_BC])
        for name in ("prefix_ids_BCW", "position_BC3W"):
            parts = _padded(getattr(self, name), wider), getattr(more, name)
            setattr(self, name, torch.cat(parts))

    def open(
        self, row: int, twins: Sequence[Context], settled: Sequence[int], modality: Sequence[int]
    ) -> None:
        """Place the branches of a row whose canvas was opened.

        Args:
            row: which one.
            twins: contexts of its branches; what lies behind `settled` moves into the canvas.
            settled: leading tokens of each that stay context.
            modality: of the canvas columns behind the end of the row's own prompt.
        """
        self.prefixes[row] = []
        for branch, (twin, length) in enumerate(zip(twins, settled, strict=True)):
            positions = twin.next_positions(modality)
            prefix = twin.split(length)
            self.prefixes[row].append(prefix)
            self.num_prefix_BC[row, branch] = len(prefix)
            ids = torch.tensor(prefix.ids, dtype=torch.int64)
            self.prefix_ids_BCW[row, branch, : len(prefix)] = ids
            place = torch.from_numpy(np.concatenate([prefix.positions, positions], axis=1))
            self.position_BC3W[row, branch, :, : place.shape[1]] = place

    def beside(self, own: Run, asked_BK: Tensor, takes_part_B: Tensor) -> tuple[Run, Tensor]:
        """The rows' canvases and their branches', and where logits are wanted.

        Args:
            own: the rows' canvases.
            asked_BK: (B, K) bool, their positions that are asked for.
            takes_part_B: (B,) bool, rows whose branches are read now; the others' are empty.

        Returns:
            (run of (1 + C) B rows, branch by branch behind the rows; (rows, columns) bool). A
            branch is asked for the same tokens in the same order as its row.
        """
        num_columns = asked_BK.shape[1]
        shift_BC = self.num_prefix_BC - self.num_own_B[:, None]
        length_BC = own.length_B[:, None] + shift_BC
        length_BC = length_BC * ((own.length_B > 0) & takes_part_B)[:, None]
        width = max(num_columns, int(length_BC.max()))
        offset_W = torch.arange(width, device=asked_BK.device)
        column_BCW = offset_W - shift_BC[..., None]
        in_prefix_BCW = offset_W < self.num_prefix_BC[..., None]
        is_real_BCW = offset_W < length_BC[..., None]
        source = column_BCW.clamp(0, num_columns - 1).flatten(1)
        ids_BCW = own.ids_BT.gather(1, source).view_as(column_BCW)
        ids_BCW = torch.where(in_prefix_BCW, self.prefix_ids_BCW[..., :width], ids_BCW)
        asked_BCW = asked_BK.gather(1, source).view_as(column_BCW) & is_real_BCW & ~in_prefix_BCW
        pad = (0, width - num_columns)
        run = Run(
            torch.cat([_padded(own.ids_BT, pad), ids_BCW.transpose(0, 1).flatten(0, 1)]),
            torch.cat(
                [
                    _padded(own.position_3BT, pad),
                    self.position_BC3W[..., :width].permute(2, 1, 0, 3).flatten(1, 2),
                ],
                dim=1,
            ),
            torch.cat([own.length_B, length_BC.transpose(0, 1).flatten()]),
        )
        asked = torch.cat([_padded(asked_BK, pad), asked_BCW.transpose(0, 1).flatten(0, 1)])
        return run, asked

    def block(
        self, row: int, branch: int, ids: Sequence[int], modality: Sequence[int]
    ) -> tuple[list[int], list[int], np.ndarray]:
        """(ids, modality, positions) of a finished block as the branch has it.

        Args:
            row: whose block it is.
            branch: which branch.
            ids: tokens of the row's own canvas.
            modality: theirs.
        """
        prefix, num_own = self.prefixes[row][branch], int(self.num_own_B[row])
        ids = [*prefix.ids, *ids[num_own:]]
        positions = self.position_BC3W[row, branch, :, : len(ids)].cpu().numpy()
        return ids, [*prefix.modality, *modality[num_own:]], positions

    def select(self, rows: Sequence[int]) -> None:
        """Keep the given rows, in that order."""
        self.prefixes = [self.prefixes[row] for row in rows]
        index = torch.as_tensor(list(rows), dtype=torch.int64, device=self.num_own_B.device)
        for name in ("prefix_ids_BCW", "num_prefix_BC", "num_own_B", "position_BC3W"):
            setattr(self, name, getattr(self, name)[index])


def _padded(tensor: Tensor, pad: tuple[int, int]) -> Tensor:
    """A tensor with columns of zeros behind its own."""
    return torch.nn.functional.pad(tensor, pad)


def num_settled(denoiser: Denoiser[Any], context: Context) -> int:
    """Leading tokens of a context that no canvas holds; the rest open the next canvas."""
    if denoiser.attention_pattern == "full":
        return 0
    if denoiser.attention_pattern == "block_causal":
        return len(context) // denoiser.canvas_length * denoiser.canvas_length
    return len(context)


def check_branches(denoiser: Denoiser[Any], rows: Sequence[Row]) -> None:
    """Raise ValueError if a weaker branch's blocks would lie across its row's."""
    if denoiser.attention_pattern != "block_causal":
        return
    grid = denoiser.canvas_length
    for row in rows:
        for twin in row.twins:
            missing = (len(row.context) - len(twin)) % grid
            if missing:
                raise ValueError(
                    f"row {row.index}: negative_input_ids has {len(twin)} tokens and the prompt "
                    f"{len(row.context)}; under block_causal their blocks of {grid} must line up: "
                    f"lengthen the negative prompt by {missing} tokens (or a multiple of {grid} "
                    "more), for example by repeating its first token"
                )
