"""The Jetson's processor without a Jetson: an aarch64 wheel, an emulated aarch64 Python, and the main job in it.

    apt-get install --no-install-recommends qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    python .ci/aarch64.py wheel SOURCE WORK        # WORK/dist/framegate-*-py3-none-manylinux_*_aarch64.whl
    python .ci/aarch64.py environment SOURCE WORK  # WORK/rootfs: Debian's Python; WORK/site: the wheels
    python .ci/aarch64.py run SOURCE WORK          # WORK/runs/aarch64-BACKEND-PRECISION.jsonl
    python .ci/aarch64.py run SOURCE WORK --native .venv/bin/python   # the same on this machine's processor
    python .ci/aarch64.py test SOURCE WORK         # tests of the compiled code, in the emulated Python
    python .ci/aarch64.py compare SOURCE WORK --out benchmarks/results/aarch64.json
    python .ci/aarch64.py since SOURCE WORK --recorded OTHER   # native runs of two commits: did a verdict change?

``all`` does the first three; ``--backends`` and ``--precisions`` take a part of the runs. Needs Debian 12 on x86-64
and its Python 3.11; no root once the packages above are there, no container, no binfmt_misc, and nothing of the
machine's own dpkg and apt changes. The emulated Python is the version that runs this script. What is measured this
way are results, not times: the emulation is a hundred times slower.

QEMU emulates the instructions; what the libraries read from /proc/cpuinfo and /sys would still be the x86 machine's.
ONNX Runtime's cpuinfo crashes on that (a null pointer), so the emulated root has files that describe the Orin's
Cortex-A78AE. Its instruction set is closest to that of the Cortex-A76 (``--cpu``): both have FP16 and dot products and
no SVE, which ``--cpu max`` would add.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TRIPLET = "aarch64-linux-gnu"
COMPILER = f"{TRIPLET}-gcc"
OLDEST_GLIBC, NEWEST_GLIBC = 17, 36
"""Minor versions of the C library that wheels may ask for: 2.17 is the oldest with aarch64, 2.36 is Debian 12's."""
PACKAGES = (f"python{VERSION}", "libstdc++6", "libgomp1")
BUNDLE = "models/bundles/hybrid-cifar10.bundle"
CLIP = "camera_demo/clips/highway_1280x720_25fps.mp4"
REGIONS = (
    "black-car=795,385,160,130",
    "white-car=1000,370,270,160",
    "sky=700,20,160,130",
    "road=560,500,160,130",
)
TESTS = ("tests/runtime/test_fast_path.py", "tests/runtime/test_answer.py", "tests/runtime/test_preprocess.py")
"""What compares compiled code with Python. It needs two processors: the camera check counts on the second."""
BACKENDS, PRECISIONS = ("openvino", "onnxruntime"), ("int8", "fp32")
COMPILED = ("_native.so", "_fast_path.abi3.so")
MAIN = "import sys; from framegate.runtime.cli.main import main; sys.exit(main())"
CHECK = """
import platform, cv2, numpy, onnxruntime, openvino
from framegate.runtime.native import fast_path_module, library
code, name = library()
print(f"Python {platform.python_version()} on {platform.machine()}: {name}, cv2 {cv2.__version__}, "
      f"numpy {numpy.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}")
assert code is not None and fast_path_module() is not None and platform.machine() == "aarch64"
"""
PROCESSOR = """processor\t: {number}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd42
CPU revision\t: 1

"""
MIDR = "0x00000000410fd421\n"
"""The same processor in the register that identifies it."""


def call(command: Sequence[str | Path], environment: dict[str, str] | None = None, folder: Path | None = None) -> None:
    """Run a command; its output goes where this script's goes."""
    subprocess.run([str(word) for word in command], env=environment, cwd=folder, check=True)


def announce(text: str) -> None:
    """Print a line before the commands that follow it print theirs."""
    print(text, flush=True)


