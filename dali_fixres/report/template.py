"""The jinja2 templates of this package: HTML is escaped, Markdown is not."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

__all__ = ["TEMPLATES"]

TEMPLATES = Environment(
    loader=PackageLoader("dali_fixres.report"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters["python"] = repr
