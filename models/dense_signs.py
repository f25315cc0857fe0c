"""An example of a dense network: where is a traffic sign? ``python -m framegate.models.dense_signs`` trains it.

Nobody has labelled these pictures by hand: a sign of a GTSRB track is cut out along the outline of its class (circle,
triangle, diamond, octagon) and pasted onto a frame of a dash-camera clip, so the label of every pixel is known. What a
network learns from that is to find pasted signs; on signs of a real road it was never measured.

- Training: half of the tracks of the training split, on the frames of ``highway_960x540_25fps.mp4`` and, with
  ``--photos``, on photographs of anything: from one drive alone a network learns that whatever is new to it is a sign.
  Pieces of other pictures, cut out along the same outlines, are pasted as background: a cut edge is no sign either.
- Calibration: one picture for each of the other tracks, on the frames of ``highway_1280x720_25fps.mp4``. No track and
  no frame is in both; but the backgrounds are few, and all of one drive.

It writes ``dense-signs.onnx`` and ``calibration/`` (``images/`` and ``masks/``, a picture for each track), from which
``framegate export --kind dense`` makes the bundle. ``training.state`` is saved now and then; the same command resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.models import gtsrb
from framegate.models.dense_net import DenseNet
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError

LABELS = ("background", "sign")
WIDTH, HEIGHT = 256, 144
"""Of the network's input, in pixels; its map has half of both."""
ROADSIDE = (0.5, 0.08, 0.5, 0.56)
"""x, y, width, height of the judged region as shares: where signs stand beside and above the road."""
_CLIPS = Path(__file__).resolve().parent.parent / "camera_demo" / "clips"
TRAINING_CLIP, CALIBRATION_CLIP = (_CLIPS / f"highway_{size}_25fps.mp4" for size in ("960x540", "1280x720"))
_SIDES = (14, 52)
"""Smallest and largest side of a sign's picture, in pixels of the input."""
_LONGEST = 500
_PIECE = 64
"""Side of a piece that is cut out of another picture, in pixels."""
_RIM = 0.40
"""Half of the sign's size as a share of its picture's side: GTSRB leaves a tenth of the sign free on every side."""
_DOWN, _UP = (13,), (11, *range(18, 32))
_DIAMOND, _OCTAGON = (12,), (14,)

_RATE = 4e-3
_SAVED_EVERY = 200

Image = npt.NDArray[np.uint8]
Picture = tuple[Image, Image]
"""(height, width, 3) uint8 BGR, and (height, width) uint8 label of every pixel."""


def outline(label: int, side: int) -> Image:
    """(side, side) uint8, 1 on the sign: the shape that signs of a GTSRB class have."""
    mask = np.zeros((side, side), np.uint8)
    middle, reach = (side - 1) / 2, _RIM * side
    corners = {**dict.fromkeys(_UP, 3), **dict.fromkeys(_DOWN, 3), **dict.fromkeys(_DIAMOND, 4)}.get(label)
    corners = 8 if label in _OCTAGON else corners
    if corners is None:
        cv2.circle(mask, (round(middle * 16), round(middle * 16)), round(reach * 16), 1, cv2.FILLED, shift=4)
        return mask
    first = {3: -90.0 if label in _UP else 90.0, 4: 0.0, 8: 22.5}[corners]
    angles = np.deg2rad(first + np.arange(corners) * 360 / corners)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * reach + middle
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1, shift=4)
    return mask


def frames_of(clip: Path) -> list[Image]:
    """All frames of a clip.

    Raises:
        DataError: It cannot be read.
    """
    capture, found = cv2.VideoCapture(str(clip)), []
    while True:
        ok, image = capture.read()
        if not ok:
            break
        found.append(np.asarray(image, np.uint8))
    if not found:
        raise DataError(f"clip {clip}: no frame can be read")
    return found


def photographs_in(folder: Path) -> list[Image]:
    """All pictures of a folder, each at most `_LONGEST` pixels long.

    Raises:
        DataError: There is none.
    """
    found = []
    for path in sorted(folder.glob("*")):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= _PIECE:
            scale = min(1.0, _LONGEST / max(image.shape[:2]))
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            found.append(np.asarray(small, np.uint8))
    if not found:
        raise DataError(f"{folder}: no picture of at least {_PIECE} pixels on both sides can be read")
    return found


