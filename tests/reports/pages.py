"""Reading rendered HTML in tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Element:
    """An element with its attributes and contents."""

    name: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, white space collapsed."""
        return " ".join("".join(self._texts()).split())

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._texts()

    def all(self, name: str, where: Callable[[Element], bool] = lambda _: True) -> list[Element]:
        """Descendants of that name, in document order."""
        elements = []
        for child in self.children:
            if isinstance(child, Element):
                if child.name == name and where(child):
                    elements.append(child)
                elements += child.all(name, where)
        return elements

    def of_class(self, name: str, class_: str) -> list[Element]:
        return self.all(name, lambda element: class_ in element.classes)

    def number(self, attribute: str) -> float:
        return float(self.attributes[attribute])


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("#document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(html: str) -> Element:
    """The document; fails where an end tag does not match."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], "elements are left open"
    return reader.root


def assert_self_contained(html: str) -> None:
    """Nothing is fetched: no address outside the page in any attribute or style."""
    document = parse(html)
    for element in (one for name in ("a", "link", "script", "img", "iframe") for one in document.all(name)):
        for attribute in ("href", "src", "srcset", "data"):
            address = element.attributes.get(attribute)
            assert address is None or address.startswith(("#", "data:")), f"{element.name} loads {address}"
    style = "".join(one.text for one in document.all("style"))
    assert "url(" not in style
    assert "@import" not in style
    assert "fetch(" not in html
    assert "http:" not in style
    assert "https:" not in style
