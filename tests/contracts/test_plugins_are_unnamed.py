"""The host knows plugins through the registry alone: nothing under unidiff/ names one."""

import re
import tomllib


def distributions(repository_root):
    """Name and package of every first-party plugin."""
    found = {}
    for path in sorted(repository_root.glob("plugins/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        found[path.parent.name] = project["name"]
    return found


def test_no_source_of_the_host_names_a_plugin(repository_root, sources):
    named = []
    for folder, distribution in distributions(repository_root).items():
        pattern = re.compile(rf"\bunidiff[_-]{re.escape(folder)}\b|{re.escape(distribution)}\b")
        named += [
            f"{source.path} names {distribution}"
            for source in sources
            if pattern.search((repository_root / source.path).read_text())
        ]
    assert named == []


def test_the_extra_plugins_names_every_first_party_plugin(repository_root):
    project = tomllib.loads((repository_root / "pyproject.toml").read_text())["project"]
    extra = set(project["optional-dependencies"]["plugins"])
    assert set(distributions(repository_root).values()) <= extra
