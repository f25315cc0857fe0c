r"""What a user typed, without its secrets, to be shown: addresses, GStreamer pipelines, messages with such inside.

A password may hold anything, also characters that had to be written as %40 and the like, and an address may be mistyped
in any way. So nothing is looked for that resembles a password. What is shown is what cannot be one:

- of ``scheme://user:password@host:port/path?name=value#rest`` the scheme, the user, the host, a port that is a number,
  the path and the names. Everything from the first colon to the *last* ``@`` counts as password, wherever that is.
- values behind the ``?`` only of the names in `_HARMLESS`; the rest of the world calls its secrets ``token``,
  ``loginpas``, ``X-Amz-Signature`` and a thousand other things.
- of a pipeline's elements all properties but those whose name ends like that of a secret (``user-pw``, ``passphrase``).
"""

from __future__ import annotations

import re

HIDDEN = "***"
# fmt: off
_HARMLESS = frozenset((
    # Of framegate's own sources.
    "size", "width", "height", "fps", "frames", "format", "exposure_ms", "buffers", "flip", "skip", "reconnect",
    "open_timeout_s", "read_timeout_s", "transport",
    # Of cameras.
    "channel", "stream", "subtype", "resolution", "quality", "compression", "rotation", "mirror", "videocodec", "video",
    "audio", "proto", "unicast", "framerate", "bitrate", "camera", "profile",
))
# fmt: on
_HARMLESS_VALUE = re.compile(r"[\w.,:+-]{0,24}", re.ASCII)
_NAME = re.compile(r"[A-Za-z][\w.-]{0,40}", re.ASCII)
_SCHEME = re.compile(r"\s*(?:--[\w-]+=)?[A-Za-z][\w+.-]*\s*", re.ASCII)
"""Also behind an option: ``--source=rtsp``."""
_USER = re.compile(r"[\w.~+%-]{0,64}", re.ASCII)
_COLON = re.compile(":|%3a", re.IGNORECASE)
_PORT = re.compile(r"[0-9]{0,5}|port")
"""``port`` is what our own messages say."""
# Repetitions have a limit, so that no text from elsewhere takes long to be searched.
_SECRET = (
    r"(?:pw|psw|pwd|pass|passwd|password|passphrase|passcode|secret|secret-key|secretkey|token|api-?key|key|signature|sig|"
    r"auth|authorization|credentials?|cookies?|extra-headers)"
)
_QUOTED = r"""(?:\(\w+\))?(?:"(?:[^"\\]|\\[\s\S]?)*(?:"|\Z)|'(?:[^'\\]|\\[\s\S]?)*(?:'|\Z))"""
_PROPERTY = re.compile(rf"""(?i)\b((?:[\w-]{{0,60}}[_-])?{_SECRET})\s*=\s*(?:{_QUOTED}|\S+)""")
_PROPERTY_IN_TEXT = re.compile(
    rf"""(?i)\b([\w-]{{0,60}}-pw|passw\w+|passphrase|secret-key|api-key)\s*=\s*(?:{_QUOTED}|[^\s"']+)"""
)
"""Fewer than in a pipeline: a region may be called ``key``."""
_IN_PATH = re.compile(rf"(?i)((?:\b|_){_SECRET}[=:])[^/]+")
_PARAMETER = re.compile(r"([?&;])([A-Za-z][\w.-]*)=([^&;#\s\"']*)")
_ELEMENTS_NAME = re.compile(r"\s*[A-Za-z][\w/-]*[\s,(]", re.ASCII)
_ELEMENT = re.compile(rf"(?:{_QUOTED}|(?! ! ).)+", re.DOTALL)
_ADDRESS = re.compile(r"""[A-Za-z][\w+.-]{0,60}://[^\s"'<>]*""")
_USER_AND_PASSWORD = re.compile(r"""(?<![\w/])([\w.~+%-]{1,64}):[^\s@"'/]{1,512}@(?=[\w\[])""")
_SECRET_PARAMETER = re.compile(rf"""(?i)([?&;](?:[\w.-]{{0,60}}[_.-])?{_SECRET})=[^&;#\s"']+""")
_EXAMPLE = "USER:PASSWORD"
"""Stands for a user and a password in our own messages."""


def hide_passwords(typed: str) -> str:
    """What is shown of a source's name or address, or of any other word that a user typed.

    Args:
        typed: The whole of it, and nothing else. A message with an address inside is for `hide_in_text`.
    """
    scheme, separator, rest = typed.partition("://")
    if separator and scheme.strip().lower() == "gst":
        return scheme + separator + _hide_in_pipeline(rest)
    if " ! " in typed and _ELEMENTS_NAME.match(typed):
        return _hide_in_pipeline(typed)
    return _hide_address(typed)


def hide_value(text: str) -> str:
    """The value of a parameter, if it can be none but a harmless one."""
    return text if _HARMLESS_VALUE.fullmatch(text) else HIDDEN


