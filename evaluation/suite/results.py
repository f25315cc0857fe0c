"""From the observations of a suite to the figures of its report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.metrics.calibration_error import calibration_error
from framegate.evaluation.metrics.intervals import proportion
from framegate.evaluation.metrics.metrics import (
    COVERAGES,
    accuracy,
    detection,
    failure_detection,
    same_images,
    selective,
    selective_at,
)
from framegate.evaluation.metrics.selective import GATE_COVERAGE, accepts, curve, threshold_at
from framegate.evaluation.report.score_choice import choose_best
from framegate.evaluation.scores.feature import LinearHead
from framegate.evaluation.scores.protocol import FittedScore, Floats
from framegate.evaluation.scores.registry import all_scores, fit_scores, score_frames
from framegate.evaluation.suite.plan import RESEARCH_EPSILON
from framegate.evaluation.suite.published import BatchProtocols
from framegate.evaluation.suite.run import Suite
from framegate.export.calibration.temperature import fit_temperature
from framegate.runtime.bundle.bundle import Bundle

Publish = Callable[[Callable[[], dict[str, Any]]], None]
_CURVES = ("entropy", "1 - max probability", "energy")
_BINS = 40


class SuiteFigures:
    """Computes the figures of one suite.

    Args:
        suite: Whose observations.
        bundle: The bundle they belong to.
    """

    def __init__(self, suite: Suite, bundle: Bundle) -> None:
        self.suite, self.bundle, self.plan = suite, bundle, suite.plan
        self.calibration, self.clean = suite.calibration(), suite.clean()
        self.temperature = fit_temperature(self.calibration.logits, self.calibration.labels)
        weight, bias = suite.network.linear
        head = LinearHead(weight.astype(np.float64), bias.astype(np.float64))
        self.left_out: dict[str, str] = {}
        self.fitted = fit_scores(all_scores(self.calibration, head), self.calibration, self.left_out)
        self.thresholds = {n: threshold_at(f.calibration_scores, GATE_COVERAGE) for n, f in self.fitted.items()}
        self.clean_scores = score_frames(self.fitted, self.clean)
        self._resamples, self._seed = self.plan.bootstrap, suite.seed

    def results(self, publish: Publish = lambda found: None) -> dict[str, Any]:
        """Every section of the report but its head.

        Args:
            publish: Called after every part with a function that makes the sections so far: of the usual scores, and
                without what was not measured yet.
        """
        attacks: list[Any] = []
        corrupted: list[Any] = []
        foreign: list[Any] = []
        found: dict[str, Any] = {"sizes": {"calibration": len(self.calibration), "test": len(self.clean)}}
        found["scores_left_out"] = self.left_out
        found["clean"] = self._clean()

        def so_far() -> None:
            usual = [name for name in _CURVES if name in self.fitted]
            publish(lambda: found | self._sections(attacks, corrupted, foreign, usual))

        so_far()
        for record, seen in self.suite.attacks():
            attacks.append((record, seen, score_frames(self.fitted, seen)))
            so_far()
        found["health"] = self.suite.health()
        found["adaptive"] = []
        for row in self._adaptive():
            found["adaptive"].append(row)
            so_far()
        for name, severity, seen in self.suite.corrupted():
            corrupted.append((name, severity, seen, score_frames(self.fitted, seen)))
        so_far()
        for name, seen in self.suite.foreign():
            foreign.append((name, seen, score_frames(self.fitted, seen)))
        so_far()
        sections = self._sections(attacks, corrupted, foreign, list(self.fitted))
        found |= sections | {"best": choose_best(sections["scores"], self.plan.main_attack)}
        if self.plan.published:
            batches = BatchProtocols(self.suite)
            found |= {"batchwise": batches.detection(), "batch_rule": batches.selection()}
        return found

    def _sections(
        self, attacks: Sequence[Any], corrupted: Sequence[Any], foreign: Sequence[Any], names: Sequence[str]
    ) -> dict[str, Any]:
        """What can be said of these observations with these scores."""
        scores = self._scores(names, attacks, corrupted, foreign)
        return {
            "scores": scores,
            "attacks": [self._attack(*attack) for attack in attacks],
            "epsilon_curve": list(self._epsilon_curve(attacks)),
            "corruptions": [self._corruption(*each) for each in corrupted],
            "ood": [self._foreign(*each) for each in foreign],
            "risk_coverage": {n: curve(self.clean_scores[n], self.clean.wrong) for n in self._curves(scores)},
            "entropy_histograms": self._histograms(attacks),
            "layerwise": self._layerwise(attacks),
        }

    def _clean(self) -> dict[str, Any]:
        backends = []
        for row in self.bundle.parity:
            n, coverage, risk = int(row["test_images"]), row["test_coverage"], row["test_selective_risk"]
            accepted = round(coverage * n)
            wrong = round((risk or 0.0) * accepted)
            backends.append(
                {
                    "key": row["key"],
                    "compared": int(row["compared"]),
                    "same_label": row["agreement"],
                    "same_verdict": row["verdict_agreement"],
                    "accuracy": proportion(round(row["test_accuracy"] * n), n).to_json(),
                    "coverage": proportion(accepted, n).to_json(),
                    "selective_risk": proportion(wrong, accepted).to_json(),
                    "false_accept_rate": proportion(wrong, n).to_json(),
                }
            )
        return {
            "accuracy": accuracy(self.clean.wrong).to_json(),
            "temperature": self.temperature,
            "ece": self._ece(1.0),
            "ece_temperature": self._ece(self.temperature),
            "confusion": confusion(self.clean),
            "backends": backends,
        }

    def _ece(self, temperature: float) -> dict[str, Any]:
        return calibration_error(self.clean, temperature, self._resamples, self._seed).to_json()

    def _paired(self, name: str, seen: Observations) -> Floats:
        """Clean scores of the very frames that were attacked: they come first in the clean set."""
        return self.clean_scores[name][: len(seen)]

    def _scores(
        self, names: Sequence[str], attacks: Sequence[Any], corrupted: Sequence[Any], foreign: Sequence[Any]
    ) -> list[dict[str, Any]]:
        rows = []
        for done, name in enumerate(names):
            rows.append(self._score(name, self.fitted[name], attacks, corrupted, foreign))
            if len(names) == len(self.fitted):
                self.suite.progress("metrics", done + 1, len(names))
        return rows

    def _score(
        self,
        name: str,
        fitted: FittedScore,
        attacks: Sequence[Any],
        corrupted: Sequence[Any],
        foreign: Sequence[Any],
    ) -> dict[str, Any]:
        values, wrong = self.clean_scores[name], self.clean.wrong
        by_coverage = selective_at(fitted.calibration_scores, values, wrong, COVERAGES)
        return {
            "name": name,
            "family": fitted.family,
            "two_sided": fitted.two_sided,
            "failure": failure_detection(values, wrong, self._resamples, self._seed).to_json(),
            "selective": [{"target_coverage": c, **chosen.to_json()} for c, chosen in by_coverage.items()],
            "attacks": {
                record["key"]: {
                    **self._detects(self._paired(name, seen), scores[name], paired=True),
                    "far": selective(scores[name], seen.wrong, self.thresholds[name]).false_accept_rate.to_json(),
                }
                for record, seen, scores in attacks
                if record["epsilon"] in (self.plan.epsilon, RESEARCH_EPSILON)
            },
            "ood": {
                each: {**self._detects(values, scores[name]), "accepted": self._accepted(name, scores[name])}
                for each, _, scores in foreign
            },
            "corruptions": self._over_corruptions(name, corrupted),
        }

    def _detects(self, others: Floats, positives: Floats, paired: bool = False) -> dict[str, Any]:
        found = detection(others, positives, paired=paired, resamples=self._resamples, seed=self._seed)
        return {"auroc": found.auroc.to_json(), "fpr95": found.fpr95.to_json()}

    def _accepted(self, name: str, scores: Floats) -> dict[str, Any]:
        """Share of frames that the score's threshold lets through."""
        return proportion(int(accepts(scores, self.thresholds[name]).sum()), len(scores)).to_json()

    def _over_corruptions(self, name: str, corrupted: Sequence[Any]) -> dict[str, Any]:
        if not corrupted:
            return {}
        scores = np.concatenate([each[3][name] for each in corrupted])
        wrong = np.concatenate([each[2].wrong for each in corrupted])
        passed, sets = accepts(scores, self.thresholds[name]), len(corrupted)
        auroc, far, errors = same_images(scores, wrong, passed, sets, self._resamples, self._seed)
        return {"auroc": auroc.to_json(), "far": far.to_json(), "errors_accepted": errors.to_json()}

    def _at_gate(self, seen: Observations, scores: Mapping[str, Floats]) -> dict[str, Any]:
        chosen = selective(scores["entropy"], seen.wrong, self.thresholds["entropy"])
        return {
            "n": len(seen),
            "accuracy": accuracy(seen.wrong).to_json(),
            "coverage": chosen.coverage.to_json(),
            "false_accept_rate": chosen.false_accept_rate.to_json(),
            "errors_accepted": chosen.errors_accepted.to_json(),
        }

    def _attack(self, record: dict[str, Any], seen: Observations, scores: Mapping[str, Floats]) -> dict[str, Any]:
        found = self._at_gate(seen, scores)
        return {**record, **found, "accepted_wrong": found["false_accept_rate"], "confusion": confusion(seen)}

    def _epsilon_curve(self, attacks: Sequence[Any]) -> Iterator[dict[str, Any]]:
        for name in ("FGSM", "PGD"):
            clean = self.clean.subset(slice(0, self.plan.fgsm))
            at_zero = self._at_gate(clean, {"entropy": self.clean_scores["entropy"][: len(clean)]})
            yield {"attack": name.lower(), "epsilon": 0.0, **at_zero}
            for record, seen, scores in attacks:
                if record["name"] == name:
                    yield {"attack": name.lower(), "epsilon": record["epsilon"], **self._at_gate(seen, scores)}

    def _corruption(self, name: str, severity: int, seen: Observations, scores: Mapping[str, Floats]) -> dict[str, Any]:
        return {"name": name, "severity": severity, **self._at_gate(seen, scores)}

    def _foreign(self, name: str, seen: Observations, scores: Mapping[str, Floats]) -> dict[str, Any]:
        return {"name": name, "n": len(seen), "accepted": self._accepted("entropy", scores["entropy"])}

    def _adaptive(self) -> Iterator[dict[str, Any]]:
        for number, rule in enumerate(self.suite.acceptance_rules(self.temperature)):
            found = self.suite.adaptive(rule, self.plan.epsilon, number)
            n = len(found["evaded"])
            clean, attacked = (np.array(found[key], np.float64) for key in ("clean_scores", "scores"))
            yield {
                "score": rule.name,
                "epsilon": self.plan.epsilon,
                "steps": self.plan.adaptive_steps,
                "n": n,
                "threshold": rule.threshold,
                "misclassified": proportion(sum(found["misclassified"]), n).to_json(),
                "evaded": proportion(sum(found["evaded"]), n).to_json(),
                "plain_pgd_accepted": proportion(sum(found["plain_accepted"]), n).to_json(),
                "auroc": self._detects(clean, attacked, paired=True)["auroc"],
                "weightings": found["weightings"],
                "blind": found["blind"],
            }

    def _curves(self, scores: Sequence[Mapping[str, Any]]) -> list[str]:
        """The usual scores, the best of each other family at finding errors."""
        chosen = [name for name in _CURVES if name in self.fitted]
        for family in ("feature", "activation", "combined", "input"):
            members = [s for s in scores if s["family"] == family and s["failure"]["aurc"]["value"] is not None]
            if members:
                chosen.append(min(members, key=lambda s: s["failure"]["aurc"]["value"])["name"])
        return chosen

    def _entropy(self, seen: Observations) -> Floats:
        entropy: Floats = softmax_scores(seen.logits, self.temperature).entropy
        return entropy[np.isfinite(entropy)]

    def _histograms(self, attacks: Sequence[Any]) -> dict[str, Any]:
        edges = np.linspace(0, math.log(self.clean.logits.shape[1]), _BINS + 1)

        def counts(seen: Observations) -> list[int]:
            return [int(v) for v in np.histogram(self._entropy(seen), edges)[0]]

        return {
            "edges": edges.tolist(),
            "right": counts(self.clean.subset(~self.clean.wrong)),
            "wrong": counts(self.clean.subset(self.clean.wrong)),
            "attacked": {r["key"]: counts(seen) for r, seen, _ in attacks if r["epsilon"] == self.plan.epsilon},
        }

    def _layerwise(self, attacks: Sequence[Any]) -> list[dict[str, Any]]:
        main = [(r["key"], seen) for r, seen, _ in attacks if r["epsilon"] == self.plan.epsilon]
        rows = []
        for tap, values in self.clean.taps.items():
            rows.append(
                {
                    "tap": tap,
                    "clean": _quantiles(values),
                    "attacked": {key: _quantiles(seen.taps[tap]) for key, seen in main},
                    "auroc": {
                        key: self._detects(values[: len(seen)], seen.taps[tap], paired=True)["auroc"]
                        for key, seen in main
                    },
                }
            )
        return rows


def confusion(seen: Observations) -> list[list[int]]:
    """Rows: labels; columns: predictions. Frames without finite logits are left out."""
    classes = seen.logits.shape[1]
    known = (seen.labels >= 0) & (seen.predicted >= 0)
    pairs = seen.labels[known] * classes + seen.predicted[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).tolist()


def _quantiles(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
    finite = values[np.isfinite(values)]
    names = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
    return {name: float(np.quantile(finite, q)) if len(finite) else None for name, q in names.items()}
