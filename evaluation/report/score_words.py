"""Names of scores in words: what a score looks at, and behind it what it is called in code."""

from __future__ import annotations

from collections.abc import Sequence

_WORDS = {
    "entropy": "entropy",
    "entropy_untempered": "entropy without temperature",
    "max_probability": "largest probability",
    "margin": "margin of the first two classes",
    "energy": "energy of the logits",
    "gen": "generalised entropy",
    "max_logit": "largest logit",
    "mahalanobis": "distance to class means",
    "knn": "distance to nearest neighbours",
    "vim": "features off the usual subspace",
    "fdbd": "distance to decision boundary",
    "total_variation": "pixels: neighbours differ",
    "high_frequency_energy": "pixels: fine detail",
    "pixel_histogram_entropy": "pixels: histogram entropy",
}
_STATISTICS = {
    "mass_entropy": "spread of activations",
    "channel_entropy": "spread over channels",
    "mean": "mean activation",
    "zero_fraction": "share of zeros",
    "spatial_entropy": "spread over the picture",
    "high_frequency_ratio": "fine detail",
    "histogram_entropy": "entropy of the histogram",
}
_METHODS = {"logistic": "logistic", "fisher": "Fisher", "largest_atypicality": "most atypical"}
_SELECTIONS = {
    "output": "entropy and energy",
    "network": "all but pixels",
    "all": "everything",
}


def sides(name: str) -> tuple[str, bool]:
    """A score's name without, and whether it had, the sign of both sides: ``two_sided(X)`` or ``X (two-sided)``."""
    if name.startswith("two_sided(") and name.endswith(")"):
        return name[len("two_sided(") : -1], True
    return name.removesuffix(" (two-sided)"), name.endswith(" (two-sided)")


def in_words(name: str, both: str = ", two-sided") -> str:
    """A score's name in words; a name that is not known stays as it is.

    Args:
        name: As `framegate.evaluation.scores.registry` makes them, or the rule of an adaptive attack.
        both: What stands behind a score that rejects what is too high and what is too low.
    """
    if " and " in name:
        return " and ".join(in_words(part, both) for part in name.split(" and "))
    name, two = sides(name)
    layer, _, statistic = name.rpartition(":")
    method, _, selection = name.partition("/")
    if name in _WORDS:
        words = _WORDS[name]
    elif layer and statistic in _STATISTICS:
        words = f"{layer}: {_STATISTICS[statistic]}"
    elif method in _METHODS and selection in _SELECTIONS:
        words = f"{_METHODS[method]} of {_SELECTIONS[selection]}"
    else:
        words = name
    return words + both if two else words


def named(name: str) -> str:
    """In words, and behind them the name in code where it is another one: for sentences and tables."""
    words = in_words(name)
    return words if words == name else f"{words} [{name}]"


def short_names(names: Sequence[str], length: int = 40) -> list[str]:
    """Names in words for the edge of a figure: two-sided ones with ↕, long ones cut; of a layer its end counts.

    Names that would become alike stay as they are.
    """
    short = [_shortened(in_words(name, " ↕"), length) for name in names]
    return [brief if short.count(brief) == 1 else name for brief, name in zip(short, names, strict=True)]


def about_both_sides(labels: Sequence[str]) -> str:
    """What ↕ means, for the caption of a figure with these labels; nothing if none has it."""
    return " ↕ rejects what is too high and what is too low." if any("↕" in label for label in labels) else ""


def _shortened(words: str, length: int) -> str:
    tail = " ↕" if words.endswith(" ↕") else ""
    words = words.removesuffix(" ↕")
    if len(words) > length:
        words = "…" + words[-length + 1 :] if ": " in words else words[: length - 1] + "…"
    return words + tail
