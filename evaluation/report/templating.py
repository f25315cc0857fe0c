"""Templates of HTML pages, which escape every value of a record by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from framegate.runtime.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_environments: dict[str, Environment] = {}
"""Package to what reads its templates, and keeps what it has compiled."""


def template(package: str, name: str) -> Template:
    """A template from the folder ``templates`` of a package.

    Every value is escaped; a value that the template lacks is an error, never an empty place. A percent sign stays on
    the line of its number.

    Args:
        package: Its full name.
        name: Of the file, such as ``report.html.j2``.

    Raises:
        UsageError: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UsageError(
            "an HTML page needs Jinja2, which is not installed; pip install jinja2 (framegate[evaluate] has it)"
        ) from error
    if package not in _environments:
        _environments[package] = jinja2.Environment(
            loader=jinja2.PackageLoader(package, "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=_unbroken,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
    return _environments[package].get_template(name)


def _unbroken(value: Any) -> Any:
    """A text with a no-break space before each percent sign; markup and numbers as they are."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if type(value) is str else value
