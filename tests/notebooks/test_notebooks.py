"""Every notebook runs from its first cell to its last, in a process of its own, without outputs."""

import json
import subprocess
import sys

TIMEOUT = 900  # seconds on a busy machine; alone each takes about a minute


def notebooks(root):
    return sorted((root / "notebooks").glob("*.ipynb"))


def pytest_generate_tests(metafunc):
    if "notebook" in metafunc.fixturenames:
        found = notebooks(metafunc.config.rootpath)
        metafunc.parametrize("notebook", found, ids=[path.stem for path in found])


def code_of(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_a_notebook_runs(notebook, tmp_path):
    script = tmp_path / f"{notebook.stem}.py"
    begin = "import matplotlib\nmatplotlib.use('Agg')\n"
    script.write_text(begin + "\n\n".join(code_of(notebook)) + "\n")
    result = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_notebook_holds_no_outputs(notebook):
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs"), "clear the outputs before a commit"
        assert cell.get("execution_count") is None


def test_a_notebook_checks_something_and_explains_itself(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert any("assert " in source for source in code_of(notebook))


def test_there_are_notebooks(pytestconfig):
    assert len(notebooks(pytestconfig.rootpath)) >= 2
