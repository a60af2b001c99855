"""A reader of HTML for tests of reports."""

from html.parser import HTMLParser

__all__ = ["Page"]


class Page(HTMLParser):
    """Reads a page, whose elements must be closed in turn.

    Attributes:
        open: Elements that are not closed; none at the end of a well-formed page.
        names: Of all elements.
        sources: Where what the page shows or links to comes from.
        texts: The text between elements, in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element, and that it is open unless it never has content."""
        self.names.add(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last, which has to be this one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.texts.append(data)
