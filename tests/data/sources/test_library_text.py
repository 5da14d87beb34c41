"""Library text: the split by module, the order, and what counts as a document."""

import gzip

import pytest

from unidiff.data.sources import library_text

SOURCE = '''"""A module about boats.

    Indented further.
"""


class Boat:
    """It floats."""

    def sail(self):
        """Move with the wind."""
        return 1
'''


@pytest.fixture
def library(tmp_path):
    for number in range(80):
        (tmp_path / f"module{number}.py").write_text(SOURCE)
    package = tmp_path / "harbour"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text(SOURCE)
    (package / "tests" / "test_boat.py").write_text(SOURCE)
    (tmp_path / "_sysconfigdata_linux.py").write_text(SOURCE)
    (tmp_path / "encodings").mkdir()
    (tmp_path / "encodings" / "cp1252.py").write_text(SOURCE)
    (tmp_path / "tiny.py").write_text("x = 1\n")
    return tmp_path


def test_module_names_are_dotted_sorted_and_without_the_excluded(library):
    names = [name for name, _ in library_text.iter_module_paths(library)]
    assert names == sorted(["harbour", "tiny", *(f"module{number}" for number in range(80))])


def test_splits_share_no_module_and_lose_none(library):
    modules = {
        split: {
            name.removesuffix(".__doc__") for name, _ in library_text.iter_documents(split, library)
        }
        for split in ("train", "heldout")
    }
    assert not modules["train"] & modules["heldout"]
    assert modules["heldout"]
    expected = {"harbour", *(f"module{number}" for number in range(80))}
    assert {n for n in modules["train"] | modules["heldout"] if "pydoc" not in n} == expected


def test_the_split_is_pinned_by_name():
    held_out = [name for name in ("json.decoder", "argparse") if library_text.heldout_module(name)]
    assert held_out == ["json.decoder"]
    names = [f"module{number}" for number in range(2000)]
    assert 60 < sum(map(library_text.heldout_module, names)) < 140


def test_order_is_the_same_each_time(library):
    first = list(library_text.iter_documents("train", library))
    assert first == list(library_text.iter_documents("train", library))


def test_prose_has_every_docstring_in_order_without_code():
    prose = library_text.docstring_prose(SOURCE)
    assert prose == (
        "A module about boats.\n\nIndented further.\n\nIt floats.\n\nMove with the wind."
    )
    assert library_text.docstring_prose("def broken(:") == ""


def test_topics_are_english_and_part_of_the_documents(library):
    topics = dict(library_text.iter_topics())
    assert "pydoc_data.topics.assert" in topics
    documents = {
        name: text
        for split in ("train", "heldout")
        for name, text in library_text.iter_documents(split, library)
    }
    assert topics.items() <= documents.items()


def test_a_file_in_another_encoding_is_read_and_an_undecodable_one_is_empty(tmp_path):
    path = tmp_path / "latin.py"
    path.write_bytes("# -*- coding: latin-1 -*-\n# café\n".encode("latin-1"))
    assert "café" in library_text.read_source(path)
    path.write_bytes(b"# \xff\n")
    assert library_text.read_source(path) == ""


def test_wrong_split_and_empty_library_are_refused(tmp_path):
    with pytest.raises(ValueError, match="split"):
        next(library_text.iter_documents("test"))
    with pytest.raises(ValueError, match="standard library"):
        next(library_text.iter_module_paths(tmp_path))


def test_gzip_baseline_counts_each_text_by_itself():
    text = "abc" * 100
    expected = 8 * len(gzip.compress(text.encode(), 9, mtime=0)) / 300
    assert library_text.gzip_bits_per_byte([text, text]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="byte"):
        library_text.gzip_bits_per_byte([""])
