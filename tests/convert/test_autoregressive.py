"""An autoregressive source, before any tuning: blocks of one are its own greedy decoding."""

from pathlib import Path

import pytest
import torch

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
