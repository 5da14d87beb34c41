"""`unidiff info`: versions, and the facts of a checkpoint."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from unidiff.bundled import bundled_checkpoint

from .options import JsonFlag, ModelChoice, takes_options
from .output import print_json
from .session import check_weights, quiet_transformers

_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def show_version(wanted: bool) -> None:
    """Print the version and stop, if it is wanted."""
    if wanted:
        from unidiff import __version__

        typer.echo(f"unidiff {__version__}")
        raise typer.Exit


@takes_options
def info(model: ModelChoice, as_json: JsonFlag = False) -> None:
    """Show versions and the facts of a checkpoint."""
    folder = bundled_checkpoint() if model.checkpoint is None else model.checkpoint
    check_weights(folder)
    report = {"versions": versions(), "checkpoint": checkpoint_facts(folder)}
    if as_json:
        print_json(report)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title, facts in report.items():
        table = Table(title=title, title_justify="left", show_header=False)
        for name, value in facts.items():
            shown = value if isinstance(value, str) else json.dumps(value, default=str)
            table.add_row(name, shown)
        console.print(table)


def versions() -> dict[str, str]:
    """Version of the package, of Python and of the libraries that decide results."""
    from unidiff import __version__

    found = {name: version(name) for name in _LIBRARIES}
    return {"unidiff": __version__, "python": platform.python_version(), **found}


def checkpoint_facts(folder: Path) -> dict[str, Any]:
    """Sizes, layout and tokenizers of a checkpoint folder; the weights are not loaded.

    Raises:
        ValueError: if a file is damaged.
    """
    from unidiff.model.adapters import WEIGHTS_FILE, is_adapter_folder, read_record
    from unidiff.model.configuration import UniDiffConfig
    from unidiff.tokens.processor import UniDiffProcessor

    quiet_transformers()
    config = UniDiffConfig.from_pretrained(folder)
    processor = UniDiffProcessor.from_pretrained(folder)
    is_adapter = is_adapter_folder(folder)
    count, dtypes = _count_parameters(
        folder / (WEIGHTS_FILE if is_adapter else "model.safetensors")
    )
    layout = config.layout
    card = folder / "README.md"
    bins = {"action": processor.action_bins, "state": processor.state_bins}
    facts: dict[str, Any] = {
        "folder": str(folder),
        "model card": str(card) if card.is_file() else "none",
        "parameters": count,
        "stored as": ", ".join(sorted(dtypes)),
        "layers x width": f"{config.num_hidden_layers} x {config.hidden_size}",
        "attention pattern": config.attention_pattern,
        "canvas length": config.canvas_length,
        "ids": {name: [one.start, one.stop] for name, one in sorted(layout.ranges.items())},
        "text tokenizer": f"byte-level BPE, {len(processor.tokenizer)} ids",
        "image grid": list(layout.image_grid),
        "action grid": list(layout.action_grid),
        "bins": {name: _shown(one) for name, one in bins.items() if one is not None},
    }
    if is_adapter:
        record = read_record(folder)
        facts["adapter of"], facts["task"] = record.base, record.task
    if "image" in layout.ranges:
        image = processor.image_tokenizer
        facts["image tokenizer"] = (
            f"{image.kind}, {image.codebook_size} codes, {image.num_parameters():,} parameters"
        )
    return facts


def _shown(tokenizer: Any) -> dict[str, Any]:
    """Facts of a tokenizer of actions, without the merges that one may have."""
    return {name: value for name, value in tokenizer.to_dict().items() if name != "bpe"}


def _count_parameters(path: Path) -> tuple[int, set[str]]:
    """(numbers, their types) in a safetensors file, from its header.

    Raises:
        ValueError: if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    count, dtypes = 0, set()
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dictionary)
                part = file.get_slice(name)
                size = 1
                for side in part.get_shape():
                    size *= side
                count += size
                dtypes.add(part.get_dtype())
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or cut short ({error})") from error
    return count, dtypes
