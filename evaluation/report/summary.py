"""The report's opening: what was found, in plain words, made from the numbers."""

from __future__ import annotations

from framegate.evaluation.report.findings import (
    ENTROPY,
    PURPOSES,
    attack_name,
    failed_checks,
    headline_attack,
    is_control,
    name_of,
    score_named,
    target_row,
    wrong_frames,
)
from framegate.evaluation.report.score_choice import advise, compared, of_the_best
from framegate.evaluation.report.score_words import in_words, named
from framegate.evaluation.report.values import (
    Cell,
    Estimate,
    count,
    decimal,
    estimate,
    number,
    percent,
    records,
    text,
)


def summary(results: object) -> list[str]:
    """The report's opening: a few sentences, each only if its figures were measured."""
    sentences = [
        _advice_sentence(results),
        _clean_sentence(results),
        _coverage_sentence(results),
        _attack_sentence(results),
        _adaptive_sentence(results),
        _best_sentence(results),
        _control_sentence(results),
        _checks_sentence(results),
    ]
    return [sentence for sentence in sentences if sentence]


def _attacked(results: object) -> bool:
    return any(records(results, kind) for kind in ("attacks", "epsilon_curve", "adaptive"))


def _with_interval(cell: Cell) -> str:
    return f"{cell.text} {cell.interval}".strip()


def _share(found: Estimate) -> str:
    return _with_interval(percent(found))


def _clean_sentence(results: object) -> str:
    accuracy = estimate(results, "clean", "accuracy")
    if accuracy is None:
        return ""
    frames = f"Of {count(accuracy.n)} clean test frames" if accuracy.n else "Of the clean test frames"
    return f"{frames} {_share(accuracy)} are classified right."


def _coverage_sentence(results: object) -> str:
    row = target_row(score_named(results, ENTROPY))
    coverage, accuracy = estimate(row, "coverage"), estimate(row, "accuracy")
    if coverage is None or accuracy is None:
        return ""
    sentence = (
        f"With the entropy threshold that accepts 95 % of the calibration frames, {_share(coverage)} of the test "
        f"frames are accepted and {_share(accuracy)} of those are right"
    )
    false_accepts = estimate(row, "false_accept_rate")
    tail = f"; {_share(false_accepts)} of all frames are false accepts (wrong and accepted)" if false_accepts else ""
    return sentence + tail + "."


def _attack_sentence(results: object) -> str:
    attack = headline_attack(results)
    accuracy = estimate(attack, "accuracy")
    if accuracy is None:
        return ""
    sentence = f"Under {attack_name(attack)}, {_share(accuracy)} of the frames stay right"
    wrong = wrong_frames(attack)
    if wrong is None:
        return sentence + "."
    accepted, total = wrong
    return (
        f"{sentence}, and the entropy gate at that threshold accepts {count(accepted)} of the {count(total)} wrong "
        f"frames ({accepted / total * 100:.1f} %)."
    )


def _adaptive_sentence(results: object) -> str:
    attacks = [row for row in records(results, "adaptive") if estimate(row, "evaded") is not None]
    if not _attacked(results):
        return "No attack was run: nothing here says what becomes of attacked frames."
    if not attacks:
        return (
            "No adaptive attack was run: nothing here says what a score is worth against an attacker who knows of it."
        )
    evaded = {text(row, "score"): number(row, "evaded", "value") or 0.0 for row in attacks}
    least = min(attacks, key=lambda row: number(row, "evaded", "value") or 0.0)
    sentence = "An attack that knows of the score gets "
    if ENTROPY in evaded:
        row = next(row for row in attacks if text(row, "score") == ENTROPY)
        found = estimate(row, "evaded")
        sentence += f"{_share(found)} of frames wrong and past the entropy gate; " if found else ""
    found = estimate(least, "evaded")
    assert found is not None
    hardest = in_words(text(least, "score"))
    return f"{sentence}the hardest score to get past was {hardest} ({_share(found)} wrong and accepted)."


