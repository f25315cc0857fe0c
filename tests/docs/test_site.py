"""The documents hold together, and become a site: links, anchors, names of files, pictures, menu, and ``make docs``."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from repository import ROOT

from framegate.runtime.verdict import Reason


def _tool(name: str) -> ModuleType:
    """A script of docs/tools, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site, drawings = _tool("site"), _tool("drawings")
DOCUMENTS = site.documents()


def _text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def _anchors(document: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", _text(document), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(document):
    for target in site.links(_text(document)):
        place, anchor = site.place_of(target, document)
        assert (ROOT / place).is_file(), f"{target}: link to a file of the repository, or to none"
        assert not anchor or anchor in _anchors(place), f"{target}: no such heading"


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if each != "CHANGELOG.md"])  # it names the past, too
def test_every_file_that_a_document_names_exists(document):
    rooms = "|".join((*site.ROOMS, "docs", "tests", "src"))
    for name in set(re.findall(rf"`((?:{rooms})/[\w./-]*)`", _text(document))):
        assert (ROOT / name).exists(), name


def test_modules_that_are_run_by_name_exist():
    for document in DOCUMENTS:
        for module in set(re.findall(r"python -m (framegate[\w.]*)", _text(document))):
            assert importlib.util.find_spec(module), f"{document}: {module}"


def test_the_readme_names_every_reason_once():
    named = re.findall(r"^\| `([A-Z_]+)` \|", _text("README.md"), re.MULTILINE)
    assert sorted(named) == sorted(reason.value for reason in Reason)


@pytest.mark.parametrize("name", sorted(drawings.PICTURES))
def test_the_committed_pictures_are_what_the_script_draws(name):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == drawings.PICTURES[name]()


def test_the_pictures_and_the_design_page_name_every_room_and_every_folder_of_the_runtime():
    drawn, page = drawings.rooms(), _text("docs/design.md")
    folders = {path.parent.name for path in (ROOT / "runtime").glob("*/__init__.py")}
    assert {"sources", "health", "policy", "backends"} <= folders
    for name in (*site.ROOMS, *folders):
        assert f">{name}/<" in drawn, name
        assert f"`{name}/`" in page, name


def test_the_files_in_the_picture_of_a_frame_exist():
    named = set(re.findall(r"\b([a-z_]+(?:/[a-z_]+)?\.py)\b", drawings.frame()))
    assert "policy/rules.py" in named
    assert not [name for name in named if not (ROOT / "runtime" / name).is_file()]


def test_links_out_of_the_documents_become_links_within_the_site():
    rest = "[b](gate.md#calibrate) [d](https://x.org/y) ![e](demo.jpg)"
    text = f"[a](../benchmarks/results/demo.json) [c](../README.md) {rest}"
    assert site.site_text(text, "docs/design.md") == f"[a](files/benchmarks/results/demo.json) [c](index.md) {rest}"
    assert site.site_text("[a](docs/gate.md) [b](CHANGELOG.md)", "README.md") == "[a](gate.md) [b](changelog.md)"
    code = "```text\n[a](../README.md)\n```"
    assert site.site_text(code, "docs/design.md") == code


def test_every_page_is_in_the_menu(tmp_path):
    site.write(tmp_path / "sources")
    pages = {str(path.relative_to(tmp_path / "sources")) for path in (tmp_path / "sources").rglob("*.md")}
    menu = re.findall(r"^ +- [^:]+: (\S+\.md)$", _text("mkdocs.yml"), re.MULTILINE)
    assert sorted(menu) == sorted(pages)


class _Loaded(HTMLParser):
    """What a browser fetches when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "link" and found.get("rel") not in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            return
        name = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}.get(tag)
        if name and (address := found.get(name)):
            self.addresses.append(address)


@pytest.mark.long  # half a minute; `make check` builds the site, in which every warning is an error
def test_make_docs_builds_a_site_that_needs_no_network(tmp_path):
    pytest.importorskip("material", reason="the site is built with the packages of the extra docs")
    pytest.importorskip("mkdocstrings_handlers.python", reason="the site is built with the packages of the extra docs")
    venv = Path(sys.executable).parents[1]
    # The environment is the one that runs the tests; -o takes its installation step as done.
    words = ["make", "docs", f"VENV={venv}", "-o", f"{venv}/.docs", f"SITE={tmp_path / 'site'}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING -" not in done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        loaded = _Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        assert loaded.addresses
        assert not [each for each in loaded.addresses if "//" in each], page
    for style in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style
    # Docstrings have become pages, and a type in a signature is a link.
    session = (tmp_path / "site" / "api" / "framegate.runtime.html").read_text(encoding="utf-8")
    assert 'id="framegate.runtime.session.Session.open"' in session
    assert '#framegate.runtime.bundle.bundle.Bundle"' in session
    assert (tmp_path / "site" / "files" / "benchmarks" / "results" / "demo.json").is_file()
