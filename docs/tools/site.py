"""The sources of the site, put together: ``python docs/tools/site.py FOLDER``, a part of ``make docs``.

The documents are written for a reader on GitHub, who sees the whole repository. A site has only what lies in it. So

- README.md and other documents outside docs/ become pages, README.md the first one;
- files of the repository that a document links to (``../benchmarks/results/demo.json``) are copied, below ``files/``,
  and the links are changed to there;
- every package of framegate gets a page, which mkdocstrings fills from the docstrings.

A link that leads nowhere stays as it is, and the build refuses it.
"""

from __future__ import annotations

import ast
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Documents outside docs/ and the pages that they become."""
ROOMS = ("runtime", "cuda_kernels", "models", "export", "evaluation", "benchmarks", "camera_demo")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")


def documents() -> list[str]:
    """Paths in the repository of every document of the site that people wrote."""
    return [*PAGES, *sorted(f"{DOCS}/{path.name}" for path in (ROOT / DOCS).glob("*.md"))]


def links(markdown: str) -> Iterator[str]:
    """The targets of a document's links and pictures within the repository; code blocks are left out."""
    return (target for target in _LINK.findall(_FENCE.sub("", markdown)) if "://" not in target)


def place_of(target: str, document: str) -> tuple[str, str]:
    """Where a link leads.

    Args:
        target: As written, e.g. ``../benchmarks/results/demo.json`` or ``gate.md#calibrate``.
        document: Path of the document in the repository, e.g. ``docs/gate.md``.

    Returns:
        The path in the repository, and the anchor without its ``#``, empty if there is none.
    """
    path, _, anchor = target.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(document), path)) if path else document, anchor


def page_of(place: str) -> str:
    """Where a path of the repository lies in the site's sources."""
    if place in PAGES:
        return PAGES[place]
    return place.removeprefix(f"{DOCS}/") if place.startswith(f"{DOCS}/") else f"files/{place}"


def site_text(markdown: str, document: str) -> str:
    """A document with its links changed to those of the site."""

    def changed(match: re.Match[str]) -> str:
        target = match[0]
        place, anchor = place_of(target, document)
        if "://" in target or not (ROOT / place).is_file():
            return target
        relative = posixpath.relpath(page_of(place), posixpath.dirname(page_of(document)) or ".")
        return relative + (f"#{anchor}" if anchor else "")

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(changed, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(changed, markdown[end:])])


def packages() -> dict[str, list[str]]:
    """Every package and the modules that lie directly in it."""
    found = {}
    for room in ROOMS:
        for start in sorted((ROOT / room).rglob("__init__.py")):
            package = ".".join(("framegate", *start.parent.relative_to(ROOT).parts))
            names = sorted(path.stem for path in start.parent.glob("*.py") if path != start)
            found[package] = [f"{package}.{name}" for name in names]
    return found


def api_page(package: str, modules: list[str]) -> str:
    """A package's page: its own docstring, then its modules."""
    head = f"# {package}\n\n::: {package}\n    options: {{members: false, show_root_heading: false}}\n"
    return head + "".join(f"\n::: {module}\n" for module in modules)


def first_api_page() -> str:
    """Every name that ``from framegate.runtime import`` knows, with the first sentence of its docstring."""
    rows = []
    # The names are imported when they are used; their imports stand below TYPE_CHECKING.
    for node in ast.walk(ast.parse((ROOT / "runtime" / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("framegate."):
            file = ROOT / (node.module.removeprefix("framegate.").replace(".", "/") + ".py")
            defined = {
                each.name: (ast.get_docstring(each) or "").partition("\n\n")[0].replace("\n", " ")
                for each in ast.parse(file.read_text(encoding="utf-8")).body
                if isinstance(each, (ast.ClassDef, ast.FunctionDef))
            }
            rows += [f"| [`{name.name}`][{node.module}.{name.name}] | {defined[name.name]} |" for name in node.names]
    lines = (
        "# In your program",
        "",
        "`from framegate import ...` knows these names: they are what other programs can rely on. All other modules",
        "are listed by package in the menu. Every page is made from the docstrings.",
        "",
        "| name | what it is |",
        "|---|---|",
        *sorted(rows, key=str.lower),
    )
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Write the sources of the site into a folder, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / DOCS, folder, ignore=shutil.ignore_patterns("*.md", "*.py", "__pycache__"))
    pages = {
        "api/index.md": first_api_page(),
        **{f"api/{package}.md": api_page(package, modules) for package, modules in packages().items()},
    }
    for document in documents():
        markdown = (ROOT / document).read_text(encoding="utf-8")
        pages[page_of(document)] = site_text(markdown, document)
        for place in (place_of(target, document)[0] for target in links(markdown)):
            if page_of(place).startswith("files/") and (ROOT / place).is_file():
                copy = folder / page_of(place)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / place, copy)
    for page, text in pages.items():
        path = folder / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
