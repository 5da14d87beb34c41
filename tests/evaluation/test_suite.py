"""The suite on a tiny random model: every number with what it was measured under."""

import json
import tomllib

import pytest

from unidiff.data.sources.garments import DEFAULT_ROOT
from unidiff.evaluation.responder import ModelResponder
from unidiff.evaluation.suite import (
    GROUPS,
    SUITES_DIR,
    load_suite,
    metric_names,
    run_suite,
    suite_names,
)
from unidiff.generation.config import OPTIONS

METRICS = [
    "image_psnr_db",
    "image_code_use",
    "caption_accuracy",
    "unseen_question_accuracy",
    "closed_loop_success",
    "drawn_scene_accuracy",
    "drawn_garment_accuracy",
    "drawn_garment_coverage",
    "text_bits_per_byte",
    "text_bits_per_byte_ar",
]


def test_the_bundled_suite_names_every_metric_of_the_issue():
    assert suite_names() == ["bundled"]
    assert metric_names("bundled") == METRICS
    goals = load_suite("bundled")["goals"]
    assert set(METRICS) - set(goals) == {"text_bits_per_byte_ar"}


def test_the_sizes_are_those_of_the_issue():
    suite = load_suite("bundled")
    assert suite["captions"]["num_photographs"] == 10_000
    assert suite["questions"]["per_kind"] >= 400
    assert suite["garment_drawings"]["num_drawings"] == 2_000
    assert suite["scene_drawings"]["num_drawings"] >= 500
    assert suite["control"]["num_seeds"] == 100


def test_every_sampler_option_is_an_option_of_generate():
    for group in load_suite("bundled").values():
        sampler = group.get("sampler", {}) if isinstance(group, dict) else {}
        assert set(sampler) <= {*OPTIONS, "batch_size"}


@pytest.mark.skipif(not DEFAULT_ROOT.exists(), reason="dataset-fashion-mnist missing")
def test_a_run_measures_everything_and_says_how(model, processor, monkeypatch):
    monkeypatch.setattr("unidiff.evaluation.drawings.copied_share", lambda *_: 0.0)
    monkeypatch.setattr("unidiff.evaluation.text.iter_documents", lambda _: [("m", "x = 1\n" * 99)])
    heard = []
    report = run_suite(
        "bundled", model, processor, seed=3, limit=6, progress=lambda *args: heard.append(args)
    )
    found = json.loads(json.dumps(report.to_dict()))
    assert list(found["metrics"]) == METRICS
    assert found["limit"] == 6
    for name, metric in found["metrics"].items():
        assert metric["seed"] == 3
        assert 1 <= metric["num_inputs"] <= 24
        assert metric["seconds"] > 0
        assert metric["interval"][0] <= metric["value"] <= metric["interval"][1], name
    assert found["metrics"]["caption_accuracy"]["forwards_per_input"] > 0
    assert found["metrics"]["drawn_garment_accuracy"]["forwards_per_input"] == 24
    assert found["metrics"]["drawn_garment_accuracy"]["tokens_per_forward"] == 2.667
    assert found["metrics"]["text_bits_per_byte"]["sampler"]["block_length"] == 16
    assert not report.passes
    assert ("text", len(GROUPS), len(GROUPS)) in heard


def test_only_the_metrics_asked_for_are_measured(model, processor):
    report = run_suite("bundled", model, processor, limit=2, metrics=["drawn_scene_accuracy"])
    assert list(report.to_dict()["metrics"]) == ["drawn_scene_accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nothing"}, "suite must be one of"),
        ({"name": "bundled", "metrics": ["accuracy"]}, "metrics must be among"),
        ({"name": "bundled", "limit": 0}, "limit must be"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_measured(
    model, processor, arguments, message
):
    name = arguments.pop("name")
    with pytest.raises(ValueError, match=message):
        run_suite(name, model, processor, **arguments)


def test_a_suite_with_an_unknown_table_is_refused(tmp_path, monkeypatch):
    text = (SUITES_DIR / "bundled.toml").read_text() + "\n[poems]\nmeasures = ['rhyme']\n"
    (tmp_path / "odd.toml").write_text(text)
    monkeypatch.setattr("unidiff.evaluation.suite.SUITES_DIR", tmp_path)
    with pytest.raises(ValueError, match="poems"):
        load_suite("odd")


@pytest.mark.parametrize("want", ["texts", "images", "actions"])
def test_an_answer_does_not_depend_on_the_batch_it_is_given_in(model, processor, want):
    requests = [[{"role": "user", "content": text}] for text in ("a", "def f", "a photo of", "x")]
    options = {"do_sample": True, "temperature": 1.0, "max_denoising_steps": 4}
    if want == "texts":
        options["max_new_tokens"] = 6
    answers = [
        getattr(ModelResponder(model, processor), want)(requests, {**options, "batch_size": n}, 7)
        for n in (1, 3)
    ]
    assert [str(one) for one in answers[0]] == [str(one) for one in answers[1]]
    assert len(answers[0]) == 4


def test_a_responder_counts_what_it_costs(model, processor):
    heard = []
    responder = ModelResponder(model, processor, heard.append)
    requests = [[{"role": "user", "content": "draw"}]] * 5
    responder.images(requests, {"max_denoising_steps": 4, "batch_size": 2}, 0)
    assert heard == [2, 2, 1]
    assert responder.usage.num_requests == 5
    assert responder.usage.num_forwards == 20
    assert responder.usage.num_tokens == 5 * 64


def test_guidance_uses_the_dropped_condition(model, processor):
    requests = [[{"role": "user", "content": "draw a sneaker"}]] * 2
    options = {"max_denoising_steps": 2, "guidance_scale": 2.0}
    responder = ModelResponder(model, processor)
    assert responder.images(requests, options, 0).shape == (2, 64)


def test_definitions_and_judges_are_package_data(repository_root):
    project = tomllib.loads((repository_root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"].get("unidiff.evaluation", [])
    room = repository_root / "unidiff" / "evaluation"
    shipped = {path for pattern in patterns for path in room.glob(pattern)}
    wanted = {*room.glob("suites/*.toml"), *room.glob("judges/*")}
    assert wanted
    assert wanted <= shipped
