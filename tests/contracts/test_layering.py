"""The direction of imports: the table in ARCHITECTURE.md, as code."""

import ast

CORE = {"tokens", "diffusion"}
TOP = CORE | {"generation", "model", "convert", "data", "bundled"}

# Room -> other rooms that it may import. "" is unidiff/__init__.py.
ALLOWED = {
    "tokens": set(),
    "diffusion": set(),
    "bundled": set(),
    "generation": CORE,
    "data": CORE,
    "model": CORE | {"generation", "bundled"},
    "convert": CORE | {"generation", "model"},
    "plugins": CORE | {"generation", "model", "data", "bundled"},
    "training": TOP | {"plugins"},
    "evaluation": TOP | {"plugins"},
    "serving": TOP | {"plugins"},
    "cli": TOP | {"plugins", "training", "evaluation", "serving", ""},
    "__main__": {"cli"},
    "": TOP,
}

# Library -> the only rooms that may import it.
FENCED = {
    "fastapi": {"serving"},
    "uvicorn": {"serving"},
    "starlette": {"serving"},
    "gradio": {"serving"},
    "vllm": {"serving"},
    "lm_eval": {"evaluation"},
    "gymnasium": {"evaluation"},
    "typer": {"cli"},
    "torchvision": set(),
}

# Rooms that must work without these libraries.
FORBIDDEN = {
    "diffusion": {"transformers", "peft", "accelerate", "datasets", "torch.nn.modules"},
    "generation": {"peft", "accelerate", "datasets"},
}


def room_of(name: str, rooms: set[str]) -> str:
    """Room of an absolute unidiff module name; a public name of the package is room ""."""
    part = ([*name.split("."), ""])[1]
    return part if part in rooms else ""


def starts_with(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def test_every_room_is_in_the_table(sources):
    rooms = {source.room for source in sources}
    assert rooms - set(ALLOWED) == set(), "add the new room to ALLOWED and to ARCHITECTURE.md"
    assert {"tokens", "diffusion", "generation", "model"} <= rooms


def test_the_table_has_no_cycle():
    # A room whose imports have all been placed can be placed: every room must get its turn.
    placed: set[str] = set()
    while ready := {room for room, needs in ALLOWED.items() if needs <= placed} - placed:
        placed |= ready
    assert placed == set(ALLOWED)


def test_imports_go_one_way(sources):
    wrong = []
    for source in sources:
        for line, name in source.imports():
            if not starts_with(name, "unidiff"):
                continue
            target = room_of(name, set(ALLOWED))
            if target != source.room and target not in ALLOWED[source.room]:
                wrong.append(f"{source.path}:{line} imports {name}")
    assert wrong == []


def test_imports_are_relative_inside_a_room_and_absolute_across(sources):
    wrong = []
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ImportFrom):
                names, level = [source.resolve(node)], node.level
            elif isinstance(node, ast.Import):
                names, level = [alias.name for alias in node.names], 0
            else:
                continue
            for name in names:
                inside = bool(source.room) and starts_with(name, f"unidiff.{source.room}")
                if starts_with(name, "unidiff") and inside != bool(level):
                    wrong.append(f"{source.path}:{node.lineno} {name}")
    assert wrong == []


def test_nothing_under_unidiff_imports_a_plugin(sources):
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources
        for line, name in source.imports()
        if name.startswith("unidiff_")
    ]
    assert wrong == []


def test_optional_libraries_stay_in_their_rooms(sources):
    wrong = []
    for source in sources:
        for line, name in source.imports():
            rooms = FENCED.get(name.split(".")[0])
            if rooms is not None and source.room not in rooms:
                wrong.append(f"{source.path}:{line} imports {name}")
    assert wrong == []


def test_the_mathematics_knows_no_framework(sources):
    wrong = []
    for source in sources:
        for line, name in source.imports():
            for library in FORBIDDEN.get(source.room, ()):
                if starts_with(name, library):
                    wrong.append(f"{source.path}:{line} imports {name}")
    assert wrong == []


def test_the_mathematics_defines_no_network(sources):
    wrong = []
    for source in sources:
        if source.room != "diffusion":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and node.attr == "Module":
                wrong.append(f"{source.path}:{node.lineno}")
    assert wrong == []
