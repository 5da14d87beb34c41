"""Episodes of the robot table: the model as a policy, and the film of what it did."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unidiff.data.sources.tabletop_rollout import EpisodeResult, rollout

from .session import Answer, Session

SCALE = 9  # a picture of 32 pixels becomes 288 wide
STRIP = 46  # pixels of text under a frame
GAP = 10
FRAME_MS, PAUSE_MS = 90, 1600
_INK, _DIM, _PAPER = (25, 25, 28), (110, 110, 118), (250, 250, 247)
_GOOD, _BAD = (22, 128, 61), (190, 40, 40)


@dataclass(frozen=True)
class Played:
    """One episode and what it cost.

    Attributes:
        task: "reach" or "push".
        seed: of the table.
        episode: what happened.
        answers: the answer of every plan.
    """

    task: str
    seed: int
    episode: EpisodeResult
    answers: tuple[Answer, ...]

    @property
    def num_forwards(self) -> int:
        """Forwards of all plans."""
        return sum(answer.num_forwards for answer in self.answers)

    @property
    def tokens_per_forward(self) -> float:
        """Action tokens of all plans per forward."""
        tokens = sum(one.num_forwards * one.tokens_per_forward for one in self.answers)
        return tokens / max(1, self.num_forwards)

    @property
    def seconds(self) -> float:
        """Seconds spent planning."""
        return sum(answer.seconds for answer in self.answers)


def play(
    session: Session,
    task: str,
    seed: int,
    options: dict[str, Any],
    *,
    replan_every: int,
    instruction: str | None = None,
) -> Played:
    """Let the model drive one episode from pictures and hand positions alone.

    Args:
        session: the loaded checkpoint.
        task: "reach" or "push".
        seed: of the table.
        options: keywords of `generate()`.
        replan_every: actions carried out of each chunk.
        instruction: what the robot is told instead of the table's own instruction.

    Raises:
        ValueError: if the task is unknown or `replan_every` is not in [1, 8].
    """
    answers: list[Answer] = []

    def policy(image: np.ndarray, state: np.ndarray, told: str) -> np.ndarray:
        inputs = session.processor.for_action(image, state, told)
        answers.append(session.answer(inputs, options)[0])
        chunk: np.ndarray = answers[-1].value
        return chunk

    episode = rollout(
        policy, seed, task, replan_every=replan_every, instruction_override=instruction
    )
    return Played(task, seed, episode, tuple(answers))


def write_gif(path: Path, episodes: Sequence[Played]) -> None:
    """Write episodes side by side; one that ends early waits for the others."""
    length = max(len(one.episode.frames) for one in episodes)
    frames = [_frame(episodes, step) for step in range(length)]
    durations = [FRAME_MS] * (length - 1) + [PAUSE_MS]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )


def _frame(episodes: Sequence[Played], step: int) -> Image.Image:
    """All episodes at one step."""
    panels = [_panel(one, step) for one in episodes]
    width = sum(panel.width for panel in panels) + GAP * (len(panels) + 1)
    frame = Image.new("RGB", (width, panels[0].height + 2 * GAP), _PAPER)
    left = GAP
    for panel in panels:
        frame.paste(panel, (left, GAP))
        left += panel.width + GAP
    return frame


def _panel(played: Played, step: int) -> Image.Image:
    """One episode at one step: the picture, and under it instruction and outcome."""
    episode = played.episode
    is_over = step >= episode.num_steps
    picture = Image.fromarray(episode.frames[min(step, episode.num_steps)])
    picture = picture.resize(
        (picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST
    )
    panel = Image.new("RGB", (picture.width, picture.height + STRIP), _PAPER)
    panel.paste(picture, (0, 0))
    pen = ImageDraw.Draw(panel)
    pen.text((2, picture.height + 6), episode.instruction, _INK, font=_font(15))
    if is_over:
        outcome = f"done in {episode.num_steps} steps" if episode.success else "not reached"
        pen.text((2, picture.height + 26), outcome, _GOOD if episode.success else _BAD, _font(14))
    else:
        pen.text((2, picture.height + 26), f"step {step}", _DIM, font=_font(14))
    return panel


def _font(size: int) -> Any:
    """Pillow's own font in that size."""
    return ImageFont.load_default(size)
