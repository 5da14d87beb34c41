"""Metrics: what the judges see, PSNR, SSIM and the Frechet distance."""

import numpy as np
import pytest
from PIL import Image
from unidiff_imaging.judges import edit_success, seen_objects, text_match
from unidiff_imaging.pictures import photograph
from unidiff_imaging.quality import (
    MOST_DB,
    distance_to,
    frechet_distance,
    picture_distance,
    psnr_db,
    psnr_to,
    ssim,
)

from unidiff.data.sources.garments import CLASS_NAMES, draw_caption
from unidiff.data.sources.scene_judge import scene_matches
from unidiff.data.sources.scene_language import caption, drawing_request
from unidiff.data.sources.scenes import render_scene, sample_scene, scene_generator


@pytest.fixture
def scenes():
    return [sample_scene(scene_generator("unseen", seed), "unseen", 2) for seed in range(12)]


def test_the_judge_of_texts_agrees_with_the_judge_of_scenes(scenes):
    rng = np.random.default_rng(0)
    pictures = [render_scene(scene) for scene in scenes]
    for shift in (0, 1):
        asked = scenes[shift:] + scenes[:shift]
        texts = [{"text": drawing_request(scene, rng)} for scene in asked]
        wanted = [scene_matches(*pair) for pair in zip(pictures, asked, strict=True)]
        assert text_match(pictures, texts).tolist() == [float(one) for one in wanted]


def test_photographs_show_what_their_captions_say():
    rng = np.random.default_rng(0)
    pictures, labels = zip(*[photograph("test", number) for number in range(20)], strict=True)
    right = [{"caption": draw_caption(label, rng)} for label in labels]
    wrong = [{"caption": draw_caption((label + 5) % 10, rng)} for label in labels]
    assert text_match(pictures, right).mean() >= 0.8
    assert text_match(pictures, wrong).mean() <= 0.2
    assert len(CLASS_NAMES) == 10


def test_nobody_can_say_whether_a_picture_shows_a_tree(scenes):
    picture = render_scene(scenes[0])
    large = Image.fromarray(picture).resize((64, 64))
    answers = text_match([picture, picture, large], [{"text": "a tree"}, {}, {"text": "a bag"}])
    assert np.isnan(answers).all()


def test_an_edit_counts_where_every_object_is_and_stands_right(scenes):
    pictures = [render_scene(scene) for scene in scenes]
    examples = [{"edited": picture} for picture in pictures]
    assert edit_success(pictures, examples).all()
    assert not edit_success(pictures[1:] + pictures[:1], examples).any()
    moved = [np.roll(picture, 3, axis=0) for picture in pictures]
    assert not edit_success(moved, examples).any()


def test_what_is_seen_is_said_by_name(scenes):
    names = sorted(item.name for item in scenes[0].objects)
    assert seen_objects(render_scene(scenes[0])) == ", ".join(names)
    assert seen_objects(np.full((32, 32, 3), 48, dtype=np.uint8)) == "nothing"
    assert caption(scenes[0], np.random.default_rng(0))


def test_psnr_is_ten_times_the_logarithm_of_the_peak_over_the_error():
    picture = np.full((8, 8, 3), 100, dtype=np.uint8)
    other = picture + np.uint8(10)
    assert psnr_db(picture, other) == pytest.approx(10 * np.log10(255**2 / 100))
    where = np.zeros((8, 8), dtype=bool)
    assert np.isnan(psnr_db(picture, other, where))
    where[0] = True
    half = picture.copy()
    half[1:] = 0
    assert psnr_db(half, picture, where) == MOST_DB


def test_ssim_is_one_of_equal_pictures_and_counts_the_chosen_pixels():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    other = picture.copy()
    other[:, 20:] = 255 - other[:, 20:]
    left = np.zeros((32, 32), dtype=bool)
    left[:, :20] = True
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert ssim(other, picture, left) == pytest.approx(1.0)
    assert ssim(other, picture, ~left) < 0.5


def test_references_are_brought_to_the_size_of_the_result():
    reference = Image.new("RGB", (28, 28), "white")
    result = np.zeros((32, 32, 3), dtype=np.uint8)
    result[2:30, 2:30] = 255
    assert psnr_to("image")([result], [{"image": reference}]).tolist() == [MOST_DB]


def test_the_frechet_distance_of_diagonal_laws_has_a_closed_form():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4000, 3))
    points = (points - points.mean(0)) / points.std(0, ddof=1)
    whitened = points @ np.linalg.inv(np.linalg.cholesky(np.cov(points, rowvar=False))).T
    scales = np.array([1.0, 2.0, 0.5])
    moved = whitened * scales + np.array([3.0, 0.0, 0.0])
    expected = 9.0 + ((scales - 1.0) ** 2).sum()
    assert frechet_distance(whitened, moved) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(moved, moved) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="2 pictures"):
        frechet_distance(points[:1], points)


def test_photographs_are_nearer_to_photographs_than_scenes_are(scenes):
    first = [photograph("test", number)[0] for number in range(40)]
    second = [photograph("test", number)[0] for number in range(40, 80)]
    drawn = [render_scene(scenes[number % 12]) for number in range(40)]
    near, far = picture_distance(first, second), picture_distance(drawn, second)
    assert near < far / 2
    assert distance_to("image")(first, [{"image": one} for one in second]) == near
