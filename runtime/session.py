"""A session: one bundle in one engine, judging frames."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from framegate.runtime.backends.base import Backend
from framegate.runtime.backends.choice import BACKENDS, choose_backend, choose_engine, open_engine
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.certificate import Certifier
from framegate.runtime.console import note, to_stderr
from framegate.runtime.dense.scorer import DenseScorer
from framegate.runtime.dense.spec import promise_of
from framegate.runtime.errors import BackendError, BundleError, UsageError
from framegate.runtime.frame_judge import FrameJudge
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.policy.stream import Policy, StreamPolicy
from framegate.runtime.regions.base import MAX_OBJECTS
from framegate.runtime.regions.batch_scorer import BatchScorer
from framegate.runtime.regions.judge import ObjectJudge, Objects
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.roi import Roi, require_own_names
from framegate.runtime.scorer import Scorer
from framegate.runtime.verdict import Frame, Image, Prediction, Reason

ASK_EVERY_S = 10.0
"""Between two known answers that the engine of a running stream is asked."""
_ASK_AGAIN_S = 1.0
_REMEDY = "one session serves one stream: open one for each, with session.another() to share the network's weights"


class Session:
    """Judges the frames of one stream with one model.

    A session remembers its stream (camera check, debounce, drift) and has one engine with one input. So it serves one
    pipeline, or one thread that calls `infer`; a second one is refused. `another` makes a session for another camera
    that shares the network's weights.

    Attributes:
        bundle: The opened bundle.
        precision: Which model of the bundle runs.
        calibration: Its threshold; None rejects every frame with NOT_CALIBRATED.
        scorer: Turns regions into scores; it has the engine.
        frame_judge: Judges every region of one frame, see `framegate.runtime.frame_judge.FrameJudge.judge`.
        certifier: Certifies labels; None if no certificate is required.
        policy: What several frames together decide, unless a pipeline is given another.
        health_thresholds: Limits of the camera-health check.
        regions: What is judged of a frame unless other regions are given: all of it, or a dense bundle's own region.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        precision: str,
        calibration: Calibration | None,
        *,
        camera: bool = True,
        gpu_preprocess: bool = False,
        policy: Policy | None = None,
        health: HealthThresholds | None = None,
        certifier: Certifier | None = None,
        probabilities: bool = False,
    ) -> None:
        if certifier is not None and gpu_preprocess:
            raise UsageError("a certificate was asked for together with preprocessing on the GPU; give one of them")
        self.bundle = bundle
        self.precision = precision
        self.calibration = calibration
        self.scorer = _scorer(bundle, backend, precision, calibration, gpu_preprocess)
        self.scorer.probabilities = probabilities
        self.certifier = certifier
        self.frame_judge = FrameJudge(bundle, self.scorer, calibration, certifier)
        self._asked: Scorer | DenseScorer | BatchScorer = self.scorer
        self._may_recover = True
        self._ask_at = time.monotonic() + ASK_EVERY_S
        self.health_thresholds = health or HealthThresholds()
        self._health = self.camera_health(fixed_size=camera)
        self.policy = policy or Policy()
        # Unrelated images are judged each for itself, so that a verdict never depends on the order of calls.
        self._streams = (self.stream_policy(),) if camera else None
        self.regions = (self.scorer.spec.roi,) if isinstance(self.scorer, DenseScorer) else (Roi.whole(),)
        self._frames = 0
        self._options: dict[str, Any] = {
            "camera": camera,
            "gpu_preprocess": gpu_preprocess,
            "policy": policy,
            "health": health,
            "probabilities": probabilities,
        }
        self._process = os.getpid()
        self._claiming = threading.Lock()
        self._holder: object | None = None
        self._thread: threading.Thread | None = None
        self._inferring = False

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        backend: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
        *,
        camera: bool = True,
        gpu_preprocess: bool = False,
        policy: Policy | None = None,
        health: HealthThresholds | None = None,
        probabilities: bool = False,
        trust: str | Path | None = None,
        certificate: str | Demand | None = None,
    ) -> Session:
        """Open a bundle in an engine.

        Args:
            bundle: Folder ``NAME.bundle``, a name that ``framegate bundles`` lists, or an opened bundle.
            backend: ``auto`` (the fastest that can run; says which), ``tensorrt``, ``tensorrt-rtx``, ``openvino`` or
                ``onnxruntime``. A named backend never falls back to another.
            precision: ``fp32``, ``fp16`` or ``int8``; None takes the backend's fastest.
            threads: CPU threads of the engine; None leaves it to the engine.
            camera: Frames given to `infer` come from one camera: a repeated frame is FROZEN, a changed size is
                WRONG_SIZE. False for unrelated images.
            gpu_preprocess: Give the camera's pixels to a TensorRT backend, which resizes and scores them, too. Its
                resize does not round to 8 bits as the CPU's does, on which thresholds are calibrated: compare the
                verdicts first.
            policy: Debounce, warm-up and drift; None rejects and accepts at once, and watches for drift.
            health: Limits of the camera-health check, e.g. from a calibration run of this camera; None: the defaults,
                and what a stream's first frames show.
            probabilities: Give the probability of every class with each prediction (`Prediction.probabilities`).
            trust: PEM file with a public Ed25519 key; a bundle that its holder has not signed is refused. Of an opened
                bundle nothing is asked: give the key to `Bundle.open`.
            certificate: ``patch:5`` or ``linf:2/255``: what is not certified against every attack within this budget
                is NOT_CERTIFIED (docs/certificates.md). None requires no certificate.

        Raises:
            BundleError: The bundle is missing, damaged, unknown or not trusted.
            BackendError: The engine is not installed or refuses the model.
            UsageError: The backend's name is unknown.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, trust)
        if opened.detector is not None:
            raise BundleError(
                f"bundle {opened.path}: it holds a detector, which names no label that may be used; give a classifier "
                "as --bundle, and this one as --objects"
            )
        demand = Demand.parse(certificate) if isinstance(certificate, str) else certificate

        def opened_on(name: str) -> Session:
            engine, chosen = open_engine(opened, name, precision, threads)
            try:
                return cls(
                    opened,
                    engine,
                    chosen,
                    opened.calibration(name, chosen),
                    camera=camera,
                    gpu_preprocess=gpu_preprocess,
                    policy=policy,
                    health=health,
                    certifier=None if demand is None else Certifier(opened, demand, name, threads, chosen),
                    probabilities=probabilities,
                )
            except BaseException:
                engine.close()
                raise

        name = choose_engine(opened, backend, precision)
        try:
            session = opened_on(name)
        except BackendError as error:
            if backend != "auto" or not BACKENDS[name].gpu:
                raise
            # auto may choose: that an engine cannot run here may show only when it is bound and asked.
            to_stderr(f"framegate: not on {name}: {error}")
            session = opened_on(choose_backend("auto"))
        if backend == "auto":
            note(f"framegate: {session.describe()}")
        return session

    @property
    def classes(self) -> tuple[str, ...]:
        """The bundle's labels; `Prediction.class_id` counts them from 0."""
        return self.bundle.labels

    def another(self) -> Session:
        """A session for another stream: a memory and an input of its own, and the same weights.

        Engines on the CPU share them; TensorRT loads its engine again.

        Raises:
            BackendError: The engine cannot be opened once more.
        """
        return Session(
            self.bundle,
            self.scorer.backend.share(),
            self.precision,
            self.calibration,
            certifier=None if self.certifier is None else self.certifier.share(),
            **self._options,
        )

    def claim(self, holder: object) -> None:
        """Give the session to one pipeline, until `release`.

        Raises:
            UsageError: Somebody else has it, or it was opened in another process.
        """
        self._require_process()
        with self._claiming:
            if self._holder is not None or (self._thread is not None and self._in_use_elsewhere()):
                raise UsageError(f"this session judges another stream already; {_REMEDY}")
            self._require_idle()  # after that: another thread's frame is not one that was interrupted
            self._holder, self._thread = holder, None

    def release(self, holder: object) -> None:
        """Give the session back; the call of a pipeline that does not have it changes nothing."""
        with self._claiming:
            if self._holder is holder:
                self._holder, self._asked = None, self.scorer
                self.frame_judge.together = None

    def _require_thread(self) -> None:
        """Bind the session to the calling thread.

        Raises:
            UsageError: A pipeline or another thread has it, or it was opened in another process.
        """
        self._require_process()
        with self._claiming:
            if self._holder is not None:
                raise UsageError(f"this session runs in a pipeline, which infer() would disturb; {_REMEDY}")
            if self._in_use_elsewhere():
                raise UsageError(f"infer() of this session is called from a second thread; {_REMEDY}")
            self._thread = threading.current_thread()

    def _require_idle(self) -> None:
        """Refuse what interrupts `infer` in its own thread: a signal handler, a finalizer.

        There is one input: the interrupted frame would be given the answer to the other one.

        Raises:
            UsageError: A frame is being judged.
        """
        if self._inferring:
            raise UsageError(
                "this session is judging a frame, which a signal handler or a finalizer has interrupted; set a flag "
                "there, and use the session when infer() has returned"
            )

    def _in_use_elsewhere(self) -> bool:
        return self._thread not in (None, threading.current_thread()) and self._thread.is_alive()

    def _require_process(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                f"this session was opened in process {self._process} and is used in process {os.getpid()}; engines do "
                "not survive a fork: open the bundle in the process that judges"
            )

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            UsageError: Always.
        """
        raise UsageError("a session cannot be pickled or copied; give the bundle's path, and open it there")

    def describe(self) -> str:
        """Model, engine and promise in one line."""
        engine = self.scorer.backend.engine
        running = f"{self.bundle.name} on {engine}, {self.precision}"
        if self.calibration is None:
            return f"{running}; NOT CALIBRATED: every frame will be rejected"
        certified = "" if self.certifier is None else f"; {self.certifier.describe()}"
        if self.calibration.engine != engine:
            return (
                f"{running}; the promise is that of {self.calibration.engine}, not of this engine: compare the two "
                f"(framegate verify) or calibrate again. There: {promise_of(self.bundle, self.calibration)}{certified}"
            )
        return f"{running}; {promise_of(self.bundle, self.calibration)}{certified}"

    def stream_policy(self, policy: Policy | None = None, *, sequence: bool = True) -> StreamPolicy:
        """A fresh memory for one region of a stream.

        Args:
            policy: None takes the session's.
            sequence: The frames follow each other in time; False for unrelated images.
        """
        return StreamPolicy(policy or self.policy, self.calibration, sequence=sequence)

    def object_judge(
        self, objects: Objects, memory: TrackMemory, policy: Policy | None = None, *, sequence: bool = True
    ) -> ObjectJudge:
        """What judges the objects of a stream, all of a frame's in one engine call. It opens an engine for each batch.

        Args:
            objects: Where they are, and how they are followed.
            memory: Of the stream's tracks.
            policy: Of the stream; None takes the session's.
            sequence: See `stream_policy`.

        Raises:
            BackendError: The engine refuses a batch.
            UsageError: The session preprocesses on the GPU, which takes whole frames, or certifies only some frames, or
                NOT_CERTIFIED shall be held.
        """
        if self.scorer.takes_nv12:
            raise UsageError("preprocessing on the GPU takes whole frames, not moving regions: leave one of them out")
        if self.certifier is not None and self.certifier.demand.every != 1:
            raise UsageError(
                "--certify-every counts the frames of fixed regions; objects are certified in every frame, or with "
                "--certify-once once a track"
            )
        if isinstance(self.scorer, DenseScorer):
            raise UsageError(
                f"bundle {self.bundle.name}: it labels the pixels of one region; objects are judged by a classifier"
            )
        backend = self.scorer.backend
        batches = BatchScorer(self.bundle, backend, self.precision, self.calibration, objects.most)
        self._asked = batches
        batches.probabilities = self.scorer.probabilities
        policy = (policy or self.policy) if sequence else Policy()
        if Reason.NOT_CERTIFIED in policy.debounce:
            raise UsageError("NOT_CERTIFIED cannot be debounced for objects: they are certified last of all")
        return ObjectJudge(self.bundle, self.frame_judge, batches, objects, memory, self.certifier, policy)

    def judge_together(self, count: int) -> None:
        """Judge so many fixed regions of a frame in one engine call from now on, until `release`.

        It takes less than a call for each on a CPU. Nothing changes where that cannot be: with one region or more than
        16, a dense network, a GPU, certificates, probabilities, or an engine that refuses the batch.
        """
        scorer = self.scorer
        if not 1 < count <= MAX_OBJECTS or isinstance(scorer, DenseScorer) or scorer.backend.takes_frames:
            return
        if self.certifier is not None or scorer.probabilities:
            return
        with suppress(BackendError):
            batches = BatchScorer(self.bundle, scorer.backend, self.precision, self.calibration, count, always=True)
            self._asked = self.frame_judge.together = batches

    def regions_of(self, rois: tuple[Roi, ...] | None) -> tuple[Roi, ...]:
        """The regions that are judged where these were asked for.

        Args:
            rois: None or empty: `regions`.

        Raises:
            UsageError: A dense bundle is asked for another region than that of its promise, two have one name, or
                several would be preprocessed on the GPU.
        """
        require_own_names(rois or ())
        if not rois or rois in (self.regions, (Roi.whole(),)):
            return self.regions
        if self.scorer.takes_nv12 and len(rois) > 1:
            raise UsageError(
                f"{len(rois)} regions: preprocessing on the GPU is bound to frames of one size and takes one region; "
                "leave it out, or the other regions"
            )
        if isinstance(self.scorer, DenseScorer):
            own = self.scorer.spec
            raise UsageError(
                f"region {rois[0].name!r}: the promise of the bundle {self.bundle.name} is about its own region "
                f"{own.region}={own.x:g},{own.y:g},{own.width:g},{own.height:g} and no other; leave regions out"
            )
        return rois

    def camera_health(self, frame_size: tuple[int, int] | None = None, fixed_size: bool = True) -> CameraHealth:
        """A camera check with this session's limits and a fresh memory for one stream.

        Args:
            frame_size: (width, height) that every frame must have; None: the first usable frame decides.
            fixed_size: False for unrelated images.
        """
        spec = self.bundle.preprocess
        return CameraHealth(
            frame_size, fixed_size, self.health_thresholds, grey=spec.colour == "grey", volume=spec.depth > 1
        )

    def reset_drift(self) -> None:
        """End the drift alarm of the frames given to `infer`; a pipeline has its own `Pipeline.reset_drift`."""
        for policy in self._streams or ():
            policy.reset()

    def infer(self, image: Image, frame_id: int | None = None, captured_ns: int | None = None) -> Prediction:
        """Judge one whole image.

        Args:
            image: (height, width, 3) uint8 BGR; for a grey network also (height, width) uint8. A volume is one such
                image, its slices one below the other.
            frame_id: The frame's number; None counts the calls from 0.
            captured_ns: Monotonic time of capture in ns (`time.monotonic_ns`); None means now. A frame of a camera
                that is not newer than the one before is a STALE_FRAME.

        Returns:
            A prediction whose `label` can be read only if it was accepted. This method does not raise on bad images
            or engine faults: they are rejected with a reason. It has no deadline, and so its verdict no end.

        Raises:
            UsageError: The session is used by a pipeline, by another thread, or in another process; or this call
                comes from a signal handler that has interrupted another one.
        """
        if self._thread is not threading.current_thread() or os.getpid() != self._process:
            self._require_thread()
        self._require_idle()
        self._inferring = True
        try:
            number = self._frames if frame_id is None else frame_id
            self._frames += 1
            frame = Frame(number, time.monotonic_ns() if captured_ns is None else captured_ns, image)
            prediction = self.frame_judge.judge(frame, self.regions, self._health, streams=self._streams)[0]
            self._ask_if_due()
        finally:
            self._inferring = False
        return prediction

    def look_after_engine(self) -> None:
        """What the engine needs between two frames: a known answer now and then, and a new start after a fault.

        Every `ASK_EVERY_S` seconds it is asked one of the bundle's known answers, which takes as long as a region, and
        every second while its answers are wrong. While they are, every frame is rejected with BACKEND_FAULT. So is the
        engine of a certificate, which takes as long as one; while it is wrong, what would be certified is rejected.
        """
        self._ask_if_due()
        self.recover()

    def _ask_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._ask_at:
            self._asked.ask()
            if self.scorer is not self._asked and self.scorer.wrong:
                self.scorer.ask()  # it was found wrong before the batches took over
            if self.certifier is not None:
                self.certifier.ask()
            self._ask_at = now + ASK_EVERY_S
        certifier_wrong = self.certifier is not None and self.certifier.wrong
        if self._asked.wrong or self.scorer.wrong or certifier_wrong:  # by a question, or by a frame between two
            self._ask_at = min(self._ask_at, now + _ASK_AGAIN_S)

    def recover(self) -> None:
        """Start a backend again that failed for good: once in the session's life, so that a broken GPU stays out.

        Frames in between are rejected with BACKEND_FAULT, and all later ones if it fails again.
        """
        batches = self._asked.engines if isinstance(self._asked, BatchScorer) else ()
        engines = list(dict.fromkeys((self.scorer.backend, *batches)))
        backend = next((engine for engine in engines if engine.fault), None)
        if backend is None or not self._may_recover:
            return
        self._may_recover = False
        to_stderr(f"framegate: {backend.engine} failed ({backend.fault}); starting it again, once")
        try:
            for engine in engines:  # all of them: a broken context is renewed only when nobody holds it any more
                engine.close()
            for engine in engines:
                engine.reinitialise()
            for _ in batches or engines:  # before a frame is
                self._asked.ask()
                if self._asked.wrong:
                    raise BackendError(self._asked.wrong)
        except Exception as error:  # noqa: BLE001 - whatever it is, the backend stays faulted and every frame rejected
            to_stderr(f"framegate: it does not start again, every frame will be rejected: {error}")
            return
        to_stderr(f"framegate: {backend.engine} runs again")


def _scorer(
    bundle: Bundle, backend: Backend, precision: str, calibration: Calibration | None, gpu_preprocess: bool
) -> Scorer | DenseScorer:
    """What runs the bundle's network.

    Raises:
        BackendError: The engine does not give the bundle's known answers.
        BundleError: The bundle contradicts itself.
        UsageError: A dense network was to preprocess on the GPU.
    """
    if bundle.dense is None:
        return Scorer(bundle, backend, precision, calibration, gpu_preprocess)
    if gpu_preprocess:
        raise UsageError(f"bundle {bundle.name}: a dense network takes frames that the CPU resized: leave it out")
    return DenseScorer(bundle, backend, precision)
