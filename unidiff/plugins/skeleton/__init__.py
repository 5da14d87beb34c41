"""Writes the beginning of a plugin: a distribution that works and passes `PluginContract`."""

import re
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TEMPLATES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "unidiff_{name}/__init__.py": "init.py.txt",
    "unidiff_{name}/task.py": "task.py.txt",
    "unidiff_{name}/command.py": "command.py.txt",
    "tests/test_{name}.py": "test.py.txt",
}


def write_skeleton(name: str, out: Path) -> Path:
    """Folder `out/name` with a new plugin in it, written whole or not at all.

    Args:
        name: of the plugin, its task and its command.
        out: folder in which the plugin's folder is made.

    Raises:
        ValueError: if the name is no lower-case identifier.
        FileExistsError: if the folder exists.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a plugin's name must be lower case letters, digits and underscores, got {name!r}"
        )
    folder = out / name
    if folder.exists():
        raise FileExistsError(f"{folder} exists: choose another name or --out")
    out.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=out))
    try:
        for target, template in _TEMPLATES.items():
            path = partial / target.format(name=name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_filled(template, name), encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def _filled(template: str, name: str) -> str:
    """A template with the plugin's names put in."""
    text = (files(__package__) / template).read_text(encoding="utf-8")
    words = {"NAME": name, "DASHED": name.replace("_", "-"), "CLASS": _class_name(name)}
    for word, value in words.items():
        text = text.replace("{{" + word + "}}", value)
    return text


def _class_name(name: str) -> str:
    """`my_task` as `MyTask`."""
    return "".join(part.capitalize() for part in name.split("_"))
