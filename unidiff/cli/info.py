"""`unidiff info`: versions, and the facts of a checkpoint."""

import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from unidiff.tokens.foreign import is_foreign

from .options import JsonFlag, ModelChoice, takes_options
from .output import print_json
from .session import chosen_folder, quiet_transformers

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
    folder = chosen_folder(model)
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
        FileNotFoundError: if somebody else's lacks a file.
        ValueError: if a file is damaged, or somebody else's is of no known family.
    """
    from unidiff.convert.tensors import by_name, read_header, tensor_files
    from unidiff.model.adapters import WEIGHTS_FILE, is_adapter_folder, read_record
    from unidiff.model.configuration import UniDiffConfig
    from unidiff.tokens.processor import UniDiffProcessor

    quiet_transformers()
    if is_foreign(folder):
        return _foreign_facts(folder)
    config = UniDiffConfig.from_pretrained(folder)
    processor = UniDiffProcessor.from_pretrained(folder)
    is_adapter = is_adapter_folder(folder)
    files = [read_header(folder / WEIGHTS_FILE)] if is_adapter else tensor_files(folder)
    facts = _facts(folder, config, processor, _weights(by_name(files)))
    if is_adapter:
        record = read_record(folder)
        facts["adapter of"], facts["task"] = record.base, record.task
    return facts


def _foreign_facts(folder: Path) -> dict[str, Any]:
    """Facts of somebody else's checkpoint, as it would be loaded."""
    from unidiff.convert.loading import open_foreign, processor_of

    opened = open_foreign(folder)
    weights = {"family": opened.family.name, **_weights(opened.tensors)}
    return _facts(folder, opened.config, processor_of(opened), weights)


def _weights(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """How many numbers some tensors hold, and their types."""
    dtypes = {str(one.dtype).removeprefix("torch.") for one in tensors.values()}
    return {
        "parameters": sum(math.prod(one.shape) for one in tensors.values()),
        "stored as": ", ".join(sorted(dtypes)),
    }


def _facts(folder: Path, config: Any, processor: Any, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a checkpoint by its configuration, processor and what its weights are."""
    layout = config.layout
    card = folder / "README.md"
    bins = {"action": processor.action_bins, "state": processor.state_bins}
    grids = {f"{name} grid": layout.grid_of(name) for name in layout.ranges}
    facts: dict[str, Any] = {
        "folder": str(folder),
        "model card": str(card) if card.is_file() else "none",
        **weights,
        "layers x width": f"{config.num_hidden_layers} x {config.hidden_size}",
        "attention pattern": config.attention_pattern,
        "canvas length": config.canvas_length,
        "ids": {name: [one.start, one.stop] for name, one in sorted(layout.ranges.items())},
        "text tokenizer": f"{_tokenizer_kind(processor.tokenizer)}, {len(processor.tokenizer)} ids",
        **{name: list(grid) for name, grid in grids.items() if grid is not None},
        "bins": {name: _shown(one) for name, one in bins.items() if one is not None},
    }
    if config.vision is not None:
        facts["pictures"] = _tower(config)
    if "image" in processor.layout.ranges:
        image = processor.image_tokenizer
        facts["image tokenizer"] = (
            f"{image.kind}, {image.codebook_size} codes, {image.num_parameters():,} parameters"
        )
    elif "image" in layout.ranges:
        facts["image tokenizer"] = "none here: published elsewhere, see `unidiff convert --help`"
    return facts


def _tower(config: Any) -> str:
    """What reads pictures as features, and the id that stands for one in a prompt."""
    settings = config.vision
    kind = settings.get("tower_type", "siglip")
    layers = settings["tower"].get("num_hidden_layers", settings["tower"].get("depth"))
    return (
        f"features of a {kind} tower of {layers} layers over {settings['kind']}, "
        f"id {config.layout.soft_token_id} each"
    )


def _tokenizer_kind(tokenizer: Any) -> str:
    """How a tokenizer cuts texts, or its class where that is not known."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return type(tokenizer).__name__
    kind = type(backend.model).__name__
    is_bytes = "ByteLevel" in str(backend.pre_tokenizer)
    return f"byte-level {kind}" if is_bytes else kind


def _shown(tokenizer: Any) -> dict[str, Any]:
    """Facts of a tokenizer of actions, without the merges that one may have."""
    return {name: value for name, value in tokenizer.to_dict().items() if name != "bpe"}
