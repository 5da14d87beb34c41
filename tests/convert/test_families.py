"""Every family: loads whole, gives the reference's logits and tokens, comes back bit for bit."""

from pathlib import Path

import pytest
import torch

from unidiff import UniDiffForBlockDiffusion, UniDiffProcessor
from unidiff.convert.families import all_families, named_family
from unidiff.convert.loading import open_foreign
from unidiff.convert.writing import convert_checkpoint, export_checkpoint

from . import reference_loops as loops
from .published import ROWS, TABLE, Published
from .published_bert import BERTS
from .published_dit import DIT_TABLE
from .published_dreamon import DREAMON
from .published_lumina import LUMINA
from .published_moe import MIXTURES
from .published_showo import SHOWOS
from .published_soft import SOFT_TABLE
from .published_unidisc import UNIDISC

EVERY = (
    *TABLE,
    *MIXTURES,
    *DIT_TABLE,
    *BERTS,
    *SHOWOS,
    *SOFT_TABLE,
    UNIDISC,
    LUMINA,
    DREAMON,
)
LEFT_TO_RIGHT = ("autoregressive", "qwen3-moe", "show-o")
PUBLISHED = pytest.mark.parametrize("published", EVERY, ids=lambda one: f"{one.name}-{one.kind}")


def random_ids(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, ROWS, (2, 13), generator=torch.Generator().manual_seed(seed))


def test_every_family_has_a_row() -> None:
    assert {family.name for family in all_families()} == {one.name for one in EVERY}


@PUBLISHED
def test_logits_equal_the_reference(published: Published, tmp_path: Path) -> None:
    theirs = published.model()
    folder = published.write(tmp_path / "foreign", theirs)
    assert open_foreign(folder).family is named_family(published.name)
    ours, report = UniDiffForBlockDiffusion.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert ours.config.mask_token_id == published.mask
    assert ours.config.logits_shift == published.shift
    ids = random_ids()
    with torch.no_grad():
        logits = ours(ids).logits[..., : published.rows]
    torch.testing.assert_close(logits, published.logits(theirs, ids), rtol=1e-5, atol=1e-5)


@PUBLISHED
@pytest.mark.parametrize("num_files", [1, 3])
def test_export_is_bit_identical(published: Published, num_files: int, tmp_path: Path) -> None:
    folder = published.write(tmp_path / "foreign", published.model().bfloat16(), num_files)
    native = convert_checkpoint(folder, tmp_path / "native", shard_bytes=20_000)
    back = export_checkpoint(native, tmp_path / "back")
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in back.iterdir()) == names
    for name in names:
        assert (folder / name).read_bytes() == (back / name).read_bytes(), name


@PUBLISHED
def test_the_converted_folder_is_the_same_model(published: Published, tmp_path: Path) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    native = convert_checkpoint(folder, tmp_path / "native")
    one = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    two = UniDiffForBlockDiffusion.from_pretrained(native, dtype=torch.float32)
    states = [model.state_dict() for model in (one, two)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())
    logits = [model(random_ids()).logits for model in (one, two)]
    # Bits of a product of one row depend on where the weights lie in memory.
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-6)
    options = [m.generation_config.to_diff_dict() for m in (one, two)]
    for given in options:
        given.pop("transformers_version", None)
    assert options[0] == options[1]
    chat = [{"role": "user", "content": "<|mask|> hello"}]
    prompts = [UniDiffProcessor.from_pretrained(f).for_chat(chat) for f in (folder, native)]
    assert torch.equal(prompts[0]["input_ids"], prompts[1]["input_ids"])
    assert published.mask not in prompts[0]["input_ids"]  # what a user writes is plain text


def expected_row(published: Published, prompt: torch.Tensor, new: int) -> torch.Tensor:
    """What the family's own loop makes of a prompt, one token a step."""
    theirs, mask = published.model(), published.mask

    def logits(ids: torch.Tensor) -> torch.Tensor:
        known = ids.clamp(max=published.rows - 1)
        raw = published.decoding_logits(theirs, known, len(prompt))[0]
        raw[:, published.num_text :] = -torch.inf
        raw[:, published.never] = -torch.inf
        reads_successors = published.shift or published.name in LEFT_TO_RIGHT
        return torch.cat([raw[:1], raw[:-1]]) if reads_successors else raw

    if published.name in LEFT_TO_RIGHT:
        return loops.left_to_right(logits, prompt, new, mask)
    block = open_block(published)
    if published.pattern(block + 1).all():
        score = (
            loops.lowest_entropy
            if published.name in ("dream", "dreamon")
            else loops.highest_probability
        )
        return loops.one_by_one(logits, prompt, new, block, mask, score)
    return loops.in_blocks(logits, prompt, new, block, mask, loops.highest_probability)


def open_block(published: Published) -> int:
    """Positions that are filled together."""
    return published.config.get("block_size", published.config.get("bd_size", 4))


@PUBLISHED
def test_greedy_decoding_equals_the_published_loop(published: Published, tmp_path: Path) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    prompt = random_ids(3)[0, :6]
    expected = expected_row(published, prompt, 10)
    how = {"decoding_mode": "ar"}
    if published.name not in LEFT_TO_RIGHT:
        metric = "entropy" if published.name in ("dream", "dreamon") else "prob"
        how = {"unmasking_strategy": "static", "confidence_metric": metric}
        how["block_length"] = open_block(published)
    found = model.generate(
        prompt[None], max_new_tokens=10, do_sample=False, eos_token_id=-1, **how
    )[0]
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(("length", "sub"), [(6, 4), (8, 4), (13, 2), (3, 8)])
def test_fast_dllm_decodes_as_its_own_loop(length: int, sub: int, tmp_path: Path) -> None:
    published = next(one for one in TABLE if one.name == "fast-dllm-v2")
    theirs = published.model()
    folder = published.write(tmp_path / "foreign", theirs)
    model = UniDiffForBlockDiffusion.from_pretrained(folder, dtype=torch.float32)
    prompt, block = random_ids(4)[0, :length], open_block(published)
    stop = (length // block + 3) * block

    def logits(ids: torch.Tensor) -> torch.Tensor:
        raw = published.logits(theirs, ids)[0]
        return torch.cat([raw[:1], raw[:-1]])

    expected = loops.in_sub_blocks(logits, prompt, stop, (block, sub), published.mask, 0.3)
    # No option but the sizes of this tiny model: the rest is what the folder is decoded by.
    sizes = {"sub_block_length": sub, "confidence_threshold": 0.3, "eos_token_id": -1}
    found = model.generate(prompt[None], max_new_tokens=stop - length, **sizes)
    assert found[0].tolist() == expected.tolist()


@pytest.mark.parametrize("published", [TABLE[0], TABLE[-1]], ids=lambda one: one.name)
def test_a_tokenizer_without_template_gets_the_familys(
    published: Published, tmp_path: Path
) -> None:
    folder = published.write(tmp_path / "foreign", published.model())
    (folder / "chat_template.jinja").unlink()
    processor = UniDiffProcessor.from_pretrained(folder)
    text = processor.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    llada = "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    assert text.startswith(llada if published.name == "llada" else "hi")
