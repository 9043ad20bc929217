"""The documentation agrees with the repository: links, tables of results, and the reference of public names."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path

import docs_tables
import pytest
from docs_tables.text import ROOT

LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
KINDS = ("Tutorial", "How-to", "Reference", "Explanation", "Results", "Development")
PACKAGES = {
    "automl_ext": "ops.md",
    "automl_ext.ops.entmax": "ops.md",
    "automl_ext.nas": "algorithms.md",
    "automl_ext.rl": "algorithms.md",
    "automl_ext.training": "algorithms.md",
}


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES[2:], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_says_what_it_is(page: Path) -> None:
    if page == ROOT / "docs/index.md":
        return  # the way in
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(), flags=re.DOTALL)
    title, _, first = text.split("\n")[:3]
    assert title.startswith("# ")
    assert first.startswith(tuple(f"{kind}: " for kind in KINDS)), first
    levels = [len(marks) for marks in re.findall(r"^(#+) ", CODE.sub("", text), re.MULTILINE)]
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), "Sphinx warns of a heading whose level is left out"


def test_tables_are_those_of_the_recorded_results() -> None:
    pages = docs_tables.pages()
    assert len(pages) >= 4
    shown = [name for page in pages for name in re.findall(r"<!-- table: (\w+) -->", page.read_text())]
    assert sorted(shown) == sorted(docs_tables.TABLES)
    for page in pages:
        assert docs_tables.filled(page.read_text()) == page.read_text(), f"{page}: run make docs-tables"


def test_a_table_does_not_reach_past_its_end() -> None:
    first, second = (f"<!-- table: {name} -->\n\n<!-- table end -->\n" for name in ("fidelity", "supernet_ranking"))
    made = docs_tables.filled(f"{first}between\n{second}after\n")
    assert made.count("| all | 15,625 |") == 1
    assert "\nbetween\n" in made
    assert made.endswith("\nafter\n")
    assert docs_tables.filled(made) == made


def documented(page: Path, package: str) -> set[str]:
    """The names of a package that the directives of a page document."""
    text = page.read_text()
    names: set[str] = set()
    for block in re.findall(rf"currentmodule:: {re.escape(package)}\n(.*?)```", text, re.DOTALL):
        names |= set(re.findall(r"\.\. auto(?:function|class):: (\w+)", block))
    whole = re.search(rf"automodule:: {re.escape(package)}\n((?:   :.*\n)*)", text)
    if whole and ":members:" in whole[1]:
        excluded = re.search(r":exclude-members: (.*)", whole[1])
        names |= set(public(package)) - set(excluded[1].split(", ") if excluded else ())
    return names


def public(package: str) -> list[str]:
    return getattr(importlib.import_module(package), "__all__", [])


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_name(package: str) -> None:
    page = ROOT / "docs/reference" / PACKAGES[package]
    names = set(public(package)) - {"__version__", "ops"}  # named in the text
    assert names - documented(page, package) == set()
