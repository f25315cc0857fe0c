"""Faults are injected where asked, and the health check sees those that it can see."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.faults.inject import KINDS, ONE_SEVERITY, Fault, FaultInjector, fault_kinds, parse_faults
from framegate.runtime.faults.plugins import plugin_kinds
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.sources.base import BaseSource, Source
from framegate.runtime.sources.synthetic import SyntheticSource, read_frame_number
from framegate.runtime.verdict import Frame, Image, Reason

SIZE = (320, 240)
OWN = sorted(set(fault_kinds()) - set(plugin_kinds()))
"""Faults that the runtime makes itself."""


class Recorded(BaseSource):
    """Synthetic frames whose arrays the test keeps, to see whether anybody wrote to them."""

    def __init__(self, count: int, fails: bool = False) -> None:
        super().__init__("recorded", frame_size=SIZE, length=count)
        self.given: list[Frame] = []
        self._real = SyntheticSource(*SIZE, frames=count, realtime=False)
        self._fails = fails

    def _produce(self, frame_id: int) -> Frame | None:
        frame = self._real.read()
        if frame is not None:
            self.given.append(frame)
        elif self._fails:
            raise SourceError("unplugged")
        return frame


def drain(source: Source) -> list[Frame]:
    return [frame for frame in iter(source.read, None) if frame is not None]


def inject(text: str, count: int) -> tuple[list[Frame], list[Frame]]:
    """The frames of the source, and what became of them."""
    source = Recorded(count)
    with FaultInjector(source, parse_faults(text)) as injector:
        arrived = drain(injector)
    return source.given, arrived


def same(one: Image, other: Image) -> bool:
    return np.array_equal(one, other)


def test_parse_single_frames_and_ranges_in_any_order() -> None:
    assert parse_faults(" freeze:20-25, black:10-15 ,size:30") == (
        Fault("black", 10, 15),
        Fault("freeze", 20, 25),
        Fault("size", 30, 30),
    )
    assert parse_faults("") == ()
    assert parse_faults("black:0") == (Fault("black", 0, 0),)
    assert parse_faults("black:3-3") == (Fault("black", 3, 3),)


def test_a_fault_prints_as_it_was_typed() -> None:
    text = "black:10-15,freeze:20-25,grey16:30"
    assert ",".join(map(str, parse_faults(text))) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("melt:40", "unknown kind 'melt'"),
        ("black", "expected KIND:FRAME"),
        ("black:", "expected KIND:FRAME"),
        ("black:x", "expected KIND:FRAME"),
        ("black:-3", "expected KIND:FRAME"),
        ("black:3-", "expected KIND:FRAME"),
        ("black:3-4-5", "expected KIND:FRAME"),
        ("black:1.5", "expected KIND:FRAME"),
        ("black:10,", "expected KIND:FRAME"),
        ("black:9-8", "must count upwards"),
        ("black:10-15,size:15", "overlaps"),
        ("size:12,black:10-15", "overlaps"),
        ("black:4,black:4", "overlaps"),
        ("freeze:0-5", "no good frame before frame 0"),
        ("black:0-3,freeze:4", "no good frame before frame 4"),
        ("stuck:0-5:2", "no good frame before frame 0"),
        ("torn:0", "no good frame before frame 0"),
        ("blur:3-4:", "expected KIND:FRAME"),
        ("blur:3-4:x", "expected KIND:FRAME"),
        ("blur:3-4:2:1", "expected KIND:FRAME"),
    ],
)
def test_bad_faults_are_wrong_usage_and_list_the_kinds(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_faults(text)
    assert f"kinds are {', '.join(fault_kinds())}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("blur:3-4:0", "severity 0; expected 1 to 5"),
        ("blur:3-4:6", "severity 6; expected 1 to 5"),
        ("black:3-4:2", "black has no severity"),
        ("size:3:3", "size has no severity"),
    ],
)
def test_a_severity_must_make_sense(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_faults(text)


def test_a_severity_is_read_and_printed() -> None:
    assert parse_faults("blur:3-4:5, noise:7:1,fog:9") == (
        Fault("blur", 3, 4, 5),
        Fault("noise", 7, 7, 1),
        Fault("fog", 9, 9, 3),
    )
    text = "blur:3-4:5,noise:7:1,fog:9"
    assert ",".join(map(str, parse_faults(text))) == text


def test_the_injector_checks_faults_that_were_not_parsed() -> None:
    with pytest.raises(UsageError, match="unknown kind"):
        FaultInjector(Recorded(1), [Fault("melt", 1, 2)])
    with pytest.raises(UsageError, match="severity 7"):
        FaultInjector(Recorded(1), [Fault("fog", 1, 2, 7)])
    with pytest.raises(UsageError, match="count upwards"):
        FaultInjector(Recorded(1), [Fault("black", -2, 2)])


def test_attributes_are_those_of_the_source() -> None:
    source = SyntheticSource(640, 480, fps=12, frames=7)
    injector = FaultInjector(source, parse_faults("black:1"))
    for name in ("name", "live", "frame_size", "fixed_size", "fps", "length"):
        assert getattr(injector, name) == getattr(source, name)


@pytest.mark.parametrize("kind", OWN)
def test_only_the_named_frames_change_and_ids_and_times_stay(kind: str) -> None:
    given, arrived = inject(f"{kind}:3-5", 9)
    assert [frame.frame_id for frame in arrived] == list(range(9))
    assert [frame.captured_ns for frame in arrived] == [frame.captured_ns for frame in given]
    assert [k for k in range(9) if not same(given[k].image, arrived[k].image)] == [3, 4, 5]


@pytest.mark.parametrize("kind", OWN)
def test_the_source_s_own_arrays_are_left_alone(kind: str) -> None:
    given, arrived = inject(f"{kind}:3-5", 9)
    assert [read_frame_number(frame.image) for frame in given] == list(range(9))
    for k in (3, 4, 5):
        assert not any(np.shares_memory(arrived[k].image, frame.image) for frame in given)
        assert not np.shares_memory(arrived[k].image, arrived[k - 1].image)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("black:20-30", Reason.BLACK),
        ("freeze:20-30", Reason.FROZEN),
        ("stuck:20-30:1", Reason.FROZEN),
        ("saturated:20-30:1", Reason.SATURATED),
        ("contrast:20-30:2", Reason.LOW_CONTRAST),
        ("compression:20-30:5", Reason.NOISY),
        ("noise:20-30:4", Reason.NOISY),
        ("channel:20-30", Reason.COLOUR_LOST),
        ("half:20-30:1", Reason.TORN),
        ("size:20-30", Reason.WRONG_SIZE),
        ("grey16:20-30", Reason.BAD_INPUT),
    ],
)
def test_health_rejects_exactly_the_faulty_frames(fault: str, reason: Reason) -> None:
    _, arrived = inject(fault, 40)
    health = CameraHealth(SIZE)
    rejected = {frame.frame_id: tuple(health.check(frame.image)) for frame in arrived}
    assert [k for k, reasons in rejected.items() if reasons] == list(range(20, 31))
    assert all(reason in rejected[k] for k in range(20, 31))


@pytest.mark.parametrize("kind", [kind for kind in OWN if kind not in ONE_SEVERITY])
def test_a_higher_severity_changes_more(kind: str) -> None:
    def change(severity: int) -> float:
        given, arrived = inject(f"{kind}:3:{severity}", 4)
        return float(np.abs(given[3].image.astype(int) - arrived[3].image).mean())

    changes = [change(severity) for severity in range(1, 6)]
    assert changes[0] > 0
    assert changes == sorted(changes)


@pytest.mark.parametrize("kind", OWN)
def test_the_same_fault_gives_the_same_pixels(kind: str) -> None:
    one, two = (inject(f"{kind}:3-4", 6)[1] for _ in range(2))
    assert len(one) == 6
    assert all(same(a.image, b.image) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", ["noise", "stuck", "rain"])
def test_noise_is_another_in_every_frame(kind: str) -> None:
    _, arrived = inject(f"freeze:2,{kind}:3-4", 6)
    assert not same(arrived[3].image, arrived[4].image)


def test_what_each_fault_does() -> None:
    given, arrived = inject("black:1,size:2,grey16:3,freeze:5", 6)
    assert arrived[1].image.shape == given[1].image.shape
    assert not arrived[1].image.any()
    assert arrived[2].image.shape == (120, 160, 3)
    assert arrived[3].image.dtype == np.uint16
    assert arrived[3].image.shape == (240, 320)
    assert arrived[3].image.max() > 255
    assert same(arrived[5].image, given[4].image)


def test_freeze_repeats_the_last_good_frame_not_a_faulty_one() -> None:
    given, arrived = inject("freeze:3-4,black:5-6,freeze:7-8", 10)
    for k in (3, 4, 7, 8):
        assert same(arrived[k].image, given[2].image)
        assert arrived[k].frame_id == k
        assert arrived[k].captured_ns == given[k].captured_ns
    assert same(arrived[9].image, given[9].image)


def test_drawing_on_a_frame_does_not_thaw_the_next() -> None:
    source = Recorded(6)
    injector = FaultInjector(source, parse_faults("freeze:2-5"))
    pictures = []
    while (frame := injector.read()) is not None:
        pictures.append(frame.image.copy())
        frame.image[:] = frame.frame_id
    assert len(pictures) == 6
    assert all(same(picture, pictures[1]) for picture in pictures[2:])


def test_a_source_already_read_from_freezes_at_the_first_frame_seen() -> None:
    source = Recorded(6)
    for _ in range(3):
        source.read()
    arrived = drain(FaultInjector(source, parse_faults("freeze:2-4")))
    assert [frame.frame_id for frame in arrived] == [3, 4, 5]
    assert [read_frame_number(frame.image) for frame in arrived] == [3, 3, 5]


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("shape", [(0, 0, 3), (1, 1, 3), (20, 30), (20, 30, 4), (20, 30, 1)])
def test_odd_images_do_not_break_the_injector(kind: str, shape: tuple[int, ...]) -> None:
    class Odd(BaseSource):
        def _produce(self, frame_id: int) -> Frame | None:
            return Frame(frame_id, frame_id, np.full(shape, 7, np.uint8)) if frame_id < 3 else None

    assert len(drain(FaultInjector(Odd("odd"), parse_faults(f"{kind}:1")))) == 3


def test_the_table_of_kinds_can_be_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "invert", lambda image, severity, frame_id: 255 - image)
    given, arrived = inject("invert:1", 3)
    assert same(arrived[1].image, 255 - given[1].image)
    assert "invert" in fault_kinds()


def test_a_broken_source_stays_broken() -> None:
    injector = FaultInjector(Recorded(2, fails=True), parse_faults("black:0"))
    assert injector.read() is not None
    assert injector.read() is not None
    for _ in range(2):
        with pytest.raises(SourceError, match="unplugged"):
            injector.read()


def test_close_reaches_the_blocked_source() -> None:
    injector = FaultInjector(SyntheticSource(*SIZE, fps=0.01), parse_faults("black:1"))
    assert injector.read() is not None
    results: list[Frame | None] = []
    thread = threading.Thread(target=lambda: results.append(injector.read()), daemon=True)
    thread.start()
    injector.close()
    thread.join(20.0)
    assert results == [None]
