"""An autoregressive source, before any tuning: blocks of one are its own greedy decoding."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from unidiff import UniDiffForBlockDiffusion

from .published import END, TABLE, Published

AUTOREGRESSIVE = [one for one in TABLE if one.name == "autoregressive"]


@pytest.mark.parametrize("published", AUTOREGRESSIVE, ids=lambda one: one.config["model_type"])
def test_blocks_of_one_give_the_tokens_of_transformers_generate(
    published: Published, tmp_path: Path
) -> None:
    theirs = published.model()
    published.write(tmp_path / "source", theirs)
    ours = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "source", dtype=torch.float32)
    assert ours.config.logits_shift == 1
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(3, 256, (3, 7), generator=generator)
    options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": END, "pad_token_id": END}
    expected = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
    found = ours.generate(prompts, block_length=1, decoding_mode="diffusion", **options)
    assert torch.equal(found, expected)
    assert (expected[:, 7:] != END).any()


def test_longer_blocks_are_not_what_the_source_says(tmp_path: Path) -> None:
    published = AUTOREGRESSIVE[0]
    theirs = published.model()
    published.write(tmp_path / "source", theirs)
    ours = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "source", dtype=torch.float32)
    prompt = torch.arange(5, 12)[None]
    one, four = (
        ours.generate(
            prompt,
            block_length=length,
            max_denoising_steps=length,
            max_new_tokens=16,
            decoding_mode="diffusion",
            eos_token_id=-1,
        )
        for length in (1, 4)
    )
    assert not torch.equal(one, four)


def test_an_adapter_that_peft_wrote_finds_its_foreign_base(tmp_path: Path) -> None:
    published = AUTOREGRESSIVE[-1]
    published.write(tmp_path / "source", published.model())
    tuned = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "source", dtype=torch.float32)
    tuned.add_adapter(LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    again = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    assert again.config.logits_shift == 1
    assert again.config.mask_token_id == tuned.config.mask_token_id
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(again(ids).logits, tuned.eval()(ids).logits)
        tuned.disable_adapters()
        assert not torch.equal(again(ids).logits, tuned(ids).logits)


def test_an_adapter_without_its_base_says_what_to_do(tmp_path: Path) -> None:
    published = AUTOREGRESSIVE[-1]
    published.write(tmp_path / "source", published.model())
    tuned = UniDiffForBlockDiffusion.from_pretrained(tmp_path / "source", dtype=torch.float32)
    tuned.add_adapter(LoraConfig(target_modules=["q_proj"]))
    tuned.save_pretrained(tmp_path / "adapter")
    (tmp_path / "source").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"was trained on .*source, which is not there"):
        UniDiffForBlockDiffusion.from_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(ValueError, match=r"names no base .*call model\.load_adapter"):
        UniDiffForBlockDiffusion.from_pretrained(tmp_path / "adapter")