def build_wheel(source: Path, work: Path) -> Path:
    """Cross-compile framegate into one wheel for every Python 3.

    Its compiled parts are a plain library, and a module of the stable ABI that Pythons before 3.11 leave alone. The
    module takes this machine's Python headers: nothing that the stable ABI shows differs between 64-bit processors.
    """
    if shutil.which(COMPILER) is None:
        raise SystemExit(f"{COMPILER} is missing: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    dist = work / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="framegate-aarch64-") as name:
        copy, tools = Path(name) / "source", Path(name) / "tools"
        left_out = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "*.so", "__pycache__")
        shutil.copytree(source, copy, ignore=left_out)
        environment = {
            **os.environ,
            "CC": COMPILER,
            "LDSHARED": f"{COMPILER} -shared",
            "_PYTHON_HOST_PLATFORM": "linux-aarch64",
        }
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        call([*pip, "wheel", "--no-deps", "-w", dist, copy], environment)
        call([*pip, "install", "--target", tools, "wheel"])
        built = next(dist.glob("*.whl"))
        platform = f"manylinux_2_{needed_glibc(built)}_aarch64"
        tags = ["--python-tag", "py3", "--abi-tag", "none", "--platform-tag", platform]
        variables = {**os.environ, "PYTHONPATH": str(tools)}
        call([sys.executable, "-m", "wheel", "tags", "--remove", *tags, built], variables)
    return only_wheel(work)


def only_wheel(work: Path) -> Path:
    """The wheel that `build_wheel` left."""
    found = list((work / "dist").glob("framegate-*_aarch64.whl"))
    if len(found) != 1:
        raise SystemExit(f"{work / 'dist'} has {len(found)} wheels of framegate, expected one: build it first")
    return found[0]


def needed_glibc(wheel: Path) -> int:
    """Minor version of the C library that the wheel's compiled parts ask for.

    Setuptools leaves a compiled part out where the compiler fails; here that is an error.
    """
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        if sorted(Path(name).name for name in names) != sorted(COMPILED):
            raise SystemExit(f"{wheel.name} has {names}, expected {' and '.join(COMPILED)}: did {COMPILER} fail?")
        libraries = [archive.extract(name, folder) for name in names]
        dump = [f"{TRIPLET}-objdump", "-p", *libraries]
        found = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    if found.count("file format elf64-littleaarch64") != len(names):
        raise SystemExit(f"{wheel.name}: not all of {names} are for aarch64")
    return max([OLDEST_GLIBC, *(int(minor) for minor in re.findall(r"GLIBC_2\.(\d+)", found))])


def build_environment(source: Path, work: Path, apt_sources: Path, emulator: Sequence[str]) -> None:
    """Debian's Python for arm64 and the wheels of everything that framegate needs."""
    wheel = only_wheel(work)
    unpack_debian(work, apt_sources)
    describe_processor(work / "rootfs")
    site = work / "site"
    shutil.rmtree(site, ignore_errors=True)
    install(site, [wheel, "-c", source / "constraints.txt"])
    call([*emulator, "-c", CHECK], emulated_variables(work))


def install(target: Path, wanted: Sequence[str | Path]) -> None:
    """Install wheels for the emulated Python into a folder."""
    command: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    command += ["--target", target, "--no-compile", "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", VERSION, "--abi", f"cp{VERSION.replace('.', '')}"]
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC, NEWEST_GLIBC + 1)]
    for platform in [*platforms, "manylinux2014_aarch64"]:
        command += ["--platform", platform]
    call([*command, *wanted])


def run_tests(source: Path, work: Path, emulator: Sequence[str]) -> None:
    """Run the tests that compare compiled code with Python, of this checkout, against the wheel."""
    call([*emulator, "-c", CHECK], emulated_variables(work))  # without compiled code the tests would be skipped
    tools = work / "pytest"
    shutil.rmtree(tools, ignore_errors=True)
    install(tools, ["pytest", "pytest-xdist", "onnx", "-c", source / "constraints.txt"])
    shutil.rmtree(tools / "numpy")  # the one beside the wheel is the one that is tested
    paths = [work / "site", tools, source / "tests" / "helpers"]
    variables = {**emulated_variables(work), "PYTHONPATH": os.pathsep.join(map(str, paths))}
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", source, "-o", "pythonpath=tests/helpers"]
    call([*emulator, "-m", "pytest", *options, *TESTS], variables, source)


