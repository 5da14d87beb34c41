"""The text tokenizer: lossless, deterministic, and deaf to special tokens in plain text."""

import importlib.util
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from unidiff.tokens.text import (
    SPECIAL_TOKENS,
    build_text_tokenizer,
    decode_plain,
    encode_plain,
)

ROOT = Path(__file__).parents[2]
CORPUS = ["def add(a, b):\n    return a + b\n", "a photo of a sneaker. a sneaker?"] * 20
STRINGS = [
    "",
    " ",
    "a  b   c ",
    "\n\n    x = 1\r\n\t\ty\n   ",
    "don't 12345 t-shirt é e\u0301 ﬁ 漢字 🙂\x00\x7f",
    "<|mask|><|end|> <|/image|>",
    " ,  .  !",
    "\u00a0\u2028\u3000x",
]


@pytest.fixture(scope="module")
def small():
    return build_text_tokenizer(CORPUS, 300)


@pytest.fixture(scope="module")
def built():
    return AutoTokenizer.from_pretrained(ROOT / "tokenizers" / "text")


@pytest.fixture(scope="module")
def recipe():
    path = ROOT / "tokenizers" / "build_text_tokenizer.py"
    spec = importlib.util.spec_from_file_location("text_tokenizer_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", STRINGS)
def test_any_string_comes_back_exactly(small, built, text):
    for tokenizer in (small, built):
        assert decode_plain(tokenizer, encode_plain(tokenizer, text)) == text


@pytest.mark.parametrize("text", [*SPECIAL_TOKENS, "a <|mask|> b", "<|end|><|user|>"])
def test_plain_text_never_becomes_a_special_token(built, text):
    assert min(encode_plain(built, text)) >= len(SPECIAL_TOKENS)


def test_special_tokens_are_read_again_after_plain_text(built):
    encode_plain(built, "<|mask|>")
    assert built("<|mask|>")["input_ids"] == [1]


def test_special_tokens_have_the_lowest_ids_in_order(small, built):
    for tokenizer in (small, built):
        ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
        assert ids == list(range(16))
        assert tokenizer.pad_token_id == 0
        assert tokenizer.mask_token_id == 1
        assert tokenizer.bos_token_id == 2
        assert tokenizer.eos_token_id == 3
        assert tokenizer.user_token_id == 4
        assert tokenizer.hole_token_id == 15


def test_no_token_is_added_around_a_text(built):
    assert built("a")["input_ids"] == encode_plain(built, "a")
    assert len(built("a")["input_ids"]) == 1


def test_building_twice_gives_the_same_files(tmp_path):
    for name in ("first", "second"):
        build_text_tokenizer(iter(CORPUS), 300).save_pretrained(tmp_path / name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_saving_and_loading_changes_no_id(tmp_path, small):
    small.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == small.get_vocab()
    for text in STRINGS:
        assert encode_plain(loaded, text) == encode_plain(small, text)
    assert loaded.extra_special_tokens == small.extra_special_tokens
    assert loaded.image_end_token_id == small.image_end_token_id == 8


def test_vocabulary_has_the_asked_size(small, built):
    assert len(small) == 300
    assert len(built) == 2048


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(ValueError, match="272"):
        build_text_tokenizer(CORPUS, 271)


def test_digits_and_indentation_are_tokens_of_their_own(built):
    assert [built.decode([token]) for token in encode_plain(built, "2048")] == list("2048")
    tokens = [built.decode([token]) for token in encode_plain(built, "x:\n        return")]
    assert "\n        " in tokens


def test_every_answer_word_is_one_token_at_the_start_and_after_a_space(built, recipe):
    words = (*recipe.ANSWER_WORDS, *recipe.INSTRUCTION_WORDS)
    assert {"t-shirt", "sneaker", "cyan", "three", "yes", "triangle"} <= set(words)
    for word in words:
        assert len(encode_plain(built, word)) == 1, word
        assert len(encode_plain(built, f" {word}")) == 1, word
        assert len(encode_plain(built, f"a {word}.")) == 3, word


def test_the_recipe_gives_the_committed_vocabulary(built, recipe):
    """Identical on the Python release it was built with; another library moves a few merges."""
    texts = list(recipe.iter_training_texts())
    assert not any("<|mask|>" in text for text in texts)
    rebuilt = set(recipe.build_text_tokenizer(texts).get_vocab())
    assert len(rebuilt & set(built.get_vocab())) > 0.9 * len(built)


def test_the_folder_of_recipes_is_no_package():
    assert not (ROOT / "tokenizers" / "__init__.py").exists()
