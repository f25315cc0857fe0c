"""Plain words for every reason."""

from __future__ import annotations

import pytest

from framegate.runtime.verdict import Reason
from framegate.runtime.words import WORDS, short


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words(reason):
    words = WORDS[reason]
    assert 0 < len(words.short) <= 20
    assert words.sentence
    assert not words.sentence.endswith(".")
    assert reason.value not in words.short + words.sentence
    assert short(reason) == words.short


def test_no_two_reasons_have_the_same_words():
    assert len({words.short for words in WORDS.values()}) == len(Reason)
