"""Certificates at run time: the patch proof attacked by brute force, and everything that must reject."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from certified_bundles import SIDE, SPEC, certified_bundle, patch_record, random_network
from repository import BUNDLES

from framegate.runtime import Reason, Session
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.bundle.masks import MaskGrid
from framegate.runtime.certificate import SLACK, CertificateNetwork, Certifier, find_certificate
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.policy.debounce import Debounce, check_rule
from framegate.runtime.policy.stream import Policy

BACKENDS = ["openvino", "onnxruntime"]


@pytest.mark.parametrize("seed", range(3))
def test_no_patch_at_any_place_gets_a_label_beyond_what_the_clean_image_allows(tmp_path, seed):
    """The proof's inclusion, attacked: thousands of patches, each place, the strongest of many contents."""
    masks = MaskGrid(SIDE, SIDE, 2, 4, 2)
    engine = load_backend("onnxruntime", random_network(tmp_path / "n.onnx", seed), 1)
    network = CertificateNetwork(patch_record(masks, SPEC), engine, 4)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    possible = network.view_means(image).max(0)
    moved = 0
    for top in range(SIDE - masks.patch + 1):
        for left in range(SIDE - masks.patch + 1):
            for _ in range(20):
                attacked = image.copy()
                attacked[top : top + 2, left : left + 2] = rng.choice([0, 255], (2, 2, 3))
                certified = network.certified(attacked)
                assert (certified <= possible + SLACK).all()
                moved += bool(np.abs(certified - network.certified(image)).max() > 1e-3)
    assert moved > 100  # the patches do reach the network


def test_a_larger_patch_than_the_budget_breaks_the_inclusion(tmp_path):
    """The test above can fail: patches that no mask hides get a label beyond what the clean image allows."""
    masks = MaskGrid(SIDE, SIDE, 1, 2, 2)
    engine = load_backend("onnxruntime", random_network(tmp_path / "n.onnx", 0), 1)
    network = CertificateNetwork(patch_record(masks, SPEC), engine, 4)
    rng = np.random.default_rng(0)
    image = rng.integers(100, 156, (SIDE, SIDE, 3)).astype(np.uint8)
    possible = network.view_means(image).max(0)
    beyond = False
    for _ in range(200):
        attacked = image.copy()
        attacked[:6, :6] = rng.choice([0, 255], (6, 6, 3))
        beyond = beyond or bool((network.certified(attacked) > possible + SLACK).any())
    assert beyond


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_patch_whose_pixels_are_resized_stays_within_what_is_counted(tmp_path, backend):
    masks = MaskGrid(SIDE, SIDE, 4, 6, 2)
    engine = load_backend(backend, random_network(tmp_path / "n.onnx", 5), 1)
    network = CertificateNetwork(patch_record(masks, SPEC), engine, 4)
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (11, 13, 3)).astype(np.uint8)
    possible = network.view_means(image).max(0)
    budget = max(p for p in range(1, 6) if network.covers(13, 11, p))
    assert budget >= 2
    for top in range(11 - budget + 1):
        for left in range(13 - budget + 1):
            for _ in range(4):
                attacked = image.copy()
                attacked[top : top + budget, left : left + budget] = rng.choice([0, 255], (budget, budget, 3))
                assert (network.certified(attacked) <= possible + SLACK).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_clear_image_is_accepted_with_a_certificate(make_bundle, coloured, backend):
    session = Session.open(certified_bundle(make_bundle()), backend, "fp32", certificate="patch:3")
    prediction = session.infer(coloured((250, 10, 10), width=32, height=32))
    assert prediction.accepted
    assert prediction.label == "blue"
    assert prediction.certificate is not None
    assert (prediction.certificate.kind, prediction.certificate.budget) == ("patch", 3)
    assert 0 > prediction.certificate.margin >= prediction.certificate.tau
    assert prediction.to_json()["certificate"]["budget"] == 3
    assert "at most 4.00% of all captured frames" in session.describe()
    assert "ms each" in session.describe()


