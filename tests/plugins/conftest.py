"""Plugins that exist for a test only: entry points written as metadata into a temporary folder."""

import sys

import pytest

from unidiff.plugins import registry


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution: install("dist", {"group": {"name": "module:attr"}}, "code")."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv(registry.ALLOW_LIST, raising=False)
    registry._loaded.cache_clear()
    modules = []

    def installed(distribution, groups, code=""):
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        modules.append(module)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        lines = [
            line
            for group, points in groups.items()
            for line in [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        return module

    yield installed
    registry._loaded.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)
