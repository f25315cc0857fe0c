"""Tables about single signals: monitor, energy, activation entropies, controls; windows; monitors of other attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.evaluation.gate.names import MAIN_ATTACKS, WINDOWS
from framegate.evaluation.report.table import Row, Table
from framegate.evaluation.report.values import NOT_MEASURED, decimal, estimate, mapping, number, share, text
from framegate.evaluation.scores.names import CONTROLS
from framegate.runtime.monitor import ENTROPY, SHIFT

Record = Mapping[str, Any]
_ATTACKS = (*MAIN_ATTACKS, "PGD-20 on the margin 8/255", "APGD-DLR 8/255", "uniform noise 8/255")
_WINDOW_ATTACKS = ("FGSM 2/255", "PGD-20 2/255")


def gate_signals(found: Sequence[Record]) -> Table:
    """Does the monitor beat what needs no network, and what do activation entropies do?"""
    rows = []
    for record in found:
        for attack in _ATTACKS:
            figures = mapping(record, "detection", attack)
            control = _best(figures, CONTROLS)
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        attack,
                        decimal(estimate(figures, SHIFT)),
                        decimal(estimate(figures, "two_sided(energy)")),
                        decimal(estimate(figures, _best(figures, (ENTROPY,)))),
                        decimal(estimate(figures, control)),
                        control or NOT_MEASURED,
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


def _best(figures: Mapping[str, Any], kinds: Sequence[str]) -> str:
    """The signal of these kinds, in any form of theirs, with the highest AUROC; empty if none was measured."""
    found = {name: value for name in figures if (value := number(figures, name)) is not None}
    of_kind = [name for name in found if any(kind in name for kind in kinds)]
    return max(of_kind, key=lambda name: found[name], default="")


def gate_windows(found: Sequence[Record]) -> Table:
    """What a window over the stream adds for weak attacks."""
    rows = []
    for record in found:
        for attack in _WINDOW_ATTACKS:
            for signal, figures in mapping(record, "windows", attack).items():
                cells = [share(number(figures, str(n), "detected")) for n in WINDOWS]
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
    """Monitors fitted without a family of attacks."""
    rows = [
        Row((text(record, "bundle"), name, *(decimal(estimate(each, attack)) for attack in MAIN_ATTACKS)))
        for record in found
        for name, each in mapping(record, "transfer").items()
    ]
    return Table(
        "AUROC of monitors fitted without one family of attacks",
        ("bundle", "monitor", *MAIN_ATTACKS),
        rows,
        "On 1,000 training images; the shipped monitors are fitted on 3,000 and on both families.",
        folded=True,
    )
