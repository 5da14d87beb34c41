"""Families of the third tier on the command line: facts, verdicts, and holes in texts.

Run: pytest tests/convert/test_further_families.py
"""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from unidiff import UniDiffProcessor
from unidiff.cli.app import ERROR_EXIT, app

from .published import Published
from .published_bert import BERTS
from .published_showo import SHOWOS
from .published_soft import DIMPLE, DREAM_VL, LAVIDA, LAVIDA_DREAM, LLADA_V, SOFT_TABLE
from .published_unidisc import UNIDISC

TIER = (*BERTS, SHOWOS[0], UNIDISC, *SOFT_TABLE)


def ran(*line: Any) -> Any:
    """The result of a command line."""
    return CliRunner().invoke(app, [str(one) for one in line])


def verified(folder: Path) -> Any:
    """The result of `unidiff verify`."""
    given = ("--device", "cpu", "--new-tokens", 6, "--prompt", "a b")
    return ran("verify", folder, *given, "--json")


@pytest.mark.parametrize("published", TIER, ids=lambda one: one.name)
def test_info_tells_a_checkpoint_as_it_is_loaded(published: Published, tmp_path: Path) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    result = ran("info", "--checkpoint", folder, "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)["checkpoint"]
    wide = "causal_context" if published.name == "show-o" else "full"
    pattern = "prefix" if published.name.startswith("lavida") else wide
    assert (facts["family"], facts["attention pattern"]) == (published.name, pattern)
    table = next(
        tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
        if any(part in name for part in ("embed_tokens", "wte", "word_embeddings", "vocab_embed"))
    )
    assert facts["layers x width"] == f"2 x {table.shape[1]}"
    assert facts["stored as"] == "float32"
    has_codes = published in (SHOWOS[0], UNIDISC)
    assert ("image" in facts["ids"]) == ("image grid" in facts) == has_codes
    assert ("image tokenizer" in facts) == has_codes
    towers = {
        **dict.fromkeys(
            [LLADA_V.name, LAVIDA.name, LAVIDA_DREAM.name], "siglip tower of 2 layers over tiles"
        ),
        DREAM_VL.name: "qwen2_vl tower of 2 layers over patches",
        DIMPLE.name: "qwen2_5_vl tower of 2 layers over patches",
    }
    assert towers.get(published.name, "") in facts.get("pictures", "")
    assert ("pictures" in facts) == (published.name in towers)


@pytest.mark.parametrize(
    ("published", "against"),
    [
        (BERTS[0], "BertForMaskedLM"),
        (BERTS[1], "RobertaForMaskedLM"),
        (SHOWOS[0], "PhiForCausalLM"),
        (SHOWOS[1], "PhiForCausalLM"),
    ],
    ids=["bert", "roberta", "show-o", "show-o-norms"],
)
def test_transformers_classes_agree(published: Published, against: str, tmp_path: Path) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    result = verified(folder)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["against"].endswith(f".{against}")
    assert report["prompts"][0]["scale"] > 0.1
    assert report["prompts"][0]["max_difference"] < 1e-4


def test_names_that_transformers_does_not_know_are_said(tmp_path: Path) -> None:
    """Else it would fill in random weights, and a right reading would look wrong."""
    folder = BERTS[0].write(tmp_path / "foreign", BERTS[0].model())
    weights = load_file(folder / "model.safetensors")
    saved = {f"module.{name}": tensor for name, tensor in weights.items()}
    save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    result = verified(folder)
    assert result.exit_code == ERROR_EXIT
    assert "BertForMaskedLM of transformers finds no" in result.stderr


@pytest.mark.parametrize("published", [*SOFT_TABLE, UNIDISC], ids=lambda one: one.name)
def test_what_there_is_nothing_to_compare_with_says_what_is_missing(
    published: Published, tmp_path: Path
) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    result = verified(folder)
    assert result.exit_code == ERROR_EXIT
    where = {
        "llada-v": "github.com/ML-GSAI/LLaDA-V",
        "lavida": "github.com/jacklishufan/LaViDa",
        "lavida-dream": "github.com/jacklishufan/LaViDa",
        "unidisc": "github.com/alexanderswerdlow/unidisc",
    }
    said = " ".join(result.stderr.split())
    assert f"no class for {published.name}: there is nothing to compare with" in said
    assert where.get(published.name, "lay them beside the weights") in said


@pytest.mark.parametrize("published", [SHOWOS[0], UNIDISC, *SOFT_TABLE], ids=lambda one: one.name)
def test_holes_are_refused_where_none_were_learned(published: Published, tmp_path: Path) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    processor = UniDiffProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match="was not trained to fill holes"):
        processor.for_text_infill("a <|hole|> b")