def background(frame: Image, rng: np.random.Generator, least: float = 0.65) -> Image:
    """A part of a frame at the network's size, mirrored or not, in another light.

    Args:
        frame: Of any size.
        rng: Chooses.
        least: The smallest part of both sides that is taken, in (0, 1].
    """
    height, width = frame.shape[:2]
    share = rng.uniform(least, 1.0)
    rows, columns = int(height * share), int(width * share)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    part = frame[top : top + rows, left : left + columns]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    small = cv2.resize(np.ascontiguousarray(part), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return _relit(np.asarray(small, np.uint8), rng, 0.35)


def _relit(image: Image, rng: np.random.Generator, strength: float) -> Image:
    gain, shift = np.exp(rng.uniform(-strength, strength)), rng.uniform(-60, 60) * strength
    relit: Image = np.clip(image * gain + shift, 0, 255).astype(np.uint8)
    return relit


def _recoloured(image: Image, rng: np.random.Generator) -> Image:
    """The same with another gain for each channel."""
    gains = np.exp(rng.uniform(-0.25, 0.25, 3)).astype(np.float32)
    recoloured: Image = np.clip(image * gains, 0, 255).astype(np.uint8)
    return recoloured


def paste(
    picture: Picture, sign: Image, label: int, centre: tuple[float, float], side: int, light: float, meaning: int = 1
) -> None:
    """Paste one sign into a picture, its rim softened as a camera's lens does.

    Args:
        picture: Changed in place.
        sign: 32x32 BGR.
        label: Its GTSRB class, by which it has its outline.
        centre: x and y in pixels; the sign may reach over the edge.
        side: Of the sign's picture, in pixels.
        light: Its pixels are multiplied by it.
        meaning: Label of its pixels, of `LABELS`; 0 for a piece of background in a sign's outline.
    """
    image, labels = picture
    x, y = round(centre[0] - side / 2), round(centre[1] - side / 2)
    left, top, right, bottom = max(0, x), max(0, y), min(WIDTH, x + side), min(HEIGHT, y + side)
    if right <= left or bottom <= top:
        return
    mask = outline(label, side)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)[..., None]
    how = cv2.INTER_AREA if side < len(sign) else cv2.INTER_LINEAR
    pixels = np.clip(cv2.resize(sign, (side, side), interpolation=how) * light, 0, 255)
    cut = np.s_[top - y : bottom - y, left - x : right - x]
    there = np.s_[top:bottom, left:right]
    image[there] = np.round(image[there] * (1 - soft[cut]) + pixels[cut] * soft[cut]).astype(np.uint8)
    labels[there] = np.where(mask[cut] > 0, meaning, labels[there])


def compose(
    behind: Image, signs: LabelledImages, chosen: npt.NDArray[np.int64], rng: np.random.Generator, inside: bool
) -> Picture:
    """One picture.

    Args:
        behind: What it stands on, of the network's size; changed in place.
        signs: To choose from.
        chosen: Numbers of those that are pasted.
        rng: Decides where and how large.
        inside: Paste their centres into the judged region; else anywhere.
    """
    picture = (behind, np.zeros((HEIGHT, WIDTH), np.uint8))
    x, y, width, height = ROADSIDE if inside else (0.0, 0.0, 1.0, 1.0)
    for number in chosen:
        centre = (WIDTH * (x + width * rng.random()), HEIGHT * (y + height * rng.random()))
        side = round(float(np.exp(rng.uniform(*np.log(_SIDES)))))
        light = float(np.exp(rng.uniform(-0.5, 0.5)))
        paste(picture, signs.images[number], int(signs.labels[number]), centre, side, light)
    return picture


def divided(place: Path) -> tuple[LabelledImages, LabelledImages]:
    """Signs that train, and signs of other tracks that calibrate.

    Raises:
        DataError: The data cannot be used.
    """
    train, calibration = gtsrb.load_training(place)
    assert train.groups is not None
    assert calibration.groups is not None
    odd = train.groups % 2 == 1
    rest = train.subset(np.flatnonzero(odd), "dense-more-calibration")
    assert rest.groups is not None
    both = LabelledImages(
        "dense-calibration",
        np.concatenate([calibration.images, rest.images]),
        np.concatenate([calibration.labels, rest.labels]),
        np.concatenate([calibration.groups, rest.groups]),
    )
    return train.subset(np.flatnonzero(~odd), "dense-train"), both