def _advice_sentence(results: object) -> str:
    """What somebody who has to choose a score should do."""
    advice = advise(results)
    if advice is None:
        return ""
    unsure = "it refuses where nothing can be proved"
    if advice.answer == "collect":
        seen = "" if advice.errors is None else f" ({count(advice.errors)} wrong frames were seen)"
        return (
            "What to do: collect more labelled test frames before choosing a score. With what was measured here "
            f"no score can be told from a coin at finding the network's own errors{seen}. Until then keep the bundle's "
            f"own calibration: {unsure}."
        )
    if advice.answer == "none":
        return (
            f"What to do: do not gate on this network. None of the {advice.among} scores compared beats a coin at "
            "finding its errors; train it longer, on more data, or another one."
        )
    through = f" {_share(advice.through)}" if advice.through else ""
    present, whose = named(advice.present), _whose(results, advice.present)
    if advice.answer == "keep":
        return (
            f"What to do: keep gating on {present}{whose}. Of the {advice.among} scores compared none that the runtime "
            "can threshold finds the network's own errors as well and lets clearly less through without a warning."
            + _promising(advice.promising)
        )
    assert advice.instead is not None
    return (
        f"What to do: calibrate with {named(advice.score)} in place of {present}{whose} (framegate calibrate BUNDLE "
        f"--score {advice.score}, which proves its threshold anew). It finds the network's own errors about as well, "
        f"and lets {_share(advice.instead)} of wrong, corrupted and foreign frames through without a warning; "
        f"{present}{through}." + _promising(advice.promising)
    )


def _whose(results: object, present: str) -> str:
    """Whether the score that the others were compared with is that of the bundle's gate."""
    own = text(results, "bundle", "score")
    if own == present:
        return ", the bundle's own score"
    return f" (the bundle's own score, {named(own)}, was not measured here)" if own else ""


def _promising(name: str) -> str:
    return f" Better here, but not in the runtime: {named(name)}." if name else ""


def _best_sentence(results: object) -> str:
    names = {key: text(results, "best", key) for key, _ in PURPOSES}
    if not any(names.values()):
        return ""
    purpose = "overall" if names["overall"] else "failure"
    among = compared(records(results, "scores"), purpose, text(results, "main_attack"))
    failure = of_the_best(estimate(score_named(results, names[purpose]), "failure", "auroc"), among)
    tail = f" (AUROC for its own errors {_with_interval(decimal(failure))})" if failure and names[purpose] else ""
    each = [f"{label}: {named(names[key])}{tail * (key == purpose)}" for key, label in PURPOSES if names[key]]
    lacking = [label for key, label in PURPOSES if not names[key]]
    nothing = f" None for: {', '.join(lacking)} (not measured, or no better than a coin)." if lacking else ""
    chosen = f" Chosen among up to {among} scores on these test frames; the interval allows for that." if tail else ""
    return f"Best score by purpose: {'; '.join(each)}.{nothing}{chosen}"


def _control_sentence(results: object) -> str:
    attack = text(headline_attack(results), "key")
    found = [
        (estimate(score, "attacks", attack, "auroc"), score)
        for score in records(results, "scores")
        if estimate(score, "attacks", attack, "auroc") is not None
    ]
    controls = [(figure, score) for figure, score in found if figure and is_control(score)]
    others = [(figure, score) for figure, score in found if figure and not is_control(score)]
    if not controls or not others:
        return ""
    control, best = (max(group, key=lambda item: item[0].value) for group in (controls, others))
    verdict = (
        "is beaten by" if best[0].value > control[0].value else "is not beaten by any score that uses the network:"
    )
    return (
        f"At telling {name_of(results, attack)} frames from clean ones, the best control that needs no network "
        f"({in_words(text(control[1], 'name'))}, AUROC {control[0].value:.3f}) {verdict} "
        f"{in_words(text(best[1], 'name'))} ({best[0].value:.3f}), before any adaptive attack."
    )


def _checks_sentence(results: object) -> str:
    checks, failed = records(results, "health"), failed_checks(results)
    if not checks and not _attacked(results):
        return ""
    if not checks:
        return (
            "The attacks' own health was not checked: treat the attack figures as upper limits of what is left right."
        )
    if failed:
        return f"{len(failed)} of {len(checks)} health checks of the attacks FAILED: do not trust the attack figures."
    return f"All {len(checks)} health checks of the attacks passed."