def unpack_debian(work: Path, apt_sources: Path) -> None:
    """Fetch the packages with an apt of our own, signatures checked, and unpack them; nothing is installed."""
    apt, root = work / "apt", work / "rootfs"
    for folder in (apt, root):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (root, apt / "lists" / "partial", apt / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (apt / "status").write_text("")
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": apt,
        "Dir::State::status": apt / "status",
        "Dir::State::lists": apt / "lists",
        "Dir::Cache": apt,
        "Dir::Cache::archives": apt / "archives",
        "Dir::Etc::sourcelist": apt_sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Debug::NoLocking": "1",
    }
    command: list[str | Path] = ["apt-get", "-q"]
    for key, value in options.items():
        command += ["-o", f"{key}={value}"]
    call([*command, "update"])
    call([*command, "install", "-y", "--download-only", "--no-install-recommends", *PACKAGES])
    for package in sorted((apt / "archives").glob("*.deb")):
        call(["dpkg-deb", "-x", package, root])


def describe_processor(root: Path) -> None:
    """Files that QEMU shows the emulated program instead of the machine's own."""
    numbers = range(os.cpu_count() or 1)
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text("".join(PROCESSOR.format(number=number) for number in numbers))
    for number in numbers:
        folder = root / f"sys/devices/system/cpu/cpu{number}/regs/identification"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "midr_el1").write_text(MIDR)


def emulator_of(work: Path, cpu: str) -> list[str]:
    """The command line that starts the emulated Python."""
    found = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if found is None:
        raise SystemExit("QEMU is missing: apt-get install qemu-user-static")
    root = work / "rootfs"
    return [found, "-cpu", cpu, "-L", str(root), str(root / "usr" / "bin" / f"python{VERSION}")]


def emulated_variables(work: Path) -> dict[str, str]:
    """The environment of the emulated Python; which kernels OpenBLAS takes on x86 means nothing there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "PYTHON", "LD_"))}
    return {**kept, "PYTHONPATH": str(work / "site"), "PYTHONNOUSERSITE": "1"}


def run_job(python: Sequence[str], variables: dict[str, str], source: Path, out: Path, options: Sequence[str]) -> float:
    """`framegate run` on the shipped clip and bundle; seconds that it took."""
    command = [*python, "-c", MAIN, "run", CLIP, "--bundle", BUNDLE, "--as-fast-as-possible", "--jsonl", str(out)]
    for region in REGIONS:
        command += ["--roi", region]
    started = time.monotonic()
    call([*command, *options], variables, source)
    return round(time.monotonic() - started, 1)


Runs = Sequence[tuple[str, str]]
"""Backends and precisions."""


def run_all(source: Path, work: Path, emulator: Sequence[str], native: Path | None, wanted: Runs) -> None:
    """The main job with backends and precisions; notes the seconds beside the verdicts."""
    runs = work / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    machine = "native" if native else "aarch64"
    python = [os.path.abspath(native)] if native else list(emulator)
    # The code of this checkout, whichever one is installed.
    variables = {**os.environ, "PYTHONPATH": str(source / "src")} if native else emulated_variables(work)
    for backend, precision in wanted:
        out = runs / f"{machine}-{backend}-{precision}.jsonl"
        seconds = run_job(python, variables, source, out, ["--backend", backend, "--precision", precision])
        out.with_suffix(".seconds").write_text(f"{seconds}\n")
        announce(f"{out}: {seconds} s")


def read_verdicts(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Region and frame to the verdict's line."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {(line["stream"], line["frame_id"]): line for line in lines}


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Two runs, frame by frame and region by region.

    Raises:
        SystemExit: They are not of the same frames and regions.
    """
    one, other = read_verdicts(first), read_verdicts(second)
    if one.keys() != other.keys() or not one:
        raise SystemExit(f"{first} and {second} do not have the same frames and regions")
    pairs = [(one[key], other[key]) for key in one]

    def equal(field: str) -> int:
        return sum(a[field] == b[field] for a, b in pairs)

    return {
        "frames": len({frame for _, frame in one}),
        "regions": len({region for region, _ in one}),
        "verdicts": len(pairs),
        "equal_verdicts": equal("verdict"),
        "equal_labels": equal("candidate"),
        "equal_reasons": equal("reasons"),
        "largest_score_difference": max(abs(a["score"] - b["score"]) for a, b in pairs),
        "largest_confidence_difference": max(abs(a["confidence"] - b["confidence"]) for a, b in pairs),
        "accepted": [sum(line["verdict"] == "ACCEPT" for line in lines) for lines in zip(*pairs, strict=True)],
    }


