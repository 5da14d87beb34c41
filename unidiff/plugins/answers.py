"""Asking a model the examples of a task: batches in, answers and their cost out."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from unidiff.diffusion.random import hash_integers

from .answer import Answer
from .task import Example, Task

Tick = Callable[[int], None]


@torch.inference_mode()
def answer_examples(
    task: Task,
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    tick: Tick | None = None,
) -> list[Answer]:
    """Answers to a task's examples; the i-th depends on the seed and i, not on its batch.

    Args:
        task: whose examples they are.
        model: checkpoint, with or without adapters.
        processor: the checkpoint's.
        examples: what `task.build` takes.
        options: keywords of `generate()` over the task's own.
        seed: of every random choice.
        batch_size: examples that are decoded together.
        tick: called with the number of examples after each batch.

    Raises:
        ValueError: if the checkpoint lacks a modality, or an example is longer than its context.
    """
    check_modalities(task, processor)
    answers: list[Answer] = []
    seeds = hash_integers(seed, torch.arange(max(1, len(examples)), dtype=torch.int64)).tolist()
    for part, own in _parts(task, processor, examples, batch_size):
        keywords = {**own, **(options or {})}
        chosen = seeds[len(answers) : len(answers) + len(part)]
        answers += _answer(task, model, processor, part, {**keywords, "seed": chosen})
        if tick is not None:
            tick(len(part))
    return answers


def check_modalities(task: Task, processor: Any) -> None:
    """Raise ValueError if the checkpoint lacks a modality that the task needs."""
    missing = sorted(task.modalities - set(processor.layout.ranges))
    if missing == ["image"] and processor.soft_prompts is not None:
        raise ValueError(
            f"task {task.name!r} needs pictures as codes, and this checkpoint reads them as "
            "features of a tower: ask it by `unidiff generate --image`, or by for_chat of its "
            "processor"
        )
    if missing:
        raise ValueError(
            f"task {task.name!r} needs {missing}, which this checkpoint does not have; it has "
            f"{sorted(processor.layout.ranges)}. Fine-tune with `unidiff finetune --task "
            f"{task.name}`, which adds them, or load a checkpoint that has them"
        )


def check_fits(model: Any, inputs: Mapping[str, Any]) -> None:
    """Raise ValueError if prompt and canvas of a request are longer than the model's context."""
    longest = model.config.max_position_embeddings
    length = inputs["input_ids"].shape[1]
    length += inputs["canvas"].shape[1] if "canvas" in inputs else 0
    if length > longest:
        raise ValueError(
            f"prompt and canvas take {length} tokens and the model's context holds {longest}: "
            "shorten the hole, or what stands around it"
        )


def _parts(
    task: Task, processor: Any, examples: Sequence[Example], batch_size: int
) -> Iterator[tuple[list[Example], Mapping[str, Any]]]:
    """(examples, their options): runs of at most `batch_size` that share their options."""
    part: list[Example] = []
    shared: Mapping[str, Any] = {}
    for example in examples:
        own = task.options_for(processor, example)
        if part and (len(part) == batch_size or own != shared):
            yield part, shared
            part = []
        part, shared = [*part, example], own
    if part:
        yield part, shared


def _answer(
    task: Task, model: Any, processor: Any, examples: Sequence[Example], options: Mapping[str, Any]
) -> list[Answer]:
    """Answers to one batch of examples."""
    start = time.perf_counter()
    requests = [task.build(processor, example) for example in examples]
    for request in requests:
        check_fits(model, request)
    inputs = processor.batch(requests).to(model.device)
    weaker = _weaker(task, processor, examples, options)
    output = model.generate(**inputs, **weaker, **options, return_dict_in_generate=True)
    first = inputs["input_ids"].shape[1]
    generated = [row[first:].cpu().numpy() for row in output.sequences]
    values = [
        task.parse(processor, _own_part(ids, request), request)
        for ids, request in zip(generated, requests, strict=True)
    ]
    seconds = (time.perf_counter() - start) / len(values)
    return [
        Answer(
            value=value,
            num_forwards=int(output.num_forwards[row]),
            tokens_per_forward=float(output.tokens_per_forward[row]),
            seconds=seconds,
            finish_reason=output.finish_reason[row],
            seed=int(output.row_seeds[row]),
        )
        for row, value in enumerate(values)
    ]


def _own_part(ids: np.ndarray, request: Mapping[str, Any]) -> np.ndarray:
    """The ids of a row's own canvas, where it has one that is shorter than the batch's widest."""
    return ids[: request["canvas"].shape[1]] if "canvas" in request else ids


def _weaker(
    task: Task, processor: Any, examples: Sequence[Example], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Prompts of guidance's weaker conditions, where it is on."""
    scales = options.get("guidance_scale", 1.0)
    if all(scale == 1.0 for scale in (scales if isinstance(scales, (list, tuple)) else [scales])):
        return {}
    chains = [task.weaker(processor, example) for example in examples]
    links = [processor.batch(list(link)) for link in zip(*chains, strict=True)]
    return {
        "negative_input_ids": [link["input_ids"] for link in links],
        "negative_attention_mask": [link["attention_mask"] for link in links],
    }
