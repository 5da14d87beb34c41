"""`unidiff act`: drive a robot in a simulated environment, and film it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from unidiff.cli.film import FilmedEpisode, check_film, write_film
from unidiff.cli.options import Decoding, JsonFlag, ModelChoice, takes_options
from unidiff.cli.output import print_json
from unidiff.cli.progress import progress_bars
from unidiff_vla.driving import Drive, EpisodeRun, View, drive
from unidiff_vla.environments import (
    SPLITS,
    WORDINGS,
    EnvironmentName,
    find_environment,
)
from unidiff_vla.loading import LoadedPolicy, check_same_actions, environment_for, policy_for
from unidiff_vla.policy import PolicySettings

MOST_FILMED = 8  # episodes, in two rows of a film
NUM_PARALLEL = 8
_ENV = "Environment"


@dataclass(frozen=True)
class Scene:
    """Where the robot is, and what it is told."""

    env: Annotated[
        str,
        typer.Option(
            help="tabletop-reach, tabletop-push, metaworld-<task>, pusht, pusht-pose, or an id of "
            "gymnasium's.",
            rich_help_panel=_ENV,
        ),
    ] = "tabletop-push"
    task: Annotated[
        str | None,
        typer.Option(
            help="What the robot is told; the environment's own words by default.",
            rich_help_panel=_ENV,
        ),
    ] = None
    episodes: Annotated[
        int, typer.Option(help="Episodes, from layout SEED on.", min=1, rich_help_panel=_ENV)
    ] = 1
    split: Annotated[
        str, typer.Option(help=f"Layouts: {' or '.join(SPLITS)}.", rich_help_panel=_ENV)
    ] = "test"
    wording: Annotated[
        str, typer.Option(help=f"Words: {', '.join(WORDINGS)}.", rich_help_panel=_ENV)
    ] = "known"

    def check(self, seed: int) -> EnvironmentName:
        """The environment; raises ValueError if something is no option."""
        if self.split not in SPLITS or self.wording not in WORDINGS:
            raise ValueError(
                f"--split must be one of {SPLITS} and --wording of {WORDINGS}; got "
                f"{self.split!r} and {self.wording!r}"
            )
        if self.task is not None and (not self.task.strip() or self.wording != "known"):
            raise ValueError("--task needs words, and takes the place of --wording")
        if seed < 0:
            raise ValueError(f"--seed must be >= 0, got {seed}")
        chosen = find_environment(self.env)
        if not chosen.is_ours and self.wording != "known":
            raise ValueError(f"{self.env} knows no wordings: leave out --wording, or give --task")
        return chosen


@takes_options
def act(
    scene: Scene,
    model: ModelChoice,
    decoding: Decoding,
    replan_every: Annotated[
        int | None,
        typer.Option(help="Actions carried out of each chunk; the checkpoint's own.", min=1),
    ] = None,
    foresee: Annotated[
        bool | None,
        typer.Option(
            help="Plan the next picture with the actions, and film it beside what came; the "
            "checkpoint's own."
        ),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help=f"Film to write, .gif; the first {MOST_FILMED} episodes.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Drive a robot from pictures, its state and one sentence.

    Success is judged by the environment's own goal, whatever the robot is told. Ctrl-C leaves the
    film of what was driven.
    """
    chosen = scene.check(decoding.seed)
    if video is not None:
        check_film(video)
    loaded = policy_for(
        scene.env, model, lambda one: _changed(one, decoding, replan_every, foresee)
    )
    begun: list[EpisodeRun] = []
    how = Drive(
        view=View.of(loaded.policy),
        seed=decoding.seed,
        options={"wording": scene.wording} if chosen.is_ours else None,
        instruction=scene.task,
        num_filmed=0 if video is None else MOST_FILMED,
    )
    try:
        _drive(loaded, chosen, scene, how, begun)
    finally:
        filmed = [run for run in begun if run.film and run.film.frames]
        if video is not None and filmed:
            write_film(video, [_filmed(run) for run in filmed])
    report = _report(loaded, scene, how, begun, video if filmed else None)
    if as_json:
        print_json(report)
    else:
        _print(report)
    _raise_errors(begun)


