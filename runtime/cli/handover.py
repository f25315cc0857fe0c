"""``framegate handover``: where the C header lies, and a receiver that shows what arrives."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from framegate.runtime.cli.signals import exit_code, received, stopped_by_signals
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.console import note, to_stderr, to_stdout
from framegate.runtime.errors import UsageError
from framegate.runtime.handover.base import Address, Incoming, Outgoing, open_incoming, open_outgoing, parse_address
from framegate.runtime.handover.clock import this_clock
from framegate.runtime.handover.object_sender import ObjectSender
from framegate.runtime.handover.objects import MAX_SLOTS, ObjectsReceiver, ids_of
from framegate.runtime.handover.protection import read_data_id, read_key, stream_id
from framegate.runtime.handover.reading import MS, Reading
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig
from framegate.runtime.handover.sender import HEARTBEAT_S, Identity, Sender
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.roi import Roi, parse_rois
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source

C_FOLDER = Path(__file__).resolve().parents[1] / "handover" / "c"
"""Holds framegate_verdict.h and what belongs to it."""
_LOOK_S = 0.01


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``handover`` to the command line."""
    parser = commands.add_parser("handover", help=SUMMARIES["handover"])
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, help="what to do")
    include = actions.add_parser("include", help="print the folder of framegate_verdict.h, for a compiler's -I")
    include.set_defaults(run=_include)
    listen = actions.add_parser("listen", help="show what a receiver says about the verdicts of a stream")
    listen.add_argument("url", help="where verdicts arrive, e.g. udp://127.0.0.1:47800")
    listen.add_argument("--id", type=parse_id, required=True, metavar="N", help="data id of the stream, e.g. 0x101")
    listen.add_argument(
        "--key", type=Path, metavar="FILE", help="shared key; others' messages are refused (default: none)"
    )
    listen.add_argument(
        "--max-age-ms",
        type=float,
        default=500.0,
        metavar="MS",
        help="longest time from capture to use (default: %(default)g)",
    )
    listen.add_argument(
        "--slots",
        type=int,
        metavar="N",
        help=f"the stream has moving objects, in so many slots, 1 to {MAX_SLOTS} (default: it has none)",
    )
    listen.add_argument(
        "--regions",
        type=int,
        metavar="N",
        help="with --slots: so many --roi are sent beside the objects, and are none of them (default: 0)",
    )
    listen.set_defaults(run=_listen)


def parse_id(text: str) -> int:
    """A data id, decimal or with 0x.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    try:
        return read_data_id(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_handover_options(parser: argparse.ArgumentParser) -> None:
    """Options that say to whom verdicts are handed over."""
    group = parser.add_argument_group("hand-over", "what is sent, and how it is received, is in docs/handover.md")
    group.add_argument(
        "--handover",
        action="append",
        default=[],
        metavar="URL",
        help="send every verdict there, e.g. udp://127.0.0.1:47800; repeat for several (default: nowhere)",
    )
    group.add_argument(
        "--handover-id",
        type=parse_id,
        metavar="N",
        help="data id of the first region, one more for each further one (default: made from source and region)",
    )
    group.add_argument(
        "--handover-key",
        type=Path,
        metavar="FILE",
        help="authenticate messages with this key, 32 to 128 hexadecimal digits (default: a CRC only)",
    )


def check_handover(arguments: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before anything is opened.

    Raises:
        UsageError: A key or an id is given, and nowhere to send; or objects that nobody follows.
    """
    for url in arguments.handover:
        if arguments.handover.count(url) > 1:  # a receiver would find every message REPEATED, and use none
            raise UsageError(f"--handover {url} is given twice; give each address once")
        _require_other_process(url)
    if arguments.handover and getattr(arguments, "track_rule", None) == "none":
        raise UsageError(
            "--handover needs to know which object is which, and --track-rule none follows none: leave it out, or "
            "read the verdicts with --jsonl -"
        )
    if not arguments.handover and (arguments.handover_id is not None or arguments.handover_key is not None):
        raise UsageError("--handover-id and --handover-key need a --handover URL, e.g. udp://127.0.0.1:47800")


