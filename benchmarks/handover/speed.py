"""What the hand-over takes: encode, both receivers, and from decided to the receiver's decision over each transport.

    python -m framegate.benchmarks.handover.speed --out benchmarks/results/handover-speed.json

Verdicts and bare messages of the same size take turns between two processes of this machine, so that what the machine
does meanwhile happens to both. Zenoh and ROS 2 are measured where they are installed, UDP
also with both ends in real time, and from a pipeline that judges frames. ``--busy 2`` keeps two cores busy
with other work meanwhile. A record is sound only from a machine on which nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from statistics import quantiles
from typing import Any

from framegate.benchmarks.checkout import BUNDLES
from framegate.benchmarks.handover.camera_process import NoisyCamera, accepted_pictures
from framegate.benchmarks.handover.scheduling import ORDINARY, REAL_TIME, SCHEDULING, allowed, this_process
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stdout
from framegate.runtime.handover import (
    Identity,
    Receiver,
    ReceiverConfig,
    Sender,
    VerdictMessage,
    open_incoming,
    open_outgoing,
    this_clock,
)
from framegate.runtime.handover.base import Incoming, Outgoing
from framegate.runtime.handover.message import PLAIN_BYTES, encode
from framegate.runtime.handover.reading import MS
from framegate.runtime.pipeline import RESULTS_HELD, Pipeline
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.verdict import Prediction

HEADERS = Path(__file__).resolve().parents[2] / "runtime" / "handover" / "c"
ID = 0x101
FRAME = 33 * MS
LABELS = ("cat", "dog")
IDENTITY = Identity(LABELS, b"bundle-1", b"calibr-1")
STREAMS, STREAM_HZ = 100, 30
_ROUNDS, _CALLS = 7, 2000
IN_C = "a receiver in C"
BARE = b"\xff\xff"
"""Begins what is no message of the hand-over: no message is so long."""
PAUSE_S, PATIENCE_S, DISCOVERY_S = 0.004, 10.0, 1.5
WARM_UP = 20
JUDGED_PAUSE_S = 0.01
"""From a verdict to the bare message behind it."""
BUNDLE, ENGINE = "hybrid-cifar10.bundle", ("onnxruntime", "fp32")


def message(number: int) -> VerdictMessage:
    """Message number n of a camera with 30 frames a second."""
    sent = 10**12 + number * FRAME
    return VerdictMessage(
        epoch=5,
        sent_ns=sent,
        accepted=True,
        frame_id=number,
        captured_ns=sent - MS,
        decided_ns=sent - 1,
        valid_until_ns=sent + 100 * MS,
        clock_domain=9,
        class_id=1,
        classes=2,
        confidence=0.9,
        score=0.1,
        threshold=0.2,
    )


def prediction(number: int, stream: str = "road") -> Prediction:
    """A verdict that was decided just now."""
    now = time.monotonic_ns()
    return Prediction(
        number,
        stream,
        (),
        "dog",
        confidence=0.9,
        entropy=0.1,
        margin=0.8,
        energy=-1.0,
        score=0.1,
        threshold=0.3,
        captured_ns=now - MS,
        decided_ns=now,
        valid_until_ns=now + 100 * MS,
    )


def processor_us(work: Callable[[int], object]) -> float:
    """Processor time of one call in microseconds: the best of some rounds."""
    best = math.inf
    for round_number in range(_ROUNDS):
        first = round_number * _CALLS
        start = time.process_time_ns()
        for number in range(first, first + _CALLS):
            work(number)
        best = min(best, (time.process_time_ns() - start) / _CALLS / 1e3)
    return round(best, 3)


def in_python() -> dict[str, float]:
    """Microseconds of processor time a call."""
    messages = [message(number) for number in range(_ROUNDS * _CALLS)]
    data = [encode(each, number % 65536, ID) for number, each in enumerate(messages)]
    receiver = Receiver(ReceiverConfig(ID, clock_domain=9))
    found = {
        "encode": processor_us(lambda number: encode(messages[number], number % 65536, ID)),
        "feed": processor_us(lambda number: receiver.feed(data[number], messages[number].sent_ns + 1000)),
    }
    now = messages[-1].sent_ns + 2000
    if not receiver.verdict(now).usable:
        raise RuntimeError("nothing was usable: this measures something else")
    return found | {"verdict": processor_us(lambda _: receiver.verdict(now))}


def compiler() -> str | None:
    """Any C compiler of this machine."""
    return next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def compiled(name: str, folder: Path) -> Path:
    """A program of this folder, compiled."""
    program, source = folder / Path(name).stem, Path(__file__).with_name(name)
    command = [compiler() or "cc", "-std=c11", "-O2", f"-I{HEADERS}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def in_c() -> dict[str, float]:
    """Microseconds of processor time a call of the C header."""
    with tempfile.TemporaryDirectory() as folder:
        program = compiled("feed_speed.c", Path(folder))
        best = [math.inf] * 6
        for _ in range(_ROUNDS):
            out = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.split()
            values = [float(word) / 1e3 for word in out[1:4] + out[5:8]]
            best = [min(pair) for pair in zip(best, values, strict=True)]
    names = ("encode", "feed", "verdict", "encode_with_code", "feed_with_code", "verdict_with_code")
    return {name: round(value, 4) for name, value in zip(names, best, strict=True)}


def _receive(url: str, count: int) -> None:
    """The other process: its address first, then one line with all times."""
    incoming = open_incoming(url)
    where = f"udp://127.0.0.1:{_port(incoming)}" if url.startswith("udp:") else url
    sys.stdout.write(where + "\n")
    sys.stdout.flush()
    receiver = Receiver(ReceiverConfig(ID, clock_domain=this_clock()))
    times: dict[str, list[float]] = {name: [] for name in ("verdicts", "made", "way", "judged", "bare")}
    usable = 0
    while len(times["bare"]) < count and (received := incoming.receive(PATIENCE_S)) is not None:
        data, arrival_ns = received
        if data.startswith(BARE):
            times["bare"].append((time.monotonic_ns() - int.from_bytes(data[2:10], "big")) / 1e6)
            continue
        receiver.feed(data, arrival_ns)
        reading = receiver.verdict()
        now, said = time.monotonic_ns(), reading.message
        if said is not None and said.frame_id >= 0:
            times["verdicts"].append((now - said.decided_ns) / 1e6)
            times["made"].append((said.sent_ns - said.decided_ns) / 1e6)
            times["way"].append((arrival_ns - said.sent_ns) / 1e6)
            times["judged"].append((now - arrival_ns) / 1e6)
            usable += reading.usable
    sys.stdout.write(json.dumps({**times, "usable": usable}) + "\n")
    sys.stdout.flush()
    incoming.close()


def _port(incoming: Incoming) -> int:
    return int(incoming.port)  # type: ignore[attr-defined]  # UDP's


def summary(times: list[float]) -> dict[str, float]:
    """Milliseconds."""
    cuts = quantiles(times, n=1000, method="inclusive")
    return {"p50": round(cuts[499], 4), "p99": round(cuts[989], 4), "max": round(max(times), 4), "count": len(times)}


def over(
    url: str, count: int, pause_s: float, folder: str, scheduled: str = ORDINARY, judged: bool = False
) -> dict[str, Any]:
    """From decided to the receiver's decision, and a bare message's way beside it, in milliseconds.

    Args:
        url: Of the receiver.
        count: Verdicts, and bare messages.
        pause_s: Between two messages.
        folder: For compiled programs.
        scheduled: How both ends are scheduled, a name of `scheduling.SCHEDULING`.
        judged: The verdicts come from a pipeline that judges 30 frames a second, in place of being made up.
    """
    command = [sys.executable, "-m", "framegate.benchmarks.handover.speed", "--receive", url, "--count", str(count)]
    if url == IN_C:
        command = [str(compiled("receive_speed.c", Path(folder))), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=SCHEDULING[scheduled]) as other:
        assert other.stdout is not None
        where = other.stdout.readline().strip()
        out = open_outgoing(where)
        time.sleep(DISCOVERY_S)
        session = Session.open(BUNDLES / BUNDLE, *ENGINE, 1, camera=False) if judged else None
        identity = IDENTITY if session is None else Identity.of(session.bundle, session.calibration)
        with Sender([out], [("road", ID)], identity, heartbeat_s=None) as sender:
            with this_process(scheduled):
                if session is not None:
                    _judge_and_send(session, sender, out, count)
                else:
                    _send(sender, out, count, pause_s)
            found = _from_c(other.stdout) if url == IN_C else json.loads(other.stdout.readline())
    if len(found["verdicts"]) <= WARM_UP:
        raise RuntimeError(f"{url}: {len(found['verdicts'])} verdicts came; is the transport working?")
    names = [name for name in found if name != "usable"]
    return {name: summary(found[name][WARM_UP:]) for name in names} | {"usable": found["usable"]}


def _bare() -> bytes:
    return BARE + time.monotonic_ns().to_bytes(8, "big") + bytes(PLAIN_BYTES - 8 - len(BARE))


def _send(sender: Sender, out: Outgoing, count: int, pause_s: float) -> None:
    """Verdicts that were made up and bare messages, in turns."""
    for number in range(count + WARM_UP):
        sender.send(prediction(number))
        time.sleep(pause_s)
        out.send(_bare())
        time.sleep(pause_s)


def _judge_and_send(session: Session, sender: Sender, out: Outgoing, count: int) -> None:
    """A pipeline judges frames and hands its verdicts over, as `framegate run` does; a bare message after each."""
    camera = NoisyCamera(accepted_pictures(session), STREAM_HZ)
    pipeline = Pipeline(
        camera, session, rois=(Roi("road", 0.0, 0.0, 1.0, 1.0, fractions=True),), results_held=RESULTS_HELD
    )
    pipeline.tell(sender.send_result)
    with pipeline:
        for number, _ in enumerate(pipeline.results()):
            time.sleep(JUDGED_PAUSE_S)
            out.send(_bare())
            if number >= count + WARM_UP:
                break


def _from_c(lines: Iterable[str]) -> dict[str, Any]:
    """What receive_speed.c says, as the receiver in Python says it."""
    found: dict[str, Any] = {name: [] for name in ("verdicts", "made", "way", "judged", "bare")} | {"usable": 0}
    for line in lines:
        kind, *numbers = line.split()
        times = [int(number) for number in numbers]
        if kind == "b":
            found["bare"].append((times[1] - times[0]) / 1e6)
            continue
        decided, sent, arrived, done, usable = times
        for name, ns in (("verdicts", done - decided), ("made", sent - decided), ("way", arrived - sent)):
            found[name].append(ns / 1e6)
        found["judged"].append((done - arrived) / 1e6)
        found["usable"] += usable
    return found


def transports() -> dict[str, str]:
    """What can be measured here: name -> address of a receiver."""
    found = {"udp to C": IN_C} if compiler() else {}
    found |= {"udp": "udp://127.0.0.1:0", "multicast": "multicast://239.255.70.86:47810"}
    if find_spec("zenoh") is not None:
        found["zenoh"] = f"zenoh://framegate/speed{os.getpid()}"
    if find_spec("rclpy") is not None:
        found["ros2"] = f"ros2://framegate/speed{os.getpid()}"
    return found


def many_streams(seconds: float) -> dict[str, float]:
    """The share of one core that 100 streams at 30 Hz take at the sender and at the receiver, in percent."""
    incoming = open_incoming("udp://127.0.0.1:0")
    out = open_outgoing(f"udp://127.0.0.1:{_port(incoming)}")
    names = [f"region-{number}" for number in range(STREAMS)]
    streams = [(name, ID + number) for number, name in enumerate(names)]
    receivers = {data_id: Receiver(ReceiverConfig(data_id, clock_domain=this_clock())) for _, data_id in streams}
    spent = {"sender": 0, "receiver": 0}
    with Sender([out], streams, IDENTITY, heartbeat_s=None) as sender:
        rounds = max(int(seconds * STREAM_HZ), 1)
        for number in range(rounds):
            predictions = [prediction(number, name) for name in names]
            start = time.process_time_ns()
            sender.send_all(predictions)
            middle = time.process_time_ns()
            for data, arrival_ns in incoming.waiting():
                receiver = receivers[int.from_bytes(data[4:8], "big")]
                receiver.feed(data, arrival_ns)
                receiver.verdict()
            spent["sender"] += middle - start
            spent["receiver"] += time.process_time_ns() - middle
            time.sleep(1 / STREAM_HZ / 4)
    incoming.close()
    return {side: round(100 * ns / 1e9 / (rounds / STREAM_HZ), 2) for side, ns in spent.items()}


def _over_all(count: int) -> dict[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        found = {name: over(url, count, PAUSE_S, folder) for name, url in transports().items()}
        real_time, judged = allowed(REAL_TIME), max(count // 4, 2 * WARM_UP)
        for name in ("udp to C", "udp"):
            if name in found:
                url = transports()[name]
                if real_time:
                    found[f"{name}, real time"] = over(url, count, PAUSE_S, folder, REAL_TIME)
                found[f"{name}, pipeline"] = over(url, judged, PAUSE_S, folder, judged=True)
                if real_time:
                    found[f"{name}, pipeline, real time"] = over(url, judged, PAUSE_S, folder, REAL_TIME, judged=True)
        return found


def main(words: list[str] | None = None) -> int:
    """Measure everything and print or write the record."""
    parser = argparse.ArgumentParser(description="What the hand-over takes.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record there (default: print it)")
    parser.add_argument("--count", type=int, default=2000, help="verdicts over each transport (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=0, help="processes that keep a core busy (default: %(default)s)")
    parser.add_argument("--receive", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.receive:
        _receive(arguments.receive, arguments.count)
        return 0
    options = f"--count {arguments.count} --busy {arguments.busy}"
    load = round(os.getloadavg()[0], 1)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    try:
        record: dict[str, Any] = {
            "command": f"python -m framegate.benchmarks.handover.speed {options}",
            "date": date.today().isoformat(),
            "machine": circumstances(),
            "busy": arguments.busy,
            "load": load,
            "python_us": in_python(),
            "c_us": in_c() if compiler() else None,
            "ms": _over_all(arguments.count),
            "streams_percent_of_a_core": many_streams(3.0),
        }
    finally:
        for each in busy:
            each.kill()
            each.wait()
    text = json.dumps(record, indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    else:
        for line in text.splitlines():
            to_stdout(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
