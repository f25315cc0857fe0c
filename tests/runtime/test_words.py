"""Plain words for every reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from framegate.runtime.verdict import Reason
from framegate.runtime.words import WORDS, short

REJECTS = (Path(__file__).parents[2] / "docs" / "rejects.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words_and_its_page_has_them_too(reason):
    words = WORDS[reason]
    assert 0 < len(words.short) <= 20
    assert words.sentence
    assert not words.sentence.endswith(".")
    assert reason.value not in words.short + words.sentence
    assert f"| `{reason.value}`<br>{words.short} |" in REJECTS
    assert short(reason) == words.short


def test_no_two_reasons_have_the_same_words():
    assert len({words.short for words in WORDS.values()}) == len(Reason)
