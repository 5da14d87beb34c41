"""English and Python text that every machine has: the Python standard library and its manual.

A document is the source of one module, the docstrings of one module as plain prose, or one topic
of the language reference that `help()` prints (`pydoc_data.topics`). The split goes by module: a
stable hash of the dotted name holds out about one module in twenty, so a held-out module appears
in training neither as code nor as prose.
"""

import ast
import gzip
import hashlib
import importlib.util
import inspect
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

LibrarySplit = Literal["train", "heldout"]

HELDOUT_PER_MILLE = 50
MIN_DOCUMENT_CHARS = 64  # shorter modules are empty packages and one-line aliases
TOPICS_MODULE = "pydoc_data.topics"
PROSE_SUFFIX = "__doc__"

# Not written by hand, not prose, or near-copies of other modules (lib2to3 repeats tokenize).
EXCLUDED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "encodings"}
    | {"lib2to3", "lib-dynload", "pydoc_data", "_bundled"}
)
EXCLUDED_MODULES = frozenset(
    {"html.entities", "stringprep", "msilib.schema", "msilib.sequence", "msilib.text", "this"}
    | {"sre_compile", "sre_constants", "sre_parse"}
)
EXCLUDED_PREFIXES = ("_sysconfigdata", "config-")


def heldout_module(name: str) -> bool:
    """True where the module of this dotted name is held out; depends on the name alone."""
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % 1000 < HELDOUT_PER_MILLE


def iter_module_paths(root: Path | None = None) -> Iterator[tuple[str, Path]]:
    """(dotted name, path) of each module that is used, sorted by dotted name.

    Args:
        root: folder of the standard library; the running interpreter's by default.

    Raises:
        ValueError: if `root` holds no module at all.
    """
    folder = Path(sysconfig.get_path("stdlib")) if root is None else Path(root)
    found = []
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        if EXCLUDED_FOLDERS.intersection(parts[:-1]) or parts[0].startswith(EXCLUDED_PREFIXES):
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        if name not in EXCLUDED_MODULES:
            found.append((name, path))
    if not found:
        raise ValueError(
            f"expected Python modules of the standard library under {folder}, found none; "
            "install the interpreter's library or pass root="
        )
    yield from sorted(found)


def read_source(path: Path) -> str:
    """The text of a Python file in its declared encoding; empty if it cannot be decoded."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError):
        return ""


def docstring_prose(source: str) -> str:
    """The docstrings of a module, its classes and its functions, as paragraphs in source order.

    Returns:
        Text without indentation, one docstring after another; empty where the source has none or
        does not parse.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    docstrings = (ast.get_docstring(node, clean=False) for node in nodes)
    return "\n\n".join(inspect.cleandoc(text).strip() for text in docstrings if text)


def iter_topics() -> Iterator[tuple[str, str]]:
    """(dotted name, text) of each topic of the language reference; none where it is missing."""
    if importlib.util.find_spec("pydoc_data") is None:
        return
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        yield f"{TOPICS_MODULE}.{topic}", topics[topic].strip() + "\n"


def iter_documents(split: LibrarySplit, root: Path | None = None) -> Iterator[tuple[str, str]]:
    """(name, text) of each document of a split, in an order that depends on the names alone.

    Args:
        split: "train" or "heldout".
        root: folder of the standard library; the running interpreter's by default.

    Yields:
        Modules by dotted name: the source, then its docstrings under the name `<module>.__doc__`;
        at the end the topics of the language reference. Texts are whole: cutting them to a token
        budget is done where tokens are known.

    Raises:
        ValueError: if `split` is neither name.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f'split must be "train" or "heldout"; got {split!r}')
    wants_heldout = split == "heldout"
    for name, path in iter_module_paths(root):
        if heldout_module(name) != wants_heldout:
            continue
        source = read_source(path)
        for title, text in ((name, source), (f"{name}.{PROSE_SUFFIX}", docstring_prose(source))):
            if len(text) >= MIN_DOCUMENT_CHARS:
                yield title, text
    for name, text in iter_topics():
        if heldout_module(name) == wants_heldout and len(text) >= MIN_DOCUMENT_CHARS:
            yield name, text


def gzip_bits_per_byte(texts: Iterable[str]) -> float:
    """Bits per byte that `gzip -9` needs, each text compressed on its own: the baseline to beat.

    Raises:
        ValueError: if the texts hold no byte.
    """
    num_bytes = num_compressed = 0
    for text in texts:
        data = text.encode("utf-8")
        num_bytes += len(data)
        num_compressed += len(gzip.compress(data, compresslevel=9, mtime=0))
    if num_bytes == 0:
        raise ValueError("expected at least one byte of text, got none; pass non-empty texts")
    return 8.0 * num_compressed / num_bytes
