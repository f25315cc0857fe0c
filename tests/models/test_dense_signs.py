"""The pictures that the example of a dense network is trained on: every pixel's label is what was pasted there."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the example is trained with PyTorch")

import cv2
import torch

from framegate.models import dense_signs
from framegate.models.dense_signs import (
    HEIGHT,
    WIDTH,
    Backgrounds,
    Run,
    agreement,
    compose,
    outline,
    paste,
    photographs_in,
)
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError


def test_outlines_have_the_shapes_of_the_signs():
    areas = {label: int(outline(label, 64).sum()) for label in (1, 11, 12, 13, 14)}
    circle = np.pi * (0.4 * 64) ** 2
    assert areas[1] == pytest.approx(circle, rel=0.05)
    assert areas[11] == pytest.approx(areas[13], rel=0.1)
    assert areas[11] < areas[12] < areas[14] < areas[1]  # triangle, diamond, octagon, circle


def test_a_sign_is_labelled_where_it_is_and_a_piece_of_background_is_not():
    picture = (np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8))
    white = np.full((32, 32, 3), 255, np.uint8)
    paste(picture, white, 1, (100, 70), 40, 1.0)
    paste(picture, white, 1, (200, 70), 40, 1.0, meaning=0)
    paste(picture, white, 1, (WIDTH + 90, 70), 40, 1.0)  # wholly outside
    image, labels = picture
    assert image[70, 100, 0] == image[70, 200, 0] == 255
    assert labels[70, 100] == 1
    assert labels[:, 150:].sum() == 0
    paste(picture, white, 1, (100, 70), 52, 1.0, meaning=0)  # what is pasted over a sign hides it
    assert labels.sum() == 0


def test_backgrounds_come_from_frames_and_photographs(tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "one.png"), rng.integers(0, 255, (700, 900, 3), np.uint8))
    (tmp_path / "note.txt").write_text("no picture")
    photographs = photographs_in(tmp_path)
    assert [max(each.shape) for each in photographs] == [500]
    frames = [np.full((270, 480, 3), 128, np.uint8)]
    drawn = Backgrounds(frames, photographs).draw(rng)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    signs = LabelledImages("signs", rng.integers(0, 255, (2, 32, 32, 3), np.uint8), np.array([1, 11]))
    _, labels = compose(drawn, signs, np.array([0, 1]), rng, inside=True)
    assert set(np.unique(labels)) == {0, 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture of at least 64 pixels"):
        photographs_in(tmp_path / "empty")


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    signs = LabelledImages("signs", rng.integers(0, 255, (2, 32, 32, 3), np.uint8), np.array([1, 11]))
    behind = Backgrounds([rng.integers(0, 255, (90, 160, 3), np.uint8)], [])
    monkeypatch.setattr(dense_signs, "_SAVED_EVERY", 1)
    whole = Run(3, 1, 0).train(signs, behind).state_dict()
    stopped = Run(3, 1, 0, tmp_path / "training.state")
    made = iter((dense_signs._batch, dense_signs._batch))
    monkeypatch.setattr(dense_signs, "_batch", lambda *given: next(made)(*given))
    with pytest.raises(StopIteration):
        stopped.train(signs, behind)
    monkeypatch.undo()
    resumed = Run(3, 1, 0, tmp_path / "training.state")
    resumed.resume()
    assert resumed.done == 2
    for name, value in resumed.train(signs, behind).state_dict().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(DataError, match=r"now .*'steps': 4"):
        Run(4, 1, 0, tmp_path / "training.state").resume()
    (tmp_path / "training.state").write_bytes(b"cut")
    with pytest.raises(DataError, match="delete it to begin anew"):
        Run(3, 1, 0, tmp_path / "training.state").resume()


def test_agreement_counts_the_pixels_of_signs():
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, : WIDTH // 2, 2] = 255  # red on the left: what this network calls a sign
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[: HEIGHT // 2] = 1  # the upper half is one
    network = torch.nn.Conv2d(3, 2, 1, 2, bias=False)
    network.weight.data = torch.tensor([[0.0, 0, 0], [1, 0, 0]])[..., None, None]
    overlap, precision, recall = agreement(network, [(image, labels)])
    assert (overlap, precision, recall) == pytest.approx((1 / 3, 1 / 2, 1 / 2))
    assert agreement(network, [(image * 0, labels * 0)]) == (0, 0, 0)