def _changed(
    settings: PolicySettings, decoding: Decoding, replan_every: int | None, foresee: bool | None
) -> PolicySettings:
    """The checkpoint's settings with what was given."""
    options = decoding.over(settings.decoding)
    del options["seed"]
    return replace(
        settings,
        decoding=options,
        replan_every=replan_every or settings.replan_every,
        foresees=settings.foresees if foresee is None else foresee,
    )


def _drive(
    loaded: LoadedPolicy,
    chosen: EnvironmentName,
    scene: Scene,
    how: Drive,
    begun: list[EpisodeRun],
) -> None:
    """Drive all episodes; `begun` holds them meanwhile, so that an interruption leaves them."""
    envs = [environment_for(loaded.policy, chosen, scene.split)]
    seeds = range(how.seed, how.seed + scene.episodes)
    try:
        check_same_actions(loaded.policy, envs[0], scene.env)
        envs += [
            environment_for(loaded.policy, chosen, scene.split)
            for _ in range(min(NUM_PARALLEL, scene.episodes) - 1)
        ]
        with progress_bars() as progress:
            bar = progress.add_task(scene.env, total=scene.episodes)

            def show(runs: Sequence[EpisodeRun]) -> None:
                begun[:] = runs
                steps = sum(run.num_steps for run in runs)
                done = sum(run.is_over for run in runs)
                progress.update(bar, completed=done, description=f"{scene.env}, {steps} steps")

            drive(loaded.policy, envs, seeds, how, show)
    finally:
        for env in envs:
            env.close()


def _filmed(run: EpisodeRun) -> FilmedEpisode:
    """What the film shows of an episode."""
    assert run.film is not None
    if run.error is not None:
        outcome = f"broke off: {run.error}"
    elif not run.is_over:
        outcome = f"interrupted after step {run.num_steps}"
    else:
        outcome = f"done in {run.num_steps} steps" if run.success else "not reached"
    return FilmedEpisode(
        run.film.frames, run.film.steps, run.instruction, outcome, run.record().success
    )


def _report(
    loaded: LoadedPolicy,
    scene: Scene,
    how: Drive,
    begun: Sequence[EpisodeRun],
    video: Path | None,
) -> dict[str, Any]:
    """What came of the episodes and what it cost, as plain values."""
    records = [run.record() for run in begun]
    return {
        "env": scene.env,
        "split": scene.split,
        "wording": None if scene.task else scene.wording,
        "seed": how.seed,
        "num_success": sum(one.success for one in records),
        "num_episodes": len(records),
        "num_executed": loaded.policy.num_executed,
        "decoding": dict(loaded.policy.settings.decoding),
        "checkpoint": loaded.folder,
        "video": video,
        "episodes": [one.to_dict() for one in records],
    }


def _print(report: dict[str, Any]) -> None:
    """A line for each episode, for people."""
    for one in report["episodes"]:
        outcome = "reached the goal" if one["success"] else "did not reach the goal"
        if one["error"]:
            outcome = "broke off"
        typer.echo(
            f"{one['seed']}: {one['instruction']}: {outcome} after {one['num_steps']} steps "
            f"({one['num_plans']} plans, {one['num_forwards']} forwards, {one['seconds']:.2f} s)"
        )
    if report["num_episodes"] > 1:
        typer.echo(f"{report['num_success']} of {report['num_episodes']} reached the goal")
    if report["video"] is not None:
        typer.echo(str(report["video"]))


def _raise_errors(runs: Sequence[EpisodeRun]) -> None:
    """Raise ValueError if an episode broke off; the others are reported by then."""
    broken = [f"layout {run.seed}, {run.error}" for run in runs if run.error]
    if broken:
        raise ValueError(f"{len(broken)} of {len(runs)} episodes broke off: {'; '.join(broken)}")
