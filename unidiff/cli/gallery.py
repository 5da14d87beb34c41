"""The gallery: every section of the demonstration as one picture."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from .showcase import Row

COLUMNS = 10
WIDTH = 15.5  # inches
_NOTE = "one masked-diffusion model, inputs it has never seen; green: right, red: wrong"
_INK, _DIM = "#18181b", "#71717a"
_COLOURS = {True: "#15803d", False: "#b91c1c", None: _INK}
_TRUTH = {False: "truth:", None: "original:"}
# Inches of height: the heading, a section's title, a panel, its caption, words over it, a line.
_HEADING, _TITLE, _PANEL, _CAPTION, _LABEL, _LINE = 0.7, 0.42, 1.4, 0.76, 0.16, 0.17
_SMALL = 7.6  # points
_CHARACTER = 0.076  # inches, of a line of text
_CHARACTERS = 24  # of a caption's line under one panel


def draw_gallery(path: str | Path, sections: Mapping[str, Sequence[Row]]) -> None:
    """Write the PNG.

    Args:
        path: of the picture.
        sections: title -> rows. Rows with one picture stand in a line; rows with several show them
            side by side; neighbouring rows that share a picture are a conversation; rows without
            pictures are lines of text. An empty section is left out.
    """
    filled = [
        (title if number == 0 else "", part)
        for title, rows in sections.items()
        for number, part in enumerate(_strips(rows))
    ]
    heights = [_height(rows) for _, rows in filled]
    figure = Figure(figsize=(WIDTH, sum(heights) + _HEADING), dpi=100, facecolor="white")
    ratios = [_HEADING, *heights]
    parts = figure.subfigures(len(ratios), 1, height_ratios=ratios, squeeze=False)
    heading, *others = parts[:, 0].tolist()
    heading.text(_left(0), 0.62, "UniDiff", size=22, weight="bold", color=_INK, va="center")
    heading.text(_left(0), 0.16, _NOTE, size=10, color=_DIM, va="center")
    for part, height, (title, rows) in zip(others, heights, filled, strict=True):
        kind = _kind(rows)
        strip = _Strip(part, height, _LABEL if kind == "groups" else 0.0)
        strip.text(title, 0, 0.22, _INK, size=12, weight="bold", va="center")
        _DRAWERS[kind](strip, rows)
    figure.savefig(path)


@dataclass(frozen=True)
class _Strip:
    """Where one section is drawn; places are columns from the left and inches from the top.

    Attributes:
        figure: its part of the gallery.
        height: inches.
        label: inches kept free over the panels.
    """

    figure: SubFigure
    height: float
    label: float

    def text(self, words: str, column: float, down: float, colour: str, **style: Any) -> None:
        """Words at a place; dollar signs are no formulas."""
        where = _left(column), 1 - down / self.height
        self.figure.text(*where, words.replace("$", r"\$"), color=colour, **style)

    def show(self, picture: np.ndarray, column: float) -> None:
        """A picture at a column, its pixels sharp."""
        side = _PANEL - 0.06
        bottom = 1 - (_TITLE + self.label + _PANEL) / self.height
        box = (_left(column), bottom, side / WIDTH, side / self.height)
        axes = self.figure.add_axes(box)
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()

    def caption(self, row: Row, column: float, width: int) -> None:
        """What was asked, in grey, and the answer in its colour, in lines of `width`."""
        top = _TITLE + self.label + _PANEL + 0.05
        asked = textwrap.wrap(row.given, width)[:3]
        answer = textwrap.wrap(_answer(row), width)[: 6 - len(asked)]
        style = {"size": _SMALL, "va": "top", "linespacing": 1.15}
        self.text("\n".join(asked), column, top, _DIM, **style)
        below = top + 0.125 * len(asked)
        self.text("\n".join(answer), column, below, _COLOURS[row.is_right], **style)

    def lines(self, rows: Sequence[Row], column: float, stop: float, family: str) -> None:
        """Two lines for each row, up to column `stop`: what was given, and the answer."""
        longest = int((stop - column) * WIDTH / COLUMNS / _CHARACTER)
        for number, row in enumerate(rows):
            down = _TITLE + 0.1 + 2.4 * _LINE * number
            style = {"va": "center", "family": family}
            self.text(_one_line(row.given, longest), column, down, _DIM, size=8.5, **style)
            answer = row.output
            if not row.is_right:
                answer += f"   ({_TRUTH[row.is_right]} {row.truth})"
            below = down + 1.05 * _LINE
            answer = _one_line(answer, longest)
            self.text(answer, column, below, _COLOURS[row.is_right], size=9, **style)


def _kind(rows: Sequence[Row]) -> str:
    """How a section's rows are drawn."""
    if not rows[0].pictures:
        return "lines"
    if len(rows) > 1 and _same(rows[0], rows[1]):
        return "chat"
    return "panels" if all(len(row.pictures) == 1 for row in rows) else "groups"


