"""Faults of lens, sensor and transmission. Signature as in `framegate.runtime.faults.light`."""

from __future__ import annotations

import cv2
import numpy as np

from framegate.runtime.verdict import Image

_BLUR = (0.001, 0.002, 0.0035, 0.006, 0.01)
_COVERED = (0.2, 0.4, 0.6, 0.8, 1.0)
_NOISE = (4.0, 8.0, 16.0, 32.0, 64.0)
_QUALITY = (30, 20, 10, 5, 2)
SHARES = (0.125, 0.25, 0.5, 0.625, 0.75)
"""Share of the frame's height that is old ("torn") or missing ("half"), by severity."""
_STUCK_QUALITY = (95, 85, 70, 50, 30)
_STUCK_NOISE = (0.5, 1.0, 2.0, 3.0, 5.0)
_FILLS = ((0, 0, 0), (128, 128, 128), (0, 135, 0))
"""BGR of what decoders and drivers leave where nothing arrived: zeros, mid grey, zeros read as YUV."""


def blur(image: Image, severity: int, frame_id: int) -> Image:
    """Out of focus: a Gaussian of 0.1, 0.2, 0.35, 0.6 or 1 % of the height (0.7 to 7 pixels at 720 rows)."""
    del frame_id
    sigma = max(_BLUR[severity - 1] * image.shape[0], 0.3)
    return _gaussian(image, sigma)


def covered(image: Image, severity: int, frame_id: int) -> Image:
    """Mud on the lens: 20, 40, 60, 80 or 100 % of the width, dark and far out of focus, with a soft edge."""
    del frame_id
    height, width = image.shape[:2]
    smeared = _gaussian(image, max(0.03 * height, 0.5)) * np.float32(0.35)
    edge = _COVERED[severity - 1] * width
    soft = max(0.05 * width, 1.0)
    share = np.clip((edge - np.arange(width, dtype=np.float32)) / soft + (1.0 if severity == 5 else 0.5), 0.0, 1.0)
    share = share[None, :] if image.ndim == 2 else share[None, :, None]
    return np.asarray(np.clip(np.rint(smeared * share + image * (1.0 - share)), 0, 255), np.uint8)


def noise(image: Image, severity: int, frame_id: int) -> Image:
    """Independent normal noise on every value, standard deviation 4, 8, 16, 32 or 64 levels; other in each frame."""
    drawn = np.random.default_rng((frame_id, severity)).standard_normal(image.shape, np.float32)
    return np.asarray(np.clip(np.rint(image + _NOISE[severity - 1] * drawn), 0, 255), np.uint8)


def compression(image: Image, severity: int, frame_id: int) -> Image:
    """JPEG at quality 30, 20, 10, 5 or 2."""
    del frame_id
    return _jpeg(image, _QUALITY[severity - 1])


def channel(image: Image, severity: int, frame_id: int) -> Image:
    """One colour channel is lost: blue, green and red in turn, one per frame."""
    del severity
    result = image.copy()
    if image.ndim == 3:
        result[..., frame_id % image.shape[2]] = 0
    return result


def size(image: Image, severity: int, frame_id: int) -> Image:
    """Half the width and height: the camera changed its mode."""
    del severity, frame_id
    height, width = image.shape[:2]
    return np.asarray(cv2.resize(image, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA))


def grey16(image: Image, severity: int, frame_id: int) -> Image:
    """One channel of 16 bits: the wrong pixel format. 255 becomes 65535."""
    del severity, frame_id
    grey = image if image.ndim == 2 else image.mean(axis=2)
    return grey.astype(np.uint16) * np.uint16(257)


def half(image: Image, severity: int, frame_id: int) -> Image:
    """The lower 1/8, 1/4, 1/2, 5/8 or 3/4 never arrived: black, grey, green, or the last row again, in turn."""
    result = image.copy()
    first = _seam(image, severity)
    fill = frame_id % (len(_FILLS) + 1)
    if fill == len(_FILLS):
        result[first:] = image[first - 1]
    else:
        result[first:] = _FILLS[fill] if image.ndim == 3 and image.shape[2] == 3 else _FILLS[fill][0]
    return result


def torn(image: Image, severity: int, frame_id: int, past: Image) -> Image:
    """The lower 1/8, 1/4, 1/2, 5/8 or 3/4 is that of the last good frame: the buffer is no longer written to its end.

    Args:
        image: The frame.
        severity: 1 to 5.
        frame_id: Not used.
        past: The last good frame.
    """
    del frame_id
    result = image.copy()
    if past.shape == image.shape:
        first = _seam(image, severity)
        result[first:] = past[first:]
    return result


def stuck(image: Image, severity: int, frame_id: int, past: Image) -> Image:
    """The last good frame, encoded anew for every frame: JPEG from quality 95 down to 30, noise of 0.5 to 5 levels.

    Args:
        image: Not used: what the camera would have shown.
        severity: 1 to 5.
        frame_id: Chooses the noise and varies the quality by up to four.
        past: The last good frame.
    """
    del image
    drawn = np.random.default_rng((frame_id, severity)).standard_normal(past.shape, np.float32)
    noisy = np.clip(np.rint(past + _STUCK_NOISE[severity - 1] * drawn), 0, 255).astype(np.uint8)
    return _jpeg(noisy, _STUCK_QUALITY[severity - 1] - frame_id % 5)


def _seam(image: Image, severity: int) -> int:
    height: int = image.shape[0]
    return max(1, round((1.0 - SHARES[severity - 1]) * height))


def _gaussian(image: Image, sigma: float) -> Image:
    # OpenCV drops a last axis of length 1, hence the reshape.
    blurred: Image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))
    return blurred.reshape(image.shape)


def _jpeg(image: Image, quality: int) -> Image:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        return image.copy()
    decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE if image.ndim == 2 or image.shape[2] == 1 else cv2.IMREAD_COLOR)
    return np.asarray(decoded).reshape(image.shape)
