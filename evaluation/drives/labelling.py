"""Mined frames leave for a labelling tool, and come back with labels.

    OUT/frames.csv         one line for each frame to label; its column ``label`` can be filled in by hand
    OUT/images/*.jpg       the pictures
    OUT/label_studio.json  tasks for Label Studio, with label_studio.xml as its labelling interface
    OUT/cvat.xml           for CVAT's import ("CVAT for images 1.1"), with the region as a box

Back come ``frames.csv``, an export of Label Studio (JSON), or of CVAT (XML). An image is known by its file's name.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from framegate.evaluation.drives.mine import RANDOM
from framegate.evaluation.drives.table import About, DriveTable, write_table
from framegate.export.data.drives import MINED, Regions
from framegate.export.progress import Progress
from framegate.runtime.errors import DataError, SinkError
from framegate.runtime.replay.pictures import decode, read_jpegs
from framegate.runtime.sinks.black_box import file_word

FRAMES = "frames.csv"
FOLDER, LABEL_STUDIO, CVAT = "folder", "label-studio", "cvat"
FORMATS = (FOLDER, LABEL_STUDIO, CVAT)
UNLABELLED = "unlabelled"
"""As the label of CVAT's boxes: nobody has looked yet. The network's own guess would be taken for a label."""
OTHER = "other"
"""The label of what is none of the network's labels. It is wrong whatever the network said."""
KEY = ("drive", "camera", "file", "region", "frame_id")
"""What a label belongs to. A drive that goes on after a restart counts its frames from 0 again, in another file:
without the file (its name; recordings may move) one label would be given to two pictures."""
Label = tuple[str, str, str, str, int]
"""The values of `KEY`."""
_COLUMNS = (
    "image", *KEY, "x", "y", "width", "height", "candidate", "detected", "score", "threshold", "accepted", "reasons",
    "why", "label",
)  # fmt: skip


