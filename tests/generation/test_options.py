"""The option table: defaults, precedence, other projects' names."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from unidiff.generation.config import (
    UniDiffGenerationConfig,
    _warn_of_two_limits,
    resolve_options,
)
from unidiff.generation.option_checks import check_option
from unidiff.generation.options import FOREIGN_NAMES, OPTIONS, PER_ROW, reject_option


def test_defaults_are_the_table_and_pass_their_own_checks() -> None:
    assert resolve_options(None, None, {}) == OPTIONS
    for name, value in OPTIONS.items():
        if value is not None:
            check_option(name, value)


def test_keyword_over_given_over_saved() -> None:
    saved = UniDiffGenerationConfig(temperature=0.5, top_k=5, block_length=3)
    given = UniDiffGenerationConfig(temperature=0.6, top_k=6)
    options = resolve_options(saved, given, {"temperature": 0.7})
    assert (options["temperature"], options["top_k"], options["block_length"]) == (0.7, 6, 3)


def test_keyword_none_means_our_default() -> None:
    saved = UniDiffGenerationConfig(top_k=5, temperature=0.5)
    options = resolve_options(saved, None, {"top_k": None, "temperature": None})
    assert (options["top_k"], options["temperature"]) == (None, 1.0)


def test_max_length_by_keyword_replaces_a_saved_max_new_tokens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    saved = UniDiffGenerationConfig(max_new_tokens=5)
    assert resolve_options(saved, None, {"max_length": 9})["max_new_tokens"] is None
    both = resolve_options(saved, None, {"max_length": 9, "max_new_tokens": 2})
    assert both["max_new_tokens"] == 2
    assert "max_length is ignored" in caplog.text


def test_a_limit_without_effect_is_announced_once(caplog: pytest.LogCaptureFixture) -> None:
    _warn_of_two_limits.cache_clear()
    for _ in range(2):
        both = resolve_options(None, None, {"max_length": 9, "max_new_tokens": 2})
        assert both["max_new_tokens"] == 2
    assert [r.getMessage() for r in caplog.records] == [
        "max_new_tokens and max_length were both given: max_length is ignored"
    ]


def test_transformers_own_config_is_read_and_its_other_options_are_refused() -> None:
    plain = GenerationConfig(max_new_tokens=4, num_beams=1, use_cache=True)
    assert resolve_options(None, plain, {})["max_new_tokens"] == 4
    with pytest.raises(ValueError, match="num_beams=3 is not supported"):
        resolve_options(None, GenerationConfig(num_beams=3), {})
    with pytest.raises(ValueError, match="max_time=1 is not supported"):
        resolve_options(None, None, {"max_time": 1})


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_every_foreign_name_points_to_an_option(name: str) -> None:
    assert FOREIGN_NAMES[name] in OPTIONS
    assert name not in OPTIONS
    with pytest.raises(ValueError, match=f"{name!r} is called '{FOREIGN_NAMES[name]}' here"):
        resolve_options(None, None, {name: 1})


@pytest.mark.parametrize("name", PER_ROW)
def test_lists_are_checked_value_by_value(name: str) -> None:
    assert name in OPTIONS
    with pytest.raises(TypeError, match=name):
        check_option(name, [1, "many"])


def test_only_per_row_options_take_lists() -> None:
    with pytest.raises(TypeError, match="top_p"):
        check_option("top_p", [0.5, 0.9])


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"confidence_threshold.*unmasking_strategy"):
        reject_option("warp_speed")


def test_saved_file_is_flat_and_comes_back_the_same(tmp_path) -> None:
    config = UniDiffGenerationConfig(max_denoising_steps=8, top_p=0.9, confidence_metric="margin")
    config.save_pretrained(tmp_path)
    assert UniDiffGenerationConfig.from_pretrained(tmp_path).given() == config.given()
    assert not any(isinstance(value, dict) for value in config.to_diff_dict().values())


@pytest.mark.parametrize("name", ["temperature", "guidance_scale", "confidence_noise"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -float("inf"), 10**400])
def test_a_number_without_upper_bound_must_still_be_finite(name: str, value: float) -> None:
    check_option(name, 1e300)
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, inf\)"):
        check_option(name, value)


def test_none_for_a_row_is_refused_where_it_means_nothing() -> None:
    check_option("max_denoising_steps", [4, None])
    for name in ("max_new_tokens", "confidence_threshold", "temperature", "seed"):
        with pytest.raises(ValueError, match=f"{name} needs a value for every row"):
            check_option(name, [1, None])


def test_arrays_and_tensors_become_plain_numbers() -> None:
    given = {
        "max_new_tokens": np.int64(4),
        "top_k": torch.tensor(5),
        "top_p": torch.tensor(0.5),
        "temperature": np.array([0.5, 1.0]),
        "seed": [np.int64(1), np.uint64(2**63)],
        "eos_token_id": [np.int64(3)],
    }
    options = resolve_options(None, None, given)
    assert (options["max_new_tokens"], options["top_k"], options["top_p"]) == (4, 5, 0.5)
    assert options["temperature"] == [0.5, 1.0]
    assert options["seed"] == [1, 2**63]
    assert all(type(item) is int for item in [*options["seed"], *options["eos_token_id"]])
    assert resolve_options(None, None, {"seed": torch.tensor(7)})["seed"] == [7]
    assert type(UniDiffGenerationConfig(top_k=np.int64(5)).top_k) is int


def test_end_ids_below_minus_one_are_refused() -> None:
    check_option("eos_token_id", [[3], [-1]])
    with pytest.raises(ValueError, match="eos_token_id must be token ids"):
        check_option("eos_token_id", [3, -2])


@pytest.mark.parametrize("name", ["temperature", "max_new_tokens", "seed", "max_denoising_steps"])
def test_a_list_in_a_list_of_rows_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        check_option(name, [[1], [2]])


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (3, TypeError, "must be a string or a list"),
        ([3], TypeError, "must be a string or a list"),
        ([""], ValueError, "must not be empty"),
    ],
)
def test_stop_strings_are_strings(value: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_options(None, None, {"stop_strings": value})
