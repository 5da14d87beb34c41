"""What a task is: an example becomes a prompt and a canvas, a filled canvas becomes a result.

A plugin writes one class per task. `ChatTask` (conversations.py) and `InfillTask` (holes.py) know
how conversations and canvases with holes are built, so most tasks say only what is known and what
is wanted. Knows nothing of command lines, adapters or files.
"""

# Shapes: N examples, G generated ids of one row.

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from transformers import BatchFeature

from unidiff.data.blocks import TrainingRow

from .evaluation import Evaluation

Example = Mapping[str, Any]
# Results and the examples they answer -> a score of each, (N,) float64, or one of them all.
Metric = Callable[[Sequence[Any], Sequence[Example]], "np.ndarray | float"]


@dataclass(frozen=True)
class LoRADefaults:
    """How a task is fine-tuned where the user says nothing else.

    Attributes:
        r: rank of the update of each matrix.
        alpha: scale; the update counts alpha / r times.
        dropout: of the update's input, in [0, 1).
        target_modules: names of the linear layers that are adapted.
        learning_rate: peak rate.
        steps: optimiser steps.
        batch_size: samples of one step.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    learning_rate: float = 2e-3
    steps: int = 200
    batch_size: int = 32


@dataclass(frozen=True)
class DemoExample:
    """An example that `unidiff demo` asks and shows.

    Attributes:
        example: what `build` takes.
        given: what is asked, in words.
        truth: what is right, in words; "" where nobody can say.
        is_right: judges the result; None where nobody can say.
        said: the result in words; None: `str` of it.
        pictures: (H, W, 3) uint8 pictures of the question and the result, left to right.
        labels: a word over each picture, where there are three.
        options: keywords of `generate()` over the task's own.
        section: heading under which it is shown; "": the task's summary.
    """

    example: Example
    given: str
    truth: str = ""
    is_right: Callable[[Any], bool] | None = None
    said: Callable[[Any], str] | None = None
    pictures: Callable[[Any], Sequence[np.ndarray]] | None = None
    labels: tuple[str, str, str] = ("given", "filled", "original")
    options: Mapping[str, Any] = field(default_factory=dict)
    section: str = ""


@runtime_checkable
class Task(Protocol):
    """One task; a plugin's class names `Task` or one of its kinds as a base and fills in the rest.

    Attributes:
        name: unique among all installed tasks; lower case, digits and underscores.
        summary: one line.
        modalities: what the checkpoint must know, such as {"text", "image"}.
        columns: column of a data set -> what it holds; all of them are needed to train.
        decoding: keywords of `generate()`.
        lora: how it is fine-tuned.
        is_in_base: whether the bundled checkpoint knows it; a fine-tune of another task that shall
            forget nothing holds on to what is.
        replaces: names of tasks whose requests this one answers in another way; its fine-tunes do
            not hold on to them.
        adapter: folder of an adapter of the bundled checkpoint that comes with the plugin, for a
            task that brings no tokens of its own; None: there is none. See `own_adapter.py`.
    """

    name: str
    summary: str
    modalities: frozenset[str]
    columns: Mapping[str, str]
    decoding: Mapping[str, Any] = {}
    lora: LoRADefaults = LoRADefaults()
    is_in_base: bool = True
    replaces: frozenset[str] = frozenset()
    adapter: Path | None = None

    def build(self, processor: Any, example: Example) -> BatchFeature:
        """Arguments of `generate()` for one example: its prompt and, unless text is wanted, canvas.

        Args:
            processor: `UniDiffProcessor` of the checkpoint.
            example: the columns that are known; the answer may be missing.
        """
        ...

    def parse(self, processor: Any, ids: np.ndarray, inputs: BatchFeature) -> Any:
        """Result of an example: str, picture, waveform, or whatever the task promises.

        Args:
            processor: as above.
            ids: (G,) int64 ids that were generated; a given canvas comes back whole.
            inputs: what `build` returned for the example.
        """
        ...

    def training_row(
        self, processor: Any, example: Example, rng: np.random.Generator
    ) -> TrainingRow:
        """Training row of an example with its answer; every choice comes from `rng`."""
        ...

    def dataset(self, split: str, limit: int | None = None) -> Sequence[Example]:
        """Examples that come with the task, "train" or "test"; at most `limit`.

        Raises:
            ValueError: if the task has no data of its own, or no such split.
        """
        raise ValueError(f"task {self.name!r} brings no data: give --data")

    def read(self, source: str, limit: int | None = None) -> Sequence[Example] | None:
        """Examples of a user's data in a form that only this task knows; None: it is another.

        Args:
            source: file, folder or name, as `unidiff finetune --data` has it.
            limit: largest number of examples.

        Raises:
            ValueError: if it is of that form and cannot be read.
        """
        del source, limit
        return None

    def metrics(self) -> Mapping[str, Metric]:
        """Name -> metric; the first is the task's number."""
        return {}

    def evaluation(self) -> Evaluation | None:
        """What `unidiff eval TASK` runs in place of the metrics; None: there is nothing else."""
        return None

    def options_for(self, processor: Any, example: Example) -> Mapping[str, Any]:
        """Keywords of `generate()` for one example: the task's, or what its canvas asks for."""
        del processor, example
        return self.decoding

    def weaker(self, processor: Any, example: Example) -> Sequence[BatchFeature]:
        """Prompts of guidance's weaker conditions, the weakest first, one for each scale.

        By default the one prompt whose condition is dropped.
        """
        del example
        return [processor.for_dropped_condition()]

    def demo(self, seed: int) -> Sequence[DemoExample]:
        """What the demonstration asks; nothing by default."""
        del seed
        return ()
