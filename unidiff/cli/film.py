"""The film of episodes: what the camera saw, what was asked for, and what came of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PICTURE_WIDTH = 288  # pixels of one episode's picture, where they fit side by side
FILM_WIDTH = 1240
MOST_COLUMNS = 4
STRIP = 46  # pixels of text under a frame
GAP = 10
FRAME_MS, PAUSE_MS = 90, 1600
_TEXT_SIZES = (15, 14, 13, 12, 11, 10, 9)
_INK, _DIM, _PAPER = (25, 25, 28), (110, 110, 118), (250, 250, 247)
_GOOD, _BAD = (22, 128, 61), (190, 40, 40)


@dataclass(frozen=True)
class FilmedEpisode:
    """What is shown of one episode.

    Attributes:
        frames: n >= 1 pictures, (H, W, 3) uint8, the first before any action.
        steps: n numbers of steps taken before each frame.
        instruction: what the robot was told.
        outcome: what is said under the last frame.
        is_good: whether that is good news.
    """

    frames: Sequence[np.ndarray] | np.ndarray
    steps: Sequence[int]
    instruction: str
    outcome: str
    is_good: bool


def check_film(path: Path) -> None:
    """Refuse a film's file that cannot be written, before anything is driven; make its folder.

    Raises:
        ValueError: if it does not end in .gif, is a folder, or lies under a file.
    """
    if path.suffix.lower() != ".gif":
        raise ValueError(f"a film must end in .gif; got {str(path)!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{path} cannot be written: {path.parent} is no folder") from error
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name a file for the film")


def write_film(path: Path, episodes: Sequence[FilmedEpisode]) -> None:
    """Write episodes side by side as a GIF; one that ends early waits for the others.

    Raises:
        ValueError: if there is no episode, or one without a frame.
    """
    if not episodes or not all(len(one.frames) for one in episodes):
        raise ValueError("a film needs episodes with one frame each at least")
    length = max(len(one.frames) for one in episodes)
    frames = [_frame(episodes, number) for number in range(length)]
    durations = [FRAME_MS] * (length - 1) + [PAUSE_MS]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True
    )


def _frame(episodes: Sequence[FilmedEpisode], number: int) -> Image.Image:
    """All episodes at one frame, in rows of at most `MOST_COLUMNS`."""
    columns = min(MOST_COLUMNS, len(episodes))
    rows = math.ceil(len(episodes) / columns)
    width = min(PICTURE_WIDTH, FILM_WIDTH // columns - GAP)
    panels = [_panel(one, number, width) for one in episodes]
    wide = max(panel.width for panel in panels) + GAP
    high = max(panel.height for panel in panels) + GAP
    frame = Image.new("RGB", (wide * columns + GAP, high * rows + GAP), _PAPER)
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        frame.paste(panel, (GAP + column * wide, GAP + row * high))
    return frame


def _panel(episode: FilmedEpisode, number: int, width: int) -> Image.Image:
    """One episode at one frame: the picture, and under it instruction and outcome."""
    last = len(episode.frames) - 1
    picture = Image.fromarray(episode.frames[min(number, last)])
    scale = max(1, width // picture.width)
    picture = picture.resize(
        (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
    )
    panel = Image.new("RGB", (picture.width, picture.height + STRIP), _PAPER)
    panel.paste(picture, (0, 0))
    pen = ImageDraw.Draw(panel)
    _write(pen, episode.instruction, picture.height + 6, picture.width, _INK)
    if number >= last:
        colour = _GOOD if episode.is_good else _BAD
        _write(pen, episode.outcome, picture.height + 26, picture.width, colour)
    else:
        step = f"step {episode.steps[number]}"
        _write(pen, step, picture.height + 26, picture.width, _DIM)
    return panel


def _write(pen: ImageDraw.ImageDraw, text: str, top: int, width: int, colour: Any) -> None:
    """A line of text in the largest size that fits; cut where none does."""
    fitting = (size for size in _TEXT_SIZES if _font(size).getlength(text) <= width - 4)
    size = next(fitting, _TEXT_SIZES[-1])
    while len(text) > 4 and _font(size).getlength(text) > width - 4:
        text = text[:-4] + "..."
    pen.text((2, top), text, colour, font=_font(size))


def _font(size: int) -> Any:
    """Pillow's own font in that size."""
    return ImageFont.load_default(size)
