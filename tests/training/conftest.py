"""The tiny run as a fixture: tests are no package, so it is loaded from its file."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """Module `tiny_run`."""
    path = Path(__file__).with_name("tiny_run.py")
    spec = importlib.util.spec_from_file_location("tiny_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny_model(tiny: ModuleType):
    """The tiny run's model, with random weights."""
    return tiny.tiny_model().eval()
