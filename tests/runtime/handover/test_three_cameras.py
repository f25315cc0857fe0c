"""Three camera processes and one consumer, on one machine and across network namespaces.

What a cut link does is shown where namespaces can be made; loss, delay and reordering need the kernel's netem.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import cv2
import pytest
from transports import address_of

from framegate.runtime.handover import Receiver, ReceiverConfig, open_incoming, this_clock
from framegate.runtime.handover.reading import MS

pytestmark = pytest.mark.long
IDS = (0x201, 0x202, 0x203)
RUN = [sys.executable, "-m", "framegate"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory, blue_scene):
    """Sixty blue pictures, more than the camera check remembers."""
    path = tmp_path_factory.mktemp("clip") / "blue.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for k in range(60):
        writer.write(blue_scene(k))
    writer.release()
    return path


def sender(clip, bundle, address, data_id, prefix=()):
    command = [*prefix, *RUN, "run", str(clip), "--loop", "--bundle", str(bundle), "--backend", "onnxruntime"]
    command += ["--threads", "1", "--deadline-ms", "500", "--handover", address, "--handover-id", str(data_id)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(true, within_s=60.0):
    end = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@contextlib.contextmanager
def consumer(address):
    """One process that hears all three: receivers, fed by one thread."""
    incoming = open_incoming(address)
    # A busy machine may let a process of the test wait.
    receivers = [
        Receiver(
            ReceiverConfig(
                data_id, clock_domain=this_clock(), alive_ns=500 * MS, period_ns=1000 * MS, transit_ns=300 * MS
            )
        )
        for data_id in IDS
    ]
    ended = threading.Event()

    def feed():
        while not ended.is_set():
            if (received := incoming.receive(0.05)) is not None:
                data_id = int.from_bytes(received[0][4:8], "big")
                for receiver in receivers:
                    if receiver.config.data_id == data_id:
                        receiver.feed(*received)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield receivers
    finally:
        ended.set()
        thread.join()
        incoming.close()


@pytest.mark.parametrize("kind", ["udp", "zenoh", "ros2"])
def test_a_camera_that_dies_is_do_not_use_and_the_others_go_on(kind, tmp_path, clip, tiny_bundle):
    address = address_of(kind, tmp_path)
    with consumer(address) as receivers:
        senders = [sender(clip, tiny_bundle, address, data_id) for data_id in IDS]
        try:
            for receiver in receivers:
                assert until(lambda receiver=receiver: receiver.verdict().usable), receiver.counts()
            senders[1].send_signal(signal.SIGKILL)
            assert until(lambda: not receivers[1].verdict().usable, 3.0)
            for receiver in (receivers[0], receivers[2]):
                assert until(lambda receiver=receiver: receiver.verdict().usable, 20.0), receiver.counts()
            assert not receivers[1].verdict().usable
            senders[1].wait()
            senders[1] = sender(clip, tiny_bundle, address, IDS[1])
            assert until(lambda: receivers[1].verdict().usable), receivers[1].counts()
            assert receivers[1].counts()["new_epoch"] == 1
        finally:
            for each in senders:
                each.kill()
                each.wait()


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def two_machines():
    """Two network namespaces and a cable between them: 10.77.0.1 in the first, 10.77.0.2 in the second."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces can be made by root only")
    names = [f"framegate{os.getpid()}{side}" for side in "ab"]
    made = [ip("netns", "add", name) for name in names]
    try:
        if any(each.returncode for each in made):
            pytest.skip(f"no network namespaces here: {made[0].stderr.strip()}")
        cable = ip("link", "add", "va", "netns", names[0], "type", "veth", "peer", "name", "vb", "netns", names[1])
        if cable.returncode:
            pytest.skip(f"no virtual cables here: {cable.stderr.strip()}")
        for name, end, address in ((names[0], "va", "10.77.0.1"), (names[1], "vb", "10.77.0.2")):
            for words in (("addr", "add", f"{address}/24", "dev", end), ("link", "set", end, "up")):
                assert ip("-n", name, *words).returncode == 0
            assert ip("-n", name, "link", "set", "lo", "up").returncode == 0
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


class Listening:
    """``framegate handover listen`` in a namespace, and the last line that it said."""

    def __init__(self, namespace, address):
        command = ["ip", "netns", "exec", namespace, *RUN, "handover", "listen", address, "--id", str(IDS[0])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.last = ""
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.last = line

    @property
    def usable(self):
        return "USABLE: class" in self.last

    def close(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()


@contextlib.contextmanager
def across(kind, names, clip, bundle):
    """A consumer in the second namespace and a camera in the first."""
    address = {
        "udp": ("udp://10.77.0.2:47800", "udp://10.77.0.2:47800"),
        "multicast": (
            "multicast://239.255.70.86:47800?interface=10.77.0.2",
            "multicast://239.255.70.86:47800?interface=10.77.0.1",
        ),
        "zenoh": ("zenoh://a/b?listen=tcp/10.77.0.2:7447", "zenoh://a/b?connect=tcp/10.77.0.2:7447"),
    }[kind]
    if kind == "zenoh":
        pytest.importorskip("zenoh", reason="pip install 'framegate[zenoh]'")
    listening = Listening(names[1], address[0])
    camera = sender(clip, bundle, address[1], IDS[0], ("ip", "netns", "exec", names[0]))
    try:
        assert until(lambda: listening.usable), listening.last
        yield listening
    finally:
        camera.kill()
        camera.wait()
        listening.close()


@pytest.mark.parametrize("kind", ["udp", "zenoh"])
def test_a_cut_cable_is_do_not_use_until_it_is_mended(kind, two_machines, clip, tiny_bundle):
    with across(kind, two_machines, clip, tiny_bundle) as listening:
        assert ip("-n", two_machines[0], "link", "set", "va", "down").returncode == 0
        assert until(lambda: not listening.usable, 3.0)
        time.sleep(1.0)
        assert not listening.usable
        assert ip("-n", two_machines[0], "link", "set", "va", "up").returncode == 0
        assert until(lambda: listening.usable), listening.last


@pytest.mark.parametrize("trouble", ["loss 50%", "delay 300ms", "delay 30ms 25ms", "duplicate 50%", "corrupt 20%"])
def test_a_bad_network(trouble, two_machines, clip, tiny_bundle):
    """Usable or not, it comes back; that nothing wrong is usable is the campaign's question."""
    made = subprocess.run(
        ["ip", "netns", "exec", two_machines[0], "tc", "qdisc", "add", "dev", "va", "root", "netem", "delay", "0ms"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"this kernel has no netem: {made.stderr.strip()}")
    with across("udp", two_machines, clip, tiny_bundle) as listening:
        change = ["ip", "netns", "exec", two_machines[0], "tc", "qdisc", "change", "dev", "va", "root", "netem"]
        subprocess.run([*change, *trouble.split()], check=True)
        if trouble == "delay 300ms":
            assert until(lambda: not listening.usable, 3.0)
        time.sleep(2.0)
        subprocess.run([*change, "delay", "0ms"], check=True)
        assert until(lambda: listening.usable), listening.last
