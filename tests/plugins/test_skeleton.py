"""A new plugin passes the contract unchanged, in a process of its own."""

import subprocess
import sys

import pytest

from unidiff.plugins.skeleton import write_skeleton


@pytest.mark.slow
def test_a_new_plugin_passes_its_own_tests(tmp_path):
    folder = write_skeleton("my_task", tmp_path)
    target = tmp_path / "site"
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([sys.executable, *pip, "--target", target, folder], check=True, timeout=120)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder / "tests"],
        capture_output=True,
        text=True,
        timeout=240,
        env={"PYTHONPATH": str(target), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


@pytest.mark.parametrize("name", ["My", "1st", "a-b", "", "../up"])
def test_a_bad_name_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(ValueError, match="lower case"):
        write_skeleton(name, tmp_path / "plugins")
    assert not (tmp_path / "plugins").exists()


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine exists"):
        write_skeleton("mine", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
