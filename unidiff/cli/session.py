"""A loaded checkpoint that answers requests and counts what they cost."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unidiff.bundled import bundled_checkpoint
from unidiff.plugins.answer import Answer
from unidiff.tokens.foreign import is_foreign, local_folder

from .options import ModelChoice

if TYPE_CHECKING:
    from unidiff.model.modeling import UniDiffForBlockDiffusion
    from unidiff.plugins.task import Example, Task
    from unidiff.tokens.processor import UniDiffProcessor

SMALL_MODEL = 20_000_000  # parameters; below it one thread is as fast as several


@dataclass(frozen=True)
class Session:
    """Model and processor of one checkpoint."""

    model: "UniDiffForBlockDiffusion"
    processor: "UniDiffProcessor"
    folder: Path

    def ask(
        self, task: "Task", examples: "Sequence[Example]", options: Mapping[str, Any]
    ) -> list[Answer]:
        """The answers to examples of a plugin's task, which may bring an adapter of its own.

        Args:
            task: of a plugin.
            examples: what its `build` takes.
            options: keywords of `generate()` over the task's own; `seed` is one number.

        Raises:
            ValueError: if the checkpoint lacks a modality, or an option does not fit.
        """
        from unidiff.plugins.answers import answer_examples
        from unidiff.plugins.own_adapter import own_adapter

        given = dict(options)
        seed = given.pop("seed", 0)
        with own_adapter(task, self.model):
            return answer_examples(
                task, self.model, self.processor, examples, options=given, seed=seed
            )

    def answer(self, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> list[Answer]:
        """The answer of each row of a processor's request.

        Args:
            inputs: what a `for_...` method of the processor returned.
            options: keywords of `generate()`.

        Raises:
            ValueError: if an option is unknown or does not fit the request.
        """
        return self.answer_and_output(inputs, options)[0]

    def answer_and_output(
        self, inputs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> tuple[list[Answer], Any]:
        """`answer`, and what `generate()` returned."""
        start = time.perf_counter()
        tensors = inputs.to(self.model.device) if hasattr(inputs, "to") else dict(inputs)
        tensors = {**tensors, **self._unconditional(options, inputs)}
        output: Any = self.model.generate(**tensors, **options, return_dict_in_generate=True)
        values = self.processor.post_process(output, inputs)
        seconds = (time.perf_counter() - start) / len(values)
        answers = [
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
        return answers, output

    def _unconditional(self, options: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict:
        """The prompt with a dropped condition, where guidance wants one."""
        if options.get("guidance_scale", 1.0) == 1.0 or "canvas" not in inputs:
            return {}
        negative = self.processor.for_dropped_condition()
        return {
            "negative_input_ids": negative["input_ids"],
            "negative_attention_mask": negative["attention_mask"],
        }


def open_session(choice: ModelChoice) -> Session:
    """The chosen checkpoint, loaded in float32 on a CPU and in its own type elsewhere.

    Raises:
        FileNotFoundError: if the folder or one of its files is missing.
        ValueError: if a file is damaged, or the device unknown.
    """
    folder = chosen_folder(choice)
    import torch
    from safetensors import SafetensorError

    from unidiff.model.modeling import UniDiffForBlockDiffusion
    from unidiff.tokens.processor import UniDiffProcessor

    quiet_transformers()
    device = choose_device(choice.device)
    dtype = torch.float32 if device == "cpu" else "auto"
    processor = UniDiffProcessor.from_pretrained(folder)
    try:
        model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=dtype)
    except SafetensorError as error:
        raise ValueError(f"the weights in {folder} are damaged or cut short ({error})") from error
    if device == "cpu" and model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    return Session(model.to(device).eval(), processor, folder)


def chosen_folder(choice: ModelChoice) -> Path:
    """The chosen checkpoint's folder, looked over; raises as `check_checkpoint`."""
    given = choice.checkpoint
    folder = bundled_checkpoint() if given is None else local_folder(given)
    check_checkpoint(folder)
    return folder


def quiet_transformers() -> None:
    """No progress bars and no advice from transformers between the lines of a command."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def check_checkpoint(folder: Path) -> None:
    """Raise FileNotFoundError if a folder is no checkpoint, ValueError if a file is damaged."""
    if not folder.is_dir():
        raise FileNotFoundError(f"--checkpoint {folder} is no folder")
    if is_foreign(folder):
        return  # what is missing there is said where it is converted
    from unidiff.model.adapters import is_adapter_folder, read_record
    from unidiff.model.checkpoint import check_model_folder

    if is_adapter_folder(folder):
        read_record(folder)
    else:
        check_model_folder(folder)


def choose_device(name: str) -> str:
    """The device of that name; "auto" is the GPU where there is one.

    Raises:
        ValueError: if torch knows no such device, or has none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N; got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: torch sees no CUDA device here; use cpu")
    return name
