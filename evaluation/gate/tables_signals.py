"""Tables about single signals: monitor, energy, activation entropies, controls; windows; monitors of other attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.evaluation.gate.rules import WINDOWS
from framegate.evaluation.report.table import Row, Table
from framegate.evaluation.report.values import NOT_MEASURED, Cell, follow, text
from framegate.evaluation.scores.input import CONTROLS
from framegate.runtime.monitor import ENTROPY, SHIFT

Record = Mapping[str, Any]
SHOWN = ("FGSM 8/255", "PGD-20 8/255", "PGD-20 on the margin 8/255", "APGD-DLR 8/255", "uniform noise 8/255")
_WINDOW_ATTACKS = ("FGSM 2/255", "PGD-20 2/255")


def gate_signals(found: Sequence[Record]) -> Table:
    """Does the monitor beat what needs no network, and what do activation entropies do?"""
    rows = []
    for record in found:
        for attack in SHOWN:
            figures = follow(record, "detection", attack) or {}
            controls = {name: value for name, value in figures.items() if any(each in name for each in CONTROLS)}
            entropies = {name: value for name, value in figures.items() if ENTROPY in name}
            best = max(controls, key=lambda name: controls[name], default=None)
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        attack,
                        auroc_cell(figures.get(SHIFT)),
                        auroc_cell(figures.get("two_sided(energy)")),
                        auroc_cell(max(entropies.values(), default=None)),
                        auroc_cell(controls[best] if best else None),
                        best or NOT_MEASURED,
                    )
                )
            )
    return Table(
        "AUROC per frame, attacked against clean",
        (
            "bundle",
            "attack",
            "monitor",
            "energy, two-sided",
            "best activation entropy, two-sided",
            "best control without a network",
            "which",
        ),
        rows,
        "A signal has to beat the controls to be worth its place. Activation entropies do not reliably, and limit "
        "nothing; they are shown for people.",
        folded=True,
    )


def gate_windows(found: Sequence[Record]) -> Table:
    """What a window over the stream adds for weak attacks."""
    rows = []
    for record in found:
        for attack in _WINDOW_ATTACKS:
            for signal, figures in (follow(record, "windows", attack) or {}).items():
                cells = [share_cell(follow(figures, str(n), "detected")) for n in WINDOWS]
                rows.append(Row((text(record, "bundle"), attack, signal, *cells)))
    return Table(
        "Weak attacks over a window of the stream: windows stopped, one clean window in a hundred stopped",
        ("bundle", "attack", "mean of", *(f"{n} frame{'s' if n > 1 else ''}" for n in WINDOWS)),
        rows,
        "Frames drawn independently; the frames of a real stream resemble each other, and gain less. The delay is the "
        "length of the window.",
        folded=True,
    )


def gate_transfer(found: Sequence[Record]) -> Table:
    """Heads fitted without a family of attacks."""
    rows = []
    for record in found:
        for name, each in (follow(record, "transfer") or {}).items():
            rows.append(
                Row((text(record, "bundle"), name, *(auroc_cell(follow(each, attack)) for attack in SHOWN[:2])))
            )
    return Table(
        "AUROC of monitors fitted without one family of attacks",
        ("bundle", "monitor", *SHOWN[:2]),
        rows,
        "On 1,000 training images; the shipped monitors are fitted on 3,000 and on both families.",
        folded=True,
    )


def auroc_cell(value: object) -> Cell:
    """An AUROC, or a dash where it was not measured."""
    return Cell(f"{value:.3f}" if isinstance(value, float) else NOT_MEASURED)


def share_cell(value: object, digits: int = 1) -> Cell:
    """A share in percent, or a dash where it was not measured."""
    return Cell(f"{value * 100:.{digits}f} %" if isinstance(value, float | int) else NOT_MEASURED)
