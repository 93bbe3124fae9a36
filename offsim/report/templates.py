"""The templates of the pages, and their style sheet."""

from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

PACKAGE = "offsim.report"


def template_named(name: str) -> Template:
    """A template of this package; every value is escaped, and a missing one is an error.

    Args:
        name: of its file.
    """
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def style_sheet() -> str:
    """The package's own style sheet, which a page holds as it is."""
    return (files(PACKAGE) / "report.css").read_text(encoding="utf-8")
