"""Asking a model many questions: batches of requests in, answers out, forwards counted.

The metrics see a model only as a `Responder`, so that a test can answer in its place.
"""

# Shapes: N requests, h x w image codes, T timesteps, D dimensions.

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from unidiff.diffusion.random import hash_integers
from unidiff.tokens.infill import infill_sequence
from unidiff.tokens.prompts import batch_prompts, infill_inputs
from unidiff.tokens.sequence import run_of

Conversation = Sequence[Mapping[str, Any]]
Tick = Callable[[int], None]


@dataclass
class Usage:
    """What answering has cost so far.

    Attributes:
        num_forwards: forwards of each request, summed over requests.
        num_tokens: tokens produced, end tokens included.
        num_requests: requests answered.
    """

    num_forwards: int = 0
    num_tokens: float = 0.0
    num_requests: int = 0


class Stretch(Protocol):
    """A text of which the tokens from `start` to `stop` are wanted; see `infilling.Stretch`."""

    @property
    def ids(self) -> np.ndarray:
        """(L,) int64."""
        ...

    @property
    def start(self) -> int:
        """First wanted token."""
        ...

    @property
    def stop(self) -> int:
        """Behind the last one."""
        ...


class Responder(Protocol):
    """Whatever answers requests.

    Attributes:
        usage: cost of everything asked since it was last replaced.
    """

    usage: Usage

    def texts(
        self, conversations: Sequence[Conversation], options: Mapping[str, Any], seed: int
    ) -> list[str]:
        """One text for each conversation."""
        ...

    def images(
        self, conversations: Sequence[Conversation], options: Mapping[str, Any], seed: int
    ) -> np.ndarray:
        """(N, h * w) int64 image codes, one image for each conversation."""
        ...

    def actions(
        self, conversations: Sequence[Conversation], options: Mapping[str, Any], seed: int
    ) -> np.ndarray:
        """(N, T, D) action chunks, one for each conversation."""
        ...

    def fillings(
        self, stretches: Sequence[Stretch], options: Mapping[str, Any], seed: int
    ) -> list[list[int]]:
        """Ids of each stretch's wanted tokens, seen what stands before and behind them."""
        ...

    def continuations(
        self, stretches: Sequence[Stretch], options: Mapping[str, Any], seed: int
    ) -> list[list[int]]:
        """Ids of each stretch's wanted tokens, seen what stands before them."""
        ...


