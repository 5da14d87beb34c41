"""The sources of the bundled checkpoint: every row is well formed and asks for the right tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unidiff.data.blocks import IGNORED, BlockOptions, TrainingRow
from unidiff.data.prepared import training_scene
from unidiff.data.sources.garments import CLASS_NAMES
from unidiff.data.tasks import (
    LONGEST_LINE,
    Demonstrated,
    GarmentDrawing,
    GarmentTalk,
    LibraryText,
    PictureInfill,
    RowMaker,
    SceneDrawing,
    SceneTalk,
    holes,
    line_hole,
    rectangle,
)
from unidiff.tokens.actions import BinTokenizer
from unidiff.tokens.layout import MODALITY_IDS, TokenLayout
from unidiff.tokens.sequence import SequenceEncoder
from unidiff.tokens.text import decode_plain
from unidiff.training.bundled import bundled_layout

CODES = 240
NAMES = (
    "garment_talk",
    "garment_drawing",
    "scene_talk",
    "scene_drawing",
    "demonstrated",
    "picture_infill",
    "library_text",
)


@pytest.fixture(scope="module")
def tokenizer(repository_root: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(repository_root / "tokenizers" / "text")


@pytest.fixture(scope="module")
def layout(tokenizer: PreTrainedTokenizerBase) -> TokenLayout:
    return bundled_layout(tokenizer, CODES)


@pytest.fixture(scope="module")
def sources(tokenizer: PreTrainedTokenizerBase, layout: TokenLayout) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    maker = RowMaker(SequenceEncoder(tokenizer, layout), BlockOptions(max_block_length=8))
    garments = {
        "codes": rng.integers(0, CODES, (10, 64)),
        "mirrored": rng.integers(0, CODES, (10, 64)),
        "labels": np.arange(10),
    }
    sizes = np.array([len(training_scene(seed).objects) for seed in range(12)])
    scenes = {"codes": rng.integers(0, CODES, (12, 64)), "num_objects": sizes}
    shown = {
        "codes": rng.integers(0, CODES, (6, 64)),
        "states": rng.uniform(-1, 1, (6, 2)).astype(np.float32),
        "chunks": rng.uniform(-1, 1, (6, 8, 2)).astype(np.float32),
        "instructions": np.array(["push the red disc to the blue mark."] * 6),
    }
    states = BinTokenizer.fit(shown["states"], num_bins=256)
    actions = BinTokenizer.fit(shown["chunks"], num_bins=256, horizon=8)
    text = {"ids": np.arange(900) % 500 + 300, "starts": np.array([0, 300, 300, 340, 900])}
    made = [
        GarmentTalk(maker, garments),
        GarmentDrawing(maker, garments),
        SceneTalk(maker, scenes),
        SceneDrawing(maker, scenes),
        Demonstrated(maker, shown, states, actions),
        PictureInfill(maker, garments, scenes),
        LibraryText(maker, text, length=64),
    ]
    return {source.name: source for source in made}


def rows_of(source: Any, seeds: int = 4) -> list[TrainingRow]:
    return [
        source.row(index, np.random.default_rng([seed, index]))
        for index in range(len(source))
        for seed in range(seeds)
    ]


def wanted(row: TrainingRow, modality: str) -> np.ndarray:
    return (row.labels != IGNORED) & (row.modality_ids == MODALITY_IDS[modality])


def text_of(row: TrainingRow, tokenizer: PreTrainedTokenizerBase, at: np.ndarray) -> str:
    return decode_plain(tokenizer, row.input_ids[at].tolist())


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_well_formed(name: str, sources: dict[str, Any], layout: TokenLayout) -> None:
    for row in rows_of(sources[name]):
        has_label = row.labels != IGNORED
        assert has_label.any()
        assert (row.labels[has_label] == row.input_ids[has_label]).all()
        assert (row.block_ids[has_label] >= 0).all()
        assert (row.context_mask | (row.block_ids >= 0)).all()
        assert (np.diff(row.token_index) > 0).all()
        for modality, number in MODALITY_IDS.items():
            ids = row.input_ids[row.modality_ids == number]
            id_range = layout.range_of(modality)
            assert ((ids >= id_range.start) & (ids < id_range.stop)).all()
            allowed = layout.allowed_ids(modality, layout.num_ids).numpy()
            assert allowed[row.labels[wanted(row, modality)]].all()


@pytest.mark.parametrize("name", NAMES)
def test_rows_follow_their_generator(name: str, sources: dict[str, Any]) -> None:
    source = sources[name]
    first, again = (source.row(1, np.random.default_rng(5)) for _ in range(2))
    for field in ("input_ids", "labels", "block_ids", "position_ids"):
        assert np.array_equal(getattr(first, field), getattr(again, field))
    different = {tuple(source.row(1, np.random.default_rng(s)).block_ids) for s in range(12)}
    variants = {tuple(source.row(1, np.random.default_rng(s)).input_ids) for s in range(12)}
    assert len(variants) > 1 or len(different) > 1 or name == "demonstrated"


@pytest.mark.parametrize("name", ["garment_talk", "scene_talk"])
def test_talk_wants_text_about_the_image_shown(
    name: str, sources: dict[str, Any], layout: TokenLayout
) -> None:
    source = sources[name]
    for index in range(len(source)):
        row = source.row(index, np.random.default_rng(index))
        codes = layout.decode("image", row.input_ids[row.modality_ids == MODALITY_IDS["image"]])
        possible = [
            source.arrays[key][index] for key in ("codes", "mirrored") if key in source.arrays
        ]
        assert any(np.array_equal(codes, known) for known in possible)
        assert not wanted(row, "image").any()
        ends = np.isin(row.labels, layout.end_token_ids)
        assert ends.any()


def test_talk_names_the_garment(
    sources: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    source = sources["garment_talk"]
    named = 0
    for index in range(10):
        for seed in range(6):
            row = source.row(index, np.random.default_rng(seed))
            named += CLASS_NAMES[index] in text_of(row, tokenizer, wanted(row, "text"))
    assert named > 30


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("garment_drawing", lambda s, i: (s.arrays["codes"][i], s.arrays["mirrored"][i])),
        ("scene_drawing", lambda s, i: (s.arrays["codes"][s._small[i]],)),
    ],
)
def test_drawing_wants_exactly_the_picture(
    name: str, picture: Callable, sources: dict[str, Any], layout: TokenLayout
) -> None:
    source = sources[name]
    for index in range(len(source)):
        row = source.row(index, np.random.default_rng(index))
        at = row.labels != IGNORED
        assert (row.modality_ids[at] == MODALITY_IDS["image"]).all()
        codes = layout.decode("image", row.labels[at])
        assert any(np.array_equal(codes, known) for known in picture(source, index))
        assert len(set(row.block_ids[at].tolist())) == 1
        assert not row.context_mask[at].any()


def test_a_tenth_of_the_conditions_is_dropped(
    sources: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    uncond = tokenizer.convert_tokens_to_ids("<|uncond|>")
    for name in ("garment_drawing", "scene_drawing"):
        dropped = [uncond in row.input_ids for row in rows_of(sources[name], seeds=60)]
        assert 0.04 < np.mean(dropped) < 0.16


def test_small_scenes_only_are_drawn(sources: dict[str, Any]) -> None:
    source = sources["scene_drawing"]
    counts = source.arrays["num_objects"]
    assert len(source) == (counts <= 2).sum()
    assert 0 < len(source) < len(counts)


def test_demonstrations_want_exactly_the_action_chunk(
    sources: dict[str, Any], layout: TokenLayout
) -> None:
    source = sources["demonstrated"]
    for index in range(len(source)):
        row = source.row(index, np.random.default_rng(0))
        at = row.labels != IGNORED
        codes = layout.decode("action", row.labels[at])
        chunk = source.actions.encode(source.arrays["chunks"][index])
        assert np.array_equal(codes, chunk.reshape(-1))
        assert len(set(row.block_ids[at].tolist())) == 1
        states = row.input_ids[row.modality_ids == MODALITY_IDS["state"]]
        expected = source.states.encode(source.arrays["states"][index])
        assert np.array_equal(layout.decode("state", states), expected.reshape(-1))


def test_infilling_pins_what_is_known_in_one_canvas(
    sources: dict[str, Any], tokenizer: PreTrainedTokenizerBase
) -> None:
    prompt = [tokenizer.convert_tokens_to_ids(t) for t in ("<|bos|>", "<|infill|>")]
    joint = 0
    for row in rows_of(sources["picture_infill"], seeds=2):
        assert row.input_ids[:2].tolist() == prompt
        assert set(row.block_ids[2:].tolist()) == {0}
        assert row.context_mask.tolist() == [True] * 2 + [False] * (len(row) - 2)
        assert 4 <= wanted(row, "image").sum() <= 64
        joint += bool(wanted(row, "text").any())
    assert 0.2 < joint / 44 < 0.8


def test_library_text_stays_inside_one_document(sources: dict[str, Any]) -> None:
    source = sources["library_text"]
    starts, ids = source.arrays["starts"], source.arrays["ids"]
    lengths = set()
    for index in range(len(source)):
        for seed in range(30):
            part = source._window(index, np.random.default_rng(seed))
            document = int(np.searchsorted(starts, part.start, side="right"))
            assert starts[document - 1] <= part.start < part.stop <= starts[document]
            lengths.add(part.stop - part.start)
    assert lengths == {40, 64}  # 40: the whole of the short document
    infills = [row.labels[-1] == IGNORED for row in rows_of(source, seeds=20)]
    assert 0.1 < np.mean(infills) < 0.3
    assert len(source) == len(ids) // 64


def test_a_line_hole_is_one_line_or_its_end() -> None:
    is_line_end = np.isin(np.arange(12), [0, 3, 4, 9])  # lines: 1-2, none, 5-8; 10-11 has no end
    found = set()
    for seed in range(200):
        hole = np.flatnonzero(line_hole(is_line_end, np.random.default_rng(seed)))
        assert (np.diff(hole) == 1).all()
        found.add((int(hole[0]), int(hole[-1])))
    assert found == {(1, 2), (2, 2), (5, 8), (6, 8), (7, 8), (8, 8)}


def test_a_line_longer_than_the_longest_is_no_hole() -> None:
    is_line_end = np.zeros(LONGEST_LINE + 3, dtype=bool)
    is_line_end[[0, -1]] = True
    assert not line_hole(is_line_end, np.random.default_rng(0)).any()
    is_line_end[1] = True
    assert line_hole(is_line_end, np.random.default_rng(0)).any()


def test_line_holes_keep_the_whole_stretch_and_no_line_end(sources: dict[str, Any]) -> None:
    maker = sources["library_text"].maker
    end = int(maker.line_end_ids[0])
    ids = np.where(np.arange(640) % 8 == 0, end, 300)
    source = LibraryText(
        maker, {"ids": ids, "starts": np.array([0, 640])}, 64, prob_infill=1.0, line_share=1.0
    )
    for row in rows_of(source, seeds=4):
        wanted = row.labels != IGNORED
        assert 1 <= wanted.sum() <= 7
        assert not np.isin(row.labels[wanted], maker.line_end_ids).any()
        assert len(row) == 64 + 3  # <|bos|><|infill|> before it and <|end|> behind


def test_library_text_shorter_than_a_stretch_is_one_sample(
    sources: dict[str, Any],
) -> None:
    source = sources["library_text"]
    short = LibraryText(source.maker, {"ids": np.arange(300, 303), "starts": np.array([0, 3])})
    assert len(short) == 1
    for seed in range(20):
        assert (short.row(0, np.random.default_rng(seed)).labels != IGNORED).any()


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_holes_always_leave_something_to_fill(length: int) -> None:
    shares = [holes(length, np.random.default_rng(seed)).mean() for seed in range(200)]
    assert min(shares) > 0
    assert length < 3 or min(shares) < 0.5


def test_rectangles_are_filled_and_at_least_two_by_two() -> None:
    sizes = set()
    for seed in range(300):
        grid = rectangle((4, 6), np.random.default_rng(seed)).reshape(4, 6)
        rows, columns = grid.any(1).sum(), grid.any(0).sum()
        assert grid.sum() == rows * columns
        assert np.diff(np.flatnonzero(grid.any(0))).max(initial=1) == 1
        sizes.add((int(rows), int(columns)))
    assert min(sizes) == (2, 2)
    assert (4, 6) in sizes
