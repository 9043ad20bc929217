"""The command ``automl-ext portfolio``: builds a portfolio file from finished studies."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from automl_ext.training.errors import UserError
from automl_ext.training.files.atomic import check_writable, write_output
from automl_ext.tune.portfolio_building import build_portfolio, read_study


@dataclass
class PortfolioCommand:
    """The options of ``automl-ext portfolio``."""

    out: Path
    """File to write, NAME.json."""
    studies: Annotated[list[Path], tyro.conf.Positional] = field(default_factory=list)
    """Run directories of the command tune, or their result.json, all of one tuned command."""
    size: int = 10
    """Maximum number of points."""
    json: bool = False
    """Print the result as JSON, and nothing else, on standard output."""


def run_portfolio(options: PortfolioCommand) -> int:
    """Build a portfolio from studies, write it and print a summary. Return exit code 0.

    Raises:
        UserError: an option out of range, or a file that is not a study; the message says which.
    """
    if not options.studies:
        raise UserError("portfolio: expected run directories of the command tune")
    if options.size < 1:
        raise UserError(f"--size: expected at least 1, got {options.size}")
    if options.out.suffix != ".json":
        raise UserError(f"--out: expected a file NAME.json, got {options.out}")
    studies = [read_study(path) for path in options.studies]
    built = build_portfolio(studies, options.size, f"automl-ext portfolio, {len(studies)} studies")
    check_writable(options.out)
    write_output(options.out, (json.dumps(built.as_dict(), indent=1) + "\n").encode())
    if options.json:
        print(json.dumps({"command": built.command, "studies": len(studies), "points": len(built.points)}))
    else:
        print(f"{options.out}: {len(built.points)} points from {len(studies)} studies of {built.command}")
    return 0
