"""What another calibration or bundle would have changed, drive by drive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.evaluation.drives.intervals import FEWEST, difference, ratio
from framegate.evaluation.report.table import Row, Section, Table
from framegate.evaluation.report.values import Cell, Estimate, count, percent

FORMAT = "framegate-what-if-1"
_COUNTS = ("verdicts", "before", "after", "lost", "won", "right_before", "wrong_before", "right_after", "wrong_after")
Flags = npt.NDArray[np.bool_]


@dataclass
class Difference:
    """Counts of every drive.

    Attributes:
        drives: Name -> counts in the order of `_COUNTS`: verdicts, accepted before and after, ACCEPT to REJECT, REJECT
            to ACCEPT, and of the labelled: right and wrong accepts before and after.
        reasons: Why verdicts would be rejected.
        unlike: Verdicts that the recording's own calibration does not reproduce; the recording began within the drive,
            or lacks frames.
        refused: Recording -> why it cannot be decided by the calibration.
        about: What was compared, in a sentence.
    """

    drives: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    unlike: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    about: str = ""

    def add(
        self,
        drives: npt.NDArray[np.int64],
        names: Sequence[str | None],
        counted: Flags,
        before: Flags,
        after: Flags,
        labelled: Flags,
        right: Flags,
        right_after: Flags | None = None,
    ) -> None:
        """Count some verdicts.

        Args:
            drives: Number of each verdict's drive.
            names: Of the drives.
            counted: Verdicts that were decided again; the others are left out.
            before: Accepted as recorded.
            after: Accepted now.
            labelled: Those with a label.
            right: The label is the recorded candidate.
            right_after: The label is the candidate now; None: the candidate is the same.
        """
        right_after = right if right_after is None else right_after
        flags = (
            counted,
            before,
            after,
            before & ~after,
            ~before & after,
            labelled & before & right,
            labelled & before & ~right,
            labelled & after & right_after,
            labelled & after & ~right_after,
        )
        table = np.stack([np.bincount(drives[counted & each], minlength=len(names)) for each in flags], axis=1)
        for number in np.flatnonzero(table[:, 0]).tolist():
            name = str(names[number])
            self.drives[name] = self.drives.get(name, np.zeros(len(_COUNTS), np.int64)) + table[number]

    @property
    def counts(self) -> dict[str, npt.NDArray[np.int64]]:
        """Name of a count -> (drives,), in the order of the drives' names."""
        rows = [self.drives[name] for name in sorted(self.drives)]
        table = np.array(rows, np.int64).reshape(-1, len(_COUNTS))
        return {name: table[:, k] for k, name in enumerate(_COUNTS)}

    @property
    def verdicts(self) -> int:
        """How many were decided again."""
        return int(self.counts["verdicts"].sum())

    def figures(self) -> dict[str, Estimate | None]:
        """Coverage and wrong accepts, before, after and the difference, with intervals over drives."""
        c = self.counts
        labelled_before, labelled_after = c["right_before"] + c["wrong_before"], c["right_after"] + c["wrong_after"]
        return {
            "coverage_before": ratio(c["before"], c["verdicts"]),
            "coverage_after": ratio(c["after"], c["verdicts"]),
            "coverage_difference": difference(c["after"], c["verdicts"], c["before"], c["verdicts"]),
            "wrong_before": ratio(c["wrong_before"], labelled_before),
            "wrong_after": ratio(c["wrong_after"], labelled_after),
            "wrong_difference": difference(c["wrong_after"], labelled_after, c["wrong_before"], labelled_before),
        }

    @property
    def changed_drives(self) -> int:
        """Drives of which at least one verdict turns."""
        c = self.counts
        return int(((c["lost"] + c["won"]) > 0).sum())

    def to_json(self) -> dict[str, Any]:
        """As a record of plain JSON values, always the same for the same table."""
        return {
            "format": FORMAT,
            "about": self.about,
            "verdicts": self.verdicts,
            "drives": len(self.drives),
            "changed_drives": self.changed_drives,
            "figures": {name: None if each is None else vars(each) for name, each in self.figures().items()},
            "accept_to_reject": int(self.counts["lost"].sum()),
            "reject_to_accept": int(self.counts["won"].sum()),
            "reasons": dict(sorted(self.reasons.items())),
            "not_reproduced": self.unlike,
            "left_out": dict(sorted(self.refused.items())),
            "per_drive": {
                name: dict(zip(_COUNTS, (int(each) for each in self.drives[name]), strict=True))
                for name in sorted(self.drives)
            },
        }

    def sections(self, most: int = 50) -> list[Section]:
        """For people."""
        f = self.figures()
        c = self.counts
        rows = [
            Row((name, percent(f[f"{key}_before"]), percent(f[f"{key}_after"]), percent(f[f"{key}_difference"])))
            for name, key in (("coverage", "coverage"), ("wrong among labelled accepts", "wrong"))
        ]
        note = (
            f"{count(self.verdicts)} verdicts, {count(int(c['lost'].sum()))} turn from ACCEPT to REJECT, "
            f"{count(int(c['won'].sum()))} back. Intervals: 95 % over drives; fewer than {FEWEST} have none."
        )
        whole = Table("In all drives", ("", "before", "after", "difference"), rows, note)
        names = sorted(self.drives, key=lambda name: (-int(self.drives[name][3:5].sum()), name))
        changed = [name for name in names if self.drives[name][3:5].any()]
        body = [
            Row((name, *(Cell(count(int(each))) for each in self.drives[name][[0, 1, 2, 3, 4, 6, 8]])))
            for name in changed[:most]
        ]
        columns = (
            "drive", "verdicts", "accepted before", "after", "ACCEPT to REJECT", "REJECT to ACCEPT", "wrong before",
            "wrong after",
        )  # fmt: skip
        more = f"{len(changed) - most} more drives change." if len(changed) > most else ""
        tables = (Table("Drives that change, most first", columns, body, more),) if body else ()
        reasons = [Row((name, Cell(count(n)))) for name, n in sorted(self.reasons.items(), key=lambda e: (-e[1], e[0]))]
        return [
            Section("difference", "Before and after", self.about, (whole,)),
            Section("drives", "Drives", "", tables, "No drive changes."),
            Section(
                "reasons", "Reasons afterwards", "",
                (Table("Why verdicts would be rejected", ("reason", "verdicts"), reasons),) if reasons else (),
                "Nothing would be rejected.",
            ),
        ]  # fmt: skip
