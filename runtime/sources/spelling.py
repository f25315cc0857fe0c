"""Characters that look like another one or are invisible: why a name that looks right is not found."""

from __future__ import annotations

import unicodedata
from pathlib import Path

_LOOK_ALIKES = {
    **dict.fromkeys("\u2018\u2019\u201b\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
    **{chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)},  # full width
    "\u2044": "/",
    "\u2215": "/",
    "\u2236": ":",
}


def odd_sign(text: str) -> str:
    """A sentence about the first sign that is not seen or looks like another one; empty if there is none.

    Args:
        text: A name or address as it was typed, or a part of one.
    """
    for sign in text:
        code = f"U+{ord(sign):04X} ({unicodedata.name(sign, 'without a name').lower()})"
        if sign in _LOOK_ALIKES:
            return f"it has {code} where {_LOOK_ALIKES[sign]} may be meant; type it anew"
        if sign != " " and (unicodedata.category(sign) == "Cf" or sign.isspace()):
            return f"it has {code}, which is not seen; type it anew"
    return "it begins or ends with a space" if text != text.strip(" ") else ""


def same_name(path: Path) -> str:
    """A sentence about an entry of the same folder with the same name in other signs; empty if there is none."""
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    try:
        names = [entry.name for entry in missing.parent.iterdir()]
    except OSError:
        return ""
    wanted = missing.name
    for name in names:
        if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", wanted):
            return (
                f"{missing.parent} has {name!r}, the same letters in another Unicode form (an accent of its own or "
                "within its letter); complete the name with the Tab key"
            )
    for name in names:
        if _folded(name) == _folded(wanted):
            return f"{missing.parent} has {name!r}; is that meant?"
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()
