"""What every tokenizer of actions keeps: range, mask, errors, file, its place in a processor."""

import json
from pathlib import Path

import numpy as np
import pytest

from unidiff.bundled import bundled_checkpoint
from unidiff.tokens.action_kinds import (
    ACTION_TOKENIZERS,
    action_tokenizer,
    fit_action_tokenizer,
    load_action_tokenizer,
)
from unidiff.tokens.action_tokenizer import ACTION_TOKENIZER_FILE, fitted_range
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.dct import DctTokenizer
from unidiff.tokens.processor import UniDiffProcessor
from unidiff.tokens.text import build_text_tokenizer

KINDS = ("bins", "dct", "fast")
FACTS = {"statistics": "min_max", "is_gripper": (False, True), "is_delta": True}


def chunks(seed=0):
    """(100, 8, 2): a walk, and a gripper that is open or shut."""
    values = np.random.default_rng(seed).normal(0, 0.3, (100, 8, 2)).cumsum(axis=1)
    values[..., 1] = np.sign(values[..., 1])
    return values


def fitted(kind, **options):
    return fit_action_tokenizer(kind, chunks(), **options)


def test_the_kinds_are_those_of_the_classes():
    assert tuple(ACTION_TOKENIZERS) == KINDS
    assert [type(fitted(kind)).kind for kind in KINDS] == list(KINDS)
    assert all(fitted(kind).shape == (8, 2) for kind in KINDS)


def test_ranges_follow_the_statistics():
    values = np.stack([np.arange(101.0), -10 * np.arange(101.0)], axis=1)
    assert fitted_range(values, "min_max", ()) == ((0, -1000), (100, 0))
    assert np.allclose(fitted_range(values, "q01_q99", ()), ((1, -990), (99, -10)))
    deviation = np.arange(101.0).std()
    low, high = fitted_range(values, "mean_std", ())
    assert np.allclose(low, (50 - 3 * deviation, -500 - 30 * deviation))
    assert np.allclose(high, (50 + 3 * deviation, -500 + 30 * deviation))
    with pytest.raises(ValueError, match="statistics"):
        fitted_range(values, "median", ())


@pytest.mark.parametrize("kind", KINDS)
def test_a_gripper_is_not_normalised(kind):
    values = chunks() * (1.0, 0.25)
    free, exempt = (
        fit_action_tokenizer(kind, values, is_gripper=mask) for mask in ((), (False, True))
    )
    assert (free.low[1], free.high[1]) == (-0.25, 0.25)
    assert (exempt.low[1], exempt.high[1]) == (-1, 1)
    assert (free.low[0], free.high[0]) == (exempt.low[0], exempt.high[0])
    assert exempt.is_gripper == (False, True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_outside_the_range_is_clipped_not_refused(kind):
    tokenizer = fitted(kind)
    far = np.full((8, 2), 1e300) * (1, -1)
    ends = np.tile([tokenizer.high[0], tokenizer.low[1]], (8, 1))
    assert np.array_equal(tokenizer.encode(far), tokenizer.encode(ends))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(kind, bad):
    values = np.zeros((8, 2))
    values[3, 1] = bad
    with pytest.raises(ValueError, match=r"finite.*1 NaN or infinite of 16"):
        fitted(kind).encode(values)
    with pytest.raises(ValueError, match="finite"):
        fit_action_tokenizer(kind, values[None])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(7, 2), (8, 3), (16,), ()])
def test_values_of_another_shape_are_refused(kind, shape):
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 8, 2\)"):
        fitted(kind).encode(np.zeros(shape))
    with pytest.raises(ValueError, match=r"\(N, T, D\)"):
        fit_action_tokenizer(kind, np.zeros(shape))


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_dimension_comes_back_exactly(kind):
    values = chunks()
    values[..., 0] = 3.25
    tokenizer = fit_action_tokenizer(kind, values)
    assert (tokenizer.decode(tokenizer.encode(values))[..., 0] == 3.25).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same(kind, tmp_path):
    tokenizer = fitted(kind, **FACTS)
    assert tokenizer.save_pretrained(tmp_path / "new") == [
        str(tmp_path / "new" / ACTION_TOKENIZER_FILE)
    ]
    loaded = load_action_tokenizer(tmp_path / "new")
    assert loaded == tokenizer
    assert type(tokenizer).from_pretrained(tmp_path / "new") == tokenizer
    assert (loaded.is_gripper, loaded.is_delta, loaded.statistics) == (
        (False, True),
        True,
        "min_max",
    )
    codes = tokenizer.encode(chunks(1))
    assert np.array_equal(loaded.encode(chunks(1)), codes)
    assert np.array_equal(loaded.decode(codes), tokenizer.decode(codes))


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    fitted("bins").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ACTION_TOKENIZER_FILE]
    kept = (tmp_path / ACTION_TOKENIZER_FILE).read_text()

    def cut_short(path, text, **_):
        path.write_bytes(text.encode()[:20])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(OSError, match="disk full"):
        fitted("dct").save_pretrained(tmp_path)
    assert (tmp_path / ACTION_TOKENIZER_FILE).read_text() == kept


