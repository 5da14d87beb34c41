"""Holes filled by the bundled checkpoint, and the lines that they come from."""

import numpy as np
import pytest
import torch
from unidiff_infilling.filling import Filler
from unidiff_infilling.fim import FillInTheMiddle
from unidiff_infilling.infilling import Infilling
from unidiff_infilling.judging import successor_log_probs
from unidiff_infilling.lines import line_holes
from unidiff_infilling.metrics import edit_similarity, exact_match
from unidiff_infilling.one_line import OneLine
from unidiff_infilling.readings import cut_to_length, prefix_only, suffix_first

from unidiff.plugins import PluginContract


class Contract(PluginContract):
    plugin_name = "infilling"


@pytest.fixture(scope="module")
def loaded():
    return Contract().load_model()


def test_unbiased_cuts_are_ahead_where_holes_start_inside_a_word(loaded):
    examples = line_holes("test", from_inside=True)[:24]
    scores = {
        boundary: edit_similarity(
            [one.text for one in Filler(FillInTheMiddle(boundary), *loaded).fill(examples)],
            examples,
        ).mean()
        for boundary in ("unbiased", "naive")
    }
    assert scores["unbiased"] > scores["naive"] + 0.05


def test_a_filled_text_does_not_depend_on_its_batch(loaded):
    examples = line_holes("test", from_inside=True)[:4]
    task = FillInTheMiddle()
    together = Filler(task, *loaded).fill(examples)
    alone = [Filler(task, *loaded).fill([one])[0] for one in examples]
    assert [one.text for one in together] == [one.text for one in alone]


def test_both_ends_of_a_cut_word_are_kept(loaded):
    example = {"prefix": "    return sel", "suffix": "me\n", "length": 4}
    (filled,) = Filler(FillInTheMiddle(), *loaded).fill([example])
    ids = loaded[1].tokenizer(f"sel{filled.text}me")["input_ids"]
    assert len(filled.text) > 0
    assert len(ids) <= 4 + 1


def test_a_searched_length_is_the_one_that_reads_best_with_its_bonus(loaded, monkeypatch):
    filler = Filler(FillInTheMiddle(), *loaded)
    example = {"prefix": "for i in range(", "suffix": "):\n    print(i)\n"}
    for bonus, length in ((1e6, 6), (-1e6, 2)):
        monkeypatch.setattr("unidiff_infilling.filling.BONUS", bonus)
        (filled,) = filler.fill([example], (2, 3, 6))
        assert filled.length == length
        assert filled.log_prob is not None


def test_sampled_holes_repeat_with_their_seed(loaded):
    examples = line_holes("test", from_inside=True)[:3]
    options = {"do_sample": True, "temperature": 1.0}
    texts = [
        [one.text for one in Filler(FillInTheMiddle(), *loaded, options, seed).fill(examples)]
        for seed in (3, 3, 4)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_what_cannot_be_filled_raises(loaded):
    filler = Filler(FillInTheMiddle(), *loaded)
    short = {"prefix": "    return se", "suffix": "lf.name", "length": 1}
    with pytest.raises(ValueError, match="too short"):
        filler.fill([{**short, "prefix": "x = 1\n\nqqqqqqzzzz", "suffix": "zzqqqq\n"}])
    with pytest.raises(ValueError, match="holds 1024"):
        filler.fill([{"prefix": "a", "suffix": "b", "length": 1100}])


def test_the_left_to_right_reading_sums_from_the_first_wanted_token(loaded):
    model, processor = loaded
    row = [2, *processor.tokenizer("return self.name")["input_ids"]]
    long, short = successor_log_probs(model, [row, row[:-1]], [2, 2])
    with torch.inference_mode():
        law = model(input_ids=torch.tensor([row])).logits[0].float().log_softmax(-1)
    assert long - short == pytest.approx(float(law[-2, row[-1]]), abs=1e-3)


def test_one_line_leaves_no_line_end(loaded):
    examples = line_holes("test")[:6]
    rule = OneLine(loaded[1].tokenizer)
    filler = Filler(FillInTheMiddle(), *loaded, {"logits_processor": [rule]})
    assert not any("\n" in one.text for one in filler.fill(examples))


def test_autoregressive_readings_end_with_the_line(loaded):
    examples = line_holes("test")[:4]
    first = prefix_only(*loaded, examples, before=32, batch_size=4)
    second = suffix_first(*loaded, examples, before=32, after=8, batch_size=4)
    assert first != second
    assert not any("\n" in text for text in [*first, *second])
    cut = cut_to_length(loaded[1], ["return self.name and more"], [{"middle": "x"}])
    assert cut == ["return"]


def test_held_out_lines_are_in_no_training_module_and_repeat():
    test, train = line_holes("test")[:200], line_holes("train")[:200]
    assert test == line_holes("test")[:200]
    assert not {one["prefix"] for one in test} & {one["prefix"] for one in train}
    assert line_holes("test", seed=1)[:10] != test[:10]
    for one in line_holes("test", from_inside=True)[:50]:
        assert (one["prefix"][-1] + one["middle"][0]).isalnum()
    with pytest.raises(ValueError, match="split must be"):
        line_holes("validation")


def test_metrics_average_over_the_holes():
    examples = [{"middle": "abcd"}, {"middles": ["a", "b"]}]
    results = ["abxd", {"holes": ["a", "c"]}]
    assert edit_similarity(results, examples).tolist() == [0.75, 0.5]
    assert exact_match(results, examples).tolist() == [0.0, 0.5]


def test_several_holes_are_of_the_lengths_asked_for(loaded):
    task, processor = Infilling(), loaded[1]
    example = {"texts": ["for ", " in ", ":"], "lengths": [1, 3]}
    request = task.build(processor, example)
    assert int((~request["pinned_mask"]).sum()) == 4
    ids = request["canvas"][0].numpy().copy()
    ids[~request["pinned_mask"][0].numpy()] = processor.tokenizer(" x")["input_ids"][0]
    result = task.parse(processor, ids, request)
    assert result["holes"] == ["x", "x x x"]
    with pytest.raises(ValueError, match="stand between 3"):
        task.build(processor, {**example, "texts": ["for ", ":"]})


def test_a_picture_and_its_text_have_holes_together(loaded):
    example = Infilling().dataset("test", 2)[1]
    request = Infilling().build(loaded[1], example)
    kinds = np.unique(request["canvas_modality_ids"][~request["pinned_mask"]])
    assert len(kinds) == 2
