"""Which of a classifier's labels can be what a detector calls an object."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from framegate.runtime.errors import DataError
from framegate.runtime.verdict import NO_FINDINGS, Findings, Reason


class LabelMap:
    """Detector's label -> the classifier's labels that go with it; with all others it does not agree.

    Args:
        allowed: A label of the detector that is missing here says nothing about the classifier's. One with an empty
            list agrees with none.
    """

    def __init__(self, allowed: Mapping[str, Collection[str]]) -> None:
        self._allowed = {label: frozenset(others) for label, others in allowed.items()}

    @classmethod
    def load(cls, path: str | Path, labels: Collection[str]) -> LabelMap:
        """Read a JSON object ``{"car": ["automobile", "truck"], "bird": ["bird"], "kite": []}``.

        Args:
            path: The file.
            labels: Those of the classifier.

        Raises:
            DataError: It is none, or it names a label that the classifier does not have.
        """
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read as JSON ({error})") from error
        fits = isinstance(record, dict) and all(
            isinstance(others, list) and all(isinstance(each, str) for each in others) for others in record.values()
        )
        if not fits:
            raise DataError(f"{path}: expected an object of lists of labels, e.g. {{'car': ['automobile', 'truck']}}")
        unknown = sorted({each for others in record.values() for each in others} - set(labels))
        if unknown:
            raise DataError(f"{path}: the classifier has no label {unknown[0]!r}; it has {', '.join(labels)}")
        return cls(record)

    @property
    def detected(self) -> Collection[str]:
        """The detector's labels that it says something about."""
        return self._allowed.keys()

    def knows(self, detected: str) -> bool:
        """Whether the map says anything about this label of the detector."""
        return detected in self._allowed

    def judge(self, detected: str, candidate: str) -> Findings:
        """NO_AGREEMENT if the two names exclude each other.

        Args:
            detected: What the detector calls the object.
            candidate: What the classifier calls it; empty if nothing.
        """
        allowed = self._allowed.get(detected)
        if allowed is None or not candidate or candidate in allowed:
            return NO_FINDINGS
        return {Reason.NO_AGREEMENT: f"the detector calls it {detected!r}, the classifier {candidate!r}"}
