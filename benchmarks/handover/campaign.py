"""The campaign of faults between sender and receiver: what is injected, whether it is noticed, how soon, and what then.

    python -m framegate.benchmarks.handover.campaign --out benchmarks/results/handover-faults.json

Every fault is injected into real processes: a camera process judges pictures of the shipped clip and sends over UDP
(or ``--transport zenoh``, ``ros2``), a link does the damage, a receiver is asked every millisecond; then
the same for a stream with objects that move, its slots and its scene. The exit code is 1
if a single reading was usable that must not have been, or if the receiver did not recover. Under three minutes on a
quiet machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import RESULTS
from framegate.benchmarks.handover.cases import CASES, ENDS_CAMERA, KEYED, STAYS_OPEN, Bench
from framegate.benchmarks.handover.object_cases import OBJECT_CASES, OBJECTS, OBJECTS_KEYED, ObjectsBench
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stderr, to_stdout

RECOVERY_S = 30.0
_ATTEMPTS = 5
ALL_CASES = CASES | OBJECT_CASES


class Benches:
    """Lends a bench to each case, and the same one again as long as its camera runs.

    Args:
        transport: Carries the messages.
    """

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._bench: Bench | None = None
        self._kind: tuple[type[Bench], bool] = Bench, False

    def lend(self, name: str) -> Bench:
        """A bench whose receiver says that a verdict is usable.

        Raises:
            RuntimeError: Nothing becomes usable on this machine.
        """
        kind, keyed = ObjectsBench if name in OBJECT_CASES else Bench, name in KEYED | OBJECTS_KEYED
        if self._bench is not None and (kind, keyed) != self._kind:
            self.close()
        for _ in range(_ATTEMPTS):
            if self._bench is None:
                self._bench, self._kind = kind(keyed, self._transport), (kind, keyed)
            self._bench.reset()
            if math.isfinite(self._bench.consumer.wait_until_usable()):
                return self._bench
            self.close()
        raise RuntimeError(f"{name}: nothing was usable before the fault; is the machine too busy?")

    def close(self) -> None:
        """End the camera process."""
        if self._bench is not None:
            self._bench.close()
            self._bench = None


def measured(name: str, benches: Benches) -> dict[str, Any]:
    """Inject one fault and say what came of it."""
    bench = benches.lend(name)
    before = bench.consumer.receiver.counts()
    ALL_CASES[name](bench)
    watched = bench.consumer.watched
    during = watched.usable / max(watched.read, 1)
    recovery = _recovery_ms(bench)
    time.sleep(0.1)
    closed = watched.first_closed_ns
    after = bench.consumer.receiver.counts()
    found = {each: after[each] - before[each] for each in after if after[each] > before[each]}
    if name.removeprefix(OBJECTS) in ENDS_CAMERA:
        benches.close()
    return {
        "fault": name,
        "what": " ".join((ALL_CASES[name].__doc__ or "").split()).rstrip("."),
        "found": {each: count for each, count in found.items() if each not in ("received", "good")},
        "usable_share": round(during, 3),
        "reaction_ms": round((closed - bench.began_ns) / 1e6, 1) if closed else None,
        "recovery_ms": None if math.isinf(recovery) else round(recovery, 1),
        "read": watched.read,
        "unsafe": watched.unsafe,
        "examples": watched.examples[:3],
    }


def _recovery_ms(bench: Bench) -> float:
    """From the fault's end until something is usable again; a latched receiver is released as soon as it may be."""
    consumer, until = bench.consumer, time.monotonic() + RECOVERY_S
    while time.monotonic() < until:
        consumer.receiver.release()
        if consumer.ready():
            return (time.monotonic_ns() - bench.ended_ns) / 1e6
        time.sleep(0.001)
    return math.inf


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description="Faults between sender and receiver, injected for real.")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "handover-faults.json", help="the record (default: %(default)s)"
    )
    parser.add_argument(
        "--transport",
        choices=("udp", "zenoh", "ros2"),
        default="udp",
        help="carries the messages (default: %(default)s)",
    )
    parser.add_argument(
        "--only", choices=ALL_CASES, action="append", help="this fault alone; can be repeated (default: all)"
    )
    arguments = parser.parse_args(words)
    rows = []
    benches, load = Benches(arguments.transport), os.getloadavg()[0]
    for name in arguments.only or ALL_CASES:
        row = measured(name, benches)
        rows.append(row)
        found = ", ".join(f"{each} {count}" for each, count in row["found"].items()) or "-"
        to_stdout(
            f"{name:25} unsafe {row['unsafe']} of {row['read']}; closed after {row['reaction_ms']} ms, "
            f"usable again after {row['recovery_ms']} ms; {found}"
        )
        for example in row["examples"]:
            to_stderr(f"  {example}")
    benches.close()
    record = {
        "what": "readings that were usable and must not have been, under faults between sender and receiver",
        "command": f"python -m framegate.benchmarks.handover.campaign --transport {arguments.transport}",
        "date": date.today().isoformat(),
        "transport": arguments.transport,
        "load": round(load, 1),
        "machine": circumstances(),
        "faults": rows,
    }
    try:
        arguments.out.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")
    except OSError as error:
        to_stderr(f"campaign: {arguments.out} cannot be written ({error.strerror})")
        return 1
    bad = [row["fault"] for row in rows if row["unsafe"] or row["recovery_ms"] is None]
    bad += [
        row["fault"]
        for row in rows
        if row["reaction_ms"] is None and row["fault"].removeprefix(OBJECTS) not in STAYS_OPEN
    ]
    for name in bad:
        to_stderr(f"campaign: {name}: not as it must be")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
