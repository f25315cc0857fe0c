"""The page that says what a reason means and what to do knows every reason, and its plain words."""

from __future__ import annotations

import re

from repository import ROOT

from framegate.runtime.cli.main import build_parser
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.verdict import Reason
from framegate.runtime.words import WORDS

PAGE = (ROOT / "docs" / "rejects.md").read_text(encoding="utf-8")
REASONS = sorted(reason.value for reason in Reason)


def test_every_reason_has_a_row_with_what_happened_and_what_to_do():
    rows = re.findall(r"^\| `([A-Z_]+)`<br>(.+?) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == REASONS
    assert all(len(text) > 4 for _, _, *texts in rows for text in texts)
    assert {name: words for name, words, *_ in rows} == {each.value: words.short for each, words in WORDS.items()}


def test_the_options_that_the_page_names_exist():
    known = set()
    for name in SUMMARIES:
        for action in build_parser(name)._actions:
            for command in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
                known |= set(command._option_string_actions)
    named = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert named
    assert named <= known
