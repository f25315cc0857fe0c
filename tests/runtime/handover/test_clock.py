"""Whose clock it is, in both languages."""

from __future__ import annotations

import subprocess

import pytest
from handover_tape import c_compiler, compile_c

from framegate.runtime.handover import clock

SAYS_THE_CLOCK = """
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
static FILE *opened(const char *path, const char *mode);
#define fopen opened
#include "framegate_posix.h"
#undef fopen
static const char *boot;
static FILE *opened(const char *path, const char *mode)
{
    (void)path;
    return fopen(boot, mode);
}
int main(int count, char **arguments)
{
    boot = arguments[count - 1];
    (void)printf("%llu", (unsigned long long)framegate_this_clock());
    return 0;
}
"""


@pytest.fixture
def boot_id(tmp_path, monkeypatch):
    """Sets what the system says."""
    file = tmp_path / "boot_id"
    monkeypatch.setattr(clock, "_BOOT", file)

    def says(text):
        file.write_text(text)
        clock.this_clock.cache_clear()
        return file

    yield says
    clock.this_clock.cache_clear()


@pytest.mark.parametrize("hidden", ["", "\n"])
def test_fault_a_boot_id_that_is_hidden_names_no_clock(boot_id, hidden):
    """A container may find an empty file; all machines that hide it would seem to have one clock."""
    boot_id(hidden)
    assert clock.this_clock() == 0
    boot_id("c5f1\n")
    assert clock.this_clock() != 0


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_fault_the_clock_in_c_is_the_one_in_python(boot_id, tmp_path):
    (tmp_path / "clock.c").write_text(SAYS_THE_CLOCK)
    program = compile_c(tmp_path / "clock.c", tmp_path / "clock", c_compiler(), "-Wno-unused-function")
    for text in ("", "\n", "c5f1\n"):
        file = boot_id(text)
        done = subprocess.run([str(program), str(file)], capture_output=True, text=True, check=True)
        assert int(done.stdout) == clock.this_clock()
