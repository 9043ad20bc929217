"""Command line of the package; see its docstring."""

from __future__ import annotations

import sys

from docs_tables import filled, pages
from docs_tables.text import ROOT


def main() -> int:
    stale = [page for page in pages() if filled(page.read_text()) != page.read_text()]
    for page in stale:
        print(page.relative_to(ROOT))
        if "--check" not in sys.argv:
            page.write_text(filled(page.read_text()))
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
