"""Options that several commands share, declared once.

A command takes a dataclass of options as one argument; `takes_options` spreads its fields over the
command line.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

_MODEL = "Model"
_DECODING = "Decoding"


@dataclass(frozen=True)
class ModelChoice:
    """Which checkpoint, and where it runs."""

    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint folder, or the hub name of a foreign one; else the bundled one.",
            rich_help_panel=_MODEL,
        ),
    ] = None
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1 ...", rich_help_panel=_MODEL)
    ] = "auto"


@dataclass(frozen=True)
class Decoding:
    """Decoding options; one that is left out takes the task's or the checkpoint's value."""

    strategy: Annotated[
        str | None,
        typer.Option(
            help="Unmasking: static, random, sequential, threshold, dynamic, relative_threshold, "
            "factor, frechet, entropy_bound, cosine, ascending, timetable, first_hitting, "
            "hierarchy, remdm.",
            rich_help_panel=_DECODING,
        ),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(
            help="Confidence: prob, margin, entropy, sampled_prob.", rich_help_panel=_DECODING
        ),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(help="Confidence from which to reveal.", rich_help_panel=_DECODING),
    ] = None
    steps: Annotated[
        int | None, typer.Option(help="Forwards per block.", rich_help_panel=_DECODING)
    ] = None
    temperature: Annotated[
        float | None, typer.Option(help="0 is greedy; else sample.", rich_help_panel=_DECODING)
    ] = None
    top_k: Annotated[
        int | None, typer.Option(help="Tokens kept when sampling.", rich_help_panel=_DECODING)
    ] = None
    top_p: Annotated[
        float | None, typer.Option(help="Mass kept when sampling.", rich_help_panel=_DECODING)
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(help="Classifier-free guidance; 1 is off.", rich_help_panel=_DECODING),
    ] = None
    seed: Annotated[
        int, typer.Option(help="Of every random choice.", rich_help_panel=_DECODING)
    ] = 0

    def over(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Keywords of `generate()`: these options over a task's own, and the seed.

        A threshold without a strategy asks for the strategy that reads it.
        """
        is_for_threshold = self.threshold is not None and self.strategy is None
        given = {
            "unmasking_strategy": "threshold" if is_for_threshold else self.strategy,
            "confidence_metric": self.metric,
            "confidence_threshold": self.threshold,
            "max_denoising_steps": self.steps,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "guidance_scale": self.guidance,
        }
        options = dict(defaults) | {n: value for n, value in given.items() if value is not None}
        if self.temperature is not None:
            options["do_sample"] = self.temperature > 0
        return options | {"seed": self.seed}


@dataclass(frozen=True)
class TextLength:
    """How long a text may become, and in which blocks."""

    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest answer, in tokens.", rich_help_panel=_DECODING)
    ] = None
    block_length: Annotated[
        int | None, typer.Option(help="Tokens denoised together.", rich_help_panel=_DECODING)
    ] = None
    mode: Annotated[
        str | None,
        typer.Option(help="diffusion, ar, self_speculative or auto.", rich_help_panel=_DECODING),
    ] = None

    def keywords(self) -> dict[str, Any]:
        """Keywords of `generate()` that were given."""
        options = {
            "decoding_mode": self.mode,
            "max_new_tokens": self.max_new_tokens,
            "block_length": self.block_length,
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class TextForm:
    """What a text has to look like."""

    regex: Annotated[
        str | None,
        typer.Option(help="What the whole answer must match.", rich_help_panel=_DECODING),
    ] = None
    json_schema: Annotated[
        Path | None,
        typer.Option(
            help="File of the JSON schema that the answer must follow.", rich_help_panel=_DECODING
        ),
    ] = None
    choices: Annotated[
        str | None,
        typer.Option(
            help='Answers to choose from, as in "yes,no", in one forward.',
            rich_help_panel=_DECODING,
        ),
    ] = None

    def keywords(self, tokenizer: Any) -> dict[str, Any]:
        """Keywords of `generate()`; with choices, the answer is one block of one step."""
        options: dict[str, Any] = {"regex": self.regex}
        if self.json_schema is not None:
            options["json_schema"] = self.json_schema.read_text(encoding="utf-8")
        if self.choices is not None:
            texts = [text.strip() for text in self.choices.split(",")]
            cut = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            longest = max(1, *(len(ids) for ids in cut))
            options |= {"choices": texts, "max_denoising_steps": 1}
            options |= {"max_new_tokens": longest, "block_length": longest}
        given = {name: value for name, value in options.items() if value is not None}
        return given | ({"tokenizer": tokenizer} if given else {})


JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every argument of an options class spread into that class's fields."""
    hints = get_type_hints(command, include_extras=True)
    groups = {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }
    own = [p for n, p in inspect.signature(command).parameters.items() if n not in groups]
    parameters = [p.replace(annotation=hints[p.name]) for p in own]
    for group in groups.values():
        parameters += _parameters_of(group)
    parameters.sort(key=lambda p: p.default is not inspect.Parameter.empty)

    @wraps(command)
    def spread(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{one.name: values.pop(one.name) for one in fields(group)})
        command(**values)

    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    del spread.__wrapped__  # type: ignore[attr-defined]  # typer would read its signature
    return spread


def _parameters_of(group: type) -> list[inspect.Parameter]:
    """One keyword parameter for each field of an options class."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if one.default is MISSING else one.default,
            annotation=hints[one.name],
        )
        for one in fields(group)
    ]
