from typing import Annotated, NotRequired, TypedDict

from dali_fixres.report.schemas import PAGE, page, section


class Part(TypedDict):
    """A part."""

    side: Annotated[int | None, "pixels"]


class Whole(Part):
    """`some --json`."""

    parts: Annotated[dict[str, list[Part]], "by name"]
    extra: NotRequired[Annotated[float, "s"]]


def test_the_page_is_up_to_date() -> None:
    """docs/schemas.md is what `python -m dali_fixres.report.schemas` writes."""
    assert PAGE.read_text() == page()


def test_a_section_has_every_key() -> None:
    """Inherited and optional keys too, with types in JSON's words and links to other objects."""
    assert section(Whole) == (
        "## Whole\n\n`some --json`.\n\n| key | type | meaning |\n|---|---|---|\n"
        "| `side` | integer or null | pixels |\n"
        "| `parts` | object of list of [Part](#part) | by name |\n"
        "| `extra` | number, optional | s |\n"
    )
