"""Finds a bundle by name: in the current folder, then in the package, then in the folders of ``FRAMEGATE_BUNDLES``.

``hybrid-cifar10`` is ``./hybrid-cifar10`` or ``./hybrid-cifar10.bundle`` if one of them is there, else
``hybrid-cifar10.bundle`` among the bundles that came with framegate, else in the first folder of the environment
variable that has one. Whatever holds a separator (``./car``, ``/srv/car.bundle``) is a path and is looked for nowhere
else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from framegate.runtime.errors import BundleError, UsageError

VARIABLE = "FRAMEGATE_BUNDLES"
"""Environment variable: folders that hold bundles, separated as in ``PATH``."""
SUFFIX = ".bundle"
MANIFEST = "manifest.json"
SHIPPED = Path(__file__).resolve().parents[2] / "models" / "bundles"
"""What came with framegate: all bundles in a checkout, the demo's in a wheel. Only a path: `models` needs torch."""


@dataclass(frozen=True)
class NamedBundle:
    """A folder that a name can stand for.

    Attributes:
        name: What to give to a command: the folder's name without ``.bundle``.
        path: The folder; not opened yet.
        place: Why it was found: ``current folder``, ``package`` or ``$FRAMEGATE_BUNDLES``.
        hidden: The name stands for another folder, which is found first.
    """

    name: str
    path: Path
    place: str
    hidden: bool


def find_bundle(given: str | os.PathLike[str]) -> Path:
    """The folder that a path or a name stands for. Not opened: it may still be damaged.

    Args:
        given: A path, with or without ``.bundle``, or a name.

    Raises:
        BundleError: There is no such folder; for a name the message says where it was looked for and which are known.
    """
    return _find(os.fspath(given))[0]


def bundle_to_change(given: str | os.PathLike[str]) -> Path:
    """The same for a command that writes into the bundle: a name must not reach into the package or a shared folder.

    Raises:
        BundleError: There is no such folder.
        UsageError: It is not in the current folder, and was given by its name alone.
    """
    path, elsewhere = _find(os.fspath(given))
    if elsewhere:
        raise UsageError(
            f"bundle {os.fspath(given)!r}: this changes the bundle, and the name was found in {path.parent}; "
            f"give the path of the folder to change, e.g. of a copy: cp -r {path} . and then ./{path.name}"
        )
    return path


def named_bundles() -> tuple[NamedBundle, ...]:
    """All bundles that can be given by name, in the order in which they are looked for; each folder once."""
    found: list[NamedBundle] = []
    seen: set[str] = set()
    for folder, place in (("", "current folder"), *_folders()):
        for name in sorted(_listed(folder)):
            path = Path(folder, name + SUFFIX)
            if (real := os.path.realpath(path)) not in seen:
                # A folder NAME comes before NAME.bundle, and is listed by nobody: many programs have a manifest.json.
                hidden = any(each.name == name for each in found) or os.path.isfile(os.path.join(name, MANIFEST))
                seen.add(real)
                found.append(NamedBundle(name, path, place, hidden))
    return tuple(found)


def problems() -> tuple[str, ...]:
    """One line for each folder of the environment variable in which nothing can be found, and why."""
    return tuple(f"{VARIABLE}: {folder} {wrong}" for folder, _ in _folders()[1:] if (wrong := _problem(folder)))


def _find(given: str) -> tuple[Path, bool]:
    """The folder, and whether it lies elsewhere than where the text itself points to."""
    if not given.strip():
        raise BundleError(f"bundle {given!r}: no name; {_what_to_give()}")
    path, longer = Path(given), Path(given.rstrip(os.sep) + SUFFIX)
    if os.path.isfile(path / MANIFEST):
        return path, False
    is_name = given == path.name and given != os.pardir
    if not given.endswith(SUFFIX) and path.name and os.path.lexists(longer):
        return longer, False
    if os.path.lexists(path) and (given.endswith(SUFFIX) or not is_name):
        return path, False  # no bundle, or a damaged one: whoever opens it says what is wrong with it
    if not is_name:
        raise BundleError(f"bundle {given!r}: expected a folder NAME{SUFFIX}, found nothing there; {_what_to_give()}")
    name = given.removesuffix(SUFFIX)
    for folder, _ in _folders():
        candidate = Path(folder, name + SUFFIX)
        if os.path.lexists(candidate):
            return candidate, True
    raise BundleError(f"bundle {given!r}: not found: {_looked_for(given)}; {_what_to_give()}")


def _folders() -> tuple[tuple[str, str], ...]:
    """Where a name is looked for after the current folder: folder and place."""
    listed = [os.path.expanduser(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
    return ((str(SHIPPED), "package"), *((folder, f"${VARIABLE}") for folder in listed))


def _listed(folder: str) -> set[str]:
    """Names of the bundles in a folder; none if it cannot be read."""
    try:
        names = os.listdir(folder or os.curdir)
    except OSError:
        return set()
    # A name that begins with a dot is a bundle that is just being written.
    return {
        name.removesuffix(SUFFIX)
        for name in names
        if name.endswith(SUFFIX) and not name.startswith(".") and os.path.isdir(os.path.join(folder, name))
    }


def _problem(folder: str) -> str:
    if os.path.isfile(os.path.join(folder, MANIFEST)):
        return "is a bundle itself; name the folder around it"
    try:
        os.listdir(folder)
    except NotADirectoryError:
        return "is a file, not a folder of bundles"
    except OSError as error:
        return "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return ""


def _looked_for(given: str) -> str:
    """Where a name was looked for, and what was wrong there."""
    kind = "a file" if os.path.isfile(given) else "a folder without a manifest"
    here = f"in the current folder it is {kind}" if os.path.lexists(given) else "not in the current folder"
    places = [
        f"not in {folder} ({place})" if not (wrong := _problem(folder)) else f"{folder} ({place}) {wrong}"
        for folder, place in _folders()
    ]
    unset = [] if os.environ.get(VARIABLE, "").strip() else [f"{VARIABLE} is not set"]
    return ", ".join((here, *places, *unset))


def _what_to_give() -> str:
    names = ", ".join(dict.fromkeys(each.name for each in named_bundles()))
    return f"give the path of a folder NAME{SUFFIX}" + (f" or one of the names {names}" if names else "")
