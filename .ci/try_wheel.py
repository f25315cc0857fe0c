"""Try a built wheel as somebody who has nothing else: a fresh environment, another folder, the main job.

    python .ci/try_wheel.py dist/framegate-*.whl --python python3.12

Ends with an error if the clip that the wheel holds is not judged as it should be. `make wheel` runs it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
FRAMES = 38
REGIONS = {
    "black-car": "795,385,160,130",
    "white-car": "1000,370,270,160",
    "sky": "700,20,160,130",
    "road": "560,500,160,130",
}
CARS = ("black-car", "white-car")
FACTS = """
import json, platform, sys
from importlib.metadata import version
import framegate
from framegate.camera_demo.shipped import CLIP
from framegate.runtime.native import fast_path_module, library
packages = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "rich")
print(json.dumps({
    "python": platform.python_version(), "machine": platform.machine(), "file": framegate.__file__, "clip": str(CLIP),
    "compiled": library()[1],
    "fast": fast_path_module() is not None,
    "version": sys.version_info[:2],
    "packages": {name: version(name) for name in packages},
}))
"""


def call(words: list[str], folder: Path) -> str:
    """Run a command in a folder and return what it printed; everything, and the end, if it fails."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def try_wheel(wheel: Path, python: str, folder: Path) -> str:
    """Install and run.

    Args:
        wheel: The built wheel.
        python: The interpreter to make the environment with.
        folder: An empty folder outside every checkout.

    Returns:
        One line about what ran.
    """
    call([python, "-m", "venv", "venv"], folder)
    own = folder / "venv" / "bin"
    call([str(own / "python"), "-m", "pip", "-q", "install", "-c", str(CONSTRAINTS), str(wheel)], folder)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    facts = json.loads(call([str(own / "python"), "-c", FACTS], elsewhere))
    if not Path(facts["file"]).is_relative_to(folder):
        sys.exit(f"framegate was imported from {facts['file']}, not from the wheel")
    if facts["compiled"] != "_native.so":
        sys.exit(f"the compiled part is not used: {facts['compiled']}")
    if facts["version"] >= [3, 11] and not facts["fast"]:
        sys.exit("the fast path cannot be imported")
    call([str(own / "framegate"), "doctor"], elsewhere)
    call([str(own / "python"), "-m", "framegate", "bundles"], elsewhere)
    words = [str(own / "framegate"), "run", facts["clip"], "--bundle", "hybrid-cifar10", "--precision", "int8"]
    words += [word for name, roi in REGIONS.items() for word in ("--roi", f"{name}={roi}")]
    summary = json.loads(call([*words, "--as-fast-as-possible", "--jsonl", "verdicts.jsonl", "--json"], elsewhere))
    verdicts = [json.loads(line) for line in (elsewhere / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()]
    accepted = {name: sum(row["verdict"] == "ACCEPT" for row in verdicts if row["stream"] == name) for name in REGIONS}
    expected = {name: FRAMES if name in CARS else 0 for name in REGIONS}
    if len(verdicts) != FRAMES * len(REGIONS) or accepted != expected:
        sys.exit(f"{len(verdicts)} verdicts, accepted {accepted}; expected {FRAMES} of each region and {expected}")
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    return (
        f"Python {facts['python']}, {facts['machine']}: {len(verdicts)} verdicts, {sum(accepted.values())} accepted, "
        f"{summary['model'].partition(';')[0]}; {packages}"
    )


def main() -> int:
    """Try one wheel with one or several Pythons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="default: the one that runs this")
    options = parser.parse_args()
    for given in options.python:
        python = str(Path(given).absolute()) if "/" in given else given  # it is called in other folders
        with tempfile.TemporaryDirectory() as folder:
            print(try_wheel(options.wheel.resolve(), python, Path(folder).resolve()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
