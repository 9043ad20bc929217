"""The entry point of the console script."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from automl_ext_cli.commands import answer


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return its exit code: see :func:`automl_ext.cli.main`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    code = answer(argv)
    if code is not None:
        return code
    try:
        from automl_ext.cli import main as run  # loads torch
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, ImportError) as error:
        if "AUTOML_EXT_BACKEND" not in str(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run(argv)
