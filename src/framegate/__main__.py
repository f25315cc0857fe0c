"""The command ``framegate`` and ``python -m framegate``: loads the command line, or says which package it lacks.

Nothing is imported here that may be missing or damaged. pip removes files that two packages share (``opencv-python``
and ``opencv-python-headless``) with either of them, and a container may lack what a library links to.
"""

from __future__ import annotations

import importlib
import json
import sys

_NEEDED = {"numpy": "numpy", "cv2": "opencv-python-headless", "rich": "rich"}
"""What the command line needs for anything at all, and the package that brings it."""


def main() -> int:
    """Run one command.

    Returns:
        The process's exit code; see `framegate.runtime.cli.main`.
    """
    try:
        from framegate.runtime.cli.main import main as command

        return command()
    except KeyboardInterrupt:  # before the command line was loaded, which takes a moment
        print("framegate: interrupted", file=sys.stderr)
        return 130
    except Exception:  # a command loads what it needs when it is the one that runs
        missing = _missing()
        if not missing:
            raise
        if sys.argv[1:2] == ["doctor"] and "--json" in sys.argv:
            found = [{"what": f"package {name}", "usable": False, "explanation": why} for name, why in missing.items()]
            print(json.dumps(found, indent=2))
        elif sys.stderr is not None:
            for why in missing.values():
                print(f"framegate: {why}", file=sys.stderr)
        return 1


def _missing() -> dict[str, str]:
    """What cannot be imported, each with a sentence that says what to do."""
    found: dict[str, str] = {}
    for name, package in _NEEDED.items():
        try:
            module = importlib.import_module(name)
            if not hasattr(module, "__version__") and name != "rich":  # an empty folder is left of it
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        except ModuleNotFoundError as error:
            what = "is missing" if error.name == name else f"is damaged ({error})"
        except Exception as error:  # noqa: BLE001 - whatever it raises: a damaged package must be named
            what = f"cannot be loaded ({' '.join(str(error).split()) or type(error).__name__})"
        else:
            continue
        found[name] = f"{name} {what}; pip install --force-reinstall {package}"
    return found


if __name__ == "__main__":
    raise SystemExit(main())
