"""The names that users import from `unidiff`, and what importing it does."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import unidiff

PUBLIC = [
    "FSQImageTokenizer",
    "TokenLayout",
    "UniDiffConfig",
    "UniDiffForBlockDiffusion",
    "UniDiffGenerationConfig",
    "UniDiffModel",
    "UniDiffProcessor",
    "bundled_checkpoint",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_resolves_to_an_object_of_that_name(name):
    assert getattr(unidiff, name).__name__ == name


def test_all_and_dir_list_every_public_name():
    assert set(unidiff.__all__) == {*PUBLIC, "__version__"}
    assert set(unidiff.__all__) <= set(dir(unidiff))


def test_unknown_name_is_an_attribute_error_that_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"UniDiffDreamer.*UniDiffConfig"):
        _ = unidiff.UniDiffDreamer


def test_version_is_that_of_pyproject(project):
    assert unidiff.__version__ == project["version"]


def test_console_script_points_to_a_function(project):
    module, function = project["scripts"]["unidiff"].split(":")
    assert callable(getattr(import_module(module), function))


def test_package_is_marked_as_typed():
    assert (Path(unidiff.__file__).parent / "py.typed").exists()


def test_importing_unidiff_registers_the_auto_classes():
    command = (
        "import unidiff, transformers as t\n"
        "config = t.AutoConfig.for_model('unidiff')\n"
        "print(type(config).__name__)\n"
        "print(t.AutoModel._model_mapping[type(config)].__name__)\n"
        "print(t.AutoModelForCausalLM._model_mapping[type(config)].__name__)\n"
        "from transformers.models.auto.processing_auto import PROCESSOR_MAPPING\n"
        "print(PROCESSOR_MAPPING[type(config)].__name__)\n"
    )
    result = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == [
        "UniDiffConfig",
        "UniDiffModel",
        "UniDiffForBlockDiffusion",
        "UniDiffProcessor",
    ]


def test_bundled_checkpoint_is_a_folder_or_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr("unidiff.bundled.files", lambda _: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors.*unidiff train"):
        unidiff.bundled_checkpoint()
    (tmp_path / "checkpoint").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "checkpoint" / name).touch()
    assert unidiff.bundled_checkpoint() == tmp_path / "checkpoint"
