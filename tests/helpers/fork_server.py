"""Many child processes that import the same: forked from one that has imported it, instead of started anew.

Each is a process of its own, with its own driver, engine, environment and end; only the half second of imports is
shared. What the loader reads when a process starts (LD_LIBRARY_PATH) is the same for all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = """
import json, os, sys
exec(sys.argv[1], {"__name__": "imported"})
while line := sys.stdin.readline():
    job = json.loads(line)
    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"only one thread would be in the forked process: {threads}"
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.chdir(job["folder"])
os.environ.update(job["environment"])
sys.argv = ["-c", *job["arguments"]]
for number, path, flags in (
    (0, os.devnull, os.O_RDONLY),
    (1, job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    (2, job["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
):
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, number)
    os.close(opened)
exec(compile(job["code"], "<string>", "exec"), {"__name__": "__main__"})
"""


class ForkServer:
    """A process that has run `imports` and is forked for every `run`; to be closed.

    Args:
        imports: Python code; it must leave no thread behind.
        environment: Of all processes, where a run does not say otherwise.
    """

    def __init__(self, imports: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )

    def run(
        self, code: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run code as ``python -c`` would, in a folder: exit code, standard output and standard error."""
        out, err = folder / "forked.out", folder / "forked.err"
        job = {
            "code": code,
            "arguments": list(arguments),
            "folder": str(folder),
            "environment": dict(environment),
            "out": str(out),
            "err": str(err),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the process that is forked has ended"
        return subprocess.CompletedProcess(["python", *arguments], int(answer), out.read_text(), err.read_text())

    def close(self) -> None:
        """End the process, and wait for its end."""
        self._process.communicate(timeout=60)
