from __future__ import annotations

import threading
import time

from framegate.runtime import channel as channel_module
from framegate.runtime.channel import Channel


def test_mailbox_keeps_only_the_newest_and_counts_the_rest():
    mailbox = Channel(1, overwrite=True)
    for k in range(5):
        assert mailbox.put(k)
    assert mailbox.take() == 4
    assert mailbox.overwritten == 4
    assert mailbox.take(timeout=0.01) is None


def test_bounded_queue_makes_the_writer_wait():
    queue = Channel(2, overwrite=False)
    done = []

    def write():
        for k in range(5):
            queue.put(k)
            done.append(k)

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.1)
    assert done == [0, 1]
    assert [queue.take() for _ in range(5)] == [0, 1, 2, 3, 4]
    writer.join(5)
    assert not writer.is_alive()
    assert queue.overwritten == 0


def test_closing_wakes_a_waiting_reader_and_a_waiting_writer():
    empty, full = Channel(1, overwrite=True), Channel(1, overwrite=False)
    full.put("first")
    results = {}
    threads = [
        threading.Thread(target=lambda: results.update(read=empty.take())),
        threading.Thread(target=lambda: results.update(written=full.put("second"))),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    empty.close()
    full.close()
    for thread in threads:
        thread.join(5)
    assert results == {"read": None, "written": False}
    assert full.take() == "first"  # what was inside can still be read
    assert full.take() is None
    assert full.finished


def test_nothing_is_lost_or_given_twice_with_several_writers_and_readers():
    channel = Channel(3, overwrite=False)
    taken = []

    def write(first):
        for k in range(first, first + 400):
            assert channel.put(k, timeout=20)

    def read():
        while (item := channel.take(timeout=20)) is not None:
            taken.append(item)

    writers = [threading.Thread(target=write, args=(1000 * number,)) for number in (1, 2)]
    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in (*writers, *readers):
        thread.start()
    for writer in writers:
        writer.join(30)
    channel.close()
    for reader in readers:
        reader.join(30)
        assert not reader.is_alive()
    assert sorted(taken) == [*range(1000, 1400), *range(2000, 2400)]


def test_a_full_channel_refuses_after_its_time_and_takes_again_when_there_is_room():
    channel = Channel(1, overwrite=False)
    assert channel.put(1)
    started = time.monotonic()
    assert not channel.put(2, timeout=0.05)
    assert time.monotonic() - started >= 0.05
    assert channel.take() == 1
    assert channel.put(3, timeout=0.0)
    assert channel.take(timeout=0.0) == 3
    assert channel.take(timeout=0.0) is None


def test_a_signal_handler_can_close_a_channel_whose_reader_it_has_interrupted(monkeypatch):
    """A handler runs in the thread that it interrupts, which holds the guard meanwhile."""
    channel, found = Channel(1, overwrite=True), []
    channel.put("first")
    release = channel_module._release

    def interrupted(lock):
        found.append(channel.interrupted)
        if not channel.closed:
            channel.close()
        release(lock)

    monkeypatch.setattr(channel_module, "_release", interrupted)
    reader = threading.Thread(target=lambda: found.append(channel.take()), daemon=True)
    reader.start()
    reader.join(5)
    assert not reader.is_alive(), "it waits for itself"
    assert found[0] is True
    assert found[-1] == "first"
    assert channel.take() is None
    assert not channel.interrupted


def test_what_a_signal_handler_has_released_meanwhile_is_no_error():
    class Released:
        """A lock that somebody else releases between the question and the release."""

        def locked(self):
            return True

        def release(self):
            raise RuntimeError("release unlocked lock")

    channel_module._release(Released())
