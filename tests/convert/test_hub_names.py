"""Names on the hub: what is fetched, with which options, and what never is. No network here."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file
from typer.testing import CliRunner

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.cli.app import ERROR_EXIT, app
from unidiff.convert.writing import convert_checkpoint
from unidiff.tokens.foreign import PICKLES, local_folder

from .published import TABLE

NAME = "some-lab/Some-8B-Chat"
LLADA = next(one for one in TABLE if one.name == "llada")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub cache with two revisions of one repository, as huggingface_hub lays it out."""
    folder = tmp_path_factory.mktemp("hub")
    repository = folder / f"models--{NAME.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    for seed, revision in enumerate(("main", "older")):
        commit = str(seed) * 40
        (repository / "refs" / revision).write_text(commit)
        LLADA.write(repository / "snapshots" / commit, LLADA.model(seed))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keywords of every download that was asked for."""
    calls: list[dict[str, Any]] = []
    for name in ("hf_hub_download", "snapshot_download"):
        download = getattr(huggingface_hub, name)

        def spy(*given: Any, download: Any = download, **keywords: Any) -> Any:
            calls.append(keywords)
            return download(*given, **keywords)

        monkeypatch.setattr(huggingface_hub, name, spy)
    return calls


@pytest.mark.parametrize(("revision", "seed"), [(None, 0), ("older", 1), ("1" * 40, 1)])
def test_a_name_is_the_folder_of_its_revision(
    cache: Path, revision: str | None, seed: int, tmp_path: Path
) -> None:
    options = {"cache_dir": cache, "revision": revision}
    model = UniDiffForBlockDiffusion.from_pretrained(NAME, dtype=torch.float32, **options)
    expected = LLADA.model(seed).lm_head.weight
    assert torch.equal(model.lm_head.weight, expected)
    processor = UniDiffProcessor.from_pretrained(NAME, **options)
    assert processor.for_chat([{"role": "user", "content": "hi"}])["input_ids"].shape[1] > 2
    native = convert_checkpoint(NAME, tmp_path / "native", **options)
    again = UniDiffForBlockDiffusion.from_pretrained(native, dtype=torch.float32)
    assert torch.equal(again.lm_head.weight, expected)
    assert not any(path.is_symlink() for path in native.rglob("*"))


def test_every_option_reaches_every_download(cache: Path, asked: list[dict[str, Any]]) -> None:
    options = {
        "cache_dir": cache,
        "revision": "older",
        "token": "hf_secret",
        "local_files_only": True,
    }
    UniDiffForBlockDiffusion.from_pretrained(NAME, **options)
    UniDiffProcessor.from_pretrained(NAME, **options)
    assert len(asked) == 4  # a configuration and a snapshot, twice
    for call in asked:
        assert {name: call[name] for name in options} == options


@pytest.mark.parametrize("more", [(), PICKLES])
def test_weights_configuration_and_tokenizer_are_fetched_and_no_code(
    cache: Path, asked: list[dict[str, Any]], more: tuple[str, ...]
) -> None:
    local_folder(NAME, more=more, cache_dir=cache)
    wanted = [
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "merges.txt",
    ]
    pickled = ["pytorch_model.bin", "weights.pt"]
    others = ["modeling_llada.py", "original/consolidated.00.pth", "onnx/model.safetensors"]
    patterns = {name: asked[-1][name] for name in ("allow_patterns", "ignore_patterns")}
    found = list(filter_repo_objects([*wanted, *pickled, *others], **patterns))
    assert found == [*wanted, *(pickled if more else [])]


def test_weights_that_the_hub_has_as_pickles_alone_need_leave(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "hub"
    shutil.copytree(cache, own, symlinks=True)
    for path in own.rglob("*.safetensors"):
        path.rename(path.with_suffix(".away"))  # what snapshot_download leaves on the hub
    words = f"{NAME} has no .*safetensors.* can hold code.* use_safetensors=False.*--allow-pickle"
    for load in (UniDiffForBlockDiffusion.from_pretrained, UniDiffProcessor.from_pretrained):
        with pytest.raises(ValueError, match=words):
            load(NAME, cache_dir=own)
    with pytest.raises(ValueError, match=words):
        convert_checkpoint(NAME, tmp_path / "native", cache_dir=own)
    for path in own.rglob("model.away"):
        torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    model = UniDiffForBlockDiffusion.from_pretrained(NAME, cache_dir=own, use_safetensors=False)
    assert torch.equal(model.lm_head.weight.float(), LLADA.model(0).lm_head.weight)


def test_our_own_checkpoints_are_left_to_transformers(
    cache: Path, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    own = tmp_path / "hub"
    shutil.copytree(cache, own, symlinks=True)
    for path in own.rglob("config.json"):
        path.write_text('{"model_type": "unidiff"}')
    assert local_folder(NAME, cache_dir=own) == Path(NAME)
    assert len(asked) == 1


def test_a_name_that_cannot_be_had_is_an_error(tmp_path: Path) -> None:
    name = "some-lab/nothing"
    for load in (UniDiffForBlockDiffusion.from_pretrained, UniDiffProcessor.from_pretrained):
        with pytest.raises(OSError, match=r"nothing|cached files"):
            load(name, cache_dir=tmp_path)
    result = CliRunner().invoke(app, ["convert", name, str(tmp_path / "native")])
    assert result.exit_code == ERROR_EXIT
    assert "some-lab/nothing is neither a folder nor" in " ".join(result.stderr.split())
    assert not (tmp_path / "native").exists()


@pytest.mark.parametrize("kind", [RepositoryNotFoundError, GatedRepoError])
def test_what_the_hub_refuses_is_said_and_what_it_lacks_is_a_path(
    kind: type[RepositoryNotFoundError], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = SimpleNamespace(headers={}, request=None)

    def refused(*given: Any, **keywords: Any) -> None:
        raise kind("ask for access", response=answer)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    if kind is RepositoryNotFoundError:
        assert local_folder("no/such") == Path("no/such")
        return
    with pytest.raises(GatedRepoError, match="ask for access"):
        local_folder("some-lab/gated")


def test_the_command_line_takes_names(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    given = ["generate", "hi", "--checkpoint", NAME, "--max-new-tokens", "4", "--json"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