def open_sender(
    arguments: argparse.Namespace,
    rois: tuple[Roi, ...] | None,
    source: Source,
    session: Session,
    pipeline: Pipeline,
    slots: int = 0,
) -> Sender | None:
    """The sender that the options ask for; None without ``--handover``. Says on standard error what is sent.

    Args:
        arguments: What `add_handover_options` collected.
        rois: The fixed regions.
        source: Where frames come from.
        session: Judges them.
        pipeline: The same.
        slots: Of moving objects; 0 if there are none.

    Raises:
        UsageError: The options cannot be used, or the frames of the source do not come by themselves.
        SinkError: A transport cannot be opened.
    """
    if not arguments.handover:
        return None
    if not source.live or pipeline.deadline_ms is None:
        raise UsageError(
            f"--handover: the frames of {arguments.source!r} do not come by themselves, so verdicts on them say "
            "nothing about the present; give a camera, or leave out --as-fast-as-possible"
        )
    identity = Identity.of(session.bundle, session.calibration)
    if slots:
        return _object_sender_of(arguments, slots, identity, pipeline.deadline_ms)
    streams = [(arguments.source, roi.name, roi.name) for roi in rois or (Roi.whole(),)]
    return sender_of(arguments, streams, identity, pipeline.deadline_ms)


def _object_sender_of(
    arguments: argparse.Namespace, slots: int, identity: Identity, deadline_ms: float
) -> ObjectSender:
    """The sender of moving objects, and of the regions that are judged beside them."""
    first = arguments.handover_id
    data_id = stream_id(hide_passwords(arguments.source), "objects") if first is None else first
    regions = [roi.name for roi in parse_rois(arguments.roi)] if arguments.roi else []
    key = read_key(arguments.handover_key) if arguments.handover_key else None
    outgoing: list[Outgoing] = []
    try:
        outgoing.extend(open_outgoing(url) for url in arguments.handover)
        heartbeat_s = min(HEARTBEAT_S, deadline_ms / 2e3)
        sender = ObjectSender(outgoing, data_id, slots, identity, regions=regions, key=key, heartbeat_s=heartbeat_s)
    except BaseException:
        for each in outgoing:
            each.close()
        raise
    ids = ids_of(data_id, slots, len(regions))
    beside = "".join(f", region {name} is 0x{each:x}" for name, each in zip(regions, ids[1 + slots :], strict=True))
    note(
        f"framegate: hand-over to {', '.join(each.name for each in outgoing)}: the scene is data id 0x{ids[0]:x}, its "
        f"{slots} slots for objects are 0x{ids[1]:x} to 0x{ids[slots]:x}{beside}, bundle {identity.bundle.hex()}, "
        f"calibration {identity.calibration.hex()}"
        + (f"; receivers of the objects must be told of {len(regions)} region(s) beside them" if regions else "")
    )
    return sender


def sender_of(
    arguments: argparse.Namespace, streams: list[tuple[str, str, str]], identity: Identity, deadline_ms: float
) -> Sender:
    """The sender of some streams. Says on standard error what is sent.

    Args:
        arguments: What `add_handover_options` collected; ``--handover`` was given.
        streams: The source, the region's own name, and the stream's name of each.
        identity: What the verdicts are made with.
        deadline_ms: Of the verdicts.

    Raises:
        UsageError: The options cannot be used.
        SinkError: A transport cannot be opened.
    """
    key = read_key(arguments.handover_key) if arguments.handover_key else None
    names = [name for _, _, name in streams]
    first = arguments.handover_id
    ids = [
        stream_id(hide_passwords(source), region) if first is None else (first + index) % 2**32
        for index, (source, region, _) in enumerate(streams)
    ]
    outgoing: list[Outgoing] = []
    try:
        outgoing.extend(open_outgoing(url) for url in arguments.handover)
        heartbeat_s = min(HEARTBEAT_S, deadline_ms / 2e3)
        sender = Sender(outgoing, list(zip(names, ids, strict=True)), identity, key=key, heartbeat_s=heartbeat_s)
    except BaseException:
        for each in outgoing:
            each.close()
        raise
    for name, data_id in zip(names, ids, strict=True):
        note(
            f"framegate: hand-over to {', '.join(each.name for each in outgoing)}: region {name} is data id "
            f"0x{data_id:x}, bundle {identity.bundle.hex()}, calibration {identity.calibration.hex()}"
        )
    return sender