def _strips(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows cut into what stands side by side; only those with several pictures need cutting."""
    if not rows or _kind(rows) != "groups":
        return [list(rows)] if rows else []
    strips = [[rows[0]]]
    for row in rows[1:]:
        if sum(len(one.pictures) for one in [*strips[-1], row]) > COLUMNS:
            strips.append([row])
        else:
            strips[-1].append(row)
    return strips


def _same(row: Row, other: Row) -> bool:
    """Whether two rows show the same one picture."""
    is_one = len(row.pictures) == len(other.pictures) == 1
    return is_one and np.array_equal(row.pictures[0], other.pictures[0])


def _height(rows: Sequence[Row]) -> float:
    """Inches that a section needs."""
    kind = _kind(rows)
    if kind == "lines":
        return _TITLE + 2.4 * _LINE * len(rows) + 0.1
    if kind == "chat":
        num_turns = max(len(turns) for turns in _conversations(rows))
        return _TITLE + max(_PANEL, 2.4 * _LINE * num_turns) + 0.15
    return _TITLE + _PANEL + _CAPTION + (_LABEL if kind == "groups" else 0.0)


def _panels(strip: _Strip, rows: Sequence[Row]) -> None:
    """One picture for each row, what was asked and answered under it."""
    for column, row in enumerate(rows[:COLUMNS]):
        strip.show(row.pictures[0], column)
        strip.caption(row, column, _CHARACTERS)


def _groups(strip: _Strip, rows: Sequence[Row]) -> None:
    """Several pictures for each row, and one caption under them."""
    spare = (COLUMNS - sum(len(row.pictures) for row in rows)) / max(1, len(rows) - 1)
    column = 0.0
    for row in rows:
        for offset, picture in enumerate(row.pictures):
            strip.show(picture, column + offset)
            if len(row.pictures) == len(row.labels):
                down = _TITLE + strip.label
                label = row.labels[offset]
                strip.text(label, column + offset, down, _DIM, size=_SMALL, va="bottom")
        strip.caption(row, column, _CHARACTERS * len(row.pictures))
        column += len(row.pictures) + min(0.5, max(0.0, spare))


def _chat(strip: _Strip, rows: Sequence[Row]) -> None:
    """Each picture with the conversation about it beside it."""
    conversations = _conversations(rows)
    width = COLUMNS / len(conversations)
    for number, turns in enumerate(conversations):
        strip.show(turns[0].pictures[0], number * width)
        strip.lines(turns, number * width + 1.05, (number + 1) * width, "sans-serif")


def _conversations(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows cut where the picture changes."""
    found = [[rows[0]]]
    for row in rows[1:]:
        if _same(row, found[-1][0]):
            found[-1].append(row)
        else:
            found.append([row])
    return found


def _text_lines(strip: _Strip, rows: Sequence[Row]) -> None:
    """What was asked and answered as lines of text."""
    strip.lines(rows, 0, COLUMNS, "monospace")


def _one_line(text: str, longest: int) -> str:
    """The text with its line ends shown, cut where it is too long."""
    shown = text.replace("\n", " \u21b5 ")
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def _left(column: float) -> float:
    """Left edge of a column, as a share of the width."""
    return 0.012 + column * (0.988 / COLUMNS)


def _answer(row: Row) -> str:
    """The output, and the truth where it differs and is short."""
    if row.is_right is False and len(row.truth) <= 24:
        return f"{row.output} (truth: {row.truth})"
    return row.output


_DRAWERS = {"panels": _panels, "groups": _groups, "chat": _chat, "lines": _text_lines}
