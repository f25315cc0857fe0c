from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from forked_command import Forked, run_forked

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli import main as cli
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover import Identity, Receiver, ReceiverConfig, Sender, open_incoming, open_outgoing
from framegate.runtime.handover.message import HEARTBEAT, SCENE, decode
from framegate.runtime.handover.object_sender import ObjectSender
from framegate.runtime.handover.protection import mac_holds, stream_id
from framegate.runtime.verdict import FoundObject, Prediction

KEY = bytes(range(32))


def key_file(folder: Path, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.write_text(KEY.hex())
    path.chmod(mode)
    return path


def sent_by(bundle: Path, *options: str) -> tuple[list[bytes], str]:
    incoming = open_incoming("udp://127.0.0.1:0")
    run = ["run", "synthetic://?frames=12&fps=30", "--bundle", bundle, "--handover", f"udp://127.0.0.1:{incoming.port}"]
    done = run_forked([sys.executable, "-m", "framegate", *map(str, run), *options], text=True)
    assert done.returncode == 0, done.stderr
    found = [data for data, _ in incoming.waiting()]
    incoming.close()
    return found, done.stderr


@pytest.mark.slow
def test_run_sends_every_verdict_and_says_to_whom(tiny_bundle, tmp_path):
    found, said = sent_by(tiny_bundle, "--roi", "a=0,0,64,64", "--roi", "b=64,64,64,64", "--handover-id", "0x10")
    opened = [decode(data) for data in found]
    assert {envelope.data_id for envelope, _ in opened} == {0x10, 0x11}
    bundle = Bundle.open(tiny_bundle)
    assert {message.bundle for _, message in opened} == {bytes.fromhex(bundle.digest)[:8]}
    assert {message.classes for _, message in opened} == {len(bundle.labels)}
    for data_id in (0x10, 0x11):
        counters = [envelope.counter for envelope, _ in opened if envelope.data_id == data_id]
        assert counters == list(range(len(counters)))
        frames = [m.frame_id for e, m in opened if e.data_id == data_id and m.kind != HEARTBEAT]
        assert frames[-1] == -1  # the end is said
        assert any(frame >= 0 for frame in frames)
    assert "region a is data id 0x10, bundle" in said
    assert bundle.digest[:16] in said


@pytest.mark.slow
def test_run_sends_objects_in_slots_and_the_scene_last(tiny_bundle, tmp_path):
    boxes = tmp_path / "boxes.jsonl"
    lines = [{"frame": k, "boxes": [{"box": [8 + k, 8, 64, 64], "label": "car", "track": 5}]} for k in range(12)]
    boxes.write_text("\n".join(map(json.dumps, lines)))
    options = ("--objects", str(boxes), "--max-objects", "2", "--roi", "road=0,0,64,64", "--handover-id", "0x20")
    found, said = sent_by(tiny_bundle, *options)
    assert "the scene is data id 0x20, its 2 slots for objects are 0x21 to 0x22, region road is 0x23, bundle" in said
    assert "receivers of the objects must be told of 1 region(s) beside them" in said
    frames = [(e.data_id, m) for e, m in map(decode, found) if m.frame_id >= 0]
    assert [data_id for data_id, _ in frames[:4]] == [0x21, 0x22, 0x23, 0x20]
    assert (frames[0][1].track, frames[1][1].reason_names[-1]) == (5, "NO_OBJECT")
    scenes = [message for data_id, message in frames if data_id == 0x20]
    assert {(each.kind, each.region, each.objects) for each in scenes} == {(SCENE, 2, 1)}


@pytest.mark.slow
def test_without_an_id_it_is_made_from_source_and_region(tiny_bundle, tmp_path):
    found, _ = sent_by(tiny_bundle, "--handover-key", str(key_file(tmp_path)))
    assert {decode(data)[0].data_id for data in found} == {stream_id("synthetic://?frames=12&fps=30", "frame")}
    assert all(mac_holds(data, KEY) for data in found)
    receiver = Receiver(ReceiverConfig(decode(found[0])[0].data_id, key=bytes(32)))
    for index, data in enumerate(found):
        receiver.feed(data, index * 33_000_000)
    assert (receiver.counts()["forged"], receiver.good) == (len(found), 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--handover", "carrier-pigeon://loft"], "unknown transport"),
        (["--handover", "udp://127.0.0.1"], "expected a host and a port"),
        (["--handover-id", "1"], "need a --handover URL"),
        (["--handover", "udp://127.0.0.1:1", "--objects", "x", "--track-rule", "none"], "follows none"),
        (["--handover", "udp://127.0.0.1:47800", "--as-fast-as-possible"], "do not come by themselves"),
        (["--handover", "udp://127.0.0.1:47800", "--handover-key", "nowhere"], "key file nowhere: No such file"),
        (["--handover", "udp://no-such-host.invalid:47800"], "is not known here"),
        (["--handover", "udp://127.0.0..1:47800"], "is not known here"),
        (["--handover", f"udp://{'x' * 70}:47800"], "is not known here"),
        (["--handover", "udp://127.0.0.1:1", "--handover", "udp://127.0.0.1:1"], "is given twice"),
        (["--handover", "local://here"], "stays within one process"),
    ],
)
def test_what_cannot_be_handed_over_is_one_sentence(tiny_bundle, capsys, options, words):
    source = "synthetic://?frames=3&fps=30"
    assert cli.main(["run", source, "--bundle", str(tiny_bundle), *options]) != 0
    out, err = capsys.readouterr()
    last = err.strip().splitlines()[-1]
    assert words in last
    assert "Traceback" not in err + out


