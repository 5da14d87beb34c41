"""`unidiff adapt`: an autoregressive checkpoint becomes a block-diffusion model."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import takes_options
from .progress import goes_on, run_beside
from .session import quiet_transformers

_DATA, _RECIPE, _TRAINING = "Data", "What it becomes", "Training"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class TextData:
    """What it is trained on."""

    data: Annotated[
        list[str],
        typer.Option(
            help="JSONL, JSON, CSV, parquet or hub name with the columns text, or prompt and "
            "completion, or messages; may be repeated.",
            rich_help_panel=_DATA,
        ),
    ]
    samples: Annotated[
        list[int] | None,
        typer.Option(
            help="Samples of each step, once for each data set; 32 by default.",
            rich_help_panel=_DATA,
        ),
    ] = None
    length: Annotated[
        int, typer.Option(help="Most tokens of a sample.", min=2, rich_help_panel=_DATA)
    ] = 512
    pack: Annotated[
        bool,
        typer.Option(
            "--pack/--no-pack",
            help="Let short samples share rows of that length.",
            rich_help_panel=_DATA,
        ),
    ] = True

    def weighted(self, processor: Any, blocks: Any) -> list[Any]:
        """The data sets as training sources.

        Raises:
            ValueError: if a data set cannot be used, or `--samples` does not name all of them.
        """
        from unidiff.data.corpus import Corpus
        from unidiff.data.stream import Weighted

        counts = self.samples or [32] * len(self.data)
        if len(counts) != len(self.data):
            raise ValueError(
                f"--samples must be given once for each --data, got {counts} for {self.data}"
            )
        if blocks.grid and self.length % blocks.max_block_length:
            raise ValueError(
                f"--length must be a multiple of the block length {blocks.max_block_length}, got "
                f"{self.length}"
            )
        return [
            Weighted(Corpus.read(name, name, processor.encoder, self.length, blocks), count)
            for name, count in zip(self.data, counts, strict=True)
        ]


@dataclass(frozen=True)
class RecipeChoice:
    """A recipe, and what is changed of it."""

    recipe: Annotated[
        str,
        typer.Option(
            help="sdar (rows predict themselves, a grid of 4), fast-dllm (rows predict successors, "
            "complementary masks, a grid of 32) or causal (the context stays causal, the "
            "autoregressive loss is kept).",
            rich_help_panel=_RECIPE,
        ),
    ] = "sdar"
    block_length: Annotated[
        int | None, typer.Option(help="Tokens of a block.", min=1, rich_help_panel=_RECIPE)
    ] = None
    first_block_length: Annotated[
        int | None,
        typer.Option(
            help="On a grid: length of blocks at first; it doubles over the first half.",
            min=1,
            rich_help_panel=_RECIPE,
        ),
    ] = None
    attention_pattern: Annotated[
        str | None,
        typer.Option(help="block_causal or causal_context.", rich_help_panel=_RECIPE),
    ] = None
    logits_shift: Annotated[
        int | None,
        typer.Option(
            help="1: rows predict successors, as before; 0: themselves.",
            min=0,
            max=1,
            rich_help_panel=_RECIPE,
        ),
    ] = None
    complementary: Annotated[
        bool | None,
        typer.Option(
            "--complementary/--single",
            help="Noise each block twice, complementarily, or once.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    elbo_weights: Annotated[
        bool | None,
        typer.Option(
            "--elbo-weights/--equal-weights",
            help="Weight masked tokens as the ELBO asks, or alike.",
            rich_help_panel=_RECIPE,
        ),
    ] = None
    ar_weight: Annotated[
        float | None,
        typer.Option(help="Factor on the autoregressive loss.", min=0.0, rich_help_panel=_RECIPE),
    ] = None

    def chosen(self) -> Any:
        """The `AdaptationRecipe`; raises ValueError for a name that is not known."""
        from unidiff.training.adaptation_recipes import RECIPES

        if self.recipe not in RECIPES:
            raise ValueError(f"--recipe must be one of {sorted(RECIPES)}; got {self.recipe!r}")
        given = {n: v for n, v in vars(self).items() if n != "recipe" and v is not None}
        return replace(RECIPES[self.recipe], **given)


@dataclass(frozen=True)
class AdaptationSizes:
    """How it is trained."""

    steps: Annotated[
        int, typer.Option(help="Optimiser steps.", min=1, rich_help_panel=_TRAINING)
    ] = 1000
    micro_batch: Annotated[
        int, typer.Option(help="Samples of one forward.", min=1, rich_help_panel=_TRAINING)
    ] = 8
    learning_rate: Annotated[float, typer.Option(help="Peak rate.", rich_help_panel=_TRAINING)] = (
        1e-3
    )
    lora: Annotated[
        str | None,
        typer.Option(
            help="Train an adapter such as r=16,layers=2-5 and merge it; by default every weight "
            "is trained.",
            rich_help_panel=_TRAINING,
        ),
    ] = None
    save_steps: Annotated[
        int, typer.Option(help="Steps between saves.", min=1, rich_help_panel=_TRAINING)
    ] = 100
    seed: Annotated[int, typer.Option(help="Of everything.", rich_help_panel=_TRAINING)] = 0
    bf16: Annotated[
        bool,
        typer.Option("--bf16/--no-bf16", help="Compute in bfloat16.", rich_help_panel=_TRAINING),
    ] = True
    dtype: Annotated[
        str, typer.Option(help=f"Of the result: {', '.join(DTYPES)}.", rich_help_panel=_TRAINING)
    ] = "float32"

    def rates(self) -> Any:
        """`AdaptationRates` of these; raises ValueError for a dtype that is not known."""
        from unidiff.plugins.task import LoRADefaults
        from unidiff.training.adaptation_recipes import AdaptationRates
        from unidiff.training.lora import lora_options

        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype must be one of {DTYPES}; got {self.dtype!r}")
        given = {n: v for n, v in vars(self).items() if n not in ("lora", "dtype")}
        lora = None if self.lora is None else lora_options(self.lora, LoRADefaults())
        return AdaptationRates(**given, lora=lora)


@takes_options
def adapt(
    source: Annotated[Path, typer.Argument(help="Folder of a Llama, Qwen2 or Qwen3 checkpoint.")],
    target: Annotated[Path, typer.Argument(help="New folder; TARGET.run resumes.")],
    data: TextData,
    choice: RecipeChoice,
    sizes: AdaptationSizes,
) -> None:
    """Teach an autoregressive model to fill blocks; Ctrl-C stops it, the same command goes on."""
    import torch

    from unidiff.tokens.processor import UniDiffProcessor
    from unidiff.training.adaptation import adapted_model, train_model, write_adapted

    if target.exists():
        raise FileExistsError(f"{target} is there already: name a new folder")
    recipe, rates = choice.chosen(), sizes.rates()
    quiet_transformers()
    processor = UniDiffProcessor.from_pretrained(source)
    sources = data.weighted(processor, recipe.blocks())
    model = adapted_model(source, recipe)
    num_items = rates.steps * sum(one.per_cycle for one in sources)
    with goes_on():
        run = train_model(
            model,
            sources,
            run_beside(target),
            recipe.objective(rates.seed, num_items),
            rates,
            {"source": str(source), "recipe": asdict(recipe), "length": data.length},
            data.length if data.pack else None,
        )
    write_adapted(run, processor, recipe.decoding, target, getattr(torch, sizes.dtype))
    typer.echo(str(target))