@pytest.mark.parametrize("backend", BACKENDS)
def test_fault_a_stuck_network_certifies_no_other_frame(make_bundle, coloured, backend):
    """The bound of an old frame says nothing about this one."""
    session = Session.open(certified_bundle(make_bundle()), backend, "fp32", certificate="patch:3")

    def judged(seed):
        return session.infer(coloured((250, 10, 10), seed=seed, width=32, height=32))

    assert judged(0).accepted
    engine = session.certifier._network.engine
    works, held = engine.finish, engine.finish()
    engine.finish = lambda: held
    for seed in (1, 2):
        assert judged(seed).reasons == (Reason.BACKEND_FAULT,)
    engine.finish = works
    assert judged(3).accepted


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_patch_could_change_is_not_certified(make_bundle, coloured, backend):
    bundle = certified_bundle(make_bundle(threshold=1.09), tau=-0.01)  # the gate itself accepts almost everything
    image = coloured((150, 120, 120), width=32, height=32)
    assert Session.open(bundle, backend, "fp32").infer(image).accepted
    prediction = Session.open(bundle, backend, "fp32", certificate="patch:3").infer(image)
    assert prediction.reasons == (Reason.NOT_CERTIFIED,)
    assert "an attack of patch:3 could change it" in prediction.detail
    assert prediction.certificate.margin < prediction.certificate.tau


def test_without_a_demand_nothing_changes(make_bundle, coloured):
    prediction = Session.open(certified_bundle(make_bundle()), "onnxruntime", "fp32").infer(coloured((250, 10, 10)))
    assert prediction.accepted
    assert prediction.certificate is None
    assert "certificate" not in prediction.to_json()


def test_another_session_certifies_too(make_bundle, coloured):
    session = Session.open(certified_bundle(make_bundle()), "onnxruntime", "fp32", certificate="patch:3").another()
    assert session.infer(coloured((250, 10, 10), width=32, height=32)).certificate is not None


def test_fault_a_region_in_which_the_patch_is_larger_than_what_was_certified(make_bundle, coloured):
    session = Session.open(certified_bundle(make_bundle()), "onnxruntime", "fp32", certificate="patch:3")
    prediction = session.infer(coloured((250, 10, 10), width=18, height=18))  # three of 18 pixels touch eight of 32
    assert prediction.reasons == (Reason.NOT_CERTIFIED,)
    assert "more than patch:3 covers" in prediction.detail


def test_every_nth_frame_of_a_region(make_bundle, coloured):
    demand = Demand("patch", 3, every=3)
    session = Session.open(certified_bundle(make_bundle()), "onnxruntime", "fp32", certificate=demand, camera=False)
    found = [session.infer(coloured((250, 10, 10), seed=k, width=32, height=32)) for k in range(7)]
    assert [prediction.certificate is not None for prediction in found] == [True, False, False] * 2 + [True]
    assert "one frame in 3" in session.describe()


def test_fault_a_certificate_network_that_fails(make_bundle, coloured, monkeypatch):
    session = Session.open(certified_bundle(make_bundle()), "onnxruntime", "fp32", certificate="patch:3")

    def fail(self, crop):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(CertificateNetwork, "certified", fail)
    prediction = session.infer(coloured((250, 10, 10), width=32, height=32))
    assert prediction.reasons == (Reason.BACKEND_FAULT,)
    assert "out of memory" in prediction.detail


@pytest.mark.parametrize("margin", [math.nan, -math.inf])
def test_fault_a_margin_that_is_no_number(make_bundle, coloured, monkeypatch, margin):
    session = Session.open(certified_bundle(make_bundle()), "onnxruntime", "fp32", certificate="patch:3")
    monkeypatch.setattr(CertificateNetwork, "certified", lambda self, crop: np.full(3, margin))
    assert session.infer(coloured((250, 10, 10), width=32, height=32)).reasons == (Reason.NOT_CERTIFIED,)


def test_a_debounce_cannot_let_uncertified_frames_pass():
    with pytest.raises(UsageError, match="always rejects at once"):
        check_rule(Reason.NOT_CERTIFIED, Debounce(2, 3, 1))


@pytest.mark.parametrize(("tau", "accepted"), [(-0.7, True), (1.0, False)])
def test_a_frame_whose_soft_reason_waits_is_certified_like_any_other(make_bundle, blue_scene, tau, accepted):
    policy = Policy({Reason.BLURRED: Debounce(3, 5, 1)}, drift=False)
    session = Session.open(
        certified_bundle(make_bundle(), tau=tau), "onnxruntime", "fp32", policy=policy, certificate="patch:3",
        health=HealthThresholds(sharpness=1.0),
    )  # fmt: skip
    seen = [session.infer(blue_scene(k)) for k in range(4)]
    assert [Reason.BLURRED in each.found_reasons for each in seen] == [True] * 4
    assert [each.accepted for each in seen] == [accepted, accepted, False, False]
    assert all(each.certificate is not None for each in seen)
    assert all((Reason.NOT_CERTIFIED in each.reasons) is not accepted for each in seen)


