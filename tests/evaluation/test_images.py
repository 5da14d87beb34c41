"""Round trips: PSNR and code use where both are known."""

import numpy as np
import pytest

from unidiff.data.sources.garments import DEFAULT_ROOT
from unidiff.evaluation.images import measure_images, psnr_db, table_pictures
from unidiff.evaluation.pictures import decode_pictures, encode_pictures

SETTINGS = {"num_photographs": 6, "num_scenes": 6, "num_tables": 6}


def test_psnr_of_a_known_error_is_printed_by_hand():
    reference = np.zeros((2, 4, 4, 3), np.uint8)
    picture = reference + np.uint8(255)
    picture[1] = 1
    assert psnr_db(picture, reference) == pytest.approx([0.0, 20 * np.log10(255)])
    assert psnr_db(reference, reference) == pytest.approx([99.0, 99.0])


@pytest.mark.skipif(not DEFAULT_ROOT.exists(), reason="dataset-fashion-mnist missing")
def test_a_lossless_tokenizer_reaches_the_ceiling_and_shows_which_codes_it_uses(context_with):
    psnr, use = measure_images(context_with(), SETTINGS)
    assert psnr.value == pytest.approx(99.0)
    assert set(psnr.details["by_set"]) == {"photographs", "seen_scenes", "unseen_scenes", "table"}
    assert psnr.num_inputs == use.num_inputs == 24
    # 24 pictures numbered 1.. in one digit of base 240, and the zeros
    assert use.details["overall"] == pytest.approx(25 / 240)
    assert use.value == pytest.approx(7 / 240)
    assert use.conditions == {"at_least_240_codes": True}


def test_codes_and_pictures_keep_their_order_across_batches(lossless, monkeypatch):
    monkeypatch.setattr("unidiff.evaluation.pictures._BATCH", 3)
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    codes = encode_pictures(lossless, pictures)
    assert np.array_equal(decode_pictures(lossless, codes), pictures)
    assert np.array_equal(decode_pictures(lossless, codes[::-1]), pictures[::-1])


def test_table_pictures_come_from_several_tables():
    pictures = table_pictures(40, 0)
    assert pictures.shape == (40, 32, 32, 3)
    assert len(np.unique(pictures.reshape(40, -1), axis=0)) > 20
    assert not np.array_equal(pictures, table_pictures(40, 1))
