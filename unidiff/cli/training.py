"""`unidiff prepare`, `train` and `eval`: from data to a measured checkpoint."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.bundled import bundled_checkpoint

from .options import takes_options
from .progress import goes_on, progress_bars
from .session import quiet_transformers

RECIPES = ("bundled", "drafting", "filling", "guiding", "settling", "full")
IMAGE_TOKENIZER_FOLDER = "image_tokenizer"


@dataclass(frozen=True)
class Tokenizers:
    """Folders of the two tokenizers; those of the bundled checkpoint by default."""

    image_tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the image tokenizer; the bundled one by default.")
    ] = None
    text_tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the text tokenizer; the bundled one by default.")
    ] = None

    def folders(self) -> tuple[Path, Path]:
        """(image tokenizer, text tokenizer).

        Raises:
            FileNotFoundError: if a folder is missing or holds no tokenizer.
        """
        image = self.image_tokenizer or bundled_checkpoint() / IMAGE_TOKENIZER_FOLDER
        text = self.text_tokenizer or bundled_checkpoint()
        for folder, name in ((image, "config.json"), (text, "tokenizer.json")):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no {name}: it is no tokenizer's folder")
        return image, text

    def load(self) -> tuple[Any, Any]:
        """(image tokenizer, text tokenizer), loaded."""
        import torch
        from transformers import AutoTokenizer

        from unidiff.tokens.image import FSQImageTokenizer

        quiet_transformers()
        image, text = self.folders()
        model = FSQImageTokenizer.from_pretrained(image, dtype=torch.float32).eval()
        return model, AutoTokenizer.from_pretrained(text)


@takes_options
def prepare_data(
    out: Annotated[Path, typer.Option(help="Folder of the prepared parts.")],
    tokenizers: Tokenizers,
    scenes: Annotated[int, typer.Option(help="Training scenes.", min=1)] = 60_000,
    demonstrations: Annotated[int, typer.Option(help="Robot samples.", min=1)] = 80_000,
    seed: Annotated[int, typer.Option(help="Decides the demonstrations.")] = 0,
) -> None:
    """Make the codes that training reads, once; an interrupted run goes on where it stopped."""
    from unidiff.data.prepared import PrepareOptions, prepare

    image_tokenizer, tokenizer = tokenizers.load()
    with progress_bars() as progress:
        bar = progress.add_task("preparing", total=None)

        def show(part: str, done: int, total: int) -> None:
            progress.update(bar, description=part, completed=done, total=total)

        prepare(out, image_tokenizer, tokenizer, PrepareOptions(scenes, demonstrations, seed), show)
    typer.echo(str(out))


@dataclass(frozen=True)
class RecipeOptions:
    """Sizes and rates of a recipe; what is left out is the recipe's own."""

    steps: Annotated[int | None, typer.Option(help="Optimiser steps in all.", min=1)] = None
    warmup_steps: Annotated[int | None, typer.Option(help="Steps of rising rate.", min=0)] = None
    decay_steps: Annotated[int | None, typer.Option(help="Steps of falling rate.", min=0)] = None
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate.")] = None
    hidden_size: Annotated[int | None, typer.Option(help="Width, a multiple of 64.", min=64)] = None
    num_layers: Annotated[int | None, typer.Option(help="Depth.", min=1)] = None
    intermediate_size: Annotated[int | None, typer.Option(help="MLP width.", min=1)] = None
    save_steps: Annotated[int | None, typer.Option(help="Steps between saves.", min=1)] = None
    seed: Annotated[int | None, typer.Option(help="Weights, order of data, noise.")] = None
    bf16: Annotated[bool | None, typer.Option(help="Compute in bfloat16.")] = None
    compile_layers: Annotated[
        bool | None, typer.Option(help="Compile the layers: faster after a minute.")
    ] = None

    def recipe(self, name: str = "bundled") -> Any:
        """The named recipe with these numbers; short runs shorten warm-up and decay with them.

        Args:
            name: `bundled`, or `full`, which starts from the bundled weights unless it is given
                a size of its own.

        Raises:
            ValueError: if the numbers do not fit together.
        """
        from unidiff.training.full_variant import FullRecipe
        from unidiff.training.recipes import (
            BundledRecipe,
            drafting_recipe,
            filling_recipe,
            guiding_recipe,
            settling_recipe,
        )

        given = {name: value for name, value in vars(self).items() if value is not None}
        if given.get("hidden_size", 64) % 64:
            raise ValueError(f"--hidden-size must be a multiple of 64, got {self.hidden_size}")
        make: Any = {
            "bundled": BundledRecipe,
            "drafting": drafting_recipe,
            "filling": filling_recipe,
            "guiding": guiding_recipe,
            "settling": settling_recipe,
            "full": FullRecipe,
        }[name]
        if name == "full":
            sizes = ("hidden_size", "num_layers", "intermediate_size")
            given["adapts"] = not any(size in given for size in sizes)
        standard = make()
        share = min(1.0, given.get("steps", standard.steps) / standard.steps)
        for field in ("warmup_steps", "decay_steps"):
            given.setdefault(field, int(getattr(standard, field) * share))
        return make(**given)


