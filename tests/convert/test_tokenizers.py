"""Tokenizers of families: sentencepiece alone, ends of a turn, and how a chat is decoded."""

import json
from pathlib import Path

import pytest
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from transformers import AutoTokenizer
from typer.testing import CliRunner

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.cli.app import app
from unidiff.convert.families import all_families
from unidiff.convert.loading import open_foreign
from unidiff.convert.writing import convert_checkpoint
from unidiff.generation.config import UniDiffGenerationConfig
from unidiff.tokens.sentencepiece_text import SentencePieceText

from .published import TABLE, write_json

LLADA = next(one for one in TABLE if one.name == "llada")
AR = next(one for one in TABLE if one.config["model_type"] == "qwen2" and not one.names_mask)
TEXTS = (
    "Hello  world",
    "  two before, two behind  ",
    "line\n\nline \t tab",
    "\u00e9 \u65e5\u672c \U0001f600",
    "<0x41> x",
    "",
)
WORDS = [f"A line of text, number {n}: what it says is {n * n}." for n in range(80)]


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def model_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentencepiece model of 300 pieces, all bytes among them."""
    prefix = tmp_path_factory.mktemp(request.param) / "text"
    SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS),
        model_prefix=str(prefix),
        model_type=request.param,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        control_symbols=["<|mask|>"],
        user_defined_symbols=["<|user|>"],
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


@pytest.fixture
def folder(model_file: Path, tmp_path: Path) -> Path:
    """A LLaDA checkpoint whose tokenizer is that file."""
    mask = SentencePieceProcessor(model_file=str(model_file)).piece_to_id("<|mask|>")
    written = LLADA.write(tmp_path / "foreign", LLADA.model())
    (written / "tokenizer.json").unlink()
    (written / "tokenizer.model").write_bytes(model_file.read_bytes())
    named = {"tokenizer_class": "LlamaTokenizer", "mask_token": "<|mask|>"}
    write_json(written / "tokenizer_config.json", named)
    write_json(written / "config.json", {**LLADA.config, "mask_token_id": mask, "eos_token_id": 2})
    return written


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_texts_are_those_of_sentencepiece(model_file: Path, text: str) -> None:
    theirs = SentencePieceProcessor(model_file=str(model_file))
    ours = SentencePieceText(str(model_file))
    ids = theirs.encode(text)
    assert ours(text, add_special_tokens=False)["input_ids"] == ids
    assert ours.decode(ids, clean_up_tokenization_spaces=False) == theirs.decode(ids) == text
    special = [ours.unk_token_id, ours.bos_token_id, ours.eos_token_id]
    assert special == [theirs.unk_id(), theirs.bos_id(), theirs.eos_id()]
    assert len(ours) == theirs.get_piece_size()


def test_a_sentencepiece_checkpoint_chats_converted_or_not(folder: Path, tmp_path: Path) -> None:
    native = convert_checkpoint(folder, tmp_path / "native")
    assert isinstance(AutoTokenizer.from_pretrained(native), SentencePieceText)
    theirs = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    prompts = []
    for place in (folder, native):
        processor = UniDiffProcessor.from_pretrained(place)
        request = processor.for_chat([{"role": "user", "content": "what it says <|mask|> </s>"}])
        prompts.append(request["input_ids"][0].tolist())
        assert processor.decode(theirs.encode("A line \u00e9\n")) == "A line \u00e9\n"
        model = UniDiffForBlockDiffusion.from_pretrained(place, dtype=torch.float32)
        output = model.generate(**request, max_new_tokens=5)
        assert isinstance(processor.post_process(output, request)[0], str)
    assert prompts[0] == prompts[1]
    special = {theirs.piece_to_id("<|mask|>"), theirs.eos_id(), theirs.bos_id()}
    assert not special & set(prompts[0])  # what a user writes is plain text


def test_the_ids_of_a_sentencepiece_model_are_counted(model_file: Path, tmp_path: Path) -> None:
    written = AR.write(tmp_path / "foreign", AR.model())
    (written / "tokenizer.json").unlink()
    (written / "tokenizer_config.json").unlink()
    (written / "tokenizer.model").write_bytes(model_file.read_bytes())
    size = SentencePieceProcessor(model_file=str(model_file)).get_piece_size()
    assert open_foreign(written).config.mask_token_id == size  # the first id without a token
    (written / "tokenizer.model").write_bytes(model_file.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no whole sentencepiece model"):
        UniDiffForBlockDiffusion.from_pretrained(written)


# Tokens of an answer where a family's authors decode fewer than 128.
SHORT = {"bert": 32, "roberta": 32, "show-o": 100, "unidisc": 64, "lavida": 64, "dimple": 64}


@pytest.mark.parametrize("family", all_families(), ids=lambda one: one.name)
def test_every_family_says_how_it_is_decoded(family) -> None:
    saved = UniDiffGenerationConfig(**family.decoding)
    assert saved.max_new_tokens >= SHORT.get(family.name, 128)  # an answer, not one canvas
    assert family.template
    assert saved.decoding_mode in ("ar", "ar_text") or saved.unmasking_strategy in (
        "static",
        "dynamic",
        "first_hitting",
    )


@pytest.mark.parametrize(("published", "mode"), [(AR, "ar"), (LLADA, "diffusion")])
def test_the_command_chats_as_the_folder_says(published, mode: str, tmp_path: Path) -> None:
    written = published.write(tmp_path / "foreign", published.model())
    given = ["chat", "--checkpoint", str(written), "--max-new-tokens", "6", "--device", "cpu"]
    result = CliRunner().invoke(app, given, input="hi\n")
    assert result.exit_code == 0, result.output
    processor = UniDiffProcessor.from_pretrained(written)
    model = UniDiffForBlockDiffusion.from_pretrained(written, dtype=torch.float32)
    request = processor.for_chat([{"role": "user", "content": "hi"}])
    output = model.generate(**request, max_new_tokens=6, decoding_mode=mode)
    assert result.stdout == processor.post_process(output, request)[0] + "\n"


def test_ends_of_a_turn_end_an_answer(tmp_path: Path) -> None:
    written = LLADA.write(tmp_path / "foreign", LLADA.model())
    write_json(written / "generation_config.json", {"eos_token_id": [7, 256]})
    tokens = json.loads((written / "tokenizer.json").read_text())
    for index, text in enumerate(("<|im_end|>", "<|eot_id|>"), 300):
        extra = {"id": index, "content": text, "special": True}
        tokens["added_tokens"].append({**tokens["added_tokens"][0], **extra})
    write_json(written / "tokenizer.json", tokens)
    config = open_foreign(written).config
    assert config.eos_token_id == [7, 256, 300, 301]
    assert config.layout.end_token_ids == (7, 256, 300, 301)


def test_a_tokenizer_with_several_templates_chats_with_the_default_one(tmp_path: Path) -> None:
    written = LLADA.write(tmp_path / "foreign", LLADA.model())
    (written / "chat_template.jinja").unlink()
    config = json.loads((written / "tokenizer_config.json").read_text())
    config["chat_template"] = [
        {"name": "default", "template": "{{ messages[0].content | trim }}"},
        {"name": "tool_use", "template": "never"},
    ]
    write_json(written / "tokenizer_config.json", config)
    processor = UniDiffProcessor.from_pretrained(written)
    messages = [{"role": "user", "content": " hi "}]
    assert processor.apply_chat_template(messages, tokenize=False) == "hi"
    config["chat_template"][0]["name"] = "plain"
    write_json(written / "tokenizer_config.json", config)
    with pytest.raises(ValueError, match='templates plain, tool_use, and none is called "default"'):
        UniDiffProcessor.from_pretrained(written)
    config["chat_template"].pop()
    write_json(written / "tokenizer_config.json", config)
    processor = UniDiffProcessor.from_pretrained(written)
    assert processor.apply_chat_template(messages, tokenize=False) == "hi"
