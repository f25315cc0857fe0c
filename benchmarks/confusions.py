"""Which labels a bundle takes for which others on the test images, and what of that its gate accepts.

    python -m framegate.benchmarks.confusions resnet20-gtsrb --data GTSRB --label "speed limit" \
        --out benchmarks/results/confusions-resnet20-gtsrb.json

Each image alone, in the engine and precision that the bundle runs in unless told otherwise. Figures count images
singly: those of one track resemble each other, so intervals would be too narrow, and there are none.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import BUNDLES
from framegate.benchmarks.latency.record import written
from framegate.evaluation.frames.own_data import data_for
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.session import Session

_MOST = 12
"""Pairs that are written down, the most frequent ones."""
_STEP = 500


def measure(session: Session, data: Path, limit: int | None, beginning: str) -> dict[str, Any]:
    """Count over the test images.

    Args:
        session: On the bundle.
        data: The data set that it was trained on.
        limit: Images at most; None: all.
        beginning: Labels that begin so are also counted by themselves.

    Raises:
        FramegateError: The data are not the bundle's.
        UsageError: No label begins so.
    """
    labels = session.bundle.labels
    if not any(label.startswith(beginning) for label in labels):
        raise UsageError(f"--label {beginning!r}: no label of {session.bundle.name} begins so")
    found = data_for(data, session.bundle)
    if found.labels != labels:
        raise UsageError(f"{data}: {found.title} is not what {session.bundle.name} was trained on")
    test = found.load_test(data)
    count = len(test) if limit is None else min(limit, len(test))
    all_of, some = Counter[str](), Counter[str]()
    wrong, accepted = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    with progress_bar() as progress:
        for k in range(count):
            said = session.infer(test.images[k])
            right, used = labels[test.labels[k]], said.accepted_when_decided
            for counts in (all_of, some) if said.candidate.startswith(beginning) else (all_of,):
                counts.update({"read": 1, "accepted": used, "wrong": said.candidate != right})
                counts["wrong and accepted"] += used and said.candidate != right
            if said.candidate != right:
                wrong[right, said.candidate] += 1
                accepted[right, said.candidate] += used
            if k % _STEP == 0 or k + 1 == count:
                progress("test images", k + 1, count)
    pairs = sorted(wrong, key=lambda pair: (-wrong[pair], pair))[:_MOST]
    return {
        "images": count,
        "all": dict(all_of),
        f"read as {beginning}...": dict(some),
        "pairs": [
            {"is": pair[0], "read as": pair[1], "wrong": wrong[pair], "wrong and accepted": accepted[pair]}
            for pair in pairs
        ],
    }


def main(arguments: list[str] | None = None) -> int:
    """Count, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", help="name of a shipped bundle, or a folder")
    parser.add_argument("--data", type=Path, required=True, help="the data set that it was trained on")
    parser.add_argument(
        "--label", default="", metavar="BEGINNING", help="count labels that begin so also by themselves"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="test images (default: all)")
    parser.add_argument("--out", type=Path, help="record to write (default: none)")
    chosen = parser.parse_args(arguments)
    shipped = BUNDLES / f"{chosen.bundle}.bundle"
    try:
        session = Session.open(shipped if shipped.is_dir() else Path(chosen.bundle))
        record = {
            "bundle": session.bundle.name,
            "digest": session.bundle.digest,
            "engine": session.scorer.backend.engine,
            "precision": session.precision,
            "machine": circumstances(),
            **measure(session, chosen.data, chosen.limit, chosen.label),
        }
    except FramegateError as error:
        print(f"confusions: {error}", file=sys.stderr)
        return error.exit_code
    for name, counts in record.items():
        if isinstance(counts, dict) and "read" in counts:
            to_stdout(f"{name}: {', '.join(f'{number} {word}' for word, number in counts.items())}")
    for pair in record["pairs"]:
        to_stdout(f"{pair['wrong']} ({pair['wrong and accepted']} accepted): {pair['is']} read as {pair['read as']}")
    return written(chosen.out, record, "confusions") if chosen.out else 0


if __name__ == "__main__":
    sys.exit(main())
