"""The entry point of the console script."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

NARROWEST = 20  # columns; in fewer than six, tyro's help never ends


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Return its exit code: see :func:`automl_ext.cli.main`.

    Until the command begins and after its end, Ctrl-C kills this process as it kills a C program. A KeyboardInterrupt
    would print a traceback, or a library that is being imported would hide it or turn it into another error.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    open_closed_streams()
    from automl_ext_cli.commands import answer, refuse

    argv = list(sys.argv[1:] if argv is None else argv)
    code = answer(argv)
    if code is not None:
        return code
    widen()
    try:
        from automl_ext.cli import main as run  # loads torch
    except (ValueError, ImportError) as error:
        if "AUTOML_EXT_BACKEND" not in str(error):
            raise
        return refuse(str(error))
    return run(argv)


def open_closed_streams() -> None:
    """Connect standard streams that a shell has closed (``>&-``, ``2>&-``) to the null device.

    Python has None in their place. The next file that the process opened would get their descriptor, to which libraries
    in C print.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            mode = "w" if descriptor else "r"
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115  # open until the process ends


def widen() -> None:
    """Let what is printed have at least ``NARROWEST`` columns."""
    from shutil import get_terminal_size

    if get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
