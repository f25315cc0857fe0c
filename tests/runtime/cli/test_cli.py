"""The command line as a user meets it: real processes, real files, exit codes, and never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from forked_command import Forked, run_forked

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli import main as cli


def framegate(*arguments, cwd=None):
    return run_forked([sys.executable, "-m", "framegate.runtime.cli.main", *map(str, arguments)], text=True, cwd=cwd)


def refused(capsys, code, *arguments):
    """Run in this process; the command must fail with one line on stderr and nothing on stdout."""
    assert cli.main([str(a) for a in arguments]) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.strip().splitlines() if not line.startswith("framegate: tiny on")]
    assert len(lines) == 1, err
    assert "Traceback" not in err + out
    return lines[0]


@pytest.fixture(scope="module")
def clip(tmp_path_factory, coloured):
    """30 frames, 320x240: left half blue, right half grey."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    rng = np.random.default_rng(0)
    for _ in range(30):
        frame = rng.integers(118, 139, (240, 320, 3)).astype(np.uint8)
        frame[:, :160] = (250, 8, 8)
        frame[::7, :160, 2] = rng.integers(0, 12, frame[::7, :160, 2].shape)
        writer.write(frame)
    writer.release()
    return path


def records(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_writes_every_verdict_a_video_and_a_table(clip, tiny_bundle, tmp_path):
    jsonl, video = tmp_path / "v.jsonl", tmp_path / "v.mp4"
    done = framegate(
        "run",
        clip,
        "--bundle",
        tiny_bundle,
        "--backend",
        "onnxruntime",
        "--as-fast-as-possible",
        "--roi",
        "left=0,0,160,240",
        "--roi",
        "right=0.5,0.0,0.5,1.0",
        "--inject",
        "black:10-12,freeze:20-22,size:27",
        "--jsonl",
        jsonl,
        "--video",
        video,
    )
    assert done.returncode == 0, done.stderr
    assert "capture to verdict" in done.stdout
    rows = records(jsonl)
    assert len(rows) == 60
    left = {row["frame_id"]: row for row in rows if row["stream"] == "left"}
    right = {row["frame_id"]: row for row in rows if row["stream"] == "right"}
    assert len(left) == len(right) == 30
    assert all(row["verdict"] == "REJECT" for row in right.values())
    for frame_id, row in left.items():
        expected = (
            "BLACK"
            if 10 <= frame_id <= 12
            else "FROZEN"
            if 20 <= frame_id <= 22
            else "WRONG_SIZE"
            if frame_id == 27
            else ""
        )
        if expected:
            assert row["verdict"] == "REJECT"
            assert expected in row["reasons"]
        else:
            assert (row["verdict"], row["candidate"], row["reasons"]) == ("ACCEPT", "blue", [])
    capture = cv2.VideoCapture(str(video))
    frames = 0
    while capture.read()[0]:
        frames += 1
    assert frames == 30


def test_run_json_summary(clip, tiny_bundle):
    done = framegate("run", clip, "--bundle", tiny_bundle, "--as-fast-as-possible", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["captured"] == summary["frames"] == 30
    assert summary["dropped"] == 0
    assert summary["capture_to_verdict"]["p50_ms"] > summary["engine"]["p50_ms"] > 0


def test_a_file_is_played_at_its_own_pace_by_default(clip, tiny_bundle):
    started = time.monotonic()
    done = framegate("run", clip, "--bundle", tiny_bundle, "--json")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started >= 29 / 25


@pytest.mark.parametrize(
    ("source", "code", "message"),
    [
        ("nowhere.mp4", 1, "no such file"),
        ("not-a-video.mp4", 1, "no decoder recognises it"),
        ("empty-folder", 1, "no image"),
        ("/dev/video97", 1, "video97"),
        ("99", 1, "video99"),
        ("synthetic://?width=-5", 2, "width"),
        ("ftp://camera", 1, "not supported"),
    ],
)
def test_unusable_sources(tiny_bundle, tmp_path, capsys, monkeypatch, source, code, message):
    monkeypatch.chdir(tmp_path)
    Path("not-a-video.mp4").write_text("hello")
    Path("empty-folder").mkdir()
    assert message in refused(capsys, code, "run", source, "--bundle", tiny_bundle)


def test_truncated_video_keeps_the_readable_verdicts(clip, tiny_bundle, tmp_path):
    data = clip.read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(data[: len(data) * 6 // 10])
    jsonl = tmp_path / "v.jsonl"
    done = framegate("run", cut, "--bundle", tiny_bundle, "--as-fast-as-possible", "--jsonl", jsonl)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "broke off after frame" in done.stderr
    assert "capture to verdict" in done.stdout
    assert 5 < len(records(jsonl)) < 30


def test_16_bit_grey_tiny_and_corrupt_images_are_rejected_and_the_exit_code_says_so(tiny_bundle, tmp_path, coloured):
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a-good.png"), coloured((250, 10, 10)))
    cv2.imwrite(str(folder / "b-grey.png"), np.full((48, 64), 128, np.uint8))
    cv2.imwrite(str(folder / "c-deep.png"), np.full((48, 64, 3), 40_000, np.uint16))
    cv2.imwrite(str(folder / "d-tiny.png"), np.full((1, 1, 3), 128, np.uint8))
    (folder / "e-corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    cv2.imwrite(str(folder / "f-good.png"), coloured((10, 10, 250)))
    jsonl = tmp_path / "v.jsonl"
    done = framegate("run", folder, "--bundle", tiny_bundle, "--jsonl", jsonl)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "4 verdicts were REJECT because the image cannot be used" in done.stderr
    rows = {row["file"]: row for row in records(jsonl)}
    assert [rows[name]["verdict"] for name in sorted(rows)] == [
        "ACCEPT",
        "REJECT",
        "REJECT",
        "REJECT",
        "REJECT",
        "ACCEPT",
    ]
    assert "8-bit" in rows["c-deep.png"]["detail"]
    assert rows["d-tiny.png"]["reasons"] == ["BAD_INPUT"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--roi", "300,0,100,100"], 2, "reaches outside the 320x240 frame"),
        (["--roi", "1,2,3"], 2, "expected [NAME=]x,y,w,h"),
        (["--inject", "melt:1-2"], 2, "melt"),
        (["--deadline-ms", "-3"], 2, "positive"),
        (["--threads", "0"], 2, "at least 1"),
        (["--backend", "tensorflow"], 2, "known are auto"),
        (["--precision", "fp64"], 1, "it has fp32, int8"),
        (["--jsonl", "nowhere/v.jsonl"], 1, "cannot be written"),
        (["--video", "nowhere/v.mp4"], 1, "cannot be written"),
        (["--video", "v.gif"], 2, "use .mp4, .mkv, .avi or .mcap"),
        (["--record", "v.mp4", "--record", "./v.mp4"], 2, "another output"),
    ],
)
def test_unusable_options(clip, tiny_bundle, capsys, tmp_path, monkeypatch, options, code, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, code, "run", clip, "--bundle", tiny_bundle, *options)


@pytest.mark.parametrize("command", ["run", "info"])
def test_unusable_bundles(make_bundle, capsys, clip, command):
    def call(bundle):
        return ["run", clip, "--bundle", bundle] if command == "run" else ["info", bundle]

    damaged, incomplete = make_bundle(), make_bundle()
    (damaged / "model.int8.onnx").write_bytes(b"x")
    (incomplete / "model.fp32.onnx").unlink()
    assert "has SHA-256" in refused(capsys, 1, *call(damaged))
    assert "model.fp32.onnx is missing" in refused(capsys, 1, *call(incomplete))
    assert "not found" in refused(capsys, 1, *call("nowhere.bundle"))


def test_a_full_disk_is_one_line(clip, tiny_bundle):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full to fail on")
    done = framegate("run", clip, "--bundle", tiny_bundle, "--as-fast-as-possible", "--jsonl", "/dev/full")
    assert done.returncode == 1
    assert "verdicts /dev/full: writing failed (No space left on device)" in done.stderr
    assert "capture to verdict" in done.stdout  # judged to the end
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--video", "--jsonl"])
def test_the_source_is_never_written_over(clip, tiny_bundle, capsys, tmp_path, option):
    mine = tmp_path / "mine.avi"
    mine.write_bytes(clip.read_bytes())
    assert "is also an input" in refused(capsys, 2, "run", mine, "--bundle", tiny_bundle, option, mine)
    assert mine.read_bytes() == clip.read_bytes()


@pytest.mark.parametrize("option", ["--objects", "--label-map", "--health", "--trust", "--handover-key"])
@pytest.mark.parametrize("link", [False, True])
def test_no_other_input_is_written_over_either(clip, tiny_bundle, capsys, tmp_path, option, link):
    read = tmp_path / "read.jsonl"
    read.write_text("mine\n")
    written = tmp_path / "other.jsonl" if link else read
    if link:
        os.link(read, written)
    more = ("--handover", "udp://127.0.0.1:47800") if option == "--handover-key" else ()
    call = ("run", clip, "--bundle", tiny_bundle, option, read, "--jsonl", written, *more)
    assert "is also an input" in refused(capsys, 2, *call)
    assert read.read_text() == "mine\n"


@pytest.mark.parametrize("link", [False, True])
def test_fault_learning_and_measuring_write_over_no_recording(clip, tiny_bundle, capsys, tmp_path, link):
    mine, written = tmp_path / "mine.avi", tmp_path / "other.avi" if link else tmp_path / "mine.avi"
    mine.write_bytes(clip.read_bytes())
    if link:
        os.link(mine, written)
    assert "is also an input" in refused(capsys, 2, "health", mine, "--out", written)
    for option in ("--out", "--html"):
        assert "is also an input" in refused(capsys, 2, "bench", tiny_bundle, "--source", mine, option, written)
    both = ("--out", tmp_path / "x.json", "--html", tmp_path / "x.json")
    assert "is also an input or another output" in refused(capsys, 2, "bench", tiny_bundle, *both)
    assert mine.read_bytes() == clip.read_bytes()


def test_an_output_with_a_name_that_no_file_can_have_is_one_line(clip, tiny_bundle, tmp_path):
    long = tmp_path / f"{'a' * 300}.jsonl"
    done = framegate("run", clip, "--bundle", tiny_bundle, "--as-fast-as-possible", "--jsonl", long)
    assert done.returncode == 1
    assert "File name too long" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_source_of_one_of_several_cameras_is_not_written_over(clip, tiny_bundle, capsys, tmp_path):
    mine = tmp_path / "mine.jsonl"
    mine.write_bytes(clip.read_bytes())
    call = ("run", f"left={mine}", "right=synthetic://?frames=3", "--bundle", tiny_bundle, "--jsonl", mine)
    assert "is also an input" in refused(capsys, 2, *call)
    assert mine.read_bytes() == clip.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
@pytest.mark.parametrize("call", ["bundles > out.txt", "run 'synthetic://?frames=3' --as-fast-as-possible --bundle"])
def test_fault_files_may_not_grow(tiny_bundle, tmp_path, call):
    """The standard output, and the private copy of a network."""
    words = f"{call} {tiny_bundle}" if call.endswith("--bundle") else call
    shell = f"ulimit -f 0; exec {sys.executable} -m framegate {words}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 1
    (line,) = [each for each in done.stderr.splitlines() if not each.startswith("framegate: tiny on")]
    assert "cannot be written: File too large" in line or "let TMPDIR name a folder with room" in line


@pytest.mark.parametrize(
    ("options", "code"), [(["--deadline-ms", "-3"], 2), (["--video", "v.gif"], 2), (["--video", "v.jsonl"], 2)]
)
def test_wrong_usage_leaves_old_verdicts_alone(clip, tiny_bundle, capsys, tmp_path, monkeypatch, options, code):
    monkeypatch.chdir(tmp_path)
    Path("v.jsonl").write_text("yesterday")
    refused(capsys, code, "run", clip, "--bundle", tiny_bundle, "--jsonl", "v.jsonl", *options)
    assert Path("v.jsonl").read_text() == "yesterday"


def test_ctrl_c_keeps_what_was_written_and_prints_the_table(tiny_bundle, tmp_path):
    jsonl = tmp_path / "v.jsonl"
    process = Forked(
        [
            sys.executable,
            "-m",
            "framegate.runtime.cli.main",
            "run",
            "synthetic://?width=320&height=240&fps=50",
            "--bundle",
            str(tiny_bundle),
            "--jsonl",
            str(jsonl),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while (not jsonl.exists() or len(jsonl.read_text().splitlines()) < 20) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "capture to verdict" in out
    rows = records(jsonl)
    assert len(rows) >= 20
    assert [row["frame_id"] for row in rows] == sorted(row["frame_id"] for row in rows)


def test_info_shows_the_first_of_a_thousand_labels_and_all_as_json(make_bundle, monkeypatch, capsys):
    many = tuple(f"class_{k}" for k in range(1000))
    real = Bundle.open

    def with_many(*words):
        bundle = real(*words)
        object.__setattr__(bundle, "labels", many)
        return bundle

    monkeypatch.setattr(Bundle, "open", with_many)
    path = str(make_bundle())
    assert cli.main(["info", path]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "1000 labels (class_0, " in line
    assert line.endswith("class_24, ..., class_999; all of them: --json)")
    assert cli.main(["info", path, "--json"]) == 0
    assert tuple(json.loads(capsys.readouterr().out)["labels"]) == many


def test_info_shows_models_thresholds_and_limits(tiny_bundle, make_bundle, capsys):
    assert cli.main(["info", str(tiny_bundle)]) == 0
    out = capsys.readouterr().out
    assert "openvino/int8" in out
    said = " ".join(out.split())
    for part in ("either it refuses", "for a random frame (", "Not under attack", "it promises nothing more"):
        assert part in said
    assert "how often it was tried was not recorded" in said  # a record of an older format
    assert "bound" not in out
    assert "are left, the share of errors can be larger" in said  # the camera check was not calibrated
    assert "at most 5.00% of them, drawn in the same way, are wrong and accepted" in said
    assert "up to 5% of all calibrations made so may issue a threshold that breaks it" in said
    assert "calibrated with test: " in said  # no engine of this machine
    assert "WARNING: this machine has openvino 20" in said
    assert cli.main(["info", str(make_bundle(threshold=None))]) == 0
    assert "not calibrated, rejects every frame: openvino/fp32" in capsys.readouterr().out
    assert cli.main(["info", str(tiny_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["blue", "green", "red"]


def test_info_of_grouped_data_says_both_figures_and_what_a_frame_is(capsys):
    assert cli.main(["info", "hybrid-gtsrb"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "for a random frame of a random new track" in said
    assert (
        "It is not about whole tracks: 7 of 90 tested tracks (7.8%) contain a wrong accept; of new ones at most" in said
    )
    assert cli.main(["bundles", "--json"]) in (0, 1)
    rows = {row["name"]: row["promise"] for row in json.loads(capsys.readouterr().out)}
    assert "a random frame of a random new track" in rows["hybrid-gtsrb"]


def test_doctor_tells_what_runs_here(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    findings = {f["what"]: f for f in json.loads(capsys.readouterr().out)}
    assert findings["backend onnxruntime"]["usable"]
    assert findings["backend openvino"]["usable"]
    assert findings["NVIDIA GPU"]["explanation"]
    assert cli.main(["doctor"]) == 0
    assert "framegate doctor" in capsys.readouterr().out


def test_bench_measures_and_records_its_circumstances(tiny_bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("framegate.benchmarks.latency.command.STARTS", 2)
    out = tmp_path / "result.json"
    code = cli.main(
        ["bench", str(tiny_bundle), "--frames", "50", "--memory-frames", "200", "--size", "128x128", "--out", str(out)]
    )
    assert code == 0
    assert "start-up" in capsys.readouterr().out
    record = json.loads(out.read_text())
    assert set(record["configurations"]) == {"openvino/fp32", "openvino/int8", "onnxruntime/fp32", "onnxruntime/int8"}
    for row in record["configurations"].values():
        assert row["frames"] == 50
        for part in ("resize_normalise_infer", "capture_to_verdict"):
            assert 0 < row[part]["p50_ms"] <= row[part]["p99_ms"] <= row[part]["p99.9_ms"] <= row[part]["max_ms"]
    assert record["memory"]["frames"] == 200
    assert record["startup_s"]["runs"] == 2
    assert record["machine"]["cores"]


@pytest.mark.parametrize(
    ("options", "code"), [(["--size", "big"], 2), (["--frames", "0"], 2), (["--out", "no/where/r.json"], 1)]
)
def test_bench_refuses_wrong_usage(tiny_bundle, capsys, options, code):
    refused(capsys, code, "bench", tiny_bundle, *options)


def test_version_and_help_list_all_commands():
    done = framegate("--help")
    assert done.returncode == 0
    for command in ("run", "info", "doctor", "bench", "train", "export", "calibrate", "engine", "verify", "onnx"):
        assert command in done.stdout
    assert framegate("--version").stdout.startswith("framegate 0.")


def test_no_command_is_wrong_usage():
    done = framegate()
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_fault_output_on_a_full_disk(tiny_bundle):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "framegate.runtime.cli.main", "info", str(tiny_bundle)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("framegate: the output cannot be written: No space left on device")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("info", "--json"), ("info",), ("bundles",)], ids=" ".join)
def test_a_reader_that_goes_away_is_no_error(tiny_bundle, words):
    """``framegate info | head``: tables are written by rich, which would end the process with an error of its own."""
    arguments = [*words, str(tiny_bundle)] if words[0] == "info" else list(words)
    command = [sys.executable, "-m", "framegate.runtime.cli.main", *arguments]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
