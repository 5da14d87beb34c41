"""Pictures, the robot's state and an instruction in; a chunk of actions out."""

# Shapes: N examples, n recorded timesteps, T timesteps of a chunk, D dimensions.

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
from transformers import BatchFeature

from unidiff.cli import samplers
from unidiff.data.blocks import TrainingRow
from unidiff.data.sources.tabletop_expert import record_demonstrations
from unidiff.plugins import ChatTask, Evaluation, Example, LoRADefaults, Metric, shown, user
from unidiff.tokens.actions import BinTokenizer

from .recorded_examples import read_recorded
from .units import check_units

NUM_EXAMPLES = {"train": 1_000, "test": 200}
_SEEDS = {"train": 20_001, "test": 20_002}  # of demonstrations; the bundled recipe's seed is 0


class VlaTask(ChatTask):
    """Acting: what the cameras see, where the robot is and what it is told become actions.

    An example's `image` is a picture or, of several cameras, a dictionary in the order of training.
    Its `action` holds the actions from then on, (n, D): a longer recording is cut at the
    checkpoint's horizon; where it is shorter, or `action_is_pad` (n,) says so, nothing is learnt.
    """

    name = "vla"
    summary = "Plan a robot's next actions from pictures, its state and an instruction."
    modalities = frozenset({"text", "image", "state", "action"})
    columns = {
        "image": "what the camera sees, or a picture for each camera",
        "state": "the robot's state, (d,)",
        "instruction": "what to do",
        "action": "the actions from then on, (n, D)",
    }
    decoding = samplers.acting()
    lora = LoRADefaults(r=8, steps=200, batch_size=32, learning_rate=1e-3)
    wanted = "action"

    def messages(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The user's turn that `for_action` of the processor builds."""
        image = example["image"]
        views = list(image.values()) if _is_several(image) else [image]
        state = example.get("state")
        parts = [] if state is None else [{"type": "state", "state": state}]
        return [user(*map(shown, views), *parts, str(example["instruction"]))]

    def answer(self, example: Example) -> Sequence[Mapping[str, Any]]:
        """The chunk; `training_row` cuts it to the horizon first."""
        return [{"type": "action", "action": example["action"]}]

    def parse(self, processor: Any, ids: np.ndarray, inputs: BatchFeature) -> np.ndarray:
        """(T, D) float32 actions."""
        return np.asarray(processor.decode_response(ids, inputs), dtype=np.float32)

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """The conversation with its chunk, one block.

        With bins the canvas ends where the recording does. Coefficients describe a chunk as a
        whole, so there the last action is learnt to be held.

        Raises:
            ValueError: if the actions have another number of dimensions than the checkpoint's, or
                actions or the state are plainly in other units.
        """
        bins = processor.bins_of("action")
        chunk_TD, is_pad_T = chunk_of(example, bins.horizon, bins.dim)
        check_units("action", bins, chunk_TD)
        if example.get("state") is not None and processor.state_bins is not None:
            check_units("state", processor.state_bins, np.asarray(example["state"]))
        row = super().training_row(processor, {**example, "action": chunk_TD}, rng)
        if not isinstance(bins, BinTokenizer) or not is_pad_T.any():
            return row
        is_pad_L = np.zeros(len(row), dtype=bool)
        is_pad_L[row.block_ids >= 0] = is_pad_T.repeat(bins.dim)
        cut = {one.name: getattr(row, one.name)[..., ~is_pad_L] for one in fields(row)}
        return TrainingRow(**cut)

    def read(self, source: str, limit: int | None = None) -> Sequence[Example] | None:
        """Frames of a LeRobotDataset v3 folder; None for anything else."""
        return read_recorded(source, limit)

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Demonstrations on the robot table; tables of the two splits are drawn independently."""
        if split not in NUM_EXAMPLES:
            raise ValueError(f"split must be one of {tuple(NUM_EXAMPLES)}; got {split!r}")
        number = NUM_EXAMPLES[split] if limit is None else limit
        return _demonstrated(split, number) if number else ()

    def metrics(self) -> Mapping[str, Metric]:
        """How far plans are from what was recorded."""
        return {"mean_absolute_error": mean_absolute_error}

    def evaluation(self) -> Evaluation:
        """Episodes in closed loop: success, what it costs, and what words have to do with it."""
        from .evaluation.command import SETTINGS, measure

        return Evaluation(SETTINGS, measure)


def chunk_of(example: Example, horizon: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """((T, D) float32 actions of an example, (T,) bool where none was recorded).

    Args:
        example: with `action` and maybe `action_is_pad`.
        horizon: T of the checkpoint.
        dim: D of the checkpoint.

    Raises:
        ValueError: if there is no action, they have other dimensions, or one is not finite.
    """
    actions = np.asarray(example["action"], dtype=np.float32)
    if actions.ndim != 2 or actions.shape[1] != dim or not len(actions):
        raise ValueError(
            f"action must have shape (n >= 1, {dim}), the actions from then on as the checkpoint "
            f"has them; got {actions.shape}"
        )
    if not np.isfinite(actions).all():
        raise ValueError(f"action must be finite; got {actions.tolist()}: mend the recording")
    is_pad = np.asarray(example.get("action_is_pad", np.zeros(len(actions), bool)), dtype=bool)
    if is_pad.shape != (len(actions),) or is_pad[0]:
        raise ValueError(
            f"action_is_pad must be {len(actions)} truth values, the first False; got {is_pad}"
        )
    places = np.arange(horizon)
    held = np.minimum(places, len(actions) - 1)
    return actions[held], (places >= len(actions)) | is_pad[held]


def mean_absolute_error(results: Sequence[np.ndarray], examples: Sequence[Example]) -> np.ndarray:
    """(N,) float64 mean |planned - recorded| in ranges of a dimension, where both are known.

    A dimension's range is that of the recorded actions of these examples.
    """
    pairs = zip(results, examples, strict=True)
    chunks = [chunk_of(example, *np.shape(result)) for result, example in pairs]
    recorded = np.concatenate([chunk_TD[~is_pad_T] for chunk_TD, is_pad_T in chunks])
    width_D = recorded.max(0).astype(np.float64) - recorded.min(0)
    width_D = np.where(width_D > 0, width_D, 1.0)
    return np.array(
        [
            (np.abs(result - chunk_TD) / width_D)[~is_pad_T].mean()
            for result, (chunk_TD, is_pad_T) in zip(results, chunks, strict=True)
        ]
    )


def _is_several(image: Any) -> bool:
    """Whether these are pictures by camera, and not the codes of one."""
    return isinstance(image, Mapping) and not {"codes", "image", "path"} & set(image)


@cache
def _demonstrated(split: str, number: int) -> tuple[Example, ...]:
    """Samples of the table's expert."""
    found = record_demonstrations(number, _SEEDS[split])
    columns = (found.frames, found.states, found.instructions, found.chunks)
    names = ("image", "state", "instruction", "action")
    return tuple(dict(zip(names, one, strict=True)) for one in zip(*columns, strict=True))
