"""The wheel holds the whole package and works beside nothing but its declared dependencies.

The empty environment is a fresh venv in which only the distributions that the wheel requires,
directly or through others, are linked from the running environment: nothing is downloaded,
and a library that an extra brings is not there.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import unidiff

pytestmark = pytest.mark.slow

BUILD_INPUTS = ("pyproject.toml", "README.md", "LICENSE")
EXTRAS = ("eval", "serve", "demo", "quant", "qlora", "grammar", "dev", "plugins")

# Run inside the empty environment: import every module, and name what was missing.
IMPORT_ALL = """
import importlib, pkgutil, sys
import unidiff
assert {marker!r} in unidiff.__file__, unidiff.__file__
for info in pkgutil.walk_packages(unidiff.__path__, "unidiff."):
    if info.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(info.name)
    except ModuleNotFoundError as error:
        print("missing", info.name, error.name)
for name in unidiff.__all__:
    getattr(unidiff, name)
print("imported", unidiff.__version__)
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Output of a command that has to succeed."""
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def required_distributions(requirements: list[str]) -> set[str]:
    """Names of the installed distributions that the requirement lines need, transitively."""
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in ("", *sorted(requirement.extras)):
            if (requirement.name, wanted) in seen:
                continue
            seen.add((requirement.name, wanted))
            lines = distribution(requirement.name).requires or []
            waiting += [(Requirement(line), wanted) for line in lines]
    return {name for name, _ in seen}


def link_distributions(names: set[str], site_packages: Path) -> None:
    """Link the top-level files of distributions into an environment."""
    for name in names:
        installed = distribution(name)
        tops = {file.parts[0] for file in installed.files or []} - {"..", "__pycache__"}
        for top in tops:
            if not (site_packages / top).exists():
                (site_packages / top).symlink_to(installed.locate_file(top))


@pytest.fixture(scope="module")
def wheel(repository_root, tmp_path_factory) -> Path:
    """Wheel built from a copy, so that nothing stale from build/ enters it."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILD_INPUTS:
        shutil.copy(repository_root / name, source / name)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository_root / "unidiff", source / "unidiff", ignore=ignore)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", source / "wheels", source)
    (built,) = (source / "wheels").glob("unidiff-*.whl")
    return built


@pytest.fixture(scope="module")
def names_in_wheel(wheel) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def empty_python(wheel, project, tmp_path_factory) -> Path:
    """Interpreter of an environment with the wheel and its core dependencies only."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(python, "-c", query).strip())
    link_distributions(required_distributions(project["dependencies"]), site_packages)
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel)
    return python


def test_wheel_holds_every_source_file(repository_root, names_in_wheel):
    files = (repository_root / "unidiff").rglob("*.py")
    wanted = {path.relative_to(repository_root).as_posix() for path in files}
    assert wanted - names_in_wheel == set(), "a folder without __init__.py is not packaged"
    assert "unidiff/py.typed" in names_in_wheel


def test_wheel_holds_nothing_but_the_package(names_in_wheel):
    tops = {name.split("/")[0] for name in names_in_wheel}
    assert tops == {"unidiff", f"unidiff-{unidiff.__version__}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names_in_wheel)


def test_wheel_holds_every_file_of_the_bundled_folder(repository_root, names_in_wheel):
    folder = repository_root / "unidiff" / "bundled"
    files = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    wanted = {path.relative_to(repository_root).as_posix() for path in files}
    assert wanted - names_in_wheel == set(), "add the file type to package-data in pyproject.toml"


def test_bundled_checkpoint_in_the_wheel_is_complete_and_small(wheel, names_in_wheel):
    inside = {name for name in names_in_wheel if name.startswith("unidiff/bundled/checkpoint/")}
    if not inside:
        pytest.skip("the bundled checkpoint is absent")
    assert {"unidiff/bundled/checkpoint/config.json"} <= inside
    weights = [i for i in zipfile.ZipFile(wheel).infolist() if i.filename.endswith(".safetensors")]
    assert 0 < sum(info.file_size for info in weights) <= 40 * 2**20


def test_wheel_metadata_names_the_extras(wheel):
    text = zipfile.ZipFile(wheel)
    (name,) = (n for n in text.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = text.read(name).decode()
    assert set(re.findall(r"^Provides-Extra: (.+)$", metadata, re.MULTILINE)) == set(EXTRAS)
    assert "License-Expression: Apache-2.0" in metadata


def test_wheel_imports_in_an_empty_environment_without_any_extra(empty_python, tmp_path):
    code = IMPORT_ALL.format(marker=str(empty_python.parents[1].name))
    printed = run(empty_python, "-c", code, cwd=tmp_path).splitlines()
    assert printed[-1] == f"imported {unidiff.__version__}"
    rooms_with_extras = ("unidiff.evaluation.", "unidiff.serving.")
    missing = [line for line in printed if line.startswith("missing")]
    assert [line for line in missing if not line.split()[1].startswith(rooms_with_extras)] == []
    assert [line for line in missing if line.split()[2].startswith("unidiff")] == []


def test_console_script_answers_in_an_empty_environment(empty_python, tmp_path):
    assert "demo" in run(empty_python.with_name("unidiff"), "--help", cwd=tmp_path)


def test_the_empty_environment_lacks_what_the_extras_bring(empty_python):
    code = "import importlib.util as u; print([n for n in {names!r} if u.find_spec(n)])"
    names = ["lm_eval", "gymnasium", "fastapi", "gradio", "torchao", "pytest", "scipy"]
    assert run(empty_python, "-c", code.format(names=names)).strip() == "[]"