def test_a_soft_reason_that_cannot_wait_costs_no_certificate(make_bundle, blue_scene):
    session = Session.open(
        certified_bundle(make_bundle()), "onnxruntime", "fp32", certificate="patch:3",
        health=HealthThresholds(sharpness=1.0),
    )  # fmt: skip
    seen = session.infer(blue_scene(0))
    assert (seen.reasons, seen.certificate) == ((Reason.BLURRED,), None)


@pytest.mark.parametrize(("text", "kind", "budget"), [("patch:5", "patch", 5), ("linf:2/255", "linf", 2),
                                                      ("linf:1.2/255", "linf", 2)])  # fmt: skip
def test_demands_are_read_and_rounded_up(text, kind, budget):
    assert (Demand.parse(text).kind, Demand.parse(text).budget) == (kind, budget)


@pytest.mark.parametrize("text", ["patch:0", "patch:-2", "patch:5/255", "linf:2", "linf:nan/255", "linf:inf/255", "l2"])
def test_demands_that_mean_nothing_are_refused(text):
    with pytest.raises(UsageError, match="expected"):
        Demand.parse(text)


def test_a_bundle_without_the_certificate_says_what_it_has(make_bundle):
    with pytest.raises(BundleError, match="it has none"):
        Session.open(make_bundle(), "onnxruntime", "fp32", certificate="patch:3")
    for text in ("patch:4", "linf:2/255"):
        with pytest.raises(BundleError, match="it has patch:3"):
            Session.open(certified_bundle(make_bundle()), "onnxruntime", "fp32", certificate=text)


def test_a_threshold_of_another_engine_is_refused(make_bundle):
    bundle = certified_bundle(make_bundle(), keys=("openvino/fp32",))
    with pytest.raises(BundleError, match="no threshold for onnxruntime/fp32, it has openvino/fp32"):
        Session.open(bundle, "onnxruntime", "fp32", certificate="patch:3")
    with pytest.raises(UsageError, match="run on openvino and onnxruntime"):
        Certifier(Bundle.open(bundle), Demand("patch", 3), "tensorrt")


def test_of_several_certificates_the_session_gets_the_one_of_its_precision(make_bundle):
    """The views in INT8 cost a third where the processor has instructions for it; what was proved for one is of one."""

    def also_int8(content):
        first = content["certificates"][0]
        int8 = {**first, "precision": "int8", "thresholds": {"openvino/int8": first["thresholds"]["openvino/fp32"]}}
        content["certificates"].insert(0, {**int8, "budget": first["budget"] + 1})
        content["certificates"].insert(0, int8)

    bundle, demand = Bundle.open(certified_bundle(make_bundle(), change=also_int8)), Demand("patch", 3)
    assert find_certificate(bundle, demand, "int8", "openvino").precision == "int8"
    assert find_certificate(bundle, demand, "fp16", "openvino").precision == "fp32"
    assert find_certificate(bundle, demand, "int8", "onnxruntime").precision == "fp32"
    assert find_certificate(bundle, demand).precision == "fp32"
    larger = find_certificate(bundle, Demand("patch", 4), "fp32", "openvino")
    assert (larger.budget, larger.precision) == (4, "int8")
    with pytest.raises(BundleError, match="no threshold for onnxruntime/int8"):
        Certifier(bundle, Demand("patch", 4), "onnxruntime")
    assert "openvino/int8" not in Certifier(bundle, demand, "openvino").describe()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(format="other"), "format"),
        (lambda c: c.update(labels_sha256="0" * 64), "other labels"),
        (lambda c: c["certificates"][0].update(network_sha256="0" * 64), "another model.fp32.onnx"),
        (lambda c: c["certificates"][0].update(masks=None), "lacks its masks"),
        (lambda c: c["certificates"][0]["masks"].update(side=7), "cannot be read.*uncovered"),
        (lambda c: c["certificates"][0]["thresholds"]["openvino/fp32"].update(tau=math.inf), "cannot be used"),
        (lambda c: c["certificates"][0]["thresholds"]["openvino/fp32"].update(risk_bound=0.2), "cannot be used"),
        (lambda c: c["certificates"][0]["thresholds"]["openvino/fp32"].update(units=180), "cannot be used"),
        (lambda c: c["certificates"][0]["thresholds"]["openvino/fp32"].update(events=11), "cannot be used"),
        (lambda c: c["certificates"][0]["thresholds"]["openvino/fp32"].update(units=400.5), "cannot be used"),
        (lambda c: c["certificates"][0].update(kind="linf", masks=None), "below 0 proves nothing"),
        (lambda c: c["certificates"][0].pop("preprocess"), "cannot be read"),
        (
            lambda c: c["certificates"][0]["thresholds"]["openvino/fp32"].update(engine="onnxruntime 1.2"),
            "proved on onnx",
        ),
        (lambda c: c.update(certificates=7), "lists no certificates"),
    ],
)
def test_fault_a_record_that_does_not_fit_is_refused(make_bundle, change, says):
    bundle = certified_bundle(make_bundle(), change=change)
    with pytest.raises(BundleError, match=says):
        Bundle.open(bundle)


