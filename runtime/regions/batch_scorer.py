"""All crops of a frame through one engine call: preprocessing into the rows of one batch, scores and signals of each.

An engine computes one batch size. So there is one for each of a few sizes, over the same weights where the library
shares them, all bound to the first rows of the same array; a frame takes the smallest that holds its objects, and what
lies in the rows behind them is computed for nothing. Nothing is compiled, and no array made, while frames come.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.known_answers import KnownAnswers
from framegate.runtime.engine_check import UNPROVED, proves_itself, remedy
from framegate.runtime.errors import BackendError, UsageError
from framegate.runtime.native.answer import BoundRows, bound_rows
from framegate.runtime.preprocess import Preprocessor, input_shape
from framegate.runtime.regions.base import MAX_OBJECTS
from framegate.runtime.scorer import Scored
from framegate.runtime.scores import FrameScores, Tensor, class_probabilities, frame_scores, not_finite
from framegate.runtime.verdict import Image

SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Batches for which there is an engine."""
_WARM_UP = 2
_SAMPLED = 83


class BatchScorer:
    """Scores the objects of a frame together. Not thread-safe.

    Args:
        bundle: The model.
        backend: A loaded engine of it; `share` gives the others.
        precision: Which model of the bundle runs.
        calibration: Its temperature; None: 1.
        most: Objects of a frame at most, 1 to `MAX_OBJECTS`.
        always: There are always so many, so that one engine is enough.

    Attributes:
        most: See above.
        probabilities: Set to True, every object comes with the probability of each class.
        wrong: What was wrong with the engines' last known answer; empty while all is well.

    Raises:
        BackendError: An engine refuses a batch, or does not give the bundle's known answers.
        UsageError: ``most`` is out of range.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        precision: str,
        calibration: Calibration | None,
        most: int,
        *,
        always: bool = False,
    ) -> None:
        if not 1 <= most <= MAX_OBJECTS:
            raise UsageError(f"--max-objects {most}: expected 1 to {MAX_OBJECTS}, the largest batch of one engine call")
        self.wrong = ""
        self.most = most
        self.probabilities = False
        self._temperature = calibration.temperature if calibration else 1.0
        self._monitor = bundle.monitor
        self._classes = len(bundle.labels)
        largest = most if always else next(size for size in SIZES if size >= most)
        self._sizes = (most,) if always else tuple(size for size in SIZES if size <= largest)
        self._tensor = tensor = np.zeros(input_shape(bundle.preprocess, largest), np.float32)
        self._rows = [Preprocessor(bundle.preprocess, tensor[k : k + 1]) for k in range(largest)]
        flat = tensor.reshape(largest, -1)
        self._samples = flat[:, :: max(1, flat.shape[1] // _SAMPLED)]
        self._engines: list[Backend] = []
        self._for_count: list[int] = [0]
        for place, size in enumerate(self._sizes):
            engine = backend.share()
            try:
                engine.bind(tensor[:size])
            except BackendError as error:
                raise BackendError(f"{error}; it cannot judge {size} objects at once: {_REMEDY}") from error
            self._engines.append(engine)
            self._for_count += [place] * (size + 1 - len(self._for_count))
        self._running: Backend | None = None
        self._count = 0
        self._shown = b""
        # Of each engine: the array that it wrote last, and what looks at its rows in one call.
        self._looks: dict[Backend, tuple[Tensor, BoundRows | None]] = {}
        self._started_ns = 0
        # Of each engine: what it said when it was last asked, of which pixels, and whether that was no new answer.
        self._last: dict[Backend, tuple[bytes, bytes, bool]] = {}
        answers = bundle.known_answers
        self._tolerance = answers.tolerance(backend.name, precision) if answers else None
        self._answers = answers if self._tolerance is not None else None
        self._asked = 0
        self._warm_up(precision)

    @property
    def engines(self) -> Sequence[Backend]:
        """One for each size, from small to large."""
        return self._engines

    def start(self, crops: Sequence[Image]) -> None:
        """Resize and normalise crops, and start the engine on them.

        Args:
            crops: 1 to `most` of them, usable (`framegate.runtime.health.check.unusable`).

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        self._running = None
        if self.wrong:
            raise BackendError(f"{self._engines[0].engine}: {self.wrong}")
        place = self._for_count[len(crops)]
        engine = self._engines[place]
        filling_ns = 0

        def fill(first: int, last: int) -> None:
            nonlocal filling_ns
            began = time.perf_counter_ns()
            for crop, row in zip(crops[first:last], self._rows[first:last], strict=False):
                row(crop)
            filling_ns += time.perf_counter_ns() - began

        began = time.perf_counter_ns()
        engine.start_filled(fill)
        self._started_ns = time.perf_counter_ns() - began - filling_ns
        self._shown = self._samples[: self._sizes[place]].tobytes()  # now, while the caches hold it
        self._running, self._count = engine, len(crops)

    def finish(self) -> list[Scored]:
        """Wait for the engine, and score what it says about each crop that was started.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        engine, count = self._running, self._count
        if engine is None:
            raise BackendError("no batch was started")
        began = time.perf_counter_ns()
        logits = engine.finish()
        engine_ns = self._started_ns + time.perf_counter_ns() - began
        if logits.ndim != 2 or len(logits) < count or logits.shape[1] != self._classes or logits.dtype != np.float32:
            raise BackendError(
                f"{engine.engine} gave {logits.dtype} logits of shape {logits.shape}, expected float32 "
                f"({count} or more, {self._classes})"
            )
        self._require_new_answers(engine, logits)
        rows = self._rows_of(engine, logits)
        if rows is not None:
            scored = [
                self._scored(found, engine, k, engine_ns) for k, found in enumerate(rows(count, self._temperature))
            ]
        else:
            scored = [
                Scored(frame_scores(logits[k : k + 1], self._temperature), self._signals(engine, k), engine_ns)
                for k in range(count)
            ]
        if self.probabilities:
            return [self._with_probabilities(one, logits[k : k + 1]) for k, one in enumerate(scored)]
        return scored

    def _with_probabilities(self, scored: Scored, logits: Tensor) -> Scored:
        if not scored.scores.finite:
            return scored
        return scored._replace(probabilities=class_probabilities(logits, self._temperature))

    def _rows_of(self, engine: Backend, logits: Tensor) -> BoundRows | None:
        """What looks at all rows in one call: an engine on the CPU writes the same array again and again.

        None, and every row by itself, for an array that is not the one of before.
        """
        last, rows = self._looks.get(engine, (None, None))
        if logits is not last:
            rows = None
        elif rows is None or rows.pooled is not engine.pooled:
            rows = bound_rows(logits, engine.pooled, None if self._monitor is None else self._monitor.head)
        self._looks[engine] = logits, rows
        return rows

    def _scored(self, found: Sequence[float], engine: Backend, row: int, engine_ns: int) -> Scored:
        """What `BoundRows` found about one object."""
        best, probability, entropy, margin, energy, shift = found
        scores = FrameScores(int(best), probability, entropy, margin, energy) if best >= 0 else not_finite()
        if self._monitor is None or engine.pooled is None:
            return Scored(scores, {}, engine_ns)
        return Scored(scores, self._monitor.signals_at(shift, engine.pooled[row].tobytes()), engine_ns)

    def ask(self) -> None:
        """Ask the next engine known answers in all of its rows, and remember in `wrong` how that went."""
        if self._answers is None or self._tolerance is None:
            return
        engine = self._engines[self._asked % len(self._engines)]
        size = self._sizes[self._asked % len(self._engines)]
        self._last.pop(engine, None)
        try:
            logits, self.wrong = self._known_answers(engine, size, self._asked, self._answers, self._tolerance)
            # An engine that stops now hands these out for the next frame.
            self._last[engine] = logits.tobytes(), self._samples[:size].tobytes(), False
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; frames are then rejected
            self.wrong = f"it failed on known pictures ({type(error).__name__}: {error})"
        self._asked += not self.wrong  # what was answered wrongly is asked again

    def _known_answers(
        self, engine: Backend, size: int, first: int, answers: KnownAnswers, tolerance: float
    ) -> tuple[Tensor, str]:
        """Ask an engine known pictures in all of its rows: its logits, and what is wrong with them."""
        numbers = [(first + k) % len(answers.images) for k in range(size)]
        for number, row in zip(numbers, self._rows, strict=False):
            row(answers.images[number])
        logits = infer(engine)
        wrong = (answers.wrong(number, logits[k], tolerance) for k, number in enumerate(numbers))
        return logits, next(filter(None, wrong), "")

    def _still_computes(self, engine: Backend, given: Sequence[bytes]) -> bool:
        """See `EngineCheck.still_computes`: a known picture in each row, and then the question once more.

        Args:
            engine: Its input holds the question, and does so afterwards.
            given: The logits of every row of an object.
        """
        if self._answers is None or self._tolerance is None:
            return False
        self.wrong = UNPROVED
        size = self._sizes[self._engines.index(engine)]
        asked = self._tensor[:size].copy()
        if not proves_itself(self._asked_known(engine, size, given, self._answers, self._tolerance)):
            return False
        self._tensor[:size] = asked
        logits = infer(engine)
        if any(logits[k].tobytes() != answer for k, answer in enumerate(given)):
            return False
        self.wrong = ""
        return True

    def _asked_known(
        self, engine: Backend, size: int, given: Sequence[bytes], answers: KnownAnswers, tolerance: float
    ) -> Iterator[tuple[str, bool]]:
        for first in range(len(answers.images)):
            logits, wrong = self._known_answers(engine, size, first, answers, tolerance)
            yield wrong, all(logits[k].tobytes() != answer for k, answer in enumerate(given))

    def _warm_up(self, precision: str) -> None:
        for engine in self._engines:
            for _ in range(_WARM_UP):
                infer(engine)
            self.ask()
            if self.wrong:
                raise BackendError(f"{engine.engine}, {precision}, in batches: {self.wrong}; {remedy(engine)}")

    def _require_new_answers(self, engine: Backend, logits: Tensor) -> None:
        """Refuse the answers to an earlier question, see `framegate.runtime.scorer.Scorer`.

        An engine has stopped computing if the logits of every object are, bit for bit, some that it gave when it was
        last asked, about other pixels, and if it then fails when it is asked what is known. Once it has, it stays so
        until it gives other answers. All rows of a batch are remembered, also those that no object was in: the next
        frame may have more.

        Raises:
            BackendError: It has.
        """
        answers, shown = logits.tobytes(), self._shown
        stuck = self._is_old(engine, answers, shown)
        if stuck:
            given = [answer for answer, _ in self._by_row(answers, shown)[: self._count]]
            stuck = not self._still_computes(engine, given)
        self._last[engine] = answers, shown, stuck
        if stuck:
            raise BackendError(f"{engine.engine} gave bit for bit the same logits for different pixels")

    def _is_old(self, engine: Backend, answers: bytes, shown: bytes) -> bool:
        """Whether all objects have answers of last time, about other pixels."""
        last_answers, last_shown, was_stuck = self._last.get(engine, (b"", b"", False))
        if answers[: 4 * self._classes] not in last_answers:
            return False  # the first object's is new, wherever a row begins there: nothing is cut into rows for that
        last = dict(self._by_row(last_answers, last_shown))
        objects = self._by_row(answers, shown)[: self._count]
        return all(answer in last and (was_stuck or last[answer] != pixels) for answer, pixels in objects)

    def _by_row(self, answers: bytes, samples: bytes) -> list[tuple[bytes, bytes]]:
        """Of every row of a batch the logits, and the sample of what was asked."""
        one, shown = 4 * self._classes, self._samples[0].nbytes
        count = min(len(answers) // one, len(samples) // shown)
        return [(answers[k * one : (k + 1) * one], samples[k * shown : (k + 1) * shown]) for k in range(count)]

    def _signals(self, engine: Backend, row: int) -> Mapping[str, float]:
        """What the monitor says about one object."""
        if self._monitor is None:
            return {}
        if engine.pooled is None:
            return dict.fromkeys(self._monitor.signals, math.nan)
        return self._monitor(engine.pooled[row])


_REMEDY = "give a smaller --max-objects, another backend, or to a TensorRT engine framegate engine --max-batch 16"
