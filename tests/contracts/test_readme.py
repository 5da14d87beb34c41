"""The README's code runs as written, and its promises about files hold."""

import re
import subprocess
import sys

import pytest

import unidiff


def code_blocks(text: str, language: str) -> list[str]:
    """Fenced code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def readme(repository_root) -> str:
    return (repository_root / "README.md").read_text()


@pytest.fixture(scope="module")
def _checkpoint():
    try:
        unidiff.bundled_checkpoint()
    except FileNotFoundError as error:
        pytest.skip(f"the bundled checkpoint is absent: {error}")


@pytest.mark.usefixtures("_checkpoint")
def test_python_blocks_run_as_written(readme, tmp_path):
    blocks = code_blocks(readme, "python")
    assert blocks
    for block in blocks:
        result = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == 0, f"{block}\n{result.stderr[-3000:]}"


@pytest.mark.usefixtures("_checkpoint")
def test_the_first_python_block_is_the_promised_ten_lines(readme):
    lines = [line for line in code_blocks(readme, "python")[0].splitlines() if line.strip()]
    assert len(lines) <= 10 + sum("import" in line for line in lines)
    assert "generate(" in "\n".join(lines)


@pytest.mark.usefixtures("_checkpoint")
@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md"])
def test_no_note_to_the_authors_is_left(repository_root, page):
    assert "LEAD:" not in (repository_root / page).read_text()


@pytest.mark.parametrize(
    "page",
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/README.md", "plugins/README.md"],
)
def test_links_lead_to_files(repository_root, page):
    path = repository_root / page
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text())
    files = [link for link in links if not link.startswith(("http://", "https://"))]
    # The picture is made by the demo, from the checkpoint: it comes with it.
    missing = {link for link in files if not (path.parent / link).exists()}
    assert missing <= {"docs/gallery.png"}


@pytest.mark.usefixtures("_checkpoint")
def test_the_picture_is_there(repository_root):
    assert (repository_root / "docs/gallery.png").stat().st_size > 0


def test_make_targets_in_the_readme_exist(repository_root, readme):
    makefile = (repository_root / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", "\n".join(code_blocks(readme, "bash")), re.MULTILINE))
    assert {"demo", "test"} <= targets
    defined = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    assert targets - defined == set()
