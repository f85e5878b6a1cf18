"""The page of each OpenAPI document: it needs no other file, and every address on it leads somewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from pipeline.openapi import delivery, ingest
from pipeline.openapi.page import Served
from pipeline.settings import Settings

PAGES = {"ingest": Served(lambda: ingest.document(Settings())), "delivery": Served(delivery.document)}


VOID = {"meta", "br"}
"""The elements without an end."""


class Elements(HTMLParser):
    """The elements of a page: their names, their ids, and the addresses they lead to; checks that each is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.ids: list[str] = []
        self.addresses: set[str] = set()
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        self.names.add(tag)
        for name, value in attrs:
            assert name not in ("style", "src"), tag
            assert not name.startswith("on"), tag
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.addresses.add(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", PAGES)
def test_page_needs_no_script_and_no_other_file(name: str) -> None:
    """Its policy admits its own style, and nothing else."""
    page = PAGES[name].page.decode()
    assert not Elements(page).names & {"script", "link", "img", "iframe", "object"}
    (style,) = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert PAGES[name].policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")


@pytest.mark.parametrize("name", PAGES)
def test_every_address_on_the_page_leads_somewhere(name: str) -> None:
    """To a part of the page, or to the document."""
    elements = Elements(PAGES[name].page.decode())
    assert len(set(elements.ids)) == len(elements.ids)
    assert elements.addresses - {f"#{each}" for each in elements.ids} == {"/openapi.json"}


@pytest.mark.parametrize("name", PAGES)
def test_type_of_every_problem_is_an_address_on_the_page(name: str) -> None:
    """A problem document says where its kind is explained."""
    types = set(re.findall(r'"(/docs#[^"]*)"', PAGES[name].json.decode()))
    assert len(types) > 10
    assert types <= {f"/docs#{each}" for each in Elements(PAGES[name].page.decode()).ids}