def write_frames(
    rows: pa.Table, about: About, labels: Sequence[str], out: Path, form: str, progress: Progress
) -> tuple[int, int]:
    """Write pictures, list and the labelling tool's file.

    Args:
        rows: What was mined.
        about: Of their table.
        labels: To choose from.
        out: A folder that is not there, or is empty.
        form: Of `FORMATS`.
        progress: Called during the work.

    Returns:
        Frames that were written, and frames whose recording is no longer there. If none was, there is no folder.

    Raises:
        DataError: The folder has something in it.
        SinkError: It cannot be written.
    """
    there = out.exists()
    if there and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: it is there already; give a new folder, so that no labels are lost")
    regions = Regions(about.recordings)
    by_file: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for number, row in enumerate(rows.to_pylist()):
        by_file[row["file"]].append((number, row))
    found: list[tuple[int, dict[str, Any], tuple[int, int]]] = []
    done, whole = 0, False
    try:
        (out / "images").mkdir(parents=True)
        for path, wanted in sorted(by_file.items()):
            try:
                pictures = dict(read_jpegs(Path(path), {row["frame_id"] for _, row in wanted}))
            except DataError:
                pictures = {}  # the ring of the black box went on
            for number, row in wanted:
                done += 1
                progress("writing pictures", done, rows.num_rows)
                data = pictures.get(row["frame_id"])
                if data is None:
                    continue
                height, width = decode(data, Path(path), row["frame_id"]).shape[:2]
                box = regions.of(row).pixels(width, height)
                if box is None:
                    continue
                words = (row["drive"], row["camera"], row["frame_id"], row["region"])
                name = f"{number:05d}_{'_'.join(file_word(str(each)) for each in words)}.jpg"
                (out / "images" / name).write_bytes(data)
                record = {
                    **row,
                    "file": Path(path).name,
                    "image": name,
                    **dict(zip(("x", "y", "width", "height"), box, strict=True)),
                    "label": "",
                }
                found.append((number, record, (width, height)))
        found.sort(key=lambda each: each[0])
        with (out / FRAMES).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(record for _, record, _ in found)
        if form == LABEL_STUDIO:
            _write_label_studio(found, labels, out)
        elif form == CVAT:
            _write_cvat(found, labels, out)
        whole = bool(found)
    except OSError as error:
        raise SinkError(f"{out}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        if not whole:  # with something in it, it would be refused the next time
            _empty(out, there)
    return len(found), rows.num_rows - len(found)


def _empty(folder: Path, keep: bool) -> None:
    """Remove everything in a folder, and the folder unless it is to be kept."""
    with suppress(OSError):
        for each in folder.iterdir():
            if each.is_dir():
                shutil.rmtree(each)
            else:
                each.unlink()
        if not keep:
            folder.rmdir()


def _write_label_studio(
    found: Sequence[tuple[int, dict[str, Any], tuple[int, int]]], labels: Sequence[str], out: Path
) -> None:
    """Tasks of Label Studio; the pictures are served from a folder (https://labelstud.io/guide/storage)."""
    tasks = []
    for _, row, (width, height) in found:
        box = {
            "x": 100 * row["x"] / width,
            "y": 100 * row["y"] / height,
            "width": 100 * row["width"] / width,
            "height": 100 * row["height"] / height,
        }
        result = {
            "from_name": "box", "to_name": "image", "type": "rectanglelabels", "original_width": width,
            "original_height": height, "value": {**box, "rectanglelabels": ["region"]},
        }  # fmt: skip
        data = {
            "image": f"/data/local-files/?d=images/{row['image']}",
            "candidate": row["candidate"],
            "why": row["why"],
        }
        tasks.append({"data": data, "predictions": [{"result": [result]}]})
    (out / "label_studio.json").write_text(json.dumps(tasks, indent=1), encoding="utf-8")
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    ElementTree.SubElement(
        ElementTree.SubElement(view, "RectangleLabels", name="box", toName="image"), "Label", value="region"
    )
    choices = ElementTree.SubElement(view, "Choices", name="label", toName="image", choice="single", required="true")
    for each in labels:
        ElementTree.SubElement(choices, "Choice", value=each)
    (out / "label_studio.xml").write_bytes(ElementTree.tostring(view, encoding="utf-8"))


def _write_cvat(found: Sequence[tuple[int, dict[str, Any], tuple[int, int]]], labels: Sequence[str], out: Path) -> None:
    """CVAT for images 1.1 (https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/)."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    names = ElementTree.SubElement(task, "labels")
    for each in (UNLABELLED, *labels):
        ElementTree.SubElement(ElementTree.SubElement(names, "label"), "name").text = each
    for number, (_, row, (width, height)) in enumerate(found):
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=row["image"], width=str(width), height=str(height)
        )
        ElementTree.SubElement(
            image, "box", label=UNLABELLED, occluded="0", source="auto", z_order="0",
            xtl=str(row["x"]), ytl=str(row["y"]), xbr=str(row["x"] + row["width"]), ybr=str(row["y"] + row["height"]),
        )  # fmt: skip
    (out / "cvat.xml").write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def read_labels(path: Path, frames: Path | None = None) -> dict[Label, str]:
    """The labels that came back.

    Args:
        path: ``frames.csv``, or what Label Studio (``.json``) or CVAT (``.xml``) exported.
        frames: The ``frames.csv`` that the tool's file belongs to; None looks beside it.

    Returns:
        Drive, camera, file, region and frame -> label; frames without a label are left out.

    Raises:
        DataError: A file cannot be read, names an image that was not given out, or gives one two labels.
    """
    listed = _read_frames(_list_of(path, frames))
    if path.suffix == ".csv":
        return {_key(row): row["label"].strip() for row in listed.values() if row["label"].strip()}
    try:
        said = _label_studio(path) if path.suffix == ".json" else _cvat(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: it is no export of Label Studio (.json) or CVAT (.xml) ({error})") from error
    found = {}
    for name, label in said.items():
        row = listed.get(name)
        if row is None:
            raise DataError(f"{path}: the image {name!r} is labelled, but {FRAMES} does not list it")
        found[_key(row)] = label
    return found


def read_mined(path: Path, frames: Path | None = None) -> set[Label]:
    """Which frames of the list were not drawn at random; a list that no longer says it drew none.

    Args:
        path: As of `read_labels`.
        frames: The same.

    Raises:
        DataError: The list cannot be read.
    """
    listed = _read_frames(_list_of(path, frames))
    return {_key(row) for image, row in listed.items() if image and row.get("why") != RANDOM}


def _list_of(path: Path, frames: Path | None) -> Path:
    """The ``frames.csv`` that labels belong to."""
    return path if path.suffix == ".csv" else frames or path.with_name(FRAMES)


def _read_frames(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("image", *KEY, "label") if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path}: no column {missing[0]!r}; expected what framegate drives mine wrote (an older version "
                    "wrote no column 'file', the name of the recording: add it)"
                )
            found: dict[str, dict[str, str]] = {}
            for row in reader:
                image = (row["image"] or "").strip()
                if image and image in found:
                    raise DataError(f"{path}: the image {image!r} stands in two lines; leave one of them")
                found[image] = {k: v or "" for k, v in row.items() if k}
            return found
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); framegate drives mine writes it") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error})") from error


def _key(row: Mapping[str, str]) -> Label:
    try:
        return row["drive"], row["camera"], row["file"], row["region"], int(row["frame_id"])
    except ValueError:
        raise DataError(f"{FRAMES}: frame_id {row['frame_id']!r} of {row['image']!r} is no number") from None


def _label_studio(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for task in json.loads(path.read_text(encoding="utf-8")):
        name = str(task["data"]["image"]).rpartition("/")[2]
        for annotation in task.get("annotations") or ():
            if annotation.get("was_cancelled"):
                continue
            for result in annotation["result"]:
                if result["type"] == "choices":
                    _add(found, name, str(result["value"]["choices"][0]), path)
    return found


def _cvat(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for image in ElementTree.parse(path).getroot().iter("image"):
        name = image.attrib["name"].rpartition("/")[2]
        labels = [each.attrib["label"] for each in image.findall("box") or image.findall("tag")]
        if labels and labels[0] != UNLABELLED:
            for label in labels:
                if label != UNLABELLED:
                    _add(found, name, label, path)
    return found


def _add(found: dict[str, str], name: str, label: str, path: Path) -> None:
    """Note the label of an image.

    Raises:
        DataError: It has another one already: of two people, or of two boxes, nobody knows who is right.
    """
    if found.setdefault(name, label) != label:
        raise DataError(
            f"{path}: the image {name!r} is labelled {found[name]!r} and {label!r}; leave one of them in the labelling "
            "tool, and export again"
        )


def add_labels(
    table: DriveTable, labels: Mapping[Label, str], out: Path, mined: Container[Label] = ()
) -> tuple[int, int]:
    """Write the table again, with labels.

    Args:
        table: The drives.
        labels: From `read_labels`; they replace those that are there.
        out: The new table.
        mined: Which of them were given out for what was seen in them, so that a calibration can say so.

    Returns:
        Rows, and rows that were labelled.

    Raises:
        DataError: A label is for a frame that the table does not have.
    """
    met: set[Label] = set()

    def labelled() -> Any:
        wanted = {drive for drive, *_ in labels}
        for batch in table.batches(table.schema.names):
            drives = set(batch["drive"].unique().to_pylist())
            if not drives & wanted:
                yield batch
                continue
            columns = {name: batch[name].to_pylist() for name in KEY}
            names = {path: Path(path).name for path in set(columns["file"])}
            columns["file"] = [names[path] for path in columns["file"]]
            keys = zip(*columns.values(), strict=True)
            changed = {name: batch[name].to_pylist() for name in ("label", "events")}
            for k, key in enumerate(keys):
                if key in labels:
                    met.add(key)
                    changed["label"][k] = labels[key]
                    events = [each for each in (changed["events"][k] or "").split() if each != MINED]
                    changed["events"][k] = " ".join([*events, MINED] if key in mined else events)
            for name, column in changed.items():
                place = batch.schema.get_field_index(name)
                new = pa.array(column, pa.string()).dictionary_encode().cast(batch.schema.field(place).type)
                batch = batch.set_column(place, batch.schema.field(place), new)
            yield batch
        lost = sorted(set(labels) - met)
        if lost:
            drive, camera, file, region, frame = lost[0]
            raise DataError(
                f"{len(lost)} labels are for frames that {table.path} does not have, first drive {drive!r}, camera "
                f"{camera!r}, file {file!r}, region {region!r}, frame {frame}; nothing was written"
            )

    rows = write_table(out, labelled(), table.signals, table.about)
    return rows, len(met)
