"""The model card of a checkpoint: facts from the run, and measured numbers once there are any."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidiff.model.configuration import UniDiffConfig

from .curves import CURVES, series

CARD_FILE = "README.md"
NOT_MEASURED = "Not measured yet: `unidiff eval bundled --json`."

_TEMPLATE = """---
license: apache-2.0
library_name: transformers
tags: [masked-diffusion, block-diffusion, multimodal, vision-language-action]
---

# UniDiff, bundled checkpoint

One masked-diffusion transformer of {parameters} parameters over text, pictures of 32 x 32
pixels and robot actions. It describes pictures, answers questions about them, draws from a
sentence, fills holes in text and pictures, and moves a small simulated robot. A demonstration of
the library, not a product.

```python
from transformers import AutoModelForCausalLM, AutoProcessor
from unidiff import bundled_checkpoint

model = AutoModelForCausalLM.from_pretrained(bundled_checkpoint())
processor = AutoProcessor.from_pretrained(bundled_checkpoint())
```

## Facts

| | |
|---|---|
{facts}

## Training

{training}

![Curves](curves.png)

Data, all made or present on the machine: Fashion-MNIST photographs (Zalando Research, MIT
licence; 60,000 for training), drawn scenes of coloured shapes, demonstrations of a scripted expert
on a small table, and the Python standard library's sources and documentation (PSF licence), split
by module. `training_log.json` holds every logged value; `unidiff train --recipe bundled` trains
such a model anew, and docs/training.md in the repository tells how this one came about.

| loss over the last tenth of the run | nats per token |
|---|---|
{losses}

## Measured on held-out data

{evaluation}

## Limits

Pictures are 32 x 32. The words are those of the training sentences, lower case; English and Python
text is continued in form, not in sense. Nothing here is fit for a decision about people or
machines.
"""


def write_model_card(
    folder: Path,
    config: UniDiffConfig,
    facts: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
) -> None:
    """Write the card of a new checkpoint, without measured numbers.

    Args:
        folder: of the checkpoint.
        config: of its model.
        facts: num_parameters, num_tokenizer_parameters, step, max_steps, is_averaged, dtype.
        history: the trainer's log lines.
    """
    stop = "" if facts["step"] >= facts["max_steps"] else f" of {facts['max_steps']:,} planned"
    weights = "exponential average of the weights" if facts["is_averaged"] else "last weights"
    card = _TEMPLATE.format(
        parameters=f"{facts['num_parameters'] / 1e6:.1f} M",
        facts=_rows(_architecture(config, facts)),
        training=f"{facts['step']:,} optimiser steps{stop}; {weights}, stored in {facts['dtype']}.",
        losses=_rows(_last_losses(history)),
        evaluation=NOT_MEASURED,
    )
    (folder / CARD_FILE).write_text(card)


def add_evaluation(folder: str | Path, report: Mapping[str, Any]) -> None:
    """Put the measured numbers of `unidiff eval bundled --json` into a checkpoint's card.

    Args:
        folder: of the checkpoint.
        report: `SuiteReport.to_dict()`: a mapping `metrics` of name to a value, or to a mapping
            with `value` and perhaps aim, floor, interval and sampler.

    Raises:
        FileNotFoundError: if the folder has no card.
        ValueError: if the card has no section for the numbers, or the report no metrics.
    """
    path = Path(folder) / CARD_FILE
    card = path.read_text()
    opening, marker, rest = card.partition("## Measured on held-out data\n")
    limits = rest.find("## Limits")
    if not marker or limits < 0:
        raise ValueError(f"{path} has no section 'Measured on held-out data' before 'Limits'")
    path.write_text(f"{opening}{marker}\n{_evaluation(report)}\n\n{rest[limits:]}")


def _architecture(config: UniDiffConfig, facts: Mapping[str, Any]) -> dict[str, str]:
    """Rows of the table of facts."""
    layout = config.layout
    ranges = ", ".join(f"{name} {one.size}" for name, one in layout.ranges.items())
    grids = f"picture {layout.image_grid}, action chunk {layout.action_grid}"
    return {
        "parameters": f"{facts['num_parameters']:,} (tied embedding)",
        "image tokenizer": f"FSQ autoencoder, {facts['num_tokenizer_parameters']:,} parameters",
        "ids": ranges,
        "token grids": grids,
        "layers x width": f"{config.num_hidden_layers} x {config.hidden_size}",
        "attention pattern": f"`{config.attention_pattern}`, canvas of {config.canvas_length}",
    }


def _last_losses(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Mean of each curve over the last tenth of its log lines."""
    rows = {}
    for key, label in CURVES.items():
        values = series(history, key)[1]
        last = values[-max(1, len(values) // 10) :]
        if last:
            rows[label] = f"{sum(last) / len(last):.3f}"
    return rows or {"not logged": ""}


def _evaluation(report: Mapping[str, Any]) -> str:
    """A table with a row for each metric, and how it was measured."""
    metrics = report.get("metrics")
    if not metrics:
        raise ValueError(f"the report needs 'metrics', got the keys {sorted(report)}")
    columns = ("value", "interval", "aim", "floor", "num_inputs", "forwards_per_input", "sampler")
    lines = [f"| metric | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, result in metrics.items():
        fields = result if isinstance(result, Mapping) else {"value": result}
        shown = [_shown(fields.get(column)) for column in columns]
        lines.append(f"| `{name}` | {' | '.join(shown)} |")
    seed = f"Seed {report.get('seed', 0)}; `interval` holds the value with 95 % confidence. "
    return f"{seed}`unidiff eval bundled --json` repeats this.\n\n" + "\n".join(lines)


def _shown(value: Any) -> str:
    """A number with four digits, settings as words, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return " to ".join(_shown(one) for one in value)
    return str(value)


def _rows(values: Mapping[str, str]) -> str:
    """Rows of a two-column table."""
    return "\n".join(f"| {name} | {value} |" for name, value in values.items())
