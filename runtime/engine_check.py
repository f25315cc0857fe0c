"""Whether an engine still computes: it is asked what is known, and for other pixels it must give another answer."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NoReturn

from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.known_answers import KnownAnswers
from framegate.runtime.errors import BackendError
from framegate.runtime.native.answer import BoundAnswer
from framegate.runtime.scores import Tensor
from framegate.runtime.stage_clock import ENGINE, StageClock
from framegate.runtime.verdict import Image

SAMPLED = 251
"""Numbers of a question that are compared; a prime, so that they do not fall into one column."""
UNPROVED = "it gave bit for bit the same logits for different pixels, and has not shown since that it computes"
"""`EngineCheck.wrong` of an engine that was asked for that reason, until it gives a known answer."""


def proves_itself(known: Iterable[tuple[str, bool]]) -> bool:
    """Whether an engine gives known pictures their answers, and to two of them others than the suspected one.

    Two, so that an engine that computes every second time is found; one, if there is only one that has another.

    Args:
        known: Of each picture, asked when it is its turn: what is wrong with the answer, and whether it is another one.
    """
    others = 0
    for wrong, another in known:
        if wrong:
            return False
        others += another
        if others == 2:
            break
    return others > 0


def remedy(backend: Backend) -> str:
    """What to do about an engine that does not give the known answers."""
    kept = getattr(backend, "kept_in", "")
    return f"remove {kept}, from which it was read" if kept else "try another precision or engine"


def some_of(values: Tensor, count: int = SAMPLED) -> Tensor:
    """Every so many numbers of an array, at least ``count`` if it has as many; of a contiguous one they are a view."""
    flat = values.reshape(-1)
    return flat[:: max(1, flat.size // count)]


class NewAnswers:
    """Refuses the answer to an earlier question.

    A network that is shown other pixels gives other numbers, down to the last bit. An engine that hands out its last
    output again has stopped computing, and its verdicts would be those of an old frame. The exception is a network in
    INT8 that is far from all that it knows: its activations stand at the ends of their ranges. Whether it is that is
    found out by asking (`EngineCheck.still_computes`).

    Args:
        who: Is named in the error.
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._shown = self._answer = b""
        self._stuck = False

    def is_old(self, shown: bytes, answer: bytes) -> bool:
        """Whether an answer is the last one, although other pixels were shown.

        Args:
            shown: A sample of what the network was shown.
            answer: What it gave, or a sample of that.
        """
        # Once stuck, it stays so until it gives another answer, although a picture may repeat.
        self._stuck = answer == self._answer and (self._stuck or shown != self._shown)
        self._answer, self._shown = answer, shown
        return self._stuck

    def require(self, shown: bytes, answer: bytes) -> None:
        """Refuse an old answer; see `is_old`.

        Raises:
            BackendError: It has stopped computing.
        """
        if self.is_old(shown, answer):
            self.refuse()

    def remember(self, shown: bytes, answer: bytes) -> None:
        """Compare the next answer with this one, which was found right; see `require`."""
        self._shown, self._answer, self._stuck = shown, answer, False

    def forget(self) -> None:
        """Compare the next answer with none."""
        self._answer = b""

    def hand_over(self, other: BoundAnswer) -> None:
        """Let another one go on from here."""
        other.remember(self._shown, self._answer, self._stuck)

    def take_over(self, other: BoundAnswer) -> None:
        """Go on where another one was."""
        self._shown, self._answer, self._stuck = other.shown, other.answer, other.stuck

    def refuse(self) -> NoReturn:
        """Say that an answer is that to an earlier question.

        Raises:
            BackendError: Always.
        """
        raise BackendError(f"{self._who} gave bit for bit the same logits for different pixels")


class EngineCheck(ABC):
    """What scorers have in common: an engine that is asked the bundle's known answers, and must give new ones.

    Attributes:
        backend: The engine.
        wrong: What was wrong with the engine's last known answer; empty while nothing is wrong.
    """

    def __init__(self, bundle: Bundle, backend: Backend, precision: str) -> None:
        self.backend = backend
        self.wrong = ""
        answers = bundle.known_answers
        self._tolerance = answers.tolerance(backend.name, precision) if answers else None
        self._answers = answers if self._tolerance is not None else None
        self._asked = 0
        self._new = NewAnswers(backend.engine)
        self._started_ns = 0
        """How long starting the engine took, in nanoseconds."""

    @abstractmethod
    def _answer_to(self, image: Image) -> tuple[Tensor, bytes, bytes]:
        """Ask about a picture of the network's own input size. It may raise whatever an engine does.

        Returns:
            The logits (classes,), and what `NewAnswers.require` gets: a sample of the question, and one of the answer.
        """

    def _waited(self, stages: StageClock | None) -> tuple[Tensor, int]:
        """Wait for the engine: its logits, and the nanoseconds that its two calls took."""
        began = time.perf_counter_ns()
        logits = self.backend.finish()
        engine_ns = self._started_ns + time.perf_counter_ns() - began
        if stages is not None:
            stages.mark(ENGINE)
        return logits, engine_ns

    def ask(self) -> None:
        """Ask the engine the next of the bundle's known answers, and remember in `wrong` how that went.

        It costs what a region costs. Nothing is asked where the bundle has no answers.
        """
        if self._answers is None or self._tolerance is None:
            return
        number = self._asked % len(self._answers.images)
        self._new.forget()
        try:
            logits, shown, answer = self._answer_to(self._answers.images[number])
            self._new.remember(shown, answer)  # an engine that stops now hands this one out for the next frame
            self.wrong = self._answers.wrong(number, logits, self._tolerance)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; frames are then rejected
            self.wrong = f"it failed on a known picture ({type(error).__name__}: {error})"
        self._asked += not self.wrong  # what was answered wrongly is asked again

    def still_computes(self, question: Tensor, answer: bytes) -> bool:
        """Whether an engine whose last answer came again does compute, so that the answer is right.

        It must prove itself by known pictures (`proves_itself`), and then give the same answer to the question. While
        that is not finished, and where it ends otherwise, `wrong` says so until a known answer is right: an engine that
        stops in between would hand out the answer to a known picture for the next frame.

        Args:
            question: The engine's input, which it reads; it holds the same afterwards.
            answer: `_sampled` of its logits.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        if self._answers is None or self._tolerance is None:
            return False
        self.wrong = UNPROVED
        asked = question.copy()
        if not proves_itself(self._asked_known(answer, self._answers, self._tolerance)):
            return False
        question[...] = asked
        if self._sampled(infer(self.backend)) != answer:
            return False
        self.wrong = ""
        return True

    def _asked_known(self, answer: bytes, answers: KnownAnswers, tolerance: float) -> Iterator[tuple[str, bool]]:
        for number, image in enumerate(answers.images):
            logits, _, known = self._answer_to(image)
            yield answers.wrong(number, logits, tolerance), known != answer

    def _require_computed(self, question: Tensor, answer: bytes) -> None:
        """Refuse an answer that came again, unless the engine computes; see `still_computes`.

        Raises:
            BackendError: It has stopped computing. The engine may raise anything else, too.
        """
        if not self.still_computes(question, answer):
            self._new.refuse()

    def _sampled(self, logits: Tensor) -> bytes:
        """What is compared of an answer."""
        return logits.tobytes()

    def _require_known_answers(self, precision: str) -> None:
        """Ask all of them.

        Raises:
            BackendError: One is wrong.
        """
        for _ in self._answers.images if self._answers else ():
            self.ask()
            if self.wrong:
                raise BackendError(f"{self.backend.engine}, {precision}: {self.wrong}; {remedy(self.backend)}")
