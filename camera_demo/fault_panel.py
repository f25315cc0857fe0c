"""The buttons of the page: which there are, which are pressed, and who has to know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from framegate.runtime.errors import UsageError
from framegate.runtime.faults.inject import DEFAULT_SEVERITY, ONE_SEVERITY

KILL, SLOW, NONE = "kill", "slow", "none"
_SHOWN = {
    "black": "Black",
    "freeze": "Freeze",
    "fog": "Fog",
    "glare": "Glare",
    "noise": "Noise",
    "blur": "Blur",
    "pgd": "PGD",
    "fgsm": "FGSM",
}
"""The buttons in the first row, in this order, as far as these faults exist; all others follow by name."""
_HINTS = {
    "black": "No light reaches the camera",
    "freeze": "The camera repeats one picture while its clock goes on",
    "fog": "Fog between the camera and the road",
    "glare": "The sun shines into the lens",
    "noise": "Noise, as at night or from a bad cable",
    "blur": "The lens is out of focus",
    "pgd": "An attacker changes the pixels, step by step, so that the network names the wrong thing",
    "fgsm": "The same attack in one step: faster and weaker",
    "channel": "One colour of the camera is missing",
    "compression": "The picture is compressed far too much",
    "contrast": "Light and dark hardly differ",
    "covered": "Something covers a part of the lens",
    "grey16": "The camera suddenly sends 16-bit grey pictures",
    "half": "The lower part of the picture never arrived",
    "rain": "Rain in front of the camera",
    "saturated": "The exposure is far too long",
    "size": "The camera changes the size of its pictures",
    "stuck": "The camera repeats one picture, encoded anew each time",
    "torn": "Parts of the picture come from an earlier one",
    KILL: "Closes the camera or clip for real; press again to plug it in",
    SLOW: "Every call of the engine takes longer than the deadline",
    NONE: "Ends all faults",
}
"""What a button stands for in the world. A fault of another package has the name of its function."""


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _hint(name: str) -> str:
    return _HINTS.get(name, f"The fault {_label(name)!r} of a package that is installed beside framegate")


@dataclass(frozen=True)
class Button:
    """One button.

    Attributes:
        name: What the page sends.
        label: What is on it.
        hint: What it stands for, in one sentence.
        first: Whether it is in the first row.
        severity: Whether the severity changes what it does.
    """

    name: str
    label: str
    hint: str = ""
    first: bool = True
    severity: bool = False


class FaultPanel:
    """Which faults are switched on. Every method may be called from any thread.

    Args:
        kinds: Faults of the picture that can be had.

    Attributes:
        buttons: In the order in which they are shown.
        kill: Called with True or False when the camera is killed or plugged in again.
        slow: Called with True or False when the engine is slowed down or not any more.

    One fault of the picture at a time, as in `framegate.runtime.faults.inject`; the camera and the engine beside it.
    """

    def __init__(self, kinds: Iterable[str]) -> None:
        known = set(kinds)
        first = [
            Button(name, label, _hint(name), severity=name not in ONE_SEVERITY)
            for name, label in _SHOWN.items()
            if name in known
        ]
        more = [
            Button(name, _label(name), _hint(name), first=False, severity=name not in ONE_SEVERITY)
            for name in sorted(known - set(_SHOWN))
        ]
        self.buttons = (
            *first,
            Button(KILL, "Kill camera", _HINTS[KILL]),
            Button(SLOW, "Slow engine", _HINTS[SLOW]),
            Button(NONE, "All off", _HINTS[NONE]),
            *more,
        )
        self.kill: Callable[[bool], None] = lambda on: None
        self.slow: Callable[[bool], None] = lambda on: None
        self._lock = threading.Lock()
        self._names = {button.name for button in self.buttons}
        self._fault: tuple[str, int] | None = None
        self._killed = self._slowed = False
        self._severity = DEFAULT_SEVERITY

    @property
    def fault(self) -> tuple[str, int] | None:
        """The fault of the picture and its severity; None if there is none."""
        return self._fault

    @property
    def killed(self) -> bool:
        """Whether the camera is killed."""
        return self._killed

    def press(self, name: str, severity: int) -> None:
        """Press a button: what was on goes off, and the other way round.

        A pressed one with another severity stays on and takes that severity.

        Args:
            name: Of one of `buttons`.
            severity: 1 to 5.

        Raises:
            UsageError: There is no such button or severity.
        """
        if name not in self._names or not 1 <= severity <= 5:
            raise UsageError(f"button {name!r} with severity {severity}; there are {', '.join(sorted(self._names))}")
        with self._lock:
            killed, slowed = self._killed, self._slowed
            self._severity = severity
            if name == NONE:
                self._fault, self._killed, self._slowed = None, False, False
            elif name == KILL:
                self._killed = not killed
            elif name == SLOW:
                self._slowed = not slowed
            else:
                self._fault = None if self._fault == (name, severity) else (name, severity)
            if self._killed != killed:
                self.kill(self._killed)
            if self._slowed != slowed:
                self.slow(self._slowed)

    def record(self) -> dict[str, Any]:
        """What is pressed, as plain JSON values."""
        fault = self._fault
        pressed = [fault[0]] if fault else []
        pressed += [KILL] * self._killed + [SLOW] * self._slowed
        return {"pressed": pressed, "severity": self._severity}
