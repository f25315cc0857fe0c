"""How a distance of pixels is written and read: ``8/255`` for eight grey levels of an 8-bit image.

Pixels are in [0, 1], so a grey level is 1/255. Reports, the keys of attacks in a results record and the command line
all use these functions: a radius has one name.
"""

from __future__ import annotations

from framegate.runtime.errors import UsageError

LEVELS = 255
"""Grey levels from black to white in an 8-bit image."""
_NEAR = 1e-3
"""Parts of a grey level. Records hold six significant digits, so 8/255 comes back as 0.0313725."""


def epsilon_text(epsilon: float) -> str:
    """``k/255`` for every whole number k of grey levels (0.2 is ``51/255``), else the decimal number (``0.03``)."""
    levels = _whole_levels(epsilon)
    return f"{epsilon:g}" if levels is None else f"{levels}/{LEVELS}"


def levels_text(distance: float) -> str:
    """A step or another distance that is rarely a whole number of grey levels: ``1.333/255``."""
    return f"{distance * LEVELS:.4g}/{LEVELS}"


def parse_epsilon(text: str) -> float:
    """``8/255`` or ``0.03`` as a number; a decimal that stands for whole grey levels (0.0313725) is exactly these.

    Two radii that `epsilon_text` gives one name are thereby one radius.

    Raises:
        UsageError: It is neither.
    """
    above, _, below = text.partition("/")
    try:
        epsilon = float(above) / float(below) if below else float(above)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"epsilon: {text!r} given, expected a pixel distance in (0, 1], such as 8/255") from error
    levels = _whole_levels(epsilon)
    return epsilon if levels is None else levels / LEVELS


def _whole_levels(epsilon: float) -> int | None:
    """The number of grey levels if it is a whole one, else None (also for NaN and infinity)."""
    levels = epsilon * LEVELS
    near = abs(levels) < 1e9 and abs(levels - round(levels)) < _NEAR
    return round(levels) if near else None
