"""`unidiff tokenizer train`: an image tokenizer for a user's own pictures."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonFlag, takes_options
from .output import print_json

if TYPE_CHECKING:
    from unidiff.tokens.image import FSQImageTokenizerConfig

REPORT_FILE = "measured.json"
_SIZES, _TRAINING = "Sizes", "Training"

tokenizer = typer.Typer(
    name="tokenizer", no_args_is_help=True, help="Train tokenizers on one's own data."
)


@dataclass(frozen=True)
class TokenizerSizes:
    """What the tokenizer is."""

    size: Annotated[
        int,
        typer.Option(help="Pixels per side; others are padded or shrunk.", rich_help_panel=_SIZES),
    ] = 32
    levels: Annotated[
        str,
        typer.Option(
            help="Values of each dimension; their product is the codebook.", rich_help_panel=_SIZES
        ),
    ] = "8,6,5"
    widths: Annotated[
        str,
        typer.Option(
            help="Channels after each halving; n halvings make codes of 2^n pixels.",
            rich_help_panel=_SIZES,
        ),
    ] = "32,96"

    def config(self) -> "FSQImageTokenizerConfig":
        """The tokenizer's configuration.

        Raises:
            ValueError: if a list is none, or the sizes do not fit together.
        """
        from unidiff.tokens.image import FSQImageTokenizerConfig

        levels, widths = _integers("--levels", self.levels), _integers("--widths", self.widths)
        if min(levels) < 2:
            raise ValueError(f"--levels must be 2 or more each, got {self.levels!r}")
        if any(width < 1 or width % 8 for width in widths):
            raise ValueError(f"--widths must be positive multiples of 8, got {self.widths!r}")
        factor = 1 << len(widths)
        if self.size < factor or self.size % factor:
            raise ValueError(
                f"--size must be a positive multiple of {factor}, for {len(widths)} widths make "
                f"codes of {factor} x {factor} pixels; got {self.size}"
            )
        return FSQImageTokenizerConfig(levels=levels, hidden_sizes=widths, image_size=self.size)


@dataclass(frozen=True)
class TokenizerTraining:
    """How it is trained."""

    steps: Annotated[
        int, typer.Option(help="Optimiser steps.", min=1, rich_help_panel=_TRAINING)
    ] = 8000
    batch_size: Annotated[
        int, typer.Option(help="Pictures of a step.", min=1, rich_help_panel=_TRAINING)
    ] = 32
    learning_rate: Annotated[float, typer.Option(help="Peak rate.", rich_help_panel=_TRAINING)] = (
        3e-3
    )
    flip: Annotated[
        bool, typer.Option(help="Show half of the pictures mirrored.", rich_help_panel=_TRAINING)
    ] = True
    save_steps: Annotated[
        int, typer.Option(help="Steps between saves.", min=1, rich_help_panel=_TRAINING)
    ] = 500
    seed: Annotated[int, typer.Option(help="Of everything.", rich_help_panel=_TRAINING)] = 0

    def options(self) -> Any:
        """`TrainImageTokenizerOptions`."""
        from unidiff.training.image_tokenizer import TrainImageTokenizerOptions

        return TrainImageTokenizerOptions(
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.learning_rate,
            seed=self.seed,
            flip=self.flip,
            save_every=self.save_steps,
        )


@tokenizer.command("train")
@takes_options
def train_tokenizer(
    images: Annotated[Path, typer.Option(help="Folder of pictures; sub-folders are read too.")],
    out: Annotated[Path, typer.Option(help="Folder to write; the same command resumes.")],
    sizes: TokenizerSizes,
    training: TokenizerTraining,
    held_out: Annotated[float, typer.Option(help="Share of the pictures to measure on.")] = 0.1,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that do not decode.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train an image tokenizer on a folder of pictures; measure it on held-out ones."""
    config, options = sizes.config(), training.options()
    _check_unfinished(out)
    start = time.perf_counter()
    from unidiff.data.picture_folder import folder_pictures, held_out_split
    from unidiff.tokens.image_processing import UniDiffImageProcessor
    from unidiff.training.image_tokenizer import (
        code_use,
        reconstruction_psnr,
        train_image_tokenizer,
    )

    processor = UniDiffImageProcessor(size={"height": sizes.size, "width": sizes.size})
    pictures, num_bad = folder_pictures(images, processor, "skip" if skip_bad else "raise")
    kept, measured = held_out_split(len(pictures), held_out, training.seed)
    model = train_image_tokenizer(pictures[kept], config, options, out)
    processor.save_pretrained(out)
    psnr = reconstruction_psnr(model, pictures[measured])
    codes_per_side = sizes.size // config.downsample_factor
    report = {
        "tokenizer": str(out),
        "num_images": len(kept),
        "num_held_out": len(measured),
        "num_left_out": num_bad,
        "psnr_db": round(float(psnr.mean()), 2),
        "worst_psnr_db": round(float(psnr.min()), 2),
        "code_use": round(code_use(model, pictures[measured]), 4),
        "codebook_size": model.codebook_size,
        "codes_per_image": codes_per_side**2,
        "steps": options.steps,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - start, 1),
    }
    (out / REPORT_FILE).write_text(json.dumps(report, indent=2) + "\n")
    if as_json:
        print_json(report)
        return
    _print(report)


def _check_unfinished(out: Path) -> None:
    """Raise FileExistsError if the folder holds something that is no interrupted run."""
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file: choose another --out")
    if (out / "model.safetensors").exists():
        raise FileExistsError(f"{out} holds a finished tokenizer: choose another --out")


def _integers(name: str, text: str) -> list[int]:
    """The numbers of a list such as "8,6,5"; raises ValueError if it is none."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(
            f"{name} must be integers with commas, as in 8,6,5; got {text!r}"
        ) from error


def _print(report: dict[str, Any]) -> None:
    """The report for people."""
    if report["num_left_out"]:
        typer.echo(f"{report['num_left_out']} pictures did not decode and were left out")
    typer.echo(
        f"{report['psnr_db']:.2f} dB on {report['num_held_out']} held-out pictures (worst "
        f"{report['worst_psnr_db']:.2f}), {report['code_use']:.0%} of {report['codebook_size']} "
        f"codes in use, {report['codes_per_image']} codes a picture"
    )
    typer.echo(f"{report['tokenizer']} ({report['seconds']:.0f} s)")
