"""`unidiff record`: demonstrations of an environment's expert, as a LeRobotDataset v3 folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.options import JsonFlag, ModelChoice, takes_options
from unidiff.cli.output import print_json
from unidiff.cli.progress import progress_bars
from unidiff_vla.environments import find_environment, make_environment
from unidiff_vla.lerobot_dataset import DatasetWriter
from unidiff_vla.loading import policy_for
from unidiff_vla.recording import (
    Lead,
    PolicyLead,
    RandomWalk,
    RecordingReport,
    check_resumed,
    features_of,
    record_demonstrations,
)


@dataclass(frozen=True)
class LeadOptions:
    """What drives each episode's first steps, before its expert does."""

    wander: Annotated[
        int,
        typer.Option(
            help="Most steps of a random walk, not recorded, before every other episode.", min=0
        ),
    ] = 0
    dagger: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoint that drives each episode's first steps; the expert shows how to go on "
            "where it has not done the task."
        ),
    ] = None
    dagger_steps: Annotated[
        int,
        typer.Option(help="Most of them; between half as many and these are drawn.", min=1),
    ] = 100

    @property
    def settings(self) -> dict[str, Any]:
        """What the data set says of it."""
        if self.dagger is None:
            return {"wander": self.wander}
        return {
            "wander": self.wander,
            "dagger": str(self.dagger),
            "dagger_steps": self.dagger_steps,
        }

    def lead(self, env: str) -> Lead | None:
        """What drives in an environment of that name; ValueError if both are asked for."""
        if self.wander and self.dagger is not None:
            raise ValueError("give --wander or --dagger, not both: one of them drives first")
        if self.dagger is not None:
            policy = policy_for(env, ModelChoice(self.dagger)).policy
            return PolicyLead(policy, self.dagger_steps)
        return RandomWalk(self.wander) if self.wander else None

    def prolong(self, env: Any) -> None:
        """Give the expert an episode's steps for itself, behind those of a policy."""
        if self.dagger is not None:
            env.max_steps += self.dagger_steps


@dataclass(frozen=True)
class FrameOptions:
    """What a frame shows, and how often there is one."""

    cameras: Annotated[
        str | None, typer.Option(help="Names, comma-separated; the environment's own by default.")
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option(help="Height and width in pixels; the environment's own by default.", min=1),
    ] = None
    look_every: Annotated[
        int,
        typer.Option(
            help="Steps from one picture to the next; frames between are marked, and not learnt.",
            min=1,
        ),
    ] = 1
    fps: Annotated[
        int | None,
        typer.Option(help="Frames of a second; the environment's own by default.", min=1),
    ] = None

    @property
    def names(self) -> tuple[str, ...] | None:
        """The cameras; None: the environment's own."""
        return None if self.cameras is None else tuple(self.cameras.split(","))


@takes_options
def record(
    envs: Annotated[
        list[str],
        typer.Argument(
            help="Environments as of `unidiff act --env`, all of the same robot; NAME=N wants N "
            "successes of it."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set; must not exist.")],
    first: LeadOptions,
    shown: FrameOptions,
    episodes: Annotated[int, typer.Option(help="Successes of each environment.", min=1)] = 100,
    first_seed: Annotated[int, typer.Option(help="Layout of the first attempt.", min=0)] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Record an expert's demonstrations on training layouts.

    Noise disturbs what is executed; recorded is what the expert wanted. A recording that was
    stopped goes on with the same line.
    """
    wanted = [_counted(text, episodes) for text in envs]
    if len(dict(wanted)) < len(wanted):
        raise ValueError(f"expected each environment once, as NAME or NAME=N; got {envs}")
    chosen = [find_environment(name) for name, _ in wanted]
    if strange := [one.name for one in chosen if not one.is_ours]:
        raise ValueError(f"only environments of this package have experts; got {strange}")
    lead = first.lead(chosen[0].name)
    settings = {**first.settings, "look_every": shown.look_every, "cameras": shown.names}
    writer: DatasetWriter | None = None
    reports: list[RecordingReport] = []
    with progress_bars() as progress:
        bar = progress.add_task("demonstrations", total=sum(number for _, number in wanted))

        def show(report: RecordingReport) -> None:
            done = sum(one.num_kept for one in reports) + report.num_kept
            progress.update(bar, completed=done, description=report.name)

        for one, (_, number) in zip(chosen, wanted, strict=True):
            env: Any = make_environment(one, "train", shown.names, shown.image_size)
            first.prolong(env)
            try:
                if writer is None:
                    writer = DatasetWriter(
                        out,
                        features_of(env, marks_fresh=shown.look_every > 1),
                        fps=shown.fps or env.metadata["render_fps"],
                        settings=settings,
                    )
                    check_resumed(writer, dict(wanted), first_seed)
                reports.append(
                    record_demonstrations(
                        env,
                        writer,
                        one.name,
                        number,
                        first_seed=first_seed,
                        lead=lead,
                        look_every=shown.look_every,
                        on_progress=show,
                    )
                )
            finally:
                env.close()
    assert writer is not None
    writer.finish()
    if as_json:
        print_json({"folder": out, "environments": [vars(one) for one in reports]})
        return
    for report in reports:
        typer.echo(
            f"{report.name}: {report.num_kept} demonstrations, {report.num_frames} frames, "
            f"{report.num_failed} attempts failed"
            + (f", {report.num_skipped} needed no expert" if report.num_skipped else "")
        )
    typer.echo(str(out))


def _counted(text: str, episodes: int) -> tuple[str, int]:
    """(name, successes wanted) of an argument NAME or NAME=N."""
    name, has_number, number = text.partition("=")
    if has_number and not (number.isdecimal() and int(number)):
        raise ValueError(f"expected NAME or NAME=N with a whole number N >= 1; got {text!r}")
    return name, int(number) if has_number else episodes