@takes_options
def train(
    data: Annotated[Path, typer.Option(help="Folder of `unidiff prepare`.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; its result is OUT/checkpoint.")],
    sizes: RecipeOptions,
    tokenizers: Tokenizers,
    recipe: Annotated[
        str,
        typer.Option(
            help="What to train: bundled, drafting and filling (its second and third phase), or "
            "full (attention, text)."
        ),
    ] = "bundled",
    resume: Annotated[
        str, typer.Option(help="auto: go on where OUT stopped; never: OUT must be new.")
    ] = "auto",
    carried: Annotated[
        Path | None, typer.Option(help="Go on from weights carried over from another machine.")
    ] = None,
) -> None:
    """Train a recipe; Ctrl-C stops it, and the same command goes on from the last save."""
    if recipe not in RECIPES:
        raise ValueError(f"--recipe must be one of {RECIPES}; got {recipe!r}")
    if resume not in ("auto", "never"):
        raise ValueError(f"--resume must be auto or never; got {resume!r}")
    chosen = sizes.recipe(recipe)
    if recipe == "full" and carried is not None:
        raise ValueError("--carried goes on from a run of the bundled recipe: leave it out")
    if not (data / "manifest.json").is_file():
        raise FileNotFoundError(f"{data} is not prepared: run `unidiff prepare --out {data}`")
    if resume == "never" and list(out.glob("checkpoint-*")):
        raise ValueError(f"{out} holds a run already: choose another --out, or --resume auto")
    image_folder, _ = tokenizers.folders()
    image_tokenizer, tokenizer = tokenizers.load()
    from accelerate import PartialState

    with goes_on():
        finish = _train_recipe(recipe, data, out, (image_tokenizer, tokenizer), chosen, carried)
    if PartialState().is_main_process:
        typer.echo(str(finish(image_folder, out / "checkpoint")))
    # Left to the end of the process, the group's threads may abort it; closed before the trainer is
    # gone, its closing may hang.
    gc.collect()
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


def _train_recipe(
    name: str, data: Path, out: Path, tokenizers: tuple[Any, Any], chosen: Any, carried: Path | None
) -> Callable[[Path, Path], Path]:
    """Train; what makes a checkpoint folder of it, given the image tokenizer's and the new one."""
    from unidiff.training.assemble import assemble_checkpoint, assemble_full
    from unidiff.training.bundled import train_bundled
    from unidiff.training.full_variant import train_full

    image_tokenizer, tokenizer = tokenizers
    if name == "full":
        train_full(data, out, tokenizer, chosen)
        return lambda _, result: assemble_full(out, result)
    train_bundled(data, out, tokenizer, image_tokenizer.config.levels, chosen, carried=carried)
    return lambda image, result: assemble_checkpoint(out, data, image, tokenizer, result)
