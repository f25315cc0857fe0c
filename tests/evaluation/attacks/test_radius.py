"""One name for every radius: in reports, in the keys of attacks and on the command line."""

from __future__ import annotations

import math

import pytest

from framegate.evaluation.attacks.radius import epsilon_text, levels_text, parse_epsilon
from framegate.evaluation.report.files import rounded
from framegate.evaluation.report.values import NOT_MEASURED, radius
from framegate.evaluation.suite.plan import PLANS, attack_key
from framegate.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("epsilon", "name"),
    [(8 / 255, "8/255"), (0.2, "51/255"), (1.0, "255/255"), (0.0, "0/255"), (0.03, "0.03"), (0.1, "0.1")],
)
def test_whole_grey_levels_are_named_as_such(epsilon, name):
    assert epsilon_text(epsilon) == name
    assert radius(epsilon).text == name


def test_a_radius_that_a_record_has_rounded_keeps_its_name():
    for level in range(1, 256):
        assert epsilon_text(rounded(level / 255)) == f"{level}/255"
        assert parse_epsilon(f"{rounded(level / 255)}") == level / 255 == parse_epsilon(f"{level}/255")


def test_radii_between_two_grey_levels_are_not_rounded():
    assert epsilon_text(7.99 / 255) == f"{7.99 / 255:g}"
    assert parse_epsilon("0.0313") == 0.0313
    assert levels_text(8 / 255 / 6) == "1.333/255"


def test_every_radius_of_a_plan_has_its_own_key():
    plan = PLANS["quick"]
    assert len({attack_key(plan.fgsm_settings(epsilon)) for epsilon in plan.curve}) == len(plan.curve)


def test_what_is_no_radius():
    assert radius(None).text == NOT_MEASURED
    assert epsilon_text(math.nan) == "nan"
    assert epsilon_text(math.inf) == "inf"
    assert math.isnan(parse_epsilon("nan"))  # the plan refuses it
    for text in ("8/0", "eight", "", "8/255/2"):
        with pytest.raises(UsageError, match="expected a pixel distance"):
            parse_epsilon(text)
