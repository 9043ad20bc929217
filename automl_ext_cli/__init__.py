"""The console script ``automl-ext``, and the class of the entries in its table of commands.

It is outside of the package ``automl_ext``, whose import loads torch and takes seconds: help must not wait for it.
"""

from __future__ import annotations

KINDS = ("supernet", "strategy", "alias", "agent", "run", "other")


class Command:
    """One command of the table.

    Attributes:
        kind: how the command runs, see below.
        help: one line for the list of commands.
        options: dataclass of the command's options, as ``module:object``; "" for tune, whose options depend on the
            tuned command.
        run: what runs it, as ``module:object``.

    | kind | options | run |
    |---|---|---|
    | supernet | configuration | function that searches over a supernet |
    | strategy | configuration of a search strategy, which makes the strategy | – |
    | alias | – | name of the command that this one stands for |
    | agent | configuration | class of the agent |
    | run | configuration | another function that makes a run directory |
    | other | options | function from the options to the exit code |

    A command of kind other without options parses them itself: its function gets the program's name and the arguments.

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(self, kind: str, help: str, options: str = "", run: str = "") -> None:
        if kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        self.kind, self.help, self.options, self.run = kind, help, options, run
