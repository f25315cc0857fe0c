"""Every head against its project's arithmetic, written down box by box in plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest

from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.regions.detector import DetectorSpec, strongest
from framegate.runtime.regions.heads import HEADS, Decoded, choose_head
from framegate.runtime.regions.heads.base import cell_count, sigmoid

WIDTH, HEIGHT, CLASSES = 96, 64, 3


def levels(strides):
    for stride in strides:
        for row in range(math.ceil(HEIGHT / stride)):
            for column in range(math.ceil(WIDTH / stride)):
                yield column, row, stride


def corners(x, y, w, h):
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def yolov5(rng):
    count = 3 * cell_count(WIDTH, HEIGHT, (8, 16, 32))
    rows = rng.uniform(0, 1, (count, 5 + CLASSES))
    rows[:, :4] *= 64
    boxes = [corners(*row[:4]) for row in rows]
    return {"output0": rows[None]}, boxes, [[row[4] * p for p in row[5:]] for row in rows]


def yolov8(rng):
    count = cell_count(WIDTH, HEIGHT, (8, 16, 32))
    rows = rng.uniform(0, 1, (count, 4 + CLASSES))
    rows[:, :4] *= 64
    return {"output0": rows.T[None]}, [corners(*row[:4]) for row in rows], [list(row[4:]) for row in rows]


def yolox(rng):
    boxes, scores, rows = [], [], []
    for column, row, stride in levels((8, 16, 32)):
        values = rng.uniform(0, 1, 5 + CLASSES)
        rows.append(values)
        x, y, w, h = values[:4]
        boxes.append(corners((x + column) * stride, (y + row) * stride, math.exp(w) * stride, math.exp(h) * stride))
        scores.append([values[4] * p for p in values[5:]])
    return {"output": np.array(rows)[None]}, boxes, scores


def nanodet(rng):
    boxes, scores, rows = [], [], []
    for column, row, stride in levels((8, 16, 32, 64)):
        values = rng.normal(0, 2, CLASSES + 32)
        values[:CLASSES] = rng.uniform(0, 1, CLASSES)
        rows.append(values)
        distances = []
        for side in range(4):
            powers = [math.exp(v) for v in values[CLASSES + 8 * side : CLASSES + 8 * side + 8]]
            distances.append(sum(k * p for k, p in enumerate(powers)) / sum(powers) * stride)
        x, y = column * stride, row * stride
        left, top, right, bottom = x - distances[0], y - distances[1], x + distances[2], y + distances[3]
        boxes.append([max(0, left), max(0, top), min(WIDTH, right), min(HEIGHT, bottom)])
        scores.append(list(values[:CLASSES]))
    return {"output": np.array(rows)[None]}, boxes, scores


def fastestdet(rng):
    rows, columns = HEIGHT // 16, WIDTH // 16
    output = rng.uniform(0, 1, (1, 5 + CLASSES, rows, columns))
    output[:, 1:5] = rng.normal(0, 1, (1, 4, rows, columns))
    boxes, scores = [], []
    for row in range(rows):
        for column in range(columns):
            objectness, x, y, w, h, *classes = output[0, :, row, column]
            x, y = (column + math.tanh(x)) / columns, (row + math.tanh(y)) / rows
            w, h = 1 / (1 + math.exp(-w)), 1 / (1 + math.exp(-h))
            boxes.append(corners(x * WIDTH, y * HEIGHT, w * WIDTH, h * HEIGHT))
            scores.append([objectness**0.6 * p**0.4 for p in classes])
    return {"758": output}, boxes, scores


def detr(rng):
    logits, shares = rng.normal(0, 2, (1, 9, CLASSES + 1)), rng.uniform(0.2, 0.6, (1, 9, 4))
    boxes = [corners(x * WIDTH, y * HEIGHT, w * WIDTH, h * HEIGHT) for x, y, w, h in shares[0]]
    scores = []
    for row in logits[0]:
        powers = [math.exp(v) for v in row]
        scores.append([p / sum(powers) for p in powers[:-1]])
    return {"pred_logits": logits, "pred_boxes": shares}, boxes, scores


def detr_with_sigmoid(rng):
    logits, shares = rng.normal(0, 2, (1, 9, CLASSES)), rng.uniform(0.2, 0.6, (1, 9, 4))
    boxes = [corners(x * WIDTH, y * HEIGHT, w * WIDTH, h * HEIGHT) for x, y, w, h in shares[0]]
    return {"logits": logits, "boxes": shares}, boxes, [[1 / (1 + math.exp(-v)) for v in row] for row in logits[0]]


def ssd(rng):
    shares, scores = rng.uniform(0, 1, (1, 11, 4)), rng.uniform(0, 1, (1, 11, CLASSES + 1))
    boxes = [[a * WIDTH, b * HEIGHT, c * WIDTH, d * HEIGHT] for a, b, c, d in shares[0]]
    return {"scores": scores, "boxes": shares}, boxes, [list(row[1:]) for row in scores[0]]


MADE = [yolov5, yolov8, yolox, nanodet, fastestdet, detr, detr_with_sigmoid, ssd]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_a_head_is_found_by_its_shapes_and_decoded_as_its_project_does(make):
    outputs, boxes, scores = make(np.random.default_rng(3))
    outputs = {name: np.asarray(values, np.float32) for name, values in outputs.items()}
    shapes = {name: values.shape for name, values in outputs.items()}
    head = choose_head(shapes, CLASSES, WIDTH, HEIGHT)
    assert head.name == make.__name__.partition("_")[0]
    decoded = head.decode(outputs, CLASSES, WIDTH, HEIGHT)
    np.testing.assert_allclose(decoded.corners, boxes, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(decoded.scores, scores, rtol=1e-4, atol=1e-6)


def test_fault_an_unknown_head_is_named_with_its_shapes():
    with pytest.raises(UsageError, match=r"out 1x7x9, more 1x4 for 3 labels and an input of 96x64, which fits none"):
        choose_head({"out": (1, 7, 9), "more": (1, 4)}, CLASSES, WIDTH, HEIGHT)


def test_fault_a_wrong_number_of_labels_fits_no_head():
    outputs, _, _ = yolov8(np.random.default_rng(0))
    shapes = {name: values.shape for name, values in outputs.items()}
    with pytest.raises(UsageError, match="number of labels"):
        choose_head(shapes, CLASSES + 1, WIDTH, HEIGHT)
    with pytest.raises(UsageError, match="--head yolov5"):
        choose_head(shapes, CLASSES, WIDTH, HEIGHT, "yolov5")
    assert choose_head(shapes, CLASSES, WIDTH, HEIGHT, "yolov8") is HEADS["yolov8"]


def test_overlapping_boxes_of_one_class_are_suppressed_and_those_of_two_are_not():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 9, 9]], np.float32)
    scores = np.array([[0.9, 0], [0.8, 0], [0, 0.7], [0.5, 0], [0.1, 0]], np.float32)
    numbers, labels, best = strongest(Decoded(boxes, scores), 0.3, 0.5)
    assert list(numbers) == [0, 2, 3]
    assert list(labels) == [0, 1, 0]
    np.testing.assert_allclose(best, [0.9, 0.7, 0.5])
    assert list(strongest(Decoded(boxes, scores), 0.3, 1.0)[0]) == [0, 1, 2, 3]
    assert len(strongest(Decoded(boxes, scores), 0.95, 0.5)[0]) == 0


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(
    "strange",
    [
        (-1e20, -1e20, 1e20, 1e20),
        (0, 0, np.inf, np.inf),
        (-np.inf, 0, np.inf, 9),
        (np.nan,) * 4,
        (500, 300, 300, 400),  # its right edge lies left of the left one
        (7, 7, 7, 7),
    ],
)
def test_fault_what_is_no_box_takes_no_other_one_away(strange, label):
    boxes = np.array([(10, 10, 50, 50), (200, 100, 240, 140), (400, 100, 440, 140), strange], np.float32)
    scores = np.zeros((4, 2), np.float32)
    scores[:3, 1] = 0.9, 0.8, 0.7
    scores[3, label] = 0.95
    numbers, _, best = strongest(Decoded(boxes, scores), 0.3, 0.45)
    assert sorted(numbers) == [0, 1, 2, 3]  # the last one is counted as left out, or judged by what lies on the frame
    assert list(best) == sorted(best, reverse=True)


def test_a_box_with_just_the_smallest_score_is_one():
    assert len(strongest(Decoded(np.array([(0, 0, 9, 9)], np.float32), np.array([[0.5]], np.float32)), 0.5, 0.45)[0])


def test_ten_thousand_boxes_are_decided_soon_and_none_twice():
    rng = np.random.default_rng(0)
    edges = rng.uniform(0, 1000, (10_000, 2)).astype(np.float32)
    decoded = Decoded(np.hstack([edges, edges + 30]), rng.uniform(0.5, 1, (10_000, 2)).astype(np.float32))
    numbers, _, best = strongest(decoded, 0.4, 0.5)
    assert len(set(numbers.tolist())) == len(numbers) <= 300
    assert (np.diff(best) <= 0).all()


def test_the_sigmoid_does_not_overflow():
    assert sigmoid(np.array([-1e30, 0, 1e30], np.float32)).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(
    "changed", [{"head": "yolov99"}, {"fit": "crop"}, {"score": 0.0}, {"score": math.nan}, {"overlap": 1.5}]
)
def test_a_bundle_with_an_unknown_head_or_number_is_refused(changed):
    good = {"head": "yolov8", "fit": "letterbox", "score": 0.25, "overlap": 0.45}
    assert DetectorSpec.from_json(good).to_json() == good
    with pytest.raises(BundleError, match="detector"):
        DetectorSpec.from_json({**good, **changed})
    with pytest.raises(BundleError, match="detector section"):
        DetectorSpec.from_json({key: value for key, value in good.items() if key not in changed})
