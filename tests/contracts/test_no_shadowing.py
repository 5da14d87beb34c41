"""Top-level folders named like libraries never become packages."""

import subprocess
import sys

import pytest

FOLDERS = ("tokenizers", "eval", "notebooks", "plugins")


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_exists_and_is_no_package(repository_root, folder):
    assert (repository_root / folder).is_dir()
    assert not (repository_root / folder / "__init__.py").exists()


def test_the_real_tokenizers_library_wins_at_the_repository_root(repository_root):
    command = "import sys; sys.path.insert(0, '.'); import tokenizers; print(tokenizers.__file__)"
    result = subprocess.run(
        [sys.executable, "-c", command],
        cwd=repository_root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "site-packages" in result.stdout
