"""Every recorded verdict decided again by another calibration, from its scores: fast enough for millions.

The rules are those of `framegate.runtime.replay.replay`, which decides one verdict after the other; here whole columns
are compared, and of what needs a memory only the drift alarm's blocks are gone through. Streams with a debounce or with
a limit over several frames are decided by the replay itself.

    reasons of the frame alone that no calibration gives  as recorded
    NOT_FINITE, HIGH_SCORE, ACTIVATION_SHIFT              by the other calibration
    DRIFT                                                 by the other calibration, over the stream
    STALE_FRAME, WARMING_UP, LATE, UNCONFIRMED            as recorded
    of objects: all that no calibration gives             as recorded, with what a debounce made of it
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from framegate.evaluation.drives.difference import Difference
from framegate.evaluation.drives.table import SIGNAL, VALUES, DriveTable, reasons_of
from framegate.export.progress import Progress
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.policy.drift import JUDGED, DriftAlarm
from framegate.runtime.replay.recording import Recording
from framegate.runtime.replay.replay import OF_CALIBRATION, Judge, Recorded, require_applicable
from framegate.runtime.verdict import Reason

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Stream = tuple[str, ...]
"""Drive, camera, run and region."""
Chooser = Callable[[Recording], Calibration]
"""Gives the calibration by which a recording is decided again."""
_COLUMNS = (
    "drive", "camera", "file", "recording", "region", "scene", "frame_id", "captured_ns", "decided_ns", "accepted",
    "reasons", "found", "candidate", "label",
)  # fmt: skip


_STREAM = ("drive", "camera", "recording", "region")
_DECIDED = OF_CALIBRATION | {Reason.DRIFT}
"""Reasons that are decided again."""


@dataclass
class _Runs:
    """Tells the starts of one drive apart: the black box goes on with a drive whose name is there, in its next file.

    The process that was started again knew nothing of what came before, so nothing may be remembered here either. Its
    frames are counted from 0 again, and no frame is in two files, so a file that begins with no larger number than the
    last one ended with is a new start.

    Attributes:
        number: Of the run of the last row, over all drives.
        last: Drive, camera, file and number of the last row on a frame.
    """

    number: int = 0
    last: tuple[str, str, str, int] | None = None

    def of(self, batch: pa.Table) -> Codes:
        """The run of each row; 0 for reports of silence, which are not decided again.

        Args:
            batch: The next rows of the table.
        """
        found = np.zeros(batch.num_rows, np.int64)
        rows = np.flatnonzero(np.asarray(batch["frame_id"].is_valid().to_numpy(), bool))
        if not len(rows):
            return found
        frames = batch["frame_id"].take(pa.array(rows)).to_numpy()
        codes = {name: _codes(batch, name) for name in ("drive", "camera", "file")}
        drive, camera, file = (code[rows] for code, _ in codes.values())
        begins = np.zeros(len(rows), np.int64)
        same = (drive[1:] == drive[:-1]) & (camera[1:] == camera[:-1])
        begins[1:] = same & (file[1:] != file[:-1]) & (frames[1:] <= frames[:-1])

        def place(k: int) -> tuple[str, str, str, int]:
            a, b, c = (str(words[code[rows[k]]]) for code, words in codes.values())
            return a, b, c, int(frames[k])

        if self.last is not None:
            before, now = self.last, place(0)
            begins[0] = before[:2] == now[:2] and before[2] != now[2] and now[3] <= before[3]
        found[rows] = self.number + np.cumsum(begins)
        self.number, self.last = int(found[rows[-1]]), place(-1)
        return found


@dataclass
class _Drift:
    """The drift alarm of one stream, fed with whole columns."""

    alarm: DriftAlarm
    block: int
    seen: int = 0
    rejected: int = 0
    high: int = 0

    def feed(self, counts: Flags, rejected: Flags, high: Flags) -> Flags:
        """Whether the stream has drifted, at each frame.

        Args:
            counts: Frames that are evidence; at the others the alarm stays what it is.
            rejected: Of all frames, by what the frame alone shows.
            high: Their score is among the highest third of the calibration's.
        """
        found = np.empty(len(counts), bool)
        places = np.flatnonzero(counts)
        done = begun = 0
        while len(places) - done >= self.block - self.seen:
            taken = places[done : done + self.block - self.seen]
            self.rejected += int(rejected[taken].sum())
            self.high += int(high[taken].sum())
            done += len(taken)
            found[begun : taken[-1]] = self.alarm.alarm
            begun = int(taken[-1])
            self.alarm.take_block(self.rejected / self.block, self.high / self.block)
            self.seen = self.rejected = self.high = 0
        rest = places[done:]
        self.seen += len(rest)
        self.rejected += int(rejected[rest].sum())
        self.high += int(high[rest].sum())
        found[begun:] = self.alarm.alarm
        return found


@dataclass(frozen=True)
class _Words:
    """What the distinct pairs of recorded reasons and reasons of the frame alone mean for a decision.

    Attributes:
        code: (rows,) number of the pair.
        pairs: Reasons that stay, of each pair: those that neither a calibration nor the drift alarm gave.
        stays: (pairs,) whether there are any.
        finite: (pairs,) the network's output was.
        evidence: (pairs,) for the drift alarm, as far as the reasons that stay decide.
    """

    code: Codes
    pairs: tuple[tuple[str, ...], ...]
    stays: Flags
    finite: Flags
    evidence: Flags


@dataclass
class _Side:
    """A recording under one calibration."""

    recording: Recording
    calibration: Calibration | None
    drifts: dict[Stream, _Drift] = field(default_factory=dict)
    judges: dict[Stream, Judge] = field(default_factory=dict)

    @property
    def needs_order(self) -> bool:
        """Whether more than the drift alarm needs a memory."""
        windows = self.calibration is not None and any(limit.frames > 1 for limit in self.calibration.limits)
        return bool(self.recording.policy.debounce) or windows

    def drift_of(self, stream: Stream) -> _Drift | None:
        """The alarm of a stream."""
        if self.calibration is None or not self.recording.policy.drift:
            return None
        if stream not in self.drifts:
            block = self.recording.policy.drift_block
            self.drifts[stream] = _Drift(DriftAlarm(self.calibration, block), block)
        return self.drifts[stream]

    def judge_of(self, stream: Stream) -> Judge:
        """What decides a stream verdict by verdict."""
        if stream not in self.judges:
            self.judges[stream] = Judge(self.recording, self.calibration)
        return self.judges[stream]


def what_if(table: DriveTable, choose: Chooser, progress: Progress) -> Difference:
    """Decide all verdicts again.

    Args:
        table: The drives.
        choose: Gives the calibration for a recording.
        progress: Called during the work, with rows.

    Raises:
        UsageError: The calibration can be applied to none of the recordings.
        DataError: The table cannot be read.
    """
    sides, refused = _sides(table, choose)
    found = Difference()
    columns = [*_COLUMNS, *VALUES, *table.signals]
    done, runs = 0, _Runs()
    for batch in table.batches(columns):
        _decide(batch, runs.of(batch), sides, table.signals, found)
        done += batch.num_rows
        progress("deciding again", done, table.rows)
    found.refused = refused
    return found


def _sides(table: DriveTable, choose: Chooser) -> tuple[dict[str, tuple[_Side, _Side]], dict[str, str]]:
    sides, refused = {}, {}
    for key in table.about.recordings:
        recording = table.about.recording(key)
        try:
            calibration = choose(recording)
            require_applicable(recording, calibration, "the calibration")
        except UsageError as error:
            refused[key] = str(error)
            continue
        sides[key] = (_Side(recording, recording.calibration), _Side(recording, calibration))
    if not sides:
        raise UsageError(next(iter(refused.values()), f"{table.path}: it holds no recording"))
    return sides, refused


def _codes(batch: pa.Table, name: str) -> tuple[Codes, list[str | None]]:
    """A column of words as numbers and the words; the last word is null."""
    column = batch[name].unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], pa.string()).dictionary_encode()
    words: list[str | None] = column.dictionary.to_pylist()
    codes = column.indices.fill_null(len(words)).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, [*words, None]


def _decide(
    batch: pa.Table,
    runs: Codes,
    sides: Mapping[str, tuple[_Side, _Side]],
    signals: tuple[str, ...],
    found: Difference,
) -> None:
    """One batch of rows, of which each is of one of these runs."""
    names = {name: _codes(batch, name) for name in (*_STREAM, "candidate", "label")}
    words = _words(batch)
    frames = batch["frame_id"].combine_chunks()
    # Neither silence nor a frame as a whole, where objects are judged, was decided by a score.
    silent = np.asarray(pc.or_(frames.is_null(), batch["scene"]).to_numpy(), bool)
    recorded = np.asarray(batch["accepted"].to_numpy(), bool)
    candidate, candidates = names["candidate"]
    said = np.array([bool(each) for each in candidates])[candidate] | ~words.finite[words.code]
    values = {name: _floats(batch, name) for name in (*VALUES, *signals)}
    stream = runs
    for name in _STREAM:
        codes, known = names[name]
        stream = stream * len(known) + codes
    after = np.zeros(batch.num_rows, bool)
    counted = np.zeros(batch.num_rows, bool)
    rows = _Rows(batch, words, said, recorded, values, names["candidate"])
    recordings, keys = names["recording"]
    for number, key in enumerate(keys):
        if key is None or key not in sides:
            continue
        places = np.flatnonzero((recordings == number) & ~silent)
        if not len(places):
            continue
        places = places[np.argsort(stream[places], kind="stable")]
        edges = [0, *(np.flatnonzero(np.diff(stream[places])) + 1).tolist(), len(places)]
        parts = []
        for first, last in pairwise(edges):
            drive, camera, region = (
                str(names[name][1][names[name][0][places[first]]]) for name in ("drive", "camera", "region")
            )
            parts.append(((drive, camera, str(runs[places[first]]), region), slice(first, last)))
        own, other = sides[key]
        found.unlike += int((rows.decide(own, parts, places)[0] != recorded[places]).sum())
        after[places], reasons = rows.decide(other, parts, places)
        found.reasons.update(reasons)
        counted[places] = True
    label, labels = names["label"]
    known_label = np.array([each is not None for each in labels])[label]
    right = _same(candidate, candidates, label, labels)
    drives, drive_names = names["drive"]
    found.add(drives, drive_names, counted, recorded, after, known_label, right)


def _same(a: Codes, a_words: list[str | None], b: Codes, b_words: list[str | None]) -> Flags:
    """Where two columns of words say the same."""
    place = {word: k for k, word in enumerate(a_words)}
    return np.asarray(a == np.array([place.get(word, -1) for word in b_words])[b], bool)


def _floats(batch: pa.Table, name: str) -> Floats:
    return np.asarray(batch[name].to_numpy(), np.float64)


def _words(batch: pa.Table) -> _Words:
    reasons, reason_words = _codes(batch, "reasons")
    alone, alone_words = _codes(batch, "found")
    pair = reasons * len(alone_words) + alone
    known, code = np.unique(pair, return_inverse=True)
    pairs, finite, evidence = [], [], []
    for number in known.tolist():
        decided = reasons_of(reason_words[number // len(alone_words)], "a verdict of the table")
        found = reasons_of(alone_words[number % len(alone_words)], "a verdict of the table")
        stays = [each for each in found if each not in OF_CALIBRATION]
        stays += [each for each in decided if each not in found and each is not Reason.DRIFT]
        pairs.append(tuple(each.value for each in stays if each not in OF_CALIBRATION))
        finite.append(Reason.NOT_FINITE not in found)
        no_evidence = set(found) - OF_CALIBRATION - JUDGED - {Reason.NOT_CERTIFIED}  # see `DriftAlarm.saw`
        evidence.append(Reason.STALE_FRAME not in stays and not no_evidence)
    stays_flags = np.array([bool(each) for each in pairs], bool)
    return _Words(code.reshape(-1), tuple(pairs), stays_flags, np.array(finite, bool), np.array(evidence, bool))


@dataclass
class _Rows:
    """A batch, ready to be decided."""

    batch: pa.Table
    words: _Words
    said: Flags
    recorded: Flags
    values: Mapping[str, Floats]
    candidates: tuple[Codes, list[str | None]]

    def decide(self, side: _Side, parts: Sequence[tuple[Stream, slice]], places: Codes) -> tuple[Flags, Counter[str]]:
        """Which verdicts of a recording are accepted, and for which reasons the others are not.

        Args:
            side: The recording and a calibration.
            parts: Each stream, and where its verdicts lie among the places.
            places: Rows of the batch, stream by stream, each in the order of time.
        """
        if side.needs_order:
            return self._in_order(side, parts, places)
        code = self.words.code[places]
        said = self.said[places]
        finite = self.words.finite[code]
        nothing = np.zeros(len(places), bool)
        high, shift, uncalibrated, drifted = nothing, nothing, nothing, nothing
        not_finite = said & ~finite
        calibration = side.calibration
        if calibration is None:
            uncalibrated = said
        else:
            score = self._value(calibration.score, places)
            with np.errstate(invalid="ignore"):
                high = said & finite & ~(np.isfinite(score) & (score <= self._threshold(calibration, places)))
                for limit in calibration.limits:
                    value = self._value(limit.signal, places)
                    low = -math.inf if limit.low is None else limit.low
                    top = math.inf if limit.high is None else limit.high
                    shift = shift | (said & ~(np.isfinite(value) & (value >= low) & (value <= top)))
            drifted = self._drift(side, parts, said & self.words.evidence[code], high | shift | not_finite, score)
        accepted = ~(self.words.stays[code] | high | shift | uncalibrated | not_finite | drifted)
        reasons: Counter[str] = Counter()
        for number, count in enumerate(np.bincount(code, minlength=len(self.words.pairs)).tolist()):
            for reason in self.words.pairs[number] if count else ():
                reasons[reason] += count
        for found, flags in (
            (Reason.HIGH_SCORE, high),
            (Reason.ACTIVATION_SHIFT, shift),
            (Reason.NOT_CALIBRATED, uncalibrated),
            (Reason.NOT_FINITE, not_finite),
            (Reason.DRIFT, drifted),
        ):
            if flags.any():
                reasons[found.value] += int(flags.sum())
        return accepted, reasons

    def _drift(
        self, side: _Side, parts: Sequence[tuple[Stream, slice]], evidence: Flags, rejected: Flags, score: Floats
    ) -> Flags:
        """Where each stream has drifted."""
        drifted = np.zeros(len(score), bool)
        above: Flags | None = None
        for who, part in parts:
            drift = side.drift_of(who)
            if drift is None:
                break
            if above is None:  # the same for all streams: it is the calibration's
                with np.errstate(invalid="ignore"):
                    above = ~(score <= drift.alarm.high_score)
            drifted[part] = drift.feed(evidence[part], rejected[part], above[part])
        return drifted

    def _threshold(self, calibration: Calibration, places: Codes) -> Floats | float:
        """What each verdict's score is compared with: a label may have a threshold of its own."""
        if not calibration.classes:
            return calibration.threshold
        own = {each.label: each.threshold for each in calibration.classes}
        codes, labels = self.candidates
        # Without a label there is nothing that a score could pass, see `Calibration.threshold_of`.
        by_label = [math.nan if label is None else own.get(label, calibration.threshold) for label in labels]
        return np.array(by_label)[codes[places]]

    def _value(self, name: str, places: Codes) -> Floats:
        column = self.values.get(name if name in VALUES else SIGNAL + name)
        return np.full(len(places), np.nan) if column is None else column[places]

    def _in_order(
        self, side: _Side, parts: Sequence[tuple[Stream, slice]], places: Codes
    ) -> tuple[Flags, Counter[str]]:
        """Verdict by verdict."""
        whose = [who for who, part in parts for _ in range(part.stop - part.start)]
        names = ("frame_id", "captured_ns", "decided_ns", "reasons", "found", "candidate")
        columns = [self.batch[name].take(pa.array(places)).to_pylist() for name in names]
        accepted = np.zeros(len(places), bool)
        reasons: Counter[str] = Counter()
        for k, (frame, captured, decided, given, alone, candidate) in enumerate(zip(*columns, strict=True)):
            place, who = places[k], whose[k]
            values = {}
            if self.said[place]:
                values = {name.removeprefix(SIGNAL): float(column[place]) for name, column in self.values.items()}
            verdict = Recorded(
                who[-1],
                frame,
                captured,
                decided,
                tuple(Reason(each) for each in given.split()),
                tuple(Reason(each) for each in alone.split()),
                values,
                candidate or "",
            )
            found = side.judge_of(who).decide(verdict)[1]
            if not side.recording.rois:
                # Of objects the rule of the track, and the debounce of the whole stream for the camera's reasons, have
                # decided besides: neither can be applied to one track again.
                stays = [each for each in verdict.reasons if each not in _DECIDED]
                found = (*stays, *(each for each in found if each in _DECIDED))
            accepted[k] = not found
            reasons.update(each.value for each in found)
        return accepted, reasons


def require_rows(found: Difference, table: DriveTable) -> None:
    """Refuse a result about nothing.

    Raises:
        DataError: No verdict was decided again.
    """
    if not found.verdicts:
        raise DataError(f"{table.path}: it holds no verdict on a frame that could be decided again")
