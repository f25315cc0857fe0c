"""Key files and data ids, as people write them: Python and C take the same ones, and read the same out of them."""

from __future__ import annotations

import subprocess

import pytest
from handover_tape import c_compiler, compile_c

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.protection import read_data_id, read_key

PROGRAM = r"""
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <string.h>
#include "framegate_posix.h"
int main(int count, char **words)
{
    framegate_config config = framegate_config_default(1u);
    uint32_t number = 0u;
    if (count == 3 && strcmp(words[1], "id") == 0) {
        if (!framegate_read_data_id(words[2], &number)) { return 1; }
        printf("%lu\n", (unsigned long)number);
        return 0;
    }
    if (count != 3 || framegate_read_key(words[2], &config) != NULL) { return config.key_size == 0u ? 1 : 2; }
    for (uint32_t i = 0u; i < config.key_size; ++i) { printf("%02x", (unsigned)config.key[i]); }
    printf("\n");
    return 0;
}
"""
ONE, TWO = bytes(range(32)).hex(), bytes(range(32, 64)).hex()
KEYS = {
    "a line": (f"{ONE}\n", ONE),
    "no end of the line": (ONE, ONE),
    "capitals": (f"{ONE.upper()}\n", ONE),
    "the shortest": (f"{ONE[:32]}\n", ONE[:32]),
    "the longest": (f"{ONE}{TWO}\n", ONE + TWO),
    "too short": (f"{ONE[:30]}\n", None),
    "too long": (f"{ONE}{TWO}00\n", None),
    "half a byte": (f"{ONE}0\n", None),
    "nothing": ("", None),
    "only an end of a line": ("\n", None),
    "two keys": (f"{ONE}\n{TWO}\n", None),
    "a second line of text": (f"{ONE}\nof the front camera\n", None),
    "an empty second line": (f"{ONE}\n\n", None),
    "an empty line before it": (f"\n{ONE}\n", None),
    "lines as Windows ends them": (f"{ONE}\r\n", None),
    "a space behind it": (f"{ONE} \n", None),
    "a space before it": (f" {ONE}\n", None),
    "spaces between its bytes": (bytes(range(32)).hex(" ") + "\n", None),
    "a mark of the byte order": (f"\ufeff{ONE}\n", None),
    "a zero byte": (f"{ONE}\0\n", None),
    "with 0x": (f"0x{ONE}\n", None),
    "digits of another script": ("\u0661" * 64 + "\n", None),
}
IDS = {
    "0": 0,
    "257": 257,
    "0x101": 0x101,
    "0X1fF": 0x1FF,
    "4294967295": 2**32 - 1,
    "0xffffffff": 2**32 - 1,
    "0x0101": 0x101,
    "00": None,
    "0101": None,
    "0b11": None,
    "0o7": None,
    "1_000": None,
    " 1": None,
    "1 ": None,
    "+1": None,
    "-1": None,
    "": None,
    "0x": None,
    "4294967296": None,
    "0x100000000": None,
    "1.0": None,
    "1e3": None,
    "\u0661": None,
    "\u00b2": None,
}


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> str | None:
    compiler = c_compiler()
    if compiler is None:
        return None
    folder = tmp_path_factory.mktemp("program")
    (folder / "reads.c").write_text(PROGRAM, encoding="ascii")
    return str(compile_c(folder / "reads.c", folder / "reads", compiler))


def in_c(program: str, *words: str) -> str | None:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)
    return done.stdout.strip() if done.returncode == 0 else None


@pytest.mark.parametrize("name", KEYS)
def test_a_key_file_is_read_alike_in_both_languages(tmp_path, program, name):
    text, expected = KEYS[name]
    path = tmp_path / "key"
    path.write_bytes(text.encode())
    path.chmod(0o600)
    if expected is None:
        with pytest.raises(UsageError, match="in one line, and nothing else"):
            read_key(path)
    else:
        assert read_key(path).hex() == expected
    if program is not None:
        assert in_c(program, "key", str(path)) == expected


@pytest.mark.parametrize("text", IDS)
def test_a_data_id_is_read_alike_in_both_languages(program, text):
    if IDS[text] is None:
        with pytest.raises(UsageError, match="is no data id"):
            read_data_id(text)
    else:
        assert read_data_id(text) == IDS[text]
    if program is not None:
        assert in_c(program, "id", text) == (None if IDS[text] is None else str(IDS[text]))
