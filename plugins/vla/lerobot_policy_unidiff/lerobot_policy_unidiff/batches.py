"""lerobot's batches as observations of `unidiff_vla.policy`, and as rows of the training loss."""

# Shapes: B batch, T timesteps, D dimensions, h x w pixels.

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from unidiff_vla.policy import Observation
from unidiff_vla.policy.observations import ObservationEncoder

from unidiff.data.blocks import IGNORED, TrainingRow
from unidiff.data.collator import BlockCollator
from unidiff.data.tasks import RowMaker
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.processor import UniDiffProcessor

from .configuration_unidiff import UniDiffVLAConfig

STATE, ACTION, IS_PAD, TASK = "observation.state", "action", "action_is_pad", "task"


def observations_of(batch: Mapping[str, Any], config: UniDiffVLAConfig) -> list[Observation]:
    """The B observations of a batch.

    Args:
        batch: (B, 3, h, w) float pictures in [0, 1] of each camera, (B, D) states, B tasks.
        config: says which cameras there are, and what is asked for where no task is given.

    Raises:
        ValueError: if a camera, the state or the instruction is missing, or a picture has another
            size or values than a picture's.
    """
    names = [*config.cameras, *([] if config.state_dim is None else [STATE])]
    if missing := [name for name in names if name not in batch]:
        raise ValueError(
            f"a batch must hold {names}; missing are {missing}, there are {sorted(batch)}: record "
            "or render them, or map other names onto them with --rename_map"
        )
    pictures = {name: _pictures(batch[name], name, size) for name, size in config.cameras.items()}
    num_rows = len(next(iter(pictures.values())))
    found: list[Observation] = []
    for row in range(num_rows):
        views = {name: shots[row] for name, shots in pictures.items()}
        one: dict[str, Any] = {"instruction": _instruction(batch.get(TASK), row, config)}
        one |= {"images": views} if len(views) > 1 else {"image": next(iter(views.values()))}
        if config.state_dim is not None:
            one["state"] = batch[STATE][row].detach().cpu().numpy()
        found.append(one)
    return found


def _pictures(images: Tensor, name: str, size: tuple[int, int]) -> np.ndarray:
    """(B, h, w, 3) uint8 of (B, 3, h, w) floats in [0, 1]."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, *size):
        raise ValueError(
            f"{name} must be (B, 3, {size[0]}, {size[1]}), as the policy was made for; got "
            f"{tuple(images.shape)}: set the environment's or camera's size so"
        )
    if not bool(((images >= 0) & (images <= 1)).all()):  # False for NaN
        raise ValueError(
            f"{name} must hold numbers in [0, 1]; got {images.min():.3g} to {images.max():.3g}: "
            "leave pictures unnormalised"
        )
    return (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _instruction(tasks: Any, row: int, config: UniDiffVLAConfig) -> str:
    """What is asked for in a row."""
    task = tasks[row] if isinstance(tasks, (list, tuple)) and row < len(tasks) else tasks
    told = task if isinstance(task, str) and task.strip() else config.instruction
    if not told.strip():
        raise ValueError(
            f"row {row} of the batch has no instruction (task={task!r}): pass "
            "--policy.instruction='what to do'"
        )
    return told


class ChunkRows:
    """Makes the rows of the block-diffusion loss: an observation, answered by a chunk.

    Timesteps behind an episode's end stay masked and carry no loss: at decoding too they are
    masked at first, and nothing is known of them.
    """

    def __init__(self, processor: UniDiffProcessor, encoder: ObservationEncoder) -> None:
        """Rows of a policy's processor, whose encoder of observations orders the prompt."""
        self.processor, self.encoder = processor, encoder
        self.maker = RowMaker(processor.encoder)
        self._collate = BlockCollator()

    def __call__(
        self,
        observations: Sequence[Observation],
        chunks_BTD: np.ndarray,
        is_pad_BT: np.ndarray,
        keys: Sequence[int],
        first: int,
    ) -> dict[str, Tensor]:
        """Batch for `BlockObjective`.

        Args:
            observations: B of them.
            chunks_BTD: (B, T, D) actions.
            is_pad_BT: (B, T) bool, timesteps behind the episode's end.
            keys: B random keys, which decide the noise.
            first: place of the first row in the training stream.

        Raises:
            ValueError: if an observation or a chunk does not fit.
        """
        samples = []
        for place, observation in enumerate(observations):
            row = self._row(observation, chunks_BTD[place], f"row {place}")
            row = self._without_padding(row, is_pad_BT[place])
            samples.append({"row": row, "key": keys[place], "stream_position": first + place})
        return self._collate(samples)

    def _row(self, observation: Observation, chunk_TD: np.ndarray, name: str) -> TrainingRow:
        """Row of one observation and its whole chunk."""
        messages = [
            {"role": "user", "content": self.encoder.content(observation, name)},
            {"role": "assistant", "content": [{"type": "action", "action": chunk_TD}]},
        ]
        # The generator decides the cuts of text answers, of which there are none.
        return self.maker.conversation(self.processor.coded(messages), np.random.default_rng(0))

    def _without_padding(self, row: TrainingRow, is_pad_T: np.ndarray) -> TrainingRow:
        """The row with padded timesteps masked; only bins have tokens that belong to a timestep."""
        bins = self.processor.bins_of("action")
        if not is_pad_T.any() or not isinstance(bins, BinTokenizer):
            return row
        tokens = np.flatnonzero(row.labels != IGNORED).reshape(bins.grid)
        input_ids, labels = row.input_ids.copy(), row.labels.copy()
        input_ids[tokens[is_pad_T]] = self.processor.layout.mask_token_id
        labels[tokens[is_pad_T]] = IGNORED
        return replace(row, input_ids=input_ids, labels=labels)
