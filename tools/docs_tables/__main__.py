"""Command line of the package; see its docstring."""

from __future__ import annotations

import sys

from docs_tables import filled, pages
from docs_tables.text import ROOT


def main(check: bool) -> int:
    wrong = 0
    for page in pages():
        name, text = page.relative_to(ROOT), page.read_text()
        try:
            new = filled(text)
        except ValueError as error:
            print(f"{name}: {error}")
            wrong += 1
            continue
        if new == text:
            continue
        if not check:
            page.write_text(new)
            print(f"{name}: filled")
            continue
        wrong += 1
        print(f"{name}: a table differs from its file")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
