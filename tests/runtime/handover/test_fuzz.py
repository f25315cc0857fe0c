"""The receiver in Python and the one in C under bytes that nobody meant, from one corpus (tests/fuzz)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from handover_inputs import CORPUS, FUZZ, config, messages, require_safe
from handover_tape import HEADERS, RUNNER, WARNINGS, c_compiler, compile_c, config_line, play_in_c, play_in_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repository import ROOT

from framegate.runtime.handover.reading import MS


@st.composite
def changed(draw) -> bytes:
    """An input of the corpus with some bytes changed, taken away, doubled or put in."""
    data = bytearray(draw(st.sampled_from(CORPUS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(data) - 1))
        what = draw(st.sampled_from(("set", "flip", "cut", "double", "insert")))
        if what == "set":
            data[place] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
        elif what == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut" and len(data) > 1:
            del data[max(place, 1) : place + draw(st.integers(1, 160))]
        elif what == "double":
            data[place:place] = data[place : place + draw(st.integers(1, 300))]
        else:
            data[place:place] = draw(st.binary(max_size=20))
    return bytes(data)


@given(changed())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_arrives_nothing_is_usable_that_should_not_be(data):
    require_safe(data)


@given(st.binary(min_size=1, max_size=600))
@settings(deadline=None)
def test_nor_under_bytes_without_any_meaning(data):
    require_safe(data)


def as_tape(data: bytes) -> list[str]:
    tape = [config_line(**config(data[0]))]
    for now, raw in messages(data):
        tape += [f"F {now} {raw.hex()}", f"R {now}", f"R {now + 60 * MS}", f"L {now}"]
    return tape


def test_both_receivers_say_the_same_about_the_corpus_and_its_relatives(tmp_path):
    compiler = c_compiler()
    if compiler is None:
        pytest.skip("no C compiler is installed")
    runner = compile_c(RUNNER, tmp_path / "runner", compiler)

    @given(st.lists(changed(), min_size=1, max_size=4))
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def same(inputs):
        tape = [line for data in inputs for line in as_tape(data)]
        found, expected = play_in_c([str(runner)], tape), play_in_python(tape)
        assert all(one == other for one, other in zip(found, expected, strict=True))

    same()
    assert any(line.startswith("R 1") for data in CORPUS for line in play_in_python(as_tape(data)))


WITH = ("-std=c11", "-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")


def compiled(compiler: str, to: Path) -> Path:
    """The fuzz target."""
    command = [compiler, *WITH, *WARNINGS, f"-I{HEADERS}", str(FUZZ / "handover_fuzz.c"), "-o", str(to)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "libclang_rt" in built.stderr:
        pytest.skip(f"{compiler} has no libFuzzer here")
    assert built.returncode == 0, built.stderr
    return to


def require_nothing_found(command: list[str], tmp_path: Path, **environment: str) -> str:
    """Run a fuzzer for some seconds. Returns what it says."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
        cwd=tmp_path,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.slow
def test_libfuzzer_finds_nothing_in_a_few_seconds(tmp_path):
    if not shutil.which("clang"):
        pytest.skip("clang is not installed")
    target = compiled("clang", tmp_path / "fuzz")
    (tmp_path / "new").mkdir()
    options = ["-max_total_time=4", f"-artifact_prefix={tmp_path}/", str(tmp_path / "new"), str(FUZZ / "corpus")]
    require_nothing_found([str(target), *options], tmp_path)


@pytest.mark.long
@pytest.mark.slow
def test_afl_finds_nothing_in_some_seconds(tmp_path):
    if not (shutil.which("afl-fuzz") and shutil.which("afl-clang-fast")):
        pytest.skip("AFL++ is not installed: apt-get install afl++")
    target = compiled("afl-clang-fast", tmp_path / "fuzz")
    free = dict.fromkeys(
        ("AFL_NO_UI", "AFL_SKIP_CPUFREQ", "AFL_NO_AFFINITY", "AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES"), "1"
    )
    found = tmp_path / "found"
    command = ["afl-fuzz", "-V", "10", "-m", "none", "-i", str(FUZZ / "corpus"), "-o", str(found), "--", str(target)]
    require_nothing_found(command, tmp_path, **free)
    stats = dict(
        line.split(":", 1) for line in (found / "default/fuzzer_stats").read_text().splitlines() if ":" in line
    )
    facts = {name.strip(): value.strip() for name, value in stats.items()}
    assert int(facts["execs_done"]) > 100
    assert (facts["saved_crashes"], facts["saved_hangs"]) == ("0", "0")


@pytest.mark.long
@pytest.mark.slow
def test_atheris_finds_nothing_in_the_receiver_in_python_in_some_seconds(tmp_path):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    (tmp_path / "new").mkdir()
    options = ["-max_total_time=10", f"-artifact_prefix={tmp_path}/", str(tmp_path / "new"), str(FUZZ / "corpus")]
    said = require_nothing_found([sys.executable, str(FUZZ / "handover_fuzz.py"), *options], tmp_path)
    assert "Done" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["framegate_objects.h"])
def test_misra_c_2012_is_kept_but_for_the_deviations_that_are_written_down(tmp_path, name):
    if not shutil.which("cppcheck"):
        pytest.skip("cppcheck is not installed: apt-get install cppcheck")
    source = tmp_path / "use.c"
    source.write_text(f'#include "{name}"\n')
    options = ["--std=c11", "--addon=misra", "--enable=style", "--suppress=missingIncludeSystem", "--quiet"]
    command = ["cppcheck", *options, "--template={id}", f"-I{HEADERS}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    if "misra" in done.stderr and "Failed" in done.stderr:
        pytest.skip("cppcheck has no MISRA addon here")
    found = set(done.stderr.split())
    text = (ROOT / "docs/handover.md").read_text(encoding="utf-8")
    allowed = {f"misra-c2012-{rule}" for rule in re.findall(r"^\| rule ([0-9.]+) \|", text, re.MULTILINE)}
    assert found == allowed
