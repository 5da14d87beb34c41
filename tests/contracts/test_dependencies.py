"""What the package imports is what pyproject.toml declares."""

import re
import sys
from importlib.metadata import packages_distributions

import pytest

# Rooms that an extra serves: they may import its libraries, the others may not.
EXTRAS_OF_ROOM = {
    "evaluation": ("eval",),
    "generation": ("grammar",),
    "serving": ("serve", "demo"),
    "model": ("quant",),
    "training": ("qlora",),
}


def normal(name: str) -> str:
    """Distribution name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names_of(requirements: list[str]) -> set[str]:
    """Distribution names of requirement lines."""
    return {normal(re.match(r"[A-Za-z0-9_.-]+", line).group()) for line in requirements}


def test_every_import_is_declared_for_its_room(sources, project):
    core = names_of(project["dependencies"])
    extras = project["optional-dependencies"]
    distributions = packages_distributions()
    wrong = []
    for source in sources:
        declared = set(core)
        for extra in EXTRAS_OF_ROOM.get(source.room, ()):
            declared |= names_of(extras[extra])
        for line, name in source.imports():
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "unidiff":
                continue
            # A library that is not installed here is known by its import name.
            owners = {normal(owner) for owner in distributions.get(top, [top])}
            if not owners & declared:
                wrong.append(f"{source.path}:{line} imports {name}")
    assert wrong == []


def test_gymnasium_is_not_a_core_dependency(project):
    assert "gymnasium" not in names_of(project["dependencies"])


def test_dependencies_are_ranges_not_pins(project):
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines += extra
    assert [line for line in lines if "==" in line] == []


@pytest.mark.parametrize("extra", ["eval", "serve", "demo", "quant", "qlora", "grammar", "dev"])
def test_the_promised_extras_exist(project, extra):
    assert project["optional-dependencies"][extra]


def test_constraints_hold_torch_and_name_only_exact_versions(repository_root):
    lines = (repository_root / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [line for line in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+", line)] == []
