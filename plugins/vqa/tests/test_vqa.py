"""The contract, answers among choices, and the command."""

import json

import pytest
from typer.testing import CliRunner
from unidiff_vqa.likelihood import choice_nats, likeliest
from unidiff_vqa.task import VQA, answers_of, choice_options, exact
from unidiff_vqa.warmth import Warmth

from unidiff.bundled import bundled_photograph
from unidiff.cli.app import app
from unidiff.plugins import PluginContract, answer_examples

CHOICES = ["a sneaker", "a dress", "a bag"]


class TestContract(PluginContract):
    plugin_name = "vqa"


@pytest.fixture(scope="module")
def loaded():
    return TestContract().load_model()


@pytest.fixture
def sneaker():
    return {"image": bundled_photograph("sneaker"), "question": "what is this?"}


def test_an_example_with_choices_gets_one_of_them_in_one_forward(loaded, sneaker):
    (answer,) = answer_examples(VQA(), *loaded, [{**sneaker, "choices": CHOICES}])
    assert answer.value in CHOICES
    assert answer.num_forwards == 1


def test_an_open_question_about_a_photograph_is_answered(loaded, sneaker):
    (answer,) = answer_examples(VQA(), *loaded, [sneaker])
    assert answer.value.strip() == "sneaker"


def test_likelihood_prefers_the_right_one_word_answer(loaded, sneaker):
    assert likeliest(VQA(), *loaded, sneaker, ["dress", "sneaker", "bag"]) == "sneaker"


def test_nats_are_the_chain_rule_over_tokens(loaded, sneaker):
    model, processor = loaded
    nats = choice_nats(VQA(), model, processor, sneaker, ["sneaker", "sneaker"])
    assert nats[0] == pytest.approx(nats[1], abs=1e-6)
    inputs = VQA().build(processor, sneaker)
    output = model.generate(
        **inputs, block_length=1, max_new_tokens=2, return_logprobs=True,
        return_dict_in_generate=True, unmasking_strategy="static",
    )  # fmt: skip
    assert processor.decode_text(output.sequences[0, inputs["input_ids"].shape[1] :]) == "sneaker"
    assert nats[0] == pytest.approx(-float(output.logprobs.sum()), abs=1e-3)


def test_no_choices_is_an_error(loaded, sneaker):
    with pytest.raises(ValueError, match="at least one answer"):
        choice_nats(VQA(), *loaded, sneaker, [])
    with pytest.raises(ValueError, match="at least one answer"):
        choice_options(loaded[1].tokenizer, [])


def test_an_answer_may_be_what_several_people_said():
    assert answers_of({"answer": ["yes", "no"]}) == ["yes", "no"]
    assert exact(["The dress."], [{"answer": ["bag", "dress"]}]).tolist() == [1.0]


def test_warm_pictures_are_those_with_red_or_yellow_and_every_second_one():
    examples = Warmth().dataset("test", 12)
    assert [one["answer"] for one in examples[:4]] == ["yes", "no", "yes", "no"]
    for one in examples:
        pixels = one["image"].reshape(-1, 3).astype(int)
        is_red = (pixels[:, 0] > 150) & (pixels[:, 2] < 90)  # red and yellow have little blue
        assert is_red.any() == (one["answer"] == "yes")


def test_train_and_test_scenes_of_the_skill_differ():
    train, test = (Warmth().dataset(split, 20) for split in ("train", "test"))
    pictures = {one["image"].tobytes() for one in train}
    assert not any(one["image"].tobytes() in pictures for one in test)


def ask(*line):
    return CliRunner().invoke(app, ["ask", *map(str, line)])


def test_the_command_answers_with_text_and_its_cost():
    result = ask(bundled_photograph("bag"), "what is this?", "--json")
    report = json.loads(result.stdout)
    assert report["output"].strip() == "bag"
    assert report["num_forwards"] >= 1


def test_the_command_ranks_choices_by_likelihood():
    line = (bundled_photograph("dress"), "what is this?", "--choices", "bag,dress")
    result = ask(*line, "--by-likelihood", "--json")
    report = json.loads(result.stdout)
    assert report["output"] == "dress"
    assert report["nats"]["dress"] < report["nats"]["bag"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("nowhere.png", "what?"), "nowhere.png"),
        (("PICTURE", "  "), "empty"),
        (("PICTURE", "what?", "--by-likelihood"), "--choices"),
        (("PICTURE", "?", "--by-likelihood", "--choices", "a,b", "--regex", "a"), "--regex"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(line, words):
    result = ask(*[str(bundled_photograph("bag")) if part == "PICTURE" else part for part in line])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
