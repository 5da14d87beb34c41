"""Editing and super-resolution: the data, the requests, guidance with two conditions."""

from contextlib import nullcontext

import numpy as np
import pytest
from unidiff_imaging.editing import Editing
from unidiff_imaging.edits import DIRECTIONS, PHRASES, sample_edit
from unidiff_imaging.examples import MadeExamples
from unidiff_imaging.super_resolution import SuperResolution, coarse, enlarged_to_full

from unidiff.data.sources.scenes import OPPOSITE, is_unseen_combination, scene_relations
from unidiff.plugins.answers import answer_examples
from unidiff.plugins.own_adapter import own_adapter

FACTS = {"colour", "shape", "row", "column"}


@pytest.mark.parametrize("kind", PHRASES)
def test_an_edit_changes_one_object_as_its_instruction_says(kind):
    for number in range(20):
        edit = sample_edit("train", number, kind)
        before, after = set(edit.before.objects), set(edit.after.objects)
        (old,) = before - after
        assert edit.before.background == edit.after.background
        assert old.name in edit.instruction
        if kind == "remove":
            assert after == before - {old}
            continue
        (new,) = after - before
        same = {name for name in FACTS if getattr(old, name) == getattr(new, name)}
        if kind == "move":
            assert {"colour", "shape"} <= same
            word = edit.instruction.split()[-1]
            assert (new.row - old.row, new.column - old.column) == DIRECTIONS[word]
        else:
            changed = "colour" if kind == "recolour" else "shape"
            assert same == FACTS - {changed}
            assert edit.instruction.endswith(getattr(new, changed))


def test_training_shows_no_unseen_combination_and_every_test_does():
    for number in range(60):
        edit = sample_edit("train", number)
        for scene in (edit.before, edit.after):
            assert not any(is_unseen_combination(*fact) for fact in scene_relations(scene))
        assert sample_edit("test", number).before.is_unseen
    assert OPPOSITE


def test_unknown_splits_and_kinds_are_refused():
    with pytest.raises(ValueError, match="split must be"):
        sample_edit("dev", 0)
    with pytest.raises(ValueError, match="kind must be"):
        sample_edit("train", 0, "paint")
    with pytest.raises(ValueError, match="split must be"):
        Editing().dataset("dev")


def test_the_answer_is_as_far_from_the_picture_for_every_instruction(processor):
    """Codes of the answer stand at one distance from the codes at their place."""
    distances = set()
    for instruction in ("remove the red circle", "please make the big red circle very blue"):
        example = {**Editing().dataset("test", 1)[0], "instruction": instruction}
        row = Editing().training_row(processor, example, np.random.default_rng(0))
        image = np.flatnonzero(row.modality_ids == 1)
        assert len(image) == 128
        distance = row.position_ids[:, image[64:]] - row.position_ids[:, image[:64]]
        distances |= {int(value) for value in np.unique(distance)}
    assert len(distances) == 1


def test_guidance_goes_from_nothing_over_the_picture_to_the_instruction(processor):
    task, example = Editing(), Editing().dataset("test", 1)[0]
    nothing, picture = task.weaker(processor, example)
    whole = task.build(processor, example)
    codes = [
        int((processor.layout.modality_ids(one["input_ids"][0].numpy()) == 1).sum())
        for one in (nothing, picture, whole)
    ]
    assert codes == [0, 64, 64]
    unsaid = processor.encoder.special("<|uncond|>")
    assert [unsaid in one["input_ids"] for one in (nothing, picture, whole)] == [True, True, False]
    assert len(task.decoding["guidance_scale"]) == 2


def test_training_drops_the_words_and_the_picture_at_times(processor):
    task, example = Editing(), Editing().dataset("train", 1)[0]
    unsaid = processor.encoder.special("<|uncond|>")
    dropped = []
    for seed in range(150):
        row = task.training_row(processor, example, np.random.default_rng(seed))
        if unsaid in row.input_ids:
            dropped.append(int((row.modality_ids == 1).sum()))
    assert 5 <= len(dropped) <= 30
    assert set(dropped) == {64, 128}


def test_a_coarse_picture_holds_the_means_of_its_cells():
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[:4, :2] = 100
    assert coarse(picture)[..., 0].tolist() == [[50, 0], [0, 0]]
    with pytest.raises(ValueError, match="does not divide"):
        coarse(picture[:7])


def test_a_coarse_picture_or_grid_of_codes_is_enlarged_to_the_canvas(processor):
    picture = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    assert enlarged_to_full(processor, picture).size == (32, 16)
    codes = processor.image_codes(np.full((32, 32, 3), 200, dtype=np.uint8)).reshape(8, 8)
    from_codes = np.asarray(enlarged_to_full(processor, {"codes": codes[:4, :4]}))
    assert from_codes.shape == (32, 32, 3)
    assert abs(from_codes[12:20, 12:20].mean() - 200) < 20
    for wrong in (codes.reshape(-1), codes + 1000):
        with pytest.raises(ValueError, match=r"\(h, w\) grid"):
            enlarged_to_full(processor, {"codes": wrong})


def test_the_sharp_picture_is_not_in_the_request(processor):
    task, example = SuperResolution(), SuperResolution().dataset("test", 1)[0]
    other = {**example, "sharp": 255 - example["sharp"]}
    first, second = (task.build(processor, one) for one in (example, other))
    assert np.array_equal(first["input_ids"], second["input_ids"])


def test_examples_are_made_when_they_are_asked_for():
    made = []
    examples = MadeExamples(5, lambda index: made.append(index) or {"number": index})
    assert len(examples) == 5
    assert made == []
    assert [one["number"] for one in examples[1:3]] == [1, 2]
    assert examples[-1]["number"] == 4
    assert [one["number"] for one in examples] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        examples[5]


def test_the_adapter_that_comes_along_edits_unseen_scenes(model, processor):
    """0.835 of 200 held-out edits (README); never one without the adapter."""
    task = Editing()
    examples = task.dataset("test", 32)
    (metric, *_) = task.metrics().values()
    right = []
    for is_on in (True, False):
        with own_adapter(task, model) if is_on else nullcontext():
            answers = answer_examples(task, model, processor, examples)
        right.append(metric([answer.value for answer in answers], examples).sum())
    assert right[0] >= 22
    assert right[1] == 0


def test_the_adapter_that_comes_along_sharpens(model, processor):
    """24.7 dB on 200 held-out pictures (README), 11.3 without the adapter."""
    task = SuperResolution()
    examples = task.dataset("test", 16)
    with own_adapter(task, model):
        answers = answer_examples(task, model, processor, examples)
    assert task.metrics()["psnr_db"]([one.value for one in answers], examples).mean() > 21.0
