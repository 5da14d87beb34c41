"""`unidiff train-policy`: a policy of one's own from a recorded data set."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.options import takes_options

_SIZES = "Sizes and rates"


@dataclass(frozen=True)
class RecipeOptions:
    """Numbers of the recipe; what is left out is its own."""

    objective: Annotated[
        str | None, typer.Option(help="masked, or a baseline.", rich_help_panel=_SIZES)
    ] = None
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps.", min=1, rich_help_panel=_SIZES)
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(help="Chunks of a step.", min=1, rich_help_panel=_SIZES)
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak rate.", rich_help_panel=_SIZES)
    ] = None
    tokenizer_steps: Annotated[
        int | None,
        typer.Option(help="Steps of the image tokenizer.", min=1, rich_help_panel=_SIZES),
    ] = None
    tokenizer_widths: Annotated[
        str | None,
        typer.Option(
            help="Its channels after each halving of the picture, as 24,48,96; fewer halvings, "
            "more codes.",
            rich_help_panel=_SIZES,
        ),
    ] = None
    horizon: Annotated[
        int | None, typer.Option(help="Timesteps of a chunk.", min=1, rich_help_panel=_SIZES)
    ] = None
    num_action_bins: Annotated[
        int | None,
        typer.Option(help="Bins of each action's dimension.", min=2, rich_help_panel=_SIZES),
    ] = None
    hidden_size: Annotated[
        int | None, typer.Option(help="Width, a multiple of 64.", min=64, rich_help_panel=_SIZES)
    ] = None
    num_layers: Annotated[
        int | None, typer.Option(help="Depth.", min=1, rich_help_panel=_SIZES)
    ] = None
    future_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the chunks learnt together with the picture that follows (world model).",
            min=0,
            max=1,
            rich_help_panel=_SIZES,
        ),
    ] = None
    waypoints: Annotated[
        str | None,
        typer.Option(
            help="Steps ahead whose states are learnt beside each chunk, as 8,24; none: ''.",
            rich_help_panel=_SIZES,
        ),
    ] = None
    num_turns: Annotated[
        int | None,
        typer.Option(
            help="Next turns of the expert whose states are learnt so.",
            min=0,
            rich_help_panel=_SIZES,
        ),
    ] = None
    still_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the chunks told another task's words and kept still; 0 where actions "
            "are places.",
            min=0,
            max=0.99,
            rich_help_panel=_SIZES,
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option(help="Weights, order, noise.", rich_help_panel=_SIZES)
    ] = None
    compile_layers: Annotated[
        bool | None,
        typer.Option(help="Compile the layers: faster after a minute.", rich_help_panel=_SIZES),
    ] = None

    def recipe(self) -> Any:
        """The recipe with these numbers; a short run shortens warm-up and decay with it."""
        from unidiff_vla.training import PolicyRecipe

        given = {name: value for name, value in vars(self).items() if value is not None}
        for name in ("waypoints", "tokenizer_widths"):
            if name in given:
                given[name] = _numbers(name, given[name])
        standard = PolicyRecipe()
        steps = given.get("steps", standard.steps)
        share = min(1.0, steps / standard.steps)
        batch = given.get("batch_size", standard.batch_size)
        return replace(
            standard,
            warmup_steps=int(share * standard.warmup_steps),
            decay_steps=int(share * standard.decay_steps),
            micro_batch=math.gcd(batch, standard.micro_batch),
            **given,
        )


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """Whole numbers separated by commas; ValueError if one is none."""
    try:
        return tuple(int(one) for one in text.split(",") if one.strip())
    except ValueError as error:
        option = "--" + name.replace("_", "-")
        raise ValueError(f"{option} must be whole numbers as 8,24; got {text!r}") from error


@takes_options
def train_policy(
    out: Annotated[Path, typer.Option(help="Folder of the run; the policy is in OUT/policy.")],
    options: RecipeOptions,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of LeRobotDataset v3 with the same features; none where OUT holds their "
            "codes."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to begin with, where sizes fit; the bundled one by default."),
    ] = None,
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="Put the codes of DATA behind those that OUT holds, by the same image tokenizer "
            "and bins.",
        ),
    ] = False,
) -> None:
    """Train a policy: image tokenizer, codes, then the transformer.

    A run that was stopped goes on with the same line.
    """
    from unidiff_vla.policy import PolicySettings
    from unidiff_vla.policy.settings import SETTINGS_FILE
    from unidiff_vla.training import assemble_policy, recommended_settings
    from unidiff_vla.training import train_policy as train
    from unidiff_vla.training.codes import cameras_of

    recipe = options.recipe()
    train(
        data or [],
        out,
        recipe,
        start=start,
        adds=add,
        note=lambda text: typer.echo(text, err=True),
    )
    policy = out / "policy"
    if (policy / SETTINGS_FILE).is_file():  # may have been edited
        settings = PolicySettings.load(policy)
    else:
        cameras = cameras_of(out)
        settings = recommended_settings(cameras, recipe.horizon)
    typer.echo(str(assemble_policy(out, policy, settings)))
