"""JPEGs that are whole have OpenCV's pixels, and damage inside one is seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from framegate.runtime.sources import jpeg_decoder
from framegate.runtime.sources.images import AS_CAPTURED, decode_image, read_image
from framegate.runtime.sources.jpeg_decoder import decode_jpeg

pytest.importorskip("simplejpeg")


def picture(height=121, width=163):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(image, *options):
    return cv2.imencode(".jpg", image, list(options))[1].tobytes()


def spoilt(data, how):
    at = len(data) // 2
    if how == "lost":
        return data[:at] + data[at + 40 :]
    if how == "zeros":
        return data[:at] + bytes(300) + data[at + 300 :]
    return data[:at] + data[at + 200 : at + 260] + data[at:]


@pytest.mark.parametrize(
    "options",
    [
        (),
        (cv2.IMWRITE_JPEG_QUALITY, 40),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
        (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
    ],
)
@pytest.mark.parametrize("grey", [False, True])
def test_pixels_are_those_of_opencv(options, grey):
    image = picture()
    data = encoded(image[:, :, 0] if grey else image, *options)
    found = decode_jpeg(data)
    assert not found.damaged
    assert np.array_equal(found.image, cv2.imdecode(np.frombuffer(data, np.uint8), AS_CAPTURED))
    assert np.array_equal(decode_image(data, AS_CAPTURED), found.image)


@pytest.mark.parametrize("how", ["lost", "zeros", "more"])
def test_fault_damage_inside_a_jpeg_leaves_no_pixels(how, tmp_path):
    """OpenCV gives a picture whose lower half is somewhere else, without a word."""
    data = spoilt(encoded(picture()), how)
    silent = cv2.imdecode(np.frombuffer(data, np.uint8), AS_CAPTURED)
    assert (np.abs(silent.astype(int) - picture()).max(2) > 40).mean() > 0.05
    assert decode_image(data, AS_CAPTURED).size == 0
    (tmp_path / "spoilt.jpg").write_bytes(data)
    assert read_image(tmp_path / "spoilt.jpg").size == 0


def test_some_bytes_of_padding_are_no_damage():
    """Many cameras pad each picture."""
    whole = encoded(picture())
    padded = whole[:-2] + bytes(5) + whole[-2:]
    assert np.array_equal(decode_image(padded, AS_CAPTURED), decode_image(whole, AS_CAPTURED))
    assert decode_image(whole[:-2] + bytes(100) + whole[-2:], AS_CAPTURED).size == 0


def test_what_the_package_does_not_know_is_left_to_opencv(monkeypatch):
    class Unable:
        def decode_jpeg(self, *_args, **_options):
            raise ValueError("Unsupported color conversion request")

    data = encoded(picture())
    monkeypatch.setattr(jpeg_decoder, "_package", Unable)
    assert decode_jpeg(data) == (None, False)
    assert decode_image(data, AS_CAPTURED).shape == picture().shape


def test_without_the_package_opencv_decodes(monkeypatch):
    monkeypatch.setattr(jpeg_decoder, "_package", lambda: None)
    assert decode_image(encoded(picture()), AS_CAPTURED).shape == picture().shape
