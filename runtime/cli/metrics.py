"""``--metrics HOST:PORT``: counters of a running pipeline in the text format of Prometheus, at ``/metrics``.

https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4. Nothing is sent anywhere: whoever asks gets
an answer, and only on this machine unless another address was given.
"""

from __future__ import annotations

import argparse
import math
import threading
from collections.abc import Callable, Iterator, Mapping

from framegate.runtime.console import note
from framegate.runtime.errors import UsageError
from framegate.runtime.stats import PipelineStats

DEFAULT = "127.0.0.1:9464"
LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Upper ends of the latency histogram, in seconds."""
Stats = Callable[[], Mapping[str, PipelineStats]]


def add_metrics_option(parser: argparse.ArgumentParser) -> None:
    """``--metrics``: where to answer."""
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help=f"answer http://HOST:PORT/metrics with counters for Prometheus, e.g. {DEFAULT}; other machines reach it "
        "only if HOST is not a loopback address (default: no)",
    )


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _line(name: str, value: float, **labels: str) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    shown = f"{value:.9g}" if isinstance(value, float) else str(value)
    return f"framegate_{name}{{{inside}}} {shown}"


def _counts(stats: Mapping[str, PipelineStats]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, type, help and lines of each metric."""
    items = list(stats.items())
    for name, about, count_name in (
        ("frames_captured_total", "Frames that the source delivered", "captured"),
        ("frames_dropped_total", "Frames overwritten by newer ones before they were judged", "dropped"),
        ("frames_judged_total", "Frames judged", "frames"),
        ("results_unread_total", "Results that the consumer did not take in time", "unread"),
    ):
        yield name, "counter", about, [_line(name, getattr(each, count_name), source=source) for source, each in items]
    streams = [(source, region, each) for source, all_ in items for region, each in list(all_.streams.items())]
    yield (
        "verdicts_total",
        "counter",
        "Verdicts given",
        [
            _line("verdicts_total", count, source=source, region=region, verdict=verdict)
            for source, region, each in streams
            for verdict, count in (("ACCEPT", each.accepted), ("REJECT", each.evaluated - each.accepted))
        ],
    )
    yield (
        "rejected_total",
        "counter",
        "Rejected verdicts by reason; one verdict can have several",
        [
            _line("rejected_total", count, source=source, region=region, reason=reason)
            for source, region, each in streams
            for reason, count in sorted(dict(each.reasons).items())
        ],
    )
    yield (
        "silences_total",
        "counter",
        "Silences reported in place of verdicts",
        [
            _line("silences_total", count, source=source, reason=reason)
            for source, each in items
            for reason, count in sorted(dict(each.silences).items())
        ],
    )
    for name, kind, about, count_name in (
        ("drift", "gauge", "1 while the stream has drifted from the calibration", "drifting"),
        ("drift_alarms_total", "counter", "How often DRIFT began", "drift_alarms"),
    ):
        yield name, kind, about, [_line(name, int(getattr(e, count_name)), source=s, region=r) for s, r, e in streams]


def _latency(stats: Mapping[str, PipelineStats]) -> list[str]:
    name = "latency_seconds"
    lines = []
    for source, each in stats.items():
        histogram = each.latency
        below, count, total = histogram.below_s(LATENCY_S)
        for end, number in zip((*LATENCY_S, math.inf), (*below, count), strict=True):
            shown = "+Inf" if math.isinf(end) else f"{end:g}"
            lines.append(_line(f"{name}_bucket", number, source=source, le=shown))
        lines += [_line(f"{name}_sum", total, source=source), _line(f"{name}_count", count, source=source)]
    return lines


def metrics_text(stats: Mapping[str, PipelineStats]) -> str:
    """All metrics of all sources.

    Args:
        stats: Source -> what its pipeline has done so far.
    """
    found = []
    for name, kind, about, lines in _counts(stats):
        found += [f"# HELP framegate_{name} {about}.", f"# TYPE framegate_{name} {kind}", *lines]
    found += ["# HELP framegate_latency_seconds Capture to verdict.", "# TYPE framegate_latency_seconds histogram"]
    return "\n".join([*found, *_latency(stats), ""])


class MetricsServer:
    """Answers in threads of its own, until `close`. Use as a context manager.

    Args:
        address: ``HOST:PORT``.
        stats: Gives source -> counts, at any time and from any thread.

    Raises:
        UsageError: The address cannot be used.
    """

    def __init__(self, address: str, stats: Stats) -> None:
        host, colon, port = address.rpartition(":")
        if not colon or not host.strip("[]") or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"--metrics {address}: expected HOST:PORT, e.g. {DEFAULT}")

        # Loaded only here, because most runs serve no metrics and would start later.
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404, "framegate answers /metrics only")
                    return
                body = metrics_text(stats()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing: standard error belongs to the run."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing, either: whoever asks may hang up whenever he likes."""

        try:
            host.encode("idna")  # bind says TypeError of a name that no host can have
            self._server = Server((host.strip("[]"), int(port)), Handler)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "no host can have this name"
            raise UsageError(f"--metrics {address}: cannot listen there ({why})") from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="framegate-metrics", daemon=True).start()
        note(f"framegate: metrics at http://{host}:{self.port}/metrics")

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