def test_a_key_that_others_can_read_is_refused(tiny_bundle, tmp_path, capsys):
    options = ["--handover", "udp://127.0.0.1:47800", "--handover-key", str(key_file(tmp_path, 0o644))]
    assert cli.main(["run", "synthetic://?frames=3&fps=30", "--bundle", str(tiny_bundle), *options]) == 2
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "x", "0x1ffffffff", "1.5", ""])
def test_an_id_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["handover", "listen", "udp://127.0.0.1:47800", f"--id={text}"])
    assert "is no data id" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "words"), [("local://here", "stays within one process"), ("udp://127.0.0.1:0", "nobody knows")]
)
def test_an_address_at_which_nothing_could_arrive_is_refused(url, words, capsys):
    assert cli.main(["handover", "listen", url, "--id", "7"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--regions", "1"], "needs --slots"),
        (["--slots", "4", "--regions", "-1"], "expected 0 to 1000"),
        (["--slots", "4", "--regions", "1001"], "expected 0 to 1000"),
        (["--slots", "0"], "expected 1 to 16"),
    ],
)
def test_slots_and_regions_that_cannot_be_are_refused(options, words, capsys):
    assert cli.main(["handover", "listen", "udp://127.0.0.1:47800", "--id", "7", *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_listen_shows_a_whole_list_of_objects_beside_a_region():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{probe.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "framegate",
        "handover",
        "listen",
        url,
        "--id",
        "7",
        "--slots",
        "2",
        "--regions",
        "1",
    ]
    with Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listening:
        assert "NOT_ALIVE" in listening.stdout.readline()
        lines: list[str] = []
        threading.Thread(target=lambda: lines.extend(listening.stdout), daemon=True).start()
        identity = Identity(("cat", "dog"), b"bundle-1", b"calibr-1")
        with ObjectSender([open_outgoing(url)], 7, 2, identity, regions=("road",)) as sender:
            for frame_id in range(200):
                now = time.monotonic_ns()
                times = {"captured_ns": now, "decided_ns": now, "valid_until_ns": now + 10**9}
                numbers = (0.9, 0.1, 0.8, -1.0, 0.1, 0.3)
                found = FoundObject((0, 0, 9, 9), track=5)
                seen = Prediction(frame_id, "object-5", (), "dog", *numbers, **times, found=found)
                road = Prediction(frame_id, "road", (), "dog", *numbers, **times)
                scene = Prediction(frame_id, "frame", (), "", *numbers, **times)
                sender.send_result(FrameResult((seen, road), None, "", scene))
                time.sleep(0.03)
                if any("WHOLE: track 5 class 1" in line for line in lines):
                    break
        listening.send_signal(signal.SIGINT)
        assert listening.wait(30) == 130
        assert any("  WHOLE: track 5 class 1" in line for line in lines)
        assert "beside " in listening.stderr.read()


def test_include_prints_the_folder_of_the_header(capsys):
    assert cli.main(["handover", "include"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert {"framegate_verdict.h", "framegate_verdict.hpp", "framegate_posix.h"} <= {p.name for p in folder.iterdir()}


@pytest.mark.slow
def test_listen_says_when_a_verdict_may_be_used_and_when_not_any_more():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "framegate", "handover", "listen", url, "--id", "7"]
    with Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as listening:
        assert "DO NOT USE: NOT_ALIVE" in listening.stdout.readline()
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(listening.stdout), daemon=True)
        reader.start()
        identity = Identity(("cat", "dog"), b"bundle-1", b"calibr-1")
        with Sender([open_outgoing(url)], [("road", 7)], identity) as sender:
            for frame_id in range(200):
                now = time.monotonic_ns()
                times = {"captured_ns": now, "decided_ns": now, "valid_until_ns": now + 10**9}
                sender.send(Prediction(frame_id, "road", (), "dog", 0.9, 0.1, 0.8, -1.0, 0.1, 0.3, **times))
                time.sleep(0.03)
                if any("USABLE: class 1" in line for line in lines):
                    break
        until = time.monotonic() + 10
        while not any("REJECTED, NO_FRAME" in line for line in lines) and time.monotonic() < until:
            time.sleep(0.02)
        listening.send_signal(signal.SIGINT)
        assert listening.wait(30) == 130
        assert any("USABLE: class 1" in line for line in lines)
        assert any("REJECTED, NO_FRAME" in line for line in lines)
        assert "good " in listening.stderr.read()
