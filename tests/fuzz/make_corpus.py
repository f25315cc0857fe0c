"""Writes tests/fuzz/corpus: each scenario of tests/golden/handover_scenarios.txt that reaches something new, as input.

PYTHONPATH=tests/helpers python tests/fuzz/make_corpus.py
"""

from __future__ import annotations

from pathlib import Path

from handover_tape import play_in_python, scenarios

FOLDER = Path(__file__).parent / "corpus"
UNIT_NS = 2_000_000


def as_input(tape: list[str]) -> bytes:
    """A tape's messages in the format of handover_fuzz.c."""
    flags = (1 if "key=" in tape[0] else 0) | (2 if "clock_domain=9" in tape[0] else 0) | 4
    out, before = bytearray([flags]), 1_000_000_000
    for line in tape:
        kind, *rest = line.split()
        if kind == "F":
            data = bytes.fromhex(rest[1]) if len(rest) > 1 else b""
            wait = min(max((int(rest[0]) - before) // UNIT_NS, 0), 255)
            before += wait * UNIT_NS
            out += bytes([wait, len(data)]) + data
    return bytes(out)


def main() -> None:
    """One file for each new set of answers."""
    FOLDER.mkdir(exist_ok=True)
    seen: set[str] = set()
    for number, scenario in enumerate(scenarios()):
        answers = {line.split()[1] for line in play_in_python(scenario.tape) if line.startswith("F")}
        if not answers <= seen:
            seen |= answers
            (FOLDER / f"{number:02}").write_bytes(as_input(scenario.tape))


if __name__ == "__main__":
    main()
