"""The entry point of the console script."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return its exit code: see :func:`automl_ext.cli.main`.

    Until the command begins and after its end, Ctrl-C kills this process as it kills a C program. A KeyboardInterrupt
    would print a traceback, or a library that is being imported would hide it or turn it into another error.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from automl_ext_cli.commands import answer, refuse

    argv = list(sys.argv[1:] if argv is None else argv)
    code = answer(argv)
    if code is not None:
        return code
    try:
        from automl_ext.cli import main as run  # loads torch
    except (ValueError, ImportError) as error:
        if "AUTOML_EXT_BACKEND" not in str(error):
            raise
        return refuse(str(error))
    return run(argv)
