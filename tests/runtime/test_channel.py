from __future__ import annotations

import threading
import time

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
