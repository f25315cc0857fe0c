"""Tables for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from framegate.runtime.stats import PipelineStats


def stats_tables(stats: PipelineStats) -> list[Table]:
    """What a run did: one table by region, one of totals and latency."""
    regions = Table(title="Verdicts")
    for column, justify in (
        ("region", "left"),
        ("verdicts", "right"),
        ("accepted", "right"),
        ("coverage", "right"),
        ("accepted as", "left"),
        ("rejected because", "left"),
    ):
        regions.add_column(column, justify=justify, no_wrap=column == "region")  # type: ignore[arg-type]
    for name, stream in stats.streams.items():
        regions.add_row(
            name,
            str(stream.evaluated),
            str(stream.accepted),
            f"{stream.coverage:.1%}" if stream.evaluated else "-",
            counts(stream.labels),
            counts(stream.reasons),
        )
    regions.add_section()
    coverage = f"{stats.coverage:.1%}" if stats.evaluated else "-"
    regions.add_row("all", str(stats.evaluated), str(stats.accepted), coverage, "", counts(stats.rejected_by_reason))
    frames = Table(title=f"Latency in ms ({stats.captured} frames captured, {stats.dropped} dropped)")
    for column in ("", "p50", "p99", "p99.9", "max"):
        frames.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, histogram in (("capture to verdict", stats.latency), ("bare engine call, same run", stats.engine)):
        frames.add_row(name, *(f"{value:.2f}" for value in histogram.summary().values()))
    return [regions, frames]


def counts(counter: Mapping[str, int]) -> str:
    """``name count, name count``, most frequent first; ``-`` if there are none."""
    ordered = sorted(counter.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count}" for name, count in ordered) or "-"