def _require_other_process(url: str) -> Address:
    """The address, which must lead out of this process.

    Raises:
        UsageError: It does not, or it is none.
    """
    address = parse_address(url)
    if address.scheme == "local":
        raise UsageError(f"{url} stays within one process; take udp://127.0.0.1:47800 to reach another one")
    return address


def _include(_: argparse.Namespace) -> int:
    to_stdout(str(C_FOLDER))
    return 0


def _listen(arguments: argparse.Namespace) -> int:
    if not 1 <= arguments.max_age_ms <= 3_600_000:
        raise UsageError(f"--max-age-ms {arguments.max_age_ms:g}: expected 1 to 3600000")
    if _require_other_process(arguments.url).port == 0:
        raise UsageError(f"{arguments.url}: nobody knows where to send to port 0; give one, e.g. udp://127.0.0.1:47800")
    key = read_key(arguments.key) if arguments.key else b""
    config = ReceiverConfig(arguments.id, max_age_ns=int(arguments.max_age_ms * MS), clock_domain=this_clock(), key=key)
    receiver: Receiver | ObjectsReceiver = Receiver(config)
    if arguments.slots is not None:
        receiver = ObjectsReceiver(config, arguments.slots, regions=arguments.regions or 0)
    elif arguments.regions is not None:
        raise UsageError("--regions says what is sent beside moving objects, so it needs --slots; leave it out")
    incoming = open_incoming(arguments.url)
    stopped: list[bool] = []
    try:
        with stopped_by_signals(lambda: stopped.append(True)):
            _show(incoming, receiver, stopped)
    finally:
        incoming.close()
    counts = ", ".join(f"{name} {count}" for name, count in receiver.counts().items() if count)
    to_stderr(f"framegate: {counts or 'nothing was received'}")
    number = received()
    return 0 if number is None else exit_code(number)


def _show(incoming: Incoming, receiver: Receiver | ObjectsReceiver, stopped: list[bool]) -> None:
    """One line whenever the answer changes."""
    last = ""
    while not stopped:
        first = incoming.receive(_LOOK_S)
        if first is not None:
            receiver.feed(*first)
        for data, arrival_ns in incoming.waiting():
            receiver.feed(data, arrival_ns)
        text = _answer(receiver) if isinstance(receiver, Receiver) else _answer_of_objects(receiver)
        if text != last:
            last = text
            to_stdout(f"{time.strftime('%H:%M:%S')}  {text}")
            sys.stdout.flush()


def _answer(receiver: Receiver) -> str:
    reading = receiver.verdict()
    return f"USABLE: {_label(reading)}" if reading.usable else reading.describe()


def _label(reading: Reading) -> str:
    """Of a usable reading: the class, and what was certified about it."""
    certified = reading.certificate
    return f"class {reading.class_id}" + ("" if certified is None else f" certified {certified[0]}:{certified[1]:g}")


def _answer_of_objects(receiver: ObjectsReceiver) -> str:
    reading = receiver.verdict()
    objects = [
        f"track {each.track} {_label(each.reading)}" if each.reading.usable else f"track {each.track} DO NOT USE"
        for each in reading.objects
    ]
    return f"{reading.describe()}: {', '.join(objects) or 'no object'}"
