"""Writes drive.mcap and drive.json: a short drive, and how `framegate replay` decides it with a lower threshold.

    python tests/golden/make_drive.py          # record the drive again, and decide it
    python tests/golden/make_drive.py --keep   # decide the drive that is there

A difference in drive.json says that the same scores are judged otherwise than before: it must be meant.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from framegate.runtime.cli import main as cli

FOLDER = Path(__file__).parent
DRIVE, GOLDEN = FOLDER / "drive.mcap", FOLDER / "drive.json"
THRESHOLD = "0.06"
_RECORD = (
    "run camera_demo/clips/highway_1280x720_25fps.mp4 --bundle hybrid-cifar10 --backend onnxruntime --precision fp32 "
    "--roi car=795,385,160,130 --debounce NOISY=2/3/4 --debounce HIGH_SCORE=1/1/2 --warm-up 3 --as-fast-as-possible "
    "--inject black:8-10,noise:16-20:2,fog:25-30:3 --no-pictures --json --record"
)


def decided() -> dict[str, object]:
    """What replay says about the drive, every change in one line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["replay", str(DRIVE), "--threshold", THRESHOLD, "--json"]) == 0
    found: dict[str, object] = json.loads(out.getvalue())
    for region in found["regions"].values():  # type: ignore[attr-defined]
        region["changes"] = [
            f"{each['frame_id']}: {' '.join(each['recorded'])} -> {' '.join(each['replayed'])}"
            for each in region["changes"]
        ]
    return found


if __name__ == "__main__":
    if "--keep" not in sys.argv:
        assert cli.main([*_RECORD.split(), str(DRIVE)]) == 0
    GOLDEN.write_text(json.dumps(decided(), indent=1) + "\n", encoding="utf-8")