def test_a_certificate_is_known_by_what_decides_and_not_by_what_lies_beside_it(make_bundle):
    def identity(change=None, tau=-0.7):
        bundle = Bundle.open(certified_bundle(make_bundle(), tau, change=change))
        return Certifier(bundle, Demand("patch", 3), "onnxruntime", 1).identity

    def beside(content):
        other = copy.deepcopy(content["certificates"][0])
        content["certificates"].append({**other, "budget": 2})

    def fewer_views(content):
        content["certificates"][0]["masks"]["side"] = 12

    plain = identity()
    assert re.fullmatch(r"patch:3 of [0-9a-f]{16}", plain)
    assert identity(beside) == plain
    assert len({plain, identity(fewer_views), identity(tau=-0.8)}) == 3


def test_of_several_against_l_infinity_that_is_taken_which_holds_for_resized_regions_too():
    """The resize may add a level, and regions of a camera are hardly ever of the network's own size."""
    bundle = Bundle.open(BUNDLES / "hybrid-gtsrb.bundle")
    one = Certifier(bundle, Demand("linf", 1), "onnxruntime", 1)
    assert all("is more than" not in " ".join(one.decide(image, 0)[1].values()) for image in pictures(32, 50))
    # Each size is held against its own threshold.
    taus = {each.budget: each.thresholds["onnxruntime/fp32"].tau for each in bundle.certificates if each.kind == "linf"}
    for certifier in (one, one.share()):
        assert [certifier.decide(image, 0)[0].tau for image in pictures(32, 50)] == [taus[1], taus[2]]
    assert "has not 32x32 pixels is held against linf:2/255" in one.describe()
    two = Certifier(replace(bundle, certificates=up_to(bundle, 2)), Demand("linf", 2), "onnxruntime", 1)
    assert two.identity != one.identity
    assert ["is more than" in two.decide(image, 0)[1][Reason.NOT_CERTIFIED] for image in pictures(32, 50)] == [
        False,
        True,
    ]


@pytest.mark.parametrize("change", [{"network_sha256": "0" * 64}, {"thresholds": {}}])
def test_of_two_networks_or_without_a_threshold_one_certificate_serves_all_sizes(change):
    bundle = Bundle.open(BUNDLES / "hybrid-gtsrb.bundle")
    one, two = sorted(up_to(bundle, 2), key=lambda each: each.budget)
    for changed in ((replace(one, **change), two), (one, replace(two, **change))):
        certifier = Certifier(replace(bundle, certificates=changed), Demand("linf", 1), "onnxruntime", 1)
        used = one if not changed[1].thresholds else two
        found = [certifier.decide(image, 0)[0] for image in pictures(32, 50)]
        assert found[0].tau == used.thresholds["onnxruntime/fp32"].tau
        assert found[1] is None if used is one else found[1].tau == found[0].tau
        assert "is held against" not in certifier.describe()


@pytest.mark.parametrize(
    "terms",
    [({}, {"unit": "track"}), ({"unit": "track"}, {"unit": "track"}), ({}, {"target_risk": 0.3}),
     ({}, {"confidence_level": 0.9, "risk_bound": 1 - 0.1 ** (1 / 168)})],
)  # fmt: skip
def test_of_certificates_of_tracks_or_with_other_terms_one_serves_all_sizes(terms):
    """A track may have regions of both sizes; and only one promise is printed."""
    bundle = Bundle.open(BUNDLES / "hybrid-gtsrb.bundle")
    both = []
    for record, change in zip(sorted(up_to(bundle, 2), key=lambda each: each.budget), terms, strict=True):
        changed = {key: replace(each, **change) for key, each in record.thresholds.items()}
        both.append(replace(record, thresholds=changed))
    once = both[1].thresholds["onnxruntime/fp32"].unit == "track"
    certifier = Certifier(replace(bundle, certificates=tuple(both)), Demand("linf", 1, once=once), "onnxruntime", 1)
    assert certifier.decide(pictures(32)[0], 0)[0].tau == both[1].thresholds["onnxruntime/fp32"].tau


def up_to(bundle, budget):
    return tuple(each for each in bundle.certificates if each.kind == "linf" and each.budget <= budget)


def pictures(*sides):
    return [np.full((side, side, 3), 90, np.uint8) for side in sides]
