"""Labels, regions, file names and messages written by others: shown as text, by whatever command, and nothing more.

The commands run for real with their output in a pipe, where nothing of ours writes a control character but line ends.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
from forked_command import run_forked
from hypothesis import given
from hypothesis import strategies as st

from framegate.runtime import console
from framegate.runtime.cli import main as cli
from framegate.runtime.console import plain, writable
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.overlay import draw
from framegate.runtime.verdict import Prediction, Reason

TITLE = "\x1b]0;owned\x07"
"""Sets the title of a terminal's window; others empty it, or answer as if the user had typed."""
LABELS = [f"[/x]{TITLE}", "[bold red]gr\u202een:smile:\x9b2J", "red\nframegate: all is well\r"]
BOX = "[/x][link=file:///]=0,0,64,48"
SOURCE = "synthetic://?width=320&height=240&fps=50&frames=12"
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def hostile_bundle(make_bundle):
    def change(manifest):
        manifest["labels"] = LABELS
        manifest["name"] = f"t[/x]iny{TITLE}"
        manifest["origin"] = {f"model[/x]{TITLE}": f"made by [/x]{TITLE}"}

    made = make_bundle(change=change)
    return made.rename(made.parent / f"x[bold]{TITLE}.bundle")


def framegate(*words, **environment):
    """Exit code, standard output and standard error; neither has a control character or a traceback."""
    command = [sys.executable, "-m", "framegate.runtime.cli.main", *map(os.fsencode, words)]
    if environment:  # which the interpreter reads when it starts
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(command, capture_output=True, timeout=240, check=False, env=env)
    else:
        done = run_forked(command, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    out, err = done.stdout.decode(), done.stderr.decode()
    assert _CONTROL.search(out) is None, repr(out)
    assert _CONTROL.search(err) is None, repr(err)
    assert "Traceback" not in err
    return done.returncode, out, err


def test_a_run_shows_labels_and_regions_as_text(hostile_bundle, tmp_path):
    jsonl, video = tmp_path / "v.jsonl", tmp_path / f"v[bold]{TITLE}.mp4"
    words = ["run", SOURCE, "--bundle", hostile_bundle, "--roi", BOX, "--roi", "b=0,0,320,240", "--as-fast-as-possible"]
    words += ["--backend", "onnxruntime"]  # starts in the shortest time
    code, out, err = framegate(*words, "--jsonl", jsonl, "--video", video)
    assert code == 0, err
    assert "[/x][link=file:///]" in out
    assert "t[/x]iny\\x1b]0;owned\\x07" in err
    verdicts = [json.loads(line) for line in jsonl.read_text().splitlines()]
    streams = {each["stream"] for each in verdicts if "stream" in each}
    assert streams == {"[/x][link=file:///]", "b"}
    assert {each["candidate"] for each in verdicts if each.get("candidate")} <= set(LABELS)
    assert any(each.get("candidate") for each in verdicts)
    capture = cv2.VideoCapture(os.fsencode(video))
    assert capture.read()[0]
    code, out, _ = framegate(*words, "--json")
    assert code == 0
    assert "[/x][link=file:///]" in json.dumps(json.loads(out))


def test_accepted_labels_are_text_in_the_table(hostile_bundle, tmp_path, coloured):
    for k, colour in enumerate(((250, 10, 10), (10, 250, 10), (10, 10, 250))):
        cv2.imwrite(str(tmp_path / f"{k}.png"), coloured(colour, seed=k))
    code, out, _ = framegate("run", tmp_path, "--bundle", hostile_bundle, "--backend", "onnxruntime")
    assert code == 0
    squeezed = re.sub(r"[\s│┃]", "", out)
    for label in LABELS:
        assert plain(label).replace(" ", "") in squeezed


def test_info_shows_a_bundle_as_text(hostile_bundle):
    code, out, _ = framegate("info", hostile_bundle)
    assert code == 0
    for label in LABELS:
        assert plain(label) in out
    assert "\nframegate: all is well" not in out
    code, out, _ = framegate("info", hostile_bundle, "--json")
    assert code == 0
    assert json.loads(out)["labels"] == LABELS


def test_a_bench_shows_a_bundle_as_text(hostile_bundle, tmp_path):
    out_file, page = tmp_path / "r.json", tmp_path / "p.html"
    words = [
        hostile_bundle,
        "--frames",
        50,
        "--memory-frames",
        0,
        "--size",
        "128x96",
        "--out",
        out_file,
        "--html",
        page,
    ]
    code, out, err = framegate("bench", *map(str, words), "--pace", "back-to-back", "--backend", "onnxruntime")
    assert code == 0, err
    assert "capture" in out
    assert json.loads(out_file.read_text())["bundle"]["name"] == f"t[/x]iny{TITLE}"


@pytest.mark.parametrize("name", [f"no[/x]{TITLE}such", b"caf\xe9", "x\nframegate: all is well", "\u202ex"])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "{}", "--bundle", "b"),
        ("run", SOURCE, "--bundle", "{}"),
        ("run", SOURCE, "--bundle", "b", "{}"),
        ("run", SOURCE, "--bundle", "b", "--roi", "{}=1,2,3"),
        ("run", SOURCE, "--bundle", "b", "--roi", "{}=0,0,1,1"),
        ("run", SOURCE, "--bundle", "b", "--debounce", "{}=1/1/1"),
        ("run", SOURCE, "--bundle", "b", "--inject", "{}:1-2"),
        ("run", SOURCE, "--bundle", "b", "--health", "{}"),
        ("run", SOURCE, "--bundle", "b", "--realtime", "{}"),
        ("info", "{}"),
        ("health", "{}", "--out", "x.json"),
        ("{}",),
    ],
    ids=lambda words: " ".join(words[:1] + words[-2:]) if isinstance(words, tuple) else None,
)
def test_messages_show_what_was_typed_as_text(words, name, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = name if isinstance(name, str) else os.fsdecode(name)
    try:
        code = cli.main([word.format(name) for word in words])
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr()
    assert code in (1, 2)
    assert said.out == ""
    assert _CONTROL.search(said.err) is None, repr(said.err)
    assert "\nframegate: all is well" not in said.err
    said.err.encode()  # no half characters


@pytest.mark.parametrize("command", ["export", "calibrate", "verify", "engine", "onnx", "bench", "demo"])
def test_commands_of_other_rooms_show_names_as_text(command):
    needed = {"export": ["--out", "x"], "calibrate": [], "verify": [], "onnx": ["--out", "x.onnx"]}.get(command, [])
    word = f"no[/x]{TITLE}such"
    code, _, err = framegate(command, word, *needed, *([] if command != "demo" else ["--bundle", word, "--port", "0"]))
    assert code in (1, 2)
    assert err.strip()


@pytest.mark.parametrize("name", [f"cl[bold]ip{TITLE}.avi", b"caf\xe9.avi", "x\ny.avi"])
def test_a_clip_of_any_name_plays(name, tmp_path, tiny_bundle):
    clip = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
    writer = cv2.VideoWriter(clip, cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    for k in range(4):
        writer.write(np.random.default_rng(k).integers(0, 255, (240, 320, 3), np.uint8))
    writer.release()
    video = os.path.join(os.fsencode(tmp_path), b"out\xe9[bold].mp4")
    jsonl = os.path.join(os.fsencode(tmp_path), b"out\xe9[bold].jsonl")
    words = [
        "run",
        clip,
        "--bundle",
        tiny_bundle,
        "--backend",
        "onnxruntime",
        "--as-fast-as-possible",
        "--video",
        video,
        "--jsonl",
        jsonl,
    ]
    code, out, err = framegate(*words, "--json")
    assert code == 0, err
    json.loads(out)["source"].encode()
    assert cv2.VideoCapture(video).read()[0]
    plain_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, _, err = framegate(*words[:6], "--as-fast-as-possible", **plain_locale)
    assert code == 0, err


def test_images_of_any_name_are_judged(tmp_path, tiny_bundle, coloured):
    folder = os.fsencode(tmp_path) + b"/[bold]\xe9"
    os.mkdir(folder)
    good = cv2.imencode(".png", coloured((250, 10, 10)))[1].tobytes()
    for name, content in (
        (b"a\xe9.png", good),
        (os.fsencode(f"b{TITLE}[bold].png"), b"no image"),
        (b"c\n.png", b"none"),
    ):
        with open(folder + b"/" + name, "wb") as file:
            file.write(content)
    jsonl = tmp_path / "v.jsonl"
    code, _, err = framegate("run", folder, "--bundle", tiny_bundle, "--jsonl", jsonl)
    assert code == 1
    assert f"b{plain(TITLE)}[bold].png" in err
    names = [each["file"] for each in map(json.loads, jsonl.read_text().splitlines()) if "file" in each]
    assert names == ["a\\xe9.png", f"b{TITLE}[bold].png", "c\n.png"]


def test_markup_in_a_progress_bar_is_text(monkeypatch):
    shown = io.StringIO()
    told = type(console.ERR)(file=shown, force_terminal=True, width=100)
    monkeypatch.setattr(console, "_consoles", lambda: {"ERR": told})
    with console.progress_bar() as progress:
        progress(f"[/x][bold]{TITLE}", 1, 2)
    assert "[/x][bold]\\x1b]0;owned\\x07" in shown.getvalue()
    assert TITLE not in shown.getvalue()


@given(st.text())
def test_plain_text_holds_no_control_character(text):
    shown = plain(text)
    assert _CONTROL.search(shown) is None
    assert "\n" not in shown
    shown.encode()
    assert plain(shown) == shown
    if text.isascii() and text.isprintable():
        assert shown == text


@given(st.binary())
def test_a_file_name_of_any_bytes_can_be_written(name):
    writable(os.fsdecode(name)).encode()


@pytest.mark.parametrize("text", ["grün", "車", "سيارة", "कार", "🚗", "a\u00a0b", "می‌خواهم"])
def test_labels_of_every_script_stay(text):
    assert plain(text) == text


def test_a_region_with_a_name_that_cannot_be_shown_is_refused(capsys):
    assert cli.main(["run", SOURCE, "--bundle", "b", "--roi", f"a{TITLE}=0,0,1,1"]) == 2
    said = capsys.readouterr().err
    assert "a\\x1b]0;owned\\x07=0,0,1,1" in said
    assert "cannot be shown" in said


@pytest.mark.parametrize("text", [*LABELS, "\ud800", "x" * 2000])
def test_the_overlay_draws_any_label(text):
    """Half a character in a label ended the process (OpenCV)."""
    values = dict.fromkeys(("confidence", "entropy", "margin", "energy", "score", "threshold"), 0.5)
    rejected = Prediction(1, text, (Reason.BLACK,), text, captured_ns=1, decided_ns=2, **values)
    image = draw(np.zeros((240, 320, 3), np.uint8), (rejected,), (Roi(text, 0, 0, 100, 100, fractions=False),))
    assert image.any()