def since(recorded: Path, work: Path, wanted: Runs) -> bool:
    """Say whether the native runs of another commit have the same verdicts, scores and confidences, to the last bit."""
    same = True
    for backend, precision in wanted:
        found = compare(*(folder / "runs" / f"native-{backend}-{precision}.jsonl" for folder in (recorded, work)))
        differ = found["largest_score_difference"] > 0 or found["largest_confidence_difference"] > 0
        equal = all(found[f"equal_{name}"] == found["verdicts"] for name in ("verdicts", "labels", "reasons"))
        same &= equal and not differ
        announce(json.dumps({"backend": backend, "precision": precision, **found}))
    return same


def installed_wheels(site: Path) -> list[dict[str, str]]:
    """Name, version and tags of every wheel in a folder."""
    found = []
    for folder in sorted(site.glob("*.dist-info")):
        metadata = HeaderParser().parsestr((folder / "METADATA").read_text(encoding="utf-8"))
        tags = HeaderParser().parsestr((folder / "WHEEL").read_text()).get_all("Tag", [])
        found.append({"name": metadata["Name"], "version": metadata["Version"], "tag": " ".join(tags)})
    return found


def record(source: Path, work: Path, emulator: Sequence[str], wanted: Runs) -> dict[str, Any]:
    """What was compared, and how it came out; native and emulated runs must be there."""

    def first_line(command: Sequence[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=emulated_variables(work))
        return done.stdout.splitlines()[0]

    comparisons = []
    for backend, precision in wanted:
        runs = [work / "runs" / f"{machine}-{backend}-{precision}.jsonl" for machine in ("aarch64", "native")]
        seconds = [float(path.with_suffix(".seconds").read_text()) for path in runs]
        row = {"backend": backend, "precision": precision, **compare(*runs), "seconds": seconds}
        comparisons.append(row)
        announce(json.dumps(row))
    job = ["framegate", "run", CLIP, "--bundle", BUNDLE, *(word for region in REGIONS for word in ("--roi", region))]
    return {
        "what": "framegate's main job on emulated aarch64 against the same on x86-64; pairs are [aarch64, x86-64]",
        "date": datetime.date.today().isoformat(),
        "commit": first_line(["git", "-C", str(source), "describe", "--always", "--dirty"]),
        "command": " ".join([*job, "--as-fast-as-possible", "--backend BACKEND", "--precision PRECISION"]),
        "emulator": f"{first_line([emulator[0], '--version'])}, {' '.join(emulator[1:3])}",
        "python": first_line([*emulator, "--version"]),
        "wheels": installed_wheels(work / "site"),
        "comparisons": comparisons,
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["wheel", "environment", "run", "test", "compare", "since", "all"])
    parser.add_argument("source", type=Path, help="checkout of framegate")
    parser.add_argument("work", type=Path, help="folder for everything that is made")
    parser.add_argument("--cpu", default="cortex-a76", help="processor for QEMU (default: %(default)s)")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS, help="default: both")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="default: both")
    parser.add_argument("--native", type=Path, help="run: with this Python instead of the emulated one")
    parser.add_argument("--out", type=Path, help="compare: write the record here")
    parser.add_argument("--recorded", type=Path, help="since: the folder WORK of the other commit")
    parser.add_argument(
        "--apt-sources",
        type=Path,
        default=Path("/etc/apt/sources.list.d/debian.sources"),
        help="Debian's archives, in a file of apt (default: %(default)s)",
    )
    arguments = parser.parse_args()
    source, work = arguments.source.resolve(), arguments.work.resolve()
    emulator = emulator_of(work, arguments.cpu)
    wanted = [(backend, precision) for backend in arguments.backends for precision in arguments.precisions]
    if arguments.step in ("wheel", "all"):
        announce(f"built {build_wheel(source, work)}")
    if arguments.step in ("environment", "all"):
        build_environment(source, work, arguments.apt_sources.resolve(), emulator)
    if arguments.step in ("run", "all"):
        run_all(source, work, emulator, arguments.native, wanted)
    if arguments.step == "test":
        run_tests(source, work, emulator)
    if arguments.step == "compare":
        found = json.dumps(record(source, work, emulator, wanted), indent=2) + "\n"
        if arguments.out:
            arguments.out.write_text(found)
    if arguments.step == "since":
        if arguments.recorded is None:
            parser.error("since needs --recorded, the folder with the native runs of the other commit")
        if not since(arguments.recorded.resolve(), work, wanted):
            raise SystemExit("verdicts, scores or confidences have changed since then; the lines above say which")


if __name__ == "__main__":
    main()
