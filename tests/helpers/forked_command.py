"""Processes of `framegate`, forked from one that has imported what the command needs instead of started anew.

A start takes nearly a second of processor time, and most of it are imports. A forked process is one of its own all the
same, with its own arguments, folder, environment, streams, signals, engines and end. What the interpreter and the
loader read when a process starts (PYTHON* and LD_* variables, threads of the pools) is the server's: a test of these
starts a process anew.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import socket
import subprocess
import sys
from typing import Any

THREAD_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RUN = "import framegate.runtime.cli.main, framegate.runtime.cli.run, framegate.runtime.backends.openvino_cpu"
"""What `framegate run` imports before it reads its options; no thread is left behind."""
_SERVER = """
import array, io, json, os, runpy, socket, sys

class Job(BaseException):
    pass

def serve(asked):
    keepers = 0
    while True:
        message, ancillary, *_ = asked.recvmsg(1 << 20, socket.CMSG_SPACE(4 * 4))
        while keepers and os.waitpid(-1, os.WNOHANG)[0]:
            keepers -= 1
        if not message:
            os._exit(0)
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        threads = os.listdir("/proc/self/task")
        assert len(threads) == 1, f"only one thread would be in the forked process: {threads}"
        if os.fork() == 0:
            asked.close()
            keep(json.loads(message), *fds)
        keepers += 1
        for fd in fds:
            os.close(fd)

def keep(job, told, *streams):
    pid = os.fork()
    if pid:
        for fd in streams:
            os.close(fd)
        os.write(told, pid.to_bytes(8, "little"))
        os.write(told, os.waitpid(pid, 0)[1].to_bytes(8, "little"))
        os._exit(0)
    os.close(told)
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in streams:
        os.close(fd)
    raise Job(job)

def begin(job):
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        raw = open(number, "wb" if number else "rb", 0 if number and old.write_through else -1, closefd=False)
        lines = number == 2 or os.isatty(number)
        new = io.TextIOWrapper(raw, old.encoding, old.errors, line_buffering=lines, write_through=old.write_through)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    sys.argv = ["-m", *job["words"]]
    if not hasattr(sys.modules.get(job["module"]), "__path__"):  # of a package, another module becomes __main__
        sys.modules.pop(job["module"], None)
    return job["module"]

exec(sys.argv[1], {"__name__": "imported"})
try:
    serve(socket.socket(fileno=int(sys.argv[2])))
except Job as found:
    module = begin(found.args[0])
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@functools.cache
def _server(imports: str) -> socket.socket:
    """What a server is asked through; it ends when this is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", _SERVER, imports, str(theirs.fileno())]
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        env=os.environ | dict.fromkeys(THREAD_POOLS, "1"),  # what is imported starts no thread
    )
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait(60)

    atexit.register(end)
    return ours


class Forked(subprocess.Popen[Any]):
    """`subprocess.Popen` for ``[sys.executable, "-m", MODULE, WORDS...]`` with streams, folder and environment.

    Args:
        command: What else would be started.
        imports: Python code of the server, see `RUN`.
        options: Of `subprocess.Popen`; none that changes how the process begins.
    """

    def __init__(self, command: list[Any], *, imports: str = RUN, **options: Any) -> None:
        program, minus_m, *_ = command
        assert (program, minus_m) == (sys.executable, "-m"), command
        changing = set(options) - {"stdin", "stdout", "stderr", "text", "encoding", "errors", "bufsize", "cwd", "env"}
        assert not changing, f"not for a forked process: {changing}"
        self._imports = imports
        super().__init__(command, **options)

    def _execute_child(self, args: Any, *rest: Any) -> None:
        cwd, env = rest[4:6]
        stdin, _, _, stdout, _, stderr = rest[9:15]
        _, _, module, *words = map(os.fsdecode, args)
        environment = dict(os.environ if env is None else env)
        job = {
            "module": module,
            "words": words,
            "folder": os.fspath(cwd or os.getcwd()),
            "environment": {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
        }
        told, tells = os.pipe()
        streams = [own if fd == -1 else fd for own, fd in enumerate((stdin, stdout, stderr))]
        socket.send_fds(_server(self._imports), [json.dumps(job).encode()], [tells, *streams])
        os.close(tells)
        self._close_pipe_fds(*rest[9:15])
        self._told = told
        self.pid = self._read()
        self._child_created = True

    def _read(self) -> int:
        said = os.read(self._told, 8)
        assert len(said) == 8, "what keeps the process has ended before it"
        return int.from_bytes(said, "little")

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        """As `os.waitpid`, from what the keeper tells."""
        os.set_blocking(self._told, not wait_flags & os.WNOHANG)
        try:
            status = self._read()
        except BlockingIOError:
            return 0, 0
        os.close(self._told)
        return self.pid, status

    def _internal_poll(self, _deadstate: Any = None, **others: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run_forked(command: list[Any], *, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` with ``capture_output`` and without ``check``."""
    with Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
