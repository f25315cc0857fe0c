"""The progress of a whole export: one bar that only goes forward."""

from __future__ import annotations

from framegate.export.progress import Stages, whole_export


def test_stages_of_one_name_follow_each_other_and_the_bar_never_goes_back() -> None:
    seen: list[tuple[int, int]] = []
    stages = Stages(lambda text, done, total: seen.append((done, total)), [("read", 10), ("a.*fp32", 100), ("b", 50)])
    for text, done, total in (("read", 1, 2), ("read", 2, 2), ("other work", 1, 3), ("a 1, fp32", 1, 4), ("b", 5, 5)):
        stages(text, done, total)
    assert seen == [(5, 160), (10, 160), (10, 160), (35, 160), (160, 160)]
    stages("read", 1, 2)  # again, late
    assert seen[-1] == (160, 160)


def test_an_export_ends_at_its_end_with_and_without_int8() -> None:
    for with_int8 in (True, False):
        seen: list[tuple[int, int]] = []
        progress = whole_export(lambda text, done, total: seen.append((done, total)), 1000, 500, with_int8)  # noqa: B023
        for precision in ("fp32", *(["int8"] if with_int8 else [])):
            progress("onnxruntime 1.0, prepared", 1000, 1000)
            progress(f"openvino 1, {precision}", 1000, 1000)
            progress(f"onnxruntime 1, {precision}", 64, 64)
        assert seen[-1][0] == seen[-1][1]
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)