def calibration_pictures(signs: LabelledImages, frames: list[Image], seed: int) -> Iterator[Picture]:
    """One picture for each track: in four of five its sign stands in the judged region."""
    rng = np.random.default_rng(seed)
    assert signs.groups is not None
    for k, track in enumerate(np.unique(signs.groups)):
        number = rng.choice(np.flatnonzero(signs.groups == track))
        behind = background(frames[k % len(frames)], rng)
        yield compose(behind, signs, np.array([number]), rng, inside=bool(rng.random() < 0.8))


@dataclass(frozen=True)
class Backgrounds:
    """What training pictures stand on.

    Attributes:
        frames: Of a clip.
        photographs: Of anything; every second background is one, if there are any.
    """

    frames: list[Image]
    photographs: list[Image]

    def draw(self, rng: np.random.Generator) -> Image:
        """One at the network's size, with pieces of others pasted into it."""
        picture = (self._whole(rng), np.zeros((HEIGHT, WIDTH), np.uint8))
        for _ in range(rng.integers(0, 4)):
            other = self._whole(rng)
            top, left = rng.integers(0, HEIGHT - _PIECE), rng.integers(0, WIDTH - _PIECE)
            piece = other[top : top + _PIECE, left : left + _PIECE]
            outlined = int(rng.choice((0, _UP[0], *_DOWN, *_DIAMOND, *_OCTAGON)))
            side = round(float(np.exp(rng.uniform(*np.log(_SIDES)))))
            centre = (WIDTH * rng.random(), HEIGHT * rng.random())
            paste(picture, piece, outlined, centre, side, float(np.exp(rng.uniform(-0.5, 0.5))), meaning=0)
        return picture[0]

    def _whole(self, rng: np.random.Generator) -> Image:
        chosen = self.photographs if self.photographs and rng.random() < 0.5 else self.frames
        return _recoloured(background(chosen[rng.integers(len(chosen))], rng, least=0.4), rng)


def _batch(signs: LabelledImages, behind: Backgrounds, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    pictures = [
        compose(behind.draw(rng), signs, rng.integers(0, len(signs), rng.integers(0, 4)), rng, inside=False)
        for _ in range(size)
    ]
    images = np.stack([image[..., ::-1] for image, _ in pictures]).transpose(0, 3, 1, 2)
    noisy = images + rng.normal(0, rng.uniform(0, 6), images.shape)
    masks = np.stack([mask for _, mask in pictures])[:, 1::2, 1::2]  # the map has half of the input's size
    inputs = torch.from_numpy(np.clip(noisy, 0, 255).astype(np.float32) / 127.5 - 1)
    return inputs, torch.from_numpy(masks.astype(np.int64))


@dataclass
class Run:
    """A training run that can be stopped and resumed.

    Args:
        steps: Of the whole run, the same when it is resumed.
        batch: Pictures of a step.
        seed: Of weights and pictures.
        state: Where the state is saved every `_SAVED_EVERY` steps and at the end; None: nowhere.
    """

    steps: int
    batch: int
    seed: int
    state: Path | None = None

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.rng, self.done = np.random.default_rng(self.seed), 0
        self.network = DenseNet(len(LABELS))
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=_RATE, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, _RATE, total_steps=self.steps, pct_start=0.1
        )

    def resume(self) -> None:
        """Go on from the saved state, if there is one.

        Raises:
            DataError: It is damaged, or of a run of other steps, batch or seed.
        """
        if self.state is None or not self.state.is_file():
            return
        try:
            saved = torch.load(self.state, map_location="cpu", weights_only=True)
            made = dict(saved["run"])
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.rng.bit_generator.state, self.done = saved["rng"], int(saved["done"])
        except Exception as error:  # torch.load raises whatever strange bytes provoke
            raise DataError(f"{self.state}: damaged, or not of this training; delete it to begin anew") from error
        if made != self._settings():
            raise DataError(f"{self.state} is of a run with {made}, now {self._settings()}; delete it to begin anew")

    def _settings(self) -> dict[str, int]:
        return {"steps": self.steps, "batch": self.batch, "seed": self.seed}

    def save(self) -> None:
        """Save the state; an earlier one stays whole until the new one is."""
        if self.state is None:
            return
        self.state.parent.mkdir(parents=True, exist_ok=True)
        part = self.state.with_suffix(".part")
        torch.save(
            {
                "network": self.network.state_dict(),
                "run": self._settings(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "rng": self.rng.bit_generator.state,
                "done": self.done,
            },
            part,
        )
        part.replace(self.state)

    def train(self, signs: LabelledImages, behind: Backgrounds) -> DenseNet:
        """Train with AdamW and cross-entropy in which a sign's pixel counts three times, to the end."""
        weights, started, first = torch.tensor([1.0, 3.0]), time.monotonic(), self.done
        self.network.train()
        while self.done < self.steps:
            inputs, masks = _batch(signs, behind, self.batch, self.rng)
            loss = F.cross_entropy(self.network(inputs), masks, weights)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            self.done += 1
            if self.done % 25 == 0 or self.done == self.steps:
                left = (time.monotonic() - started) / (self.done - first) * (self.steps - self.done)
                shown = f"step {self.done}/{self.steps}: loss {float(loss.detach()):.4f}, about {left:.0f} s left"
                print(shown, flush=True)
            if self.done % _SAVED_EVERY == 0 or self.done == self.steps:
                self.save()
        return self.network.eval()


def agreement(network: torch.nn.Module, pictures: Iterable[Picture]) -> tuple[float, float, float]:
    """How well the map agrees with the labels, over the pixels of all pictures together.

    Returns:
        Of the pixels that are a sign or are called one, the share that are both (intersection over union); of those
        that are called one, the share that are (precision); of those that are one, the share called so (recall).
    """
    both = called = there = 0
    for image, labels in pictures:
        planes = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None], np.float32)
        with torch.inference_mode():
            found = network(torch.from_numpy(planes / 127.5 - 1)).argmax(1)[0].numpy() == 1
        truth = labels[1::2, 1::2] == 1
        both, called, there = both + (found & truth).sum(), called + found.sum(), there + truth.sum()
    return both / max(1, called + there - both), both / max(1, called), both / max(1, there)