def test_files_that_are_missing_damaged_or_of_another_kind_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=ACTION_TOKENIZER_FILE):
        load_action_tokenizer(tmp_path)
    fitted("dct").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="action_tokenizer"):
        BinTokenizer.from_pretrained(tmp_path)
    path = tmp_path / ACTION_TOKENIZER_FILE
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match="damaged"):
        load_action_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dictionary_with_other_keys_is_refused(kind):
    values = fitted(kind).to_dict()
    with pytest.raises(ValueError, match="exactly"):
        action_tokenizer({**values, "colour": 1})
    with pytest.raises(ValueError, match="exactly"):
        action_tokenizer({name: value for name, value in values.items() if name != "low"})


@pytest.mark.parametrize("value", ["64", 64.0, None, True])
@pytest.mark.parametrize("kind", ["bins", "dct"])
def test_a_number_of_bins_that_is_no_whole_number_is_refused(kind, value):
    values = fitted(kind).to_dict()
    with pytest.raises(ValueError, match=f"num_bins must be >= ., a whole number; got {value!r}"):
        action_tokenizer({**values, "num_bins": value})


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="bins"):
        fitted("wavelets")
    with pytest.raises(ValueError, match="bins"):
        action_tokenizer({"kind": "wavelets"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"is_gripper": (True,)}, "per dimension"),
        ({"is_gripper": (1, 0)}, "bools"),
        ({"is_gripper": (True, False)}, "gripper dimension 0"),
        ({"statistics": "median"}, "statistics"),
    ],
)
def test_facts_that_contradict_the_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DctTokenizer((-2.0, -1.0), (2.0, 1.0), horizon=4, **options)


def test_bins_keep_the_form_of_the_bundled_checkpoint():
    path = bundled_checkpoint() / "processor_config.json"
    for name in ("action_bins", "state_bins"):
        stored = json.loads(path.read_text())[name]
        assert action_tokenizer(stored).to_dict() == stored


@pytest.mark.parametrize(
    ("kind", "options", "grid"),
    [
        ("bins", FACTS, (8, 2)),
        ("dct", {"num_frequencies": 5, **FACTS}, (5, 2)),
        ("fast", {"length": 24, **FACTS}, (24, 1)),
    ],
)
def test_a_processor_codes_and_keeps_any_kind(kind, options, grid, tmp_path):
    tokenizer = fitted(kind, **options)
    processor = UniDiffProcessor(
        tokenizer=build_text_tokenizer(["push the red puck"] * 9, 280), action_bins=tokenizer
    )
    assert processor.layout.action_grid == grid
    assert processor.layout.range_of("action").size == tokenizer.num_codes
    chunk = chunks(2)[0]
    part = processor.coded_part({"type": "action", "action": chunk})
    ids = processor.layout.encode("action", part["codes"])
    expected = tokenizer.decode(tokenizer.encode(chunk))
    assert np.array_equal(processor.decode_actions(ids), expected)
    processor.save_pretrained(tmp_path)
    loaded = UniDiffProcessor.from_pretrained(tmp_path)
    assert loaded.action_bins == tokenizer
    assert np.array_equal(loaded.decode_actions(ids), expected)


def test_a_processor_needs_a_fixed_number_of_codes():
    text = build_text_tokenizer(["push"] * 9, 280)
    with pytest.raises(ValueError, match="length"):
        UniDiffProcessor(tokenizer=text, action_bins=fitted("fast"))
    with pytest.raises(ValueError, match="horizon None"):
        UniDiffProcessor(tokenizer=text, action_bins=BinTokenizer((0.0,), (1.0,)))