def hide_parameters(typed: str) -> str:
    """The same for a source that is no address, but may have parameters: everything behind the first ``?``."""
    source, question, query = typed.partition("?")
    return _hide_address(source) + question + _query(query)


def hide_in_text(text: str) -> str:
    """A message without the passwords of addresses that others wrote into it, a library, say.

    An address is taken to end at a space or quotation mark. Where the address itself is known, use `hide_passwords`.
    """
    text = _PROPERTY_IN_TEXT.sub(rf"\1={HIDDEN}", text)
    text = _ADDRESS.sub(_address_in_text, text)
    text = _USER_AND_PASSWORD.sub(lambda m: m[0] if m[0] == f"{_EXAMPLE}@" else f"{m[1]}:{HIDDEN}@", text)
    return _SECRET_PARAMETER.sub(rf"\1={HIDDEN}", text)


def _address_in_text(match: re.Match[str]) -> str:
    bare = match[0].rstrip(".,:;!)")
    return _hide_address(bare) + match[0][len(bare) :]


def _hide_in_pipeline(pipeline: str) -> str:
    return " ! ".join(_hide_in_element(part) for part in _split(pipeline))


def _split(pipeline: str) -> list[str]:
    """The elements of a pipeline: what stands between exclamation marks that are not quoted."""
    parts, at = [], 0
    while True:
        found = _ELEMENT.match(pipeline, at)
        end = at if found is None else found.end()
        parts.append(pipeline[at:end])
        if end >= len(pipeline):
            return parts
        at = end + len(" ! ")


def _hide_in_element(element: str) -> str:
    left = _PROPERTY.sub(rf"\1={HIDDEN}", element)
    if "://" not in left:
        return _USER_AND_PASSWORD.sub(rf"\1:{HIDDEN}@", left)
    shown = []
    while "://" in left:
        head, separator, rest = left.partition("://")
        opening = re.search(r"""["'](?=[\w+.-]*\Z)""", head)
        last = rest.rfind("@") + 1
        end = rest.find(opening[0], last) if opening else _find_space(rest, last)
        address, left = (rest, "") if end < 0 else (rest[:end], rest[end:])
        shown += [head, separator, _hide_place(address)]
    return "".join(shown) + left


def _find_space(text: str, start: int) -> int:
    return next((k for k in range(start, len(text)) if text[k].isspace()), -1)


def _hide_address(typed: str) -> str:
    head, separator, rest = typed.partition("://")
    if separator and _SCHEME.fullmatch(head):
        return head + separator + _hide_place(rest)
    before, at, _ = typed.rpartition("@")
    if (colon := _COLON.search(before)) and at and "/" not in before[: colon.start()]:  # else the name of a file
        return _hide_place(typed)
    if separator and _COLON.search(head):  # "user:password://host"
        return _user(head)[:-1] + separator + _hide_host(rest)
    return _PARAMETER.sub(_parameter_without_scheme, typed)


def _hide_place(text: str) -> str:
    """What is shown of ``user:password@host:port/path?name=value#rest``."""
    before, at, behind = text.rpartition("@")
    if not at:
        return _hide_host(text)
    if re.search(
        "[?#]", before
    ):  # a password with such a sign, or another secret with an @: nobody knows where it ends
        return _user(before)[:-1] if _COLON.search(before) else _hide_host(text)
    return _user(before) + _hide_host(behind)


def _user(before: str) -> str:
    """What is shown of what stands before an @, and the @."""
    if before == _EXAMPLE:
        return f"{before}@"
    colon = _COLON.search(before)
    user = before[: colon.start()] if colon else before
    shown = user if _USER.fullmatch(user) else HIDDEN
    return f"{shown}:{HIDDEN}@" if colon else f"{shown}@"


def _hide_host(text: str) -> str:
    """What is shown of ``host:port/path?name=value#rest``."""
    end = next((k for k, sign in enumerate(text) if sign in "/?#"), len(text))
    place, rest = text[:end], text[end:]
    bracket = place.rfind("]") if place.startswith("[") else -1
    host, colon, port = place[bracket + 1 :].partition(":")
    if not _PORT.fullmatch(port):
        port = HIDDEN
    rest, sharp, fragment = rest.partition("#")
    path, question, query = rest.partition("?")
    path = _IN_PATH.sub(rf"\1{HIDDEN}", path)
    query = _query(query)
    return place[: bracket + 1] + host + colon + port + path + question + query + sharp + (HIDDEN if fragment else "")


def _query(text: str) -> str:
    return "".join(map(_parameter, re.split("([&;])", text)))


def _parameter(text: str) -> str:
    if text in ("", "&", ";"):
        return text
    name, _, value = text.partition("=")
    if not value.strip("=") or not _NAME.fullmatch(name):  # also a bare key in base64, which ends in =
        return HIDDEN
    return text if name.lower() in _HARMLESS and hide_value(value) == value else f"{name}={HIDDEN}"


def _parameter_without_scheme(match: re.Match[str]) -> str:
    return match[1] + _parameter(match[0][1:])