def write(out: Path, network: DenseNet, pictures: Iterable[Picture]) -> None:
    """Write the network as ONNX file, its labels, and the calibration pictures."""
    for name in ("images", "masks"):
        (out / "calibration" / name).mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        network, (torch.zeros(1, 3, HEIGHT, WIDTH),), dynamo=True, verbose=False, opset_version=18,
        input_names=["image"], output_names=["logits"],
    )  # fmt: skip
    assert program is not None
    program.save(str(out / "dense-signs.onnx"))
    (out / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")
    for k, (image, mask) in enumerate(pictures):
        cv2.imwrite(str(out / "calibration" / "images" / f"{k:04}.png"), image)
        cv2.imwrite(str(out / "calibration" / "masks" / f"{k:04}.png"), mask)


def main() -> None:
    """Train, and write what the export needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gtsrb", type=Path, required=True, metavar="DATA", help="the official folders, or gtsrb32.npz"
    )
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="photographs of anything as further backgrounds (default: none)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/dense-signs"), metavar="DIR", help="%(default)s")
    parser.add_argument("--steps", type=int, default=4000, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    training, calibration = divided(arguments.gtsrb)
    assert training.groups is not None
    assert calibration.groups is not None
    tracks = len(np.unique(training.groups)), len(np.unique(calibration.groups))
    print(f"signs of {tracks[0]} tracks train, of {tracks[1]} others calibrate", flush=True)
    photographs = [] if arguments.photos is None else photographs_in(arguments.photos)
    behind = Backgrounds(frames_of(TRAINING_CLIP), photographs)
    if not 1 <= arguments.steps <= 1_000_000 or not 1 <= arguments.batch <= 1024:
        parser.error("--steps: expected 1 to 1,000,000; --batch: 1 to 1,024")
    run = Run(arguments.steps, arguments.batch, arguments.seed, arguments.out / "training.state")
    run.resume()
    if run.done:
        print(f"resumed after step {run.done}", flush=True)
    network = run.train(training, behind)
    pictures = list(calibration_pictures(calibration, frames_of(CALIBRATION_CLIP), arguments.seed + 1))
    write(arguments.out, network, pictures)
    overlap, precision, recall = agreement(network, pictures)
    print(
        f"pixels of the {len(pictures)} calibration pictures: IoU of signs {overlap:.3f}, precision {precision:.3f}, ",
        end="",
    )
    print(f"recall {recall:.3f}")
    print(f"{arguments.out}: dense-signs.onnx, labels.txt, calibration/")


if __name__ == "__main__":
    main()
