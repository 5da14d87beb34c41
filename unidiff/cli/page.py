"""The page: gallery, film and table in one HTML file that needs no other."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .showcase import Row

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #18181b; max-width: 1200px;
       margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; }
img.film { image-rendering: pixelated; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #e4e4e7;
         vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #a1a1aa; }
tr.section td { font-weight: 600; padding-top: 1rem; }
.right { color: #15803d; } .wrong { color: #b91c1c; } .note { color: #71717a; }
"""
_MARKS = {True: ("right", "ok"), False: ("wrong", "wrong"), None: ("", "")}


def write_page(
    folder: Path, sections: Mapping[str, Sequence[Row]], summary: Mapping[str, Any]
) -> None:
    """Write `index.html` with the gallery and the film that lie in the folder.

    Args:
        folder: holds gallery.png and episode.gif.
        sections: title -> rows.
        summary: numbers about all of it.

    Raises:
        FileNotFoundError: if a picture is missing.
    """
    gallery = _embedded(folder / "gallery.png", "image/png")
    film = _embedded(folder / "episode.gif", "image/gif")
    facts = (
        f"{summary['right']} of {summary['judged']} judged answers right, "
        f"{summary['num_forwards']} forwards, {summary['seconds']} s, seed {summary['seed']}"
    )
    page = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>UniDiff demonstration</title><style>{_STYLE}</style></head>
<body>
<h1>UniDiff demonstration</h1>
<p class="note">{html.escape(facts)}</p>
<h2>Driving the robot</h2>
<img class="film" src="{film}" alt="two episodes of the robot">
<h2>Gallery</h2>
<img src="{gallery}" alt="pictures, answers, drawings and filled holes">
<h2>Everything that was asked</h2>
<table>
<tr><th>task</th><th>input</th><th>output</th><th>truth</th><th></th><th>NFE</th>
<th>tokens per forward</th><th>seconds</th></tr>
{_table(sections)}
</table>
</body>
</html>
"""
    (folder / "index.html").write_text(page, encoding="utf-8")


def _table(sections: Mapping[str, Sequence[Row]]) -> str:
    """Rows of the table, a heading before each section."""
    lines = []
    for title, rows in sections.items():
        lines.append(f'<tr class="section"><td colspan="8">{html.escape(title)}</td></tr>')
        lines += [_line(row) for row in rows]
    return "\n".join(lines)


def _line(row: Row) -> str:
    """One row of the table."""
    texts = "".join(
        f"<td>{html.escape(text)}</td>" for text in (row.task, row.given, row.output, row.truth)
    )
    style, mark = _MARKS[row.is_right]
    numbers = (str(row.num_forwards), f"{row.tokens_per_forward:.2f}", f"{row.seconds:.2f}")
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    return f'<tr>{texts}<td class="{style}">{mark}</td>{cells}</tr>'


def _embedded(path: Path, kind: str) -> str:
    """The file as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
