"""`unidiff act`: drive the small robot."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import samplers
from .options import Decoding, JsonFlag, ModelChoice, takes_options
from .output import print_json
from .session import open_session

if TYPE_CHECKING:
    from .episode import Played


@takes_options
def act(
    model: ModelChoice,
    decoding: Decoding,
    task: Annotated[str, typer.Option(help="reach or push.")] = "push",
    instruction: Annotated[
        str | None, typer.Option(help="What the robot is told; the table's own by default.")
    ] = None,
    replan_every: Annotated[
        int | None, typer.Option(help="Actions carried out of each chunk of 8.", min=1, max=8)
    ] = None,
    gif: Annotated[Path | None, typer.Option(help="Film to write.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Drive the robot from pictures, hand positions and one sentence.

    --seed N takes table N of those kept for evaluation. Success is judged by the table's own
    goal, whatever the robot is told.
    """
    from unidiff.data.sources.tabletop_scene import EVALUATION_SEED_START, check_task

    from .episode import play, write_gif

    check_task(task)
    if decoding.seed < 0:
        raise ValueError(f"--seed must be >= 0, got {decoding.seed}")
    if gif is not None and gif.suffix.lower() != ".gif":
        raise ValueError(f"--gif must end in .gif; got {str(gif)!r}")
    session = open_session(model)
    played = play(
        session,
        task,
        EVALUATION_SEED_START + decoding.seed,
        decoding.over(samplers.acting()),
        replan_every=replan_every or samplers.replan_every(),
        instruction=instruction,
    )
    if gif is not None:
        gif.parent.mkdir(parents=True, exist_ok=True)
        write_gif(gif, [played])
    report = {"task": task, "seed": decoding.seed, **_outcome(played), "gif": gif}
    if as_json:
        print_json(report)
        return
    outcome = "reached the goal" if report["success"] else "did not reach the goal"
    typer.echo(
        f"{report['instruction']}: {outcome} after {report['steps']} steps "
        f"({report['plans']} plans, {report['num_forwards']} forwards, {report['seconds']:.2f} s)"
    )
    if gif is not None:
        typer.echo(str(gif))


def _outcome(played: "Played") -> dict[str, Any]:
    """What came of an episode and what it cost, as plain values."""
    episode = played.episode
    return {
        "instruction": episode.instruction,
        "success": bool(episode.success),
        "wrong_target": bool(episode.wrong_target),
        "steps": episode.num_steps,
        "plans": episode.num_plans,
        "num_forwards": played.num_forwards,
        "tokens_per_forward": round(played.tokens_per_forward, 3),
        "seconds": round(played.seconds, 3),
    }
