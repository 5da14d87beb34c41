"""Embeddings of codes start where neighbours are neighbours."""

import numpy as np
import pytest
import torch

from unidiff.model import UniDiffConfig, UniDiffForBlockDiffusion
from unidiff.tokens.image import FSQImageTokenizer, FSQImageTokenizerConfig
from unidiff.tokens.layout import contiguous_layout
from unidiff.training.code_embeddings import (
    fourier_embeddings,
    initialise_code_embeddings,
    lattice_coordinates,
)

LEVELS = [4, 3]


def tiny_model() -> UniDiffForBlockDiffusion:
    layout = contiguous_layout(
        {"text": 40, "image": 12, "action": 16, "state": 16},
        mask_token_id=1,
        pad_token_id=0,
        end_token_ids=(3,),
    )
    torch.manual_seed(0)
    return UniDiffForBlockDiffusion(UniDiffConfig(vocab_size=84, token_layout=layout.to_dict()))


def test_lattice_coordinates_follow_the_image_tokenizers_own_digits() -> None:
    tokenizer = FSQImageTokenizer(FSQImageTokenizerConfig(levels=LEVELS))
    values = tokenizer.quantizer.to_values(torch.arange(12).reshape(1, 3, 4))[0].flatten(1).T
    coordinates = lattice_coordinates(LEVELS)
    for digit in range(2):  # same order of codes along each axis, whatever the scale
        by_value = np.argsort(values[:, digit].numpy(), kind="stable")
        by_coordinate = np.argsort(coordinates[:, digit], kind="stable")
        assert by_value.tolist() == by_coordinate.tolist()
    assert coordinates.min() == -1.0
    assert coordinates.max() == 1.0


def test_similarity_falls_with_distance_and_entries_have_the_deviation_asked_for() -> None:
    line = np.linspace(-1, 1, 64)[:, None]
    rows = fourier_embeddings(line, 512, (1.0, 60.0), 0.02, np.random.default_rng(0))
    cosine = torch.nn.functional.cosine_similarity(rows[:1], rows, dim=1)
    assert cosine[1] > cosine[4] > cosine[16]
    assert rows.std().item() == pytest.approx(0.02 * (1 + 0.25**2) ** 0.5, rel=0.05)


def test_only_code_rows_are_overwritten() -> None:
    model, fresh = tiny_model(), tiny_model()
    initialise_code_embeddings(model, LEVELS, seed=0)
    before, after = fresh.model.embed_tokens.weight, model.model.embed_tokens.weight
    assert torch.equal(before[:40], after[:40])
    assert not bool((before[40:] == after[40:]).any())
    assert torch.equal(model.lm_head.weight, after)


def test_levels_of_another_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match="give 27 codes, but the layout has 12 image ids"):
        initialise_code_embeddings(tiny_model(), [3, 3, 3], seed=0)
