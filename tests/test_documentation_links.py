"""Links of the documentation lead somewhere: to a file, and to a heading in it."""

import re

import pytest
from pages import PAGES, ROOT

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
LINKS = [
    (page, link)
    for page in PAGES
    for link in LINK.findall(FENCE.sub("", page.read_text()))
    if "://" not in link
]


def anchors(page):
    """Of the headings of a page, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_there_are_links():
    assert any("#" in link for _, link in LINKS)


@pytest.mark.parametrize(
    ("page", "link"), LINKS, ids=[f"{page.relative_to(ROOT)}:{link}" for page, link in LINKS]
)
def test_links_lead_somewhere(page, link):
    file, _, anchor = link.partition("#")
    target = page.parent / file if file else page
    assert target.exists()
    if anchor:
        assert anchor in anchors(target)