class ModelResponder:
    """A UniDiff model and its processor as a `Responder`.

    `options` are keywords of `generate()`, and `batch_size`: requests answered together. The answer
    to request i depends on the seed and i, not on the batch it is answered in.
    """

    def __init__(self, model: Any, processor: Any, tick: Tick | None = None) -> None:
        """Responder that reports each batch's size to `tick`."""
        self.model = model
        self.processor = processor
        self.tick = tick
        self.usage = Usage()

    def texts(
        self, conversations: Sequence[Conversation], options: Mapping[str, Any], seed: int
    ) -> list[str]:
        """One text for each conversation."""
        answers = []
        for sequences, _ in self._sequences(conversations, "text", options, seed):
            answers += [self.processor.decode_text(ids) for ids in sequences]
        return answers

    def images(
        self, conversations: Sequence[Conversation], options: Mapping[str, Any], seed: int
    ) -> np.ndarray:
        """(N, h * w) int64 image codes, one image for each conversation."""
        layout = self.processor.layout
        parts = [
            layout.decode("image", sequences[:, :width].numpy())
            for sequences, width in self._sequences(conversations, "image", options, seed)
        ]
        return np.concatenate(parts)

    def actions(
        self, conversations: Sequence[Conversation], options: Mapping[str, Any], seed: int
    ) -> np.ndarray:
        """(N, T, D) action chunks, one for each conversation."""
        parts = []
        for sequences, width in self._sequences(conversations, "action", options, seed):
            parts += [self.processor.decode_actions(ids[:width]) for ids in sequences]
        return np.stack(parts)

    def fillings(
        self, stretches: Sequence[Stretch], options: Mapping[str, Any], seed: int
    ) -> list[list[int]]:
        """Ids of each stretch's wanted tokens, seen what stands before and behind them."""

        def build(part: Sequence[Stretch]) -> Any:
            return self.processor.batch([self._hole(one) for one in part])

        found: list[list[int]] = []
        for sequences, _ in self._answers(stretches, build, options, seed):
            for ids, one in zip(sequences, stretches[len(found) :], strict=False):
                found.append([int(token) for token in ids[one.start : one.stop]])
        return found

    def continuations(
        self, stretches: Sequence[Stretch], options: Mapping[str, Any], seed: int
    ) -> list[list[int]]:
        """Ids of each stretch's wanted tokens, seen what stands before them."""
        begin = [self.processor.encoder.special("<|bos|>")]

        def build(part: Sequence[Stretch]) -> Any:
            prompts = [run_of([*begin, *one.ids[: one.start]], "text") for one in part]
            return batch_prompts(prompts, self.processor.layout)

        found: list[list[int]] = []
        for sequences, _ in self._answers(stretches, build, options, seed):
            found += [[int(token) for token in ids] for ids in sequences]
        return found

    def _hole(self, stretch: Stretch) -> Any:
        """Arguments of `generate()` for one stretch with a hole."""
        is_hole = np.zeros(len(stretch.ids), dtype=bool)
        is_hole[stretch.start : stretch.stop] = True
        part = {"type": "text", "ids": stretch.ids, "is_hole": is_hole}
        processor = self.processor
        return infill_inputs(infill_sequence(processor.encoder, [part]), processor.layout)

    def _sequences(
        self,
        conversations: Sequence[Conversation],
        want: str,
        options: Mapping[str, Any],
        seed: int,
    ) -> Iterator[tuple[torch.Tensor, int]]:
        """((n, G) generated ids, canvas length or 0) of each batch."""

        def build(part: Sequence[Conversation]) -> Any:
            return self.processor.build(list(part), want=want) | self._guidance(options, want)

        return self._answers(conversations, build, options, seed)

    def _answers(
        self,
        requests: Sequence[Any],
        build: Callable[[Any], Any],
        options: Mapping[str, Any],
        seed: int,
    ) -> Iterator[tuple[torch.Tensor, int]]:
        """((n, G) generated ids, canvas length or 0) of each batch that `build` makes."""
        settings = {**options}
        batch_size = settings.pop("batch_size", 64)
        seeds = hash_integers(seed, torch.arange(len(requests), dtype=torch.int64))
        for start in range(0, len(requests), batch_size):
            part = requests[start : start + batch_size]
            inputs = build(part)
            output = self.model.generate(
                **inputs,
                **settings,
                seed=seeds[start : start + len(part)].tolist(),
                return_dict_in_generate=True,
            )
            self._count(output, len(part))
            width = inputs["canvas"].shape[1] if "canvas" in inputs else 0
            yield output.sequences[:, inputs["input_ids"].shape[1] :].cpu(), width

    def _guidance(self, settings: Mapping[str, Any], want: str) -> dict[str, Any]:
        """The prompt with a dropped condition, when guidance is on."""
        if settings.get("guidance_scale", 1.0) == 1.0:
            return {}
        inputs = self.processor.for_dropped_condition(want)
        return {
            "negative_input_ids": inputs["input_ids"],
            "negative_attention_mask": inputs["attention_mask"],
        }

    def _count(self, output: Any, num_requests: int) -> None:
        """Add a batch to the usage and report it."""
        self.usage.num_forwards += int(output.num_forwards.sum())
        self.usage.num_tokens += float((output.tokens_per_forward * output.num_forwards).sum())
        self.usage.num_requests += num_requests
        if self.tick is not None:
            self.tick(num_requests)
