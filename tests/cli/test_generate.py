"""`unidiff generate`, and what every command does with options and errors."""

import re
import shutil

import pytest

COST = {"num_forwards", "tokens_per_forward", "seconds", "finish_reason", "seed"}


def test_generate_continues_a_text(run_command):
    result = run_command("generate", "import os", "--max-new-tokens", 8)
    assert result.code == 0
    assert result.out.startswith("import os")
    assert "forwards" in result.err


def test_json_is_all_that_is_printed_on_stdout(run_command):
    result = run_command("generate", "import os", "--max-new-tokens", 8, "--json")
    assert result.report["input"] == "import os"
    assert set(result.report) >= COST
    assert 1 <= result.report["num_forwards"] <= 8


def test_the_seed_decides_a_sampled_text(run_command):
    def said(seed):
        line = ("generate", "x", "--temperature", 1.0, "--max-new-tokens", 12, "--seed", seed)
        return run_command(*line, "--json").report["output"]

    assert said(1) == said(1)
    assert said(1) != said(2)


def test_steps_limit_the_forwards_of_a_block(run_command):
    line = ("generate", "x", "--max-new-tokens", 8, "--steps", 2, "--strategy", "static", "--json")
    assert run_command(*line).report["num_forwards"] <= 2


def test_the_autoregressive_mode_takes_one_forward_per_token(run_command):
    line = ("generate", "x", "--max-new-tokens", 6, "--mode", "ar", "--json")
    report = run_command(*line).report
    assert report["tokens_per_forward"] == 1.0


def test_a_text_is_read_from_stdin_for_a_dash(run_command):
    result = run_command("generate", "-", "--max-new-tokens", 4, "--json", stdin="def f():\n")
    assert result.report["input"] == "def f():\n"


def test_no_new_tokens_give_the_text_back(run_command):
    result = run_command("generate", "as it was", "--max-new-tokens", 0)
    assert result.out == "as it was\n"


def test_what_looks_like_a_mask_in_a_prompt_is_plain_text(run_command):
    result = run_command("generate", "a <|mask|> b", "--max-new-tokens", 4, "--json")
    assert result.code == 0
    assert result.report["input"] == "a <|mask|> b"


def test_stream_shows_drafts_and_the_final_text(run_command):
    result = run_command("generate", "x", "--max-new-tokens", 4, "--stream")
    assert result.code == 0
    assert "\x1b[33m" in result.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--strategy", "nope"), "unmasking_strategy"),
        (("--steps", 0), "max_denoising_steps"),
        (("--max-new-tokens", -1), "max_new_tokens"),
        (("--threshold", 0), "confidence_threshold"),
        (("--mode", "magic"), "decoding_mode"),
        (("--device", "toaster"), "--device"),
    ],
)
def test_an_impossible_option_is_one_line_and_exit_code_2(run_command, options, words):
    result = run_command("generate", "x", *options)
    assert result.code == 2
    assert words in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert "Traceback" not in result.err


def test_an_unknown_option_names_itself(run_command):
    result = run_command("generate", "x", "--bogus")
    assert result.code == 2
    assert "--bogus" in result.err


def test_a_checkpoint_that_is_not_there_is_named(run_command, tmp_path):
    result = run_command("generate", "x", checkpoint=tmp_path / "nowhere")
    assert result.code == 2
    assert "nowhere" in result.err


def test_a_folder_without_weights_is_no_checkpoint(run_command, tmp_path):
    result = run_command("generate", "x", checkpoint=tmp_path)
    assert result.code == 2
    assert "config.json is missing" in result.err


def test_cut_short_weights_are_one_line(run_command, tiny_checkpoint, tmp_path):
    for path in tiny_checkpoint.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "image_tokenizer").symlink_to(tiny_checkpoint / "image_tokenizer")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    result = run_command("generate", "x", checkpoint=tmp_path)
    assert result.code == 2
    assert "model.safetensors" in result.err


def test_an_interruption_ends_cleanly(run_command, monkeypatch):
    def interrupted(choice):
        raise KeyboardInterrupt

    monkeypatch.setattr("unidiff.cli.generate.open_session", interrupted)
    result = run_command("generate", "x")
    assert result.code == 130
    assert "Traceback" not in result.err


def test_an_error_of_the_program_itself_is_not_hidden(run_command, monkeypatch):
    def broken(choice):
        raise RuntimeError("a bug")

    monkeypatch.setattr("unidiff.cli.generate.open_session", broken)
    assert isinstance(run_command("generate", "x").exception, RuntimeError)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", ""),
        ("chat_template.jinja", "{% for"),
        ("config.json", "{"),
        ("generation_config.json", "{"),
        ("tokenizer.json", ""),
        ("model.safetensors", "weights"),
    ],
)
def test_a_damaged_checkpoint_file_is_one_line_and_exit_code_2(
    run_command, tiny_checkpoint, tmp_path, name, content
):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "damaged")
    (folder / name).write_text(content)
    result = run_command("generate", "x", checkpoint=folder)
    assert result.code == 2
    assert name in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_regex_and_a_schema_shape_the_text(run_command, tmp_path):
    pytest.importorskip("outlines_core")
    line = ("generate", "x = ", "--max-new-tokens", 8, "--json")
    report = run_command(*line, "--regex", "[0-9]{3}").report
    assert re.fullmatch("[0-9]{3}", report["output"])
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": ["red", "green"]}')
    report = run_command(*line, "--json-schema", schema).report
    assert report["output"] in ('"red"', '"green"')


def test_choices_are_answered_in_one_forward(run_command):
    line = ("generate", "x = ", "--choices", "yes, no, perhaps not", "--json")
    report = run_command(*line).report
    assert report["output"] in ("yes", "no", "perhaps not")
    assert report["num_forwards"] == 1


def test_a_grammar_that_cannot_be_met_is_one_line(run_command):
    pytest.importorskip("outlines_core")
    result = run_command("generate", "x", "--max-new-tokens", 2, "--regex", "[0-9]{3}")
    assert result.code == 2
    assert "takes 3 tokens: raise max_new_tokens" in result.err
