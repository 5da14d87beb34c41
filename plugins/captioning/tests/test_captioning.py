"""The contract, the two kinds of captions, their metrics, and the command."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner
from unidiff_captioning.metrics import bleu, cider
from unidiff_captioning.task import (
    Captioning,
    NewStyle,
    form_of,
    in_style,
    is_one_of,
    names_class,
    sentences_about,
    style_match,
)

from unidiff.bundled import bundled_photograph
from unidiff.cli.app import app
from unidiff.data.sources.garments import CLASS_NAMES
from unidiff.plugins import PluginContract, answer_examples

SENTENCES = [["a photo of a dress."], ["this is a bag."], ["here we see a coat."]]


class TestContract(PluginContract):
    plugin_name = "captioning"


def test_a_photograph_is_described():
    model, processor = TestContract().load_model()
    examples = [{"image": bundled_photograph(name)} for name in ("sneaker", "dress")]
    sneaker, dress = answer_examples(Captioning(), model, processor, examples)
    assert "sneaker" in sneaker.value
    assert "dress" in dress.value


def test_the_prompt_may_be_another():
    said = Captioning().messages({"image": None, "prompt": "what is new?"})[0]["content"][1]
    assert said == {"type": "text", "text": "what is new?"}


def test_references_are_every_caption_of_the_class():
    (example,) = Captioning().dataset("test", 1)
    assert example["caption"] in example["references"]
    assert example["references"] == sentences_about(example["label"])


def test_a_hundred_examples_teach_the_style_and_none_is_tested():
    train, test = NewStyle().dataset("train"), NewStyle().dataset("test", 200)
    assert len(train) == 100
    pictures = {one["image"].tobytes() for one in train}
    assert not any(one["image"].tobytes() in pictures for one in test)
    assert all(one["caption"] == in_style(one["label"]) for one in train)


def test_metrics_tell_style_from_class():
    examples = [{"label": 3, "caption": in_style(3)}] * 3
    said = [in_style(3), f"{in_style(4)} ", "a photo of a dress."]
    assert style_match(said, examples).tolist() == [1.0, 1.0, 0.0]
    assert names_class(said, examples).tolist() == [1.0, 0.0, 1.0]
    assert CLASS_NAMES[3] == "dress"
    assert is_one_of(["this is a bag. ", "a bag"], SENTENCES[1:]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("sentence", "form"),
    [
        ("Buy A Pair of Trousers now", "Buy {thing} now"),
        ("buy t-shirt now", "buy {thing} now"),
        ("a shirtless shirt", "a shirtless {thing}"),
        ("buy me", "buy me"),
        ("a coat, a bag", "a coat, a bag"),
    ],
)
def test_the_form_of_a_sentence_is_what_it_says_without_the_class(sentence, form):
    assert form_of(sentence) == form


def test_a_users_captions_are_measured_by_the_classes_that_they_name():
    examples = [{"caption": "behold: a bag"}, {"caption": "a red circle"}]
    said = ["behold: a coat", "a red circle"]
    assert style_match(said, examples).tolist() == [1.0, 1.0]
    assert names_class(["this is a bag.", "a red circle"], examples).tolist() == [1.0, 0.0]
    for metric in Captioning().metrics().values():
        assert np.isfinite(metric(said, examples)).all()


def test_cider_is_ten_for_the_reference_itself_and_zero_for_other_words():
    scores = cider(["A photo of a dress.", "no such thing", ""], SENTENCES)
    assert scores[0] == pytest.approx(10.0)
    assert scores[1:].tolist() == [0.0, 0.0]


def test_cider_rewards_a_shared_phrase_less_than_the_whole():
    scores = cider(["a photo of a dress.", "this is a boot.", "here we see a coat."], SENTENCES)
    assert 0 < scores[1] < scores[0]
    assert np.all(scores <= 10.0 + 1e-9)


def test_bleu_is_one_for_references_of_different_number():
    references = [["a photo of a dress.", "this is a dress."], ["this is a bag."]]
    assert bleu(["this is a dress.", "this is a bag."], references) == pytest.approx(1.0)
    assert bleu(["words of another kind", "and more of them here"], references) < 0.1


def caption(*line):
    return CliRunner().invoke(app, ["caption", *map(str, line)])


def test_the_command_says_something_about_each_picture():
    picture = bundled_photograph("sneaker")
    result = caption(picture, picture, "--json")
    outputs = [one["output"] for one in json.loads(result.stdout)["results"]]
    assert len(outputs) == 2
    assert outputs[0] == outputs[1]
    assert "sneaker" in outputs[0]
    assert caption(picture).stdout.strip() == outputs[0].strip()


@pytest.mark.parametrize(("name", "words"), [("nowhere.png", "nowhere.png"), ("X", "identify")])
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, name, words):
    path = tmp_path / "no_picture.png"
    path.write_text("words")
    result = caption(path if name == "X" else name)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
