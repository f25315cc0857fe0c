"""Faults of the GPU's surroundings over the stub of libcuda.so.1: threads, hanging, exhausted memory, swapped files."""

from __future__ import annotations

STREAM = """
class Frames:
    frame_size, fixed_size, live = (64, 48), True, False
    def __init__(self, count=8): self.left = count
    def read(self):
        from framegate.runtime.verdict import Frame
        import time
        if not self.left: return None
        self.left -= 1
        rng = np.random.default_rng(self.left)
        image = np.clip(np.array((250, 8, 8)) + rng.integers(-5, 6, (48, 64, 3)), 0, 255).astype(np.uint8)
        return Frame(100 - self.left, time.monotonic_ns(), image)
    def close(self): pass

def verdicts(session):
    with Pipeline(Frames(), session, lossless=True) as pipeline:
        return "".join("A" if p.accepted else "f" if p.reasons[0].name == "BACKEND_FAULT" else "?" for p in pipeline)
"""


def test_a_new_thread_with_the_number_of_an_old_one_has_the_context_too(child):
    """Thread numbers are used again as soon as a thread has ended: the workers of two pipelines, say."""
    child(
        STREAM
        + """
built()
session = Session.open(BUNDLE, "tensorrt", "fp32")
backend, numbers, done = session.scorer.backend, [], []
def compute():
    numbers.append(threading.get_ident())
    try: done.append(bool(np.isfinite(infer(backend)).all()))
    except Exception as error: done.append(str(error))
for _ in range(4):
    thread = threading.Thread(target=compute)
    thread.start(); thread.join()
assert len(set(numbers)) < 4, numbers
assert done == [True] * 4, done
for turn in range(3):
    assert verdicts(session) == "A" * 8, turn
"""
    )


def test_closing_one_backend_leaves_another_one_its_context(child):
    child("""
built()
first, second = (load_backend("tensorrt", BUNDLE / "model.fp32.onnx") for _ in range(2))
for one in (first, second): one.bind(np.zeros((1, 3, 32, 32), np.float32))
infer(second)
first.close()
assert np.isfinite(infer(second)).all()
""")
