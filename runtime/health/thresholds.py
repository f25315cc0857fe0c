"""What a healthy camera looks like: the limits of the camera-health check, as data that can be stored and read back."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.health.rows import ZONES

FORMAT = "framegate-health-1"


@dataclass(frozen=True, slots=True)
class HealthThresholds:
    """Limits of `framegate.runtime.health.check.CameraHealth`. Levels are 0..255; shares are in [0, 1].

    The first group is absolute and holds for every image. The second is relative to what the stream showed in its
    first `learn_frames` good frames; a calibration run (`framegate health`) replaces it by absolute limits and sets
    `learn_frames` to 0. The defaults were chosen on the shipped clips and on photographs, with the distances that
    benchmarks/results/faults.json.gz shows.

    Attributes:
        black_mean: BLACK if nothing can be told apart: mean and standard deviation of all values are at most this and
            `black_std`, and there is no more structure than `black_structure`. A covered lens with sensor noise is
            BLACK; a night street with lamps is not, and neither is a traffic sign at night that is legible.
        black_std: See `black_mean`.
        black_structure: See `black_mean`; in levels, see `framegate.runtime.health.content.structure`.
        saturated_share: SATURATED if at least this share of the pixels is at the end of the range.
        contrast: LOW_CONTRAST if the standard deviation of the block means is below this, in levels; less is asked for
            in less light, see `light`.
        detail: LOW_CONTRAST also if differences over four pixels are below this (root mean square, in levels; less in
            less light).
        zones: Detail of the healthy camera in 4x4 zones, in levels, see `zone_fall`; empty: not known.
        light: How bright the brightest tenth of the frames was that the second group comes from, in levels; 0: not
            known. In less light contrast and detail shrink although the camera is healthy, so their limits shrink in
            proportion. Dusk and a tunnel are no fault of the camera; fog takes contrast and leaves the light, and dirt
            leaves the brightest places as they are.
        sharpness: BLURRED if the share of fine detail (0: smooth over five pixels, 1: single pixels) is below this.
        noise: NOISY if the standard deviation of the noise in flat blocks is above this, in levels.
        blockiness: NOISY if steps across the borders of 8x8 blocks are larger than those inside by this factor.
        missing_rows: TORN if at least this share of the looked-at rows, in one run, repeats the row above.
        still: Nothing moved between two frames if no block mean changed by more than this, in levels.
        learn_frames: Good frames at the start of a stream from which the second group is learnt; 0: never.
        saturated_rise: SATURATED also at this share more than learnt.
        contrast_fall: LOW_CONTRAST also below this part of the learnt contrast.
        detail_fall: LOW_CONTRAST also below this part of the learnt detail.
        zone_fall: A zone that lost its detail has less than this part of what is in `zones`; zones that never had any
            (less than one level) do not count.
        zone_share: LOW_CONTRAST, a lens covered in part, if at least this share of the zones that had detail lost it.
        sharpness_fall: BLURRED also below this part of the learnt sharpness.
        noise_rise: NOISY also above this multiple of the learnt noise plus one level.
        blockiness_rise: NOISY also above this multiple of the learnt blockiness (of 1, if less was learnt).
        colour: This camera's frames are in colour (True: a grey frame is COLOUR_LOST) or not (False); None: learnt.
    """

    black_mean: float = 12.0
    black_std: float = 6.0
    black_structure: float = 1.15
    saturated_share: float = 0.8
    contrast: float = 2.5
    detail: float = 0.0
    zones: tuple[float, ...] = ()
    light: float = 0.0
    sharpness: float = 0.02
    noise: float = 16.0
    blockiness: float = 2.5
    missing_rows: float = 0.1
    still: float = 8.0
    learn_frames: int = 10
    saturated_rise: float = 0.3
    contrast_fall: float = 0.4
    detail_fall: float = 0.5
    zone_fall: float = 0.25
    zone_share: float = 0.4
    sharpness_fall: float = 0.5
    noise_rise: float = 3.0
    blockiness_rise: float = 1.35
    colour: bool | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "colour":
                good, expected = value is None or isinstance(value, bool), "true, false or null"
            elif field.name == "learn_frames":
                good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10_000
                expected = "a whole number from 0 to 10000"
            elif field.name == "zones":
                good = isinstance(value, tuple) and len(value) in (0, ZONES * ZONES) and all(map(_is_level, value))
                expected = f"nothing or {ZONES * ZONES} numbers from 0"
            elif field.name in _SHARES:
                good, expected = _is_level(value) and value <= 1, "a number from 0 to 1"
            else:
                good, expected = _is_level(value), "a number from 0"
            if not good:
                raise UsageError(f"health threshold {field.name} is {value!r}; expected {expected}")

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values, with its format."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, record: object, where: str = "health thresholds") -> HealthThresholds:
        """Read what `to_json` wrote; what is left out takes its default.

        Args:
            record: The parsed JSON.
            where: Names it in messages, e.g. the file.

        Raises:
            UsageError: Not such a record, an unknown name, or a value that cannot be a limit (NaN, for example).
        """
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            found = record.get("format") if isinstance(record, dict) else f"a {type(record).__name__}"
            raise UsageError(f"{where}: expected format {FORMAT!r}, found {found!r}; write one with framegate health")
        known = {field.name for field in fields(cls)}
        given = {key: value for key, value in record.items() if key not in ("format", "from")}
        unknown = sorted(set(given) - known)
        if unknown:
            raise UsageError(f"{where}: unknown threshold {unknown[0]!r}; known are {', '.join(sorted(known))}")
        if isinstance(given.get("zones"), list):
            given["zones"] = tuple(given["zones"])
        try:
            return cls(**given)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> HealthThresholds:
        """Read a file that `save` wrote.

        Raises:
            UsageError: It cannot be read, or is not what `from_json` takes.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
            raise UsageError(f"health thresholds {path}: cannot be read: {reason}") from error
        except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
            raise UsageError(
                f"health thresholds {path}: not JSON ({error}); write one with framegate health"
            ) from error
        return cls.from_json(record, f"health thresholds {path}")

    def save(self, path: str | Path, origin: dict[str, Any] | None = None) -> None:
        """Write a JSON file.

        Args:
            path: The file; replaced if it exists.
            origin: What the limits were measured on, for people; not read back.

        Raises:
            SinkError: It cannot be written.
        """
        record = self.to_json() | ({"from": origin} if origin else {})
        try:
            Path(path).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"health thresholds {path}: cannot be written ({error.strerror})") from error


_SHARES = frozenset(
    (
        "saturated_share",
        "missing_rows",
        "sharpness",
        "contrast_fall",
        "detail_fall",
        "zone_fall",
        "zone_share",
        "sharpness_fall",
    )
)


def _is_level(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
