"""Segmentation through the gate: which pixels of a frame may be used, and whether the lane ahead has enough of them.

    python docs/examples/dense_usable_pixels.py --out usable.jpg

The model is a stand-in that this script makes itself: a 3x3 convolution that averages and 1x1 convolutions that
compare with the colours of sky, road and plants, so its logits are log-likelihoods of three Gaussians of equal width.
It runs in ONNX Runtime like a real one. A pixel is usable if the entropy says that one colour is clearly nearest, and
the energy that it is near enough: in fog the entropy alone would call the whole lane sky, and be sure of it. Both
limits are set by hand and promise nothing: a real dense model needs labelled pixels and a calibration.

Two frames are judged, one of the shipped clip and the same in fog. The picture shows usable pixels in the colour of
their label, all others hatched in red, and the lane's frame with its verdict. Needs onnx, which comes with
``pip install 'framegate[train]'``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from framegate.runtime import Roi
from framegate.runtime.bundle.calibration import Calibration, Limit
from framegate.runtime.dense import DensePrediction, judge_dense

CLIP = Path(__file__).resolve().parents[2] / "camera_demo/clips/highway_1280x720_25fps.mp4"
LABELS = ("sky", "road", "plants")
COLOURS_BGR = ((196, 154, 109), (75, 68, 74), (35, 58, 68))
"""Means of a patch of each in the clip's first frame."""
TINTS_BGR = ((255, 170, 60), (200, 60, 200), (60, 190, 60))
WIDTH = 16.0
"""Standard deviation of each Gaussian, in grey levels."""
SIZE = (640, 360)
LANE = Roi.parse("lane=0.46,0.64,0.18,0.19")
MIN_SHARE = 0.9
BY_HAND = Calibration(
    temperature=1.0,
    score="entropy",
    threshold=0.3,
    target_risk=0.5,
    confidence_level=0.5,
    risk_bound=1.0,
    coverage=1.0,
    selective_risk=1.0,
    size=0,
    fingerprint="",
    model_sha256="",
    engine="",
    method="set by hand, promises nothing",
    limits=(Limit("energy", high=4.5),),  # at most three standard deviations from the nearest colour
)


def make_model() -> onnx.ModelProto:
    """Input ``image`` (1, 3, H, W) float32 BGR in 0..255, output ``logits`` (1, 3, H, W)."""
    average = np.full((3, 1, 3, 3), 1 / 9, np.float32)
    means = np.array(COLOURS_BGR, np.float32)
    weights = (means / WIDTH**2)[:, :, None, None]
    bias = -(means**2).sum(axis=1) / (2 * WIDTH**2)
    squared = np.full((len(LABELS), 3, 1, 1), -1 / (2 * WIDTH**2), np.float32)
    nodes = [
        helper.make_node("Pad", ["image", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "average"], ["smooth"], group=3, kernel_shape=[3, 3]),
        helper.make_node("Conv", ["smooth", "weights", "bias"], ["linear"], kernel_shape=[1, 1]),
        helper.make_node("Mul", ["smooth", "smooth"], ["power"]),
        helper.make_node("Conv", ["power", "squared"], ["quadratic"], kernel_shape=[1, 1]),
        helper.make_node("Add", ["linear", "quadratic"], ["logits"]),
    ]
    constants: dict[str, Any] = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
        "average": average,
        "weights": weights.astype(np.float32),
        "squared": squared,
        "bias": bias.astype(np.float32),
    }
    shape = [1, 3, "height", "width"]
    graph = helper.make_graph(
        nodes,
        "three colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def fog(image: np.ndarray, share: float = 0.85) -> np.ndarray:
    """The image mixed with light grey."""
    return cv2.addWeighted(image, 1 - share, np.full_like(image, 175), share, 0)


def draw(image: np.ndarray, prediction: DensePrediction, title: str) -> np.ndarray:
    """Usable pixels in the colour of their label, the others hatched in red, the lane and the verdict."""
    canvas = (image * 0.45).astype(np.uint8)
    for label, tint in enumerate(TINTS_BGR):
        chosen = prediction.mask & (prediction.candidates == label)
        canvas[chosen] += (0.5 * np.array(tint)).astype(np.uint8)
    rows, columns = np.indices(prediction.mask.shape)
    hatched = ~prediction.mask & ((rows + columns) % 8 < 3)
    canvas[hatched] = (40, 40, 220)
    box = LANE.pixels(image.shape[1], image.shape[0])
    assert box is not None
    x, y, width, height = box
    colour = (60, 200, 0) if prediction.accepted else (40, 40, 220)
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), (255, 255, 255), 5)
    cv2.rectangle(canvas, (x, y), (x + width - 1, y + height - 1), colour, 3)
    verdict = "USE" if prediction.accepted else "DO NOT USE: " + ", ".join(prediction.reasons)
    text = f"{title}: {verdict}, {prediction.share:.0%} of the lane usable, {MIN_SHARE:.0%} needed"
    cv2.rectangle(canvas, (0, 0), (canvas.shape[1], 26), (0, 0, 0), cv2.FILLED)
    cv2.putText(canvas, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.48, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas


def main() -> None:
    """Judge a clear and a foggy frame, print the verdicts, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("usable.jpg"), metavar="PICTURE")
    out = parser.parse_args().out
    ok, first = cv2.VideoCapture(str(CLIP)).read()
    if not ok:
        raise SystemExit(f"{CLIP}: no frame can be read")
    clear = cv2.resize(first, SIZE, interpolation=cv2.INTER_AREA)
    session = onnxruntime.InferenceSession(make_model().SerializeToString(), providers=["CPUExecutionProvider"])
    panels = []
    for title, image in (("clear", clear), ("fog", fog(clear))):
        tensor = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)
        (logits,) = session.run(None, {"image": tensor})
        prediction = judge_dense(logits[0], BY_HAND, LANE, MIN_SHARE)
        print(f"{title}: {'ACCEPT' if prediction.accepted else 'REJECT'} {' '.join(prediction.reasons)}".rstrip())
        print(f"  {prediction.share:.1%} of the lane and {prediction.mask.mean():.1%} of all pixels usable")
        if prediction.accepted:
            lane = LANE.crop(prediction.labels)
            counts = {name: int(np.count_nonzero(lane == k)) for k, name in enumerate(LABELS)}
            print("  in the lane: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
        panels.append(draw(image, prediction, title))
    try:
        written = cv2.imwrite(str(out), np.hstack(panels))
    except cv2.error:  # a file type that OpenCV does not know
        written = False
    if not written:
        raise SystemExit(f"{out}: cannot be written; expected a .jpg or .png in a folder that exists")
    print(f"picture: {out}")


if __name__ == "__main__":
    main()
