"""What the contract tests read: the package's source files, parsed once."""

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Source:
    """One source file of the package."""

    path: Path
    module: str
    is_package: bool
    tree: ast.Module

    @property
    def room(self) -> str:
        """First folder or module under unidiff; empty for unidiff/__init__.py itself."""
        return [*self.module.split("."), ""][1]

    def resolve(self, node: ast.ImportFrom) -> str:
        """Absolute name of the module that a `from ... import` reads."""
        if not node.level:
            return node.module or ""
        package = self.module.split(".") if self.is_package else self.module.split(".")[:-1]
        base = package[: len(package) - node.level + 1]
        return ".".join([*base, node.module] if node.module else base)

    def imports(self) -> list[tuple[int, str]]:
        """(line, absolute module name) of every import, those inside functions included.

        `from unidiff import tokens` counts as unidiff.tokens: the name may be a module.
        """
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                name = self.resolve(node)
                if name == "unidiff":
                    found += [(node.lineno, f"unidiff.{alias.name}") for alias in node.names]
                else:
                    found.append((node.lineno, name))
        return found


def read_sources(root: Path) -> list[Source]:
    """Every Python file under unidiff/, parsed."""
    sources = []
    for path in sorted((root / "unidiff").rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text(), filename=str(path))
        sources.append(Source(path.relative_to(root), module, is_package, tree))
    return sources


@pytest.fixture(scope="session")
def sources(repository_root: Path) -> list[Source]:
    """Parsed source files of the package."""
    return read_sources(repository_root)


@pytest.fixture(scope="session")
def project(repository_root: Path) -> dict:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((repository_root / "pyproject.toml").read_text())["project"]
