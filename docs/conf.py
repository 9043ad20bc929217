"""Sphinx configuration. ``make docs`` builds the site into build/docs, with warnings as errors."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from automl_ext import __version__

# For the tutorials: they find cells.py and this interpreter's `automl-ext`, and draw without a display.
for variable, folder in (("PATH", Path(sys.executable).parent), ("PYTHONPATH", Path(__file__).parent)):
    os.environ[variable] = os.pathsep.join(filter(None, [str(folder), os.environ.get(variable, "")]))
os.environ |= {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}

project = "automl_ext"
author = "the automl_ext authors"
copyright = f"2026, {author}"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

# Pages. Links between pages and to their headings are checked: a missing one is a warning, hence an error.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]
nitpicky = True
# Types of other packages cannot be resolved without the network, and private classes have no page.
nitpick_ignore_regex = [("py:.*", ".*")]

# Tutorials run during the build, each in a folder of its own; an error ends the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 240
nb_execution_raise_on_error = True
nb_merge_streams = True

# Docstrings are written in Google's style.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes as fields: autodoc lists those of named tuples itself
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False

html_theme = "furo"
html_title = f"automl_ext {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False


def escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Take ``*`` and ``|`` in docstrings literally: there they are products, v* and absolute values, never markup."""
    literal_block = None  # the indentation of the line that began one
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal_block is not None and (not line.strip() or indent > literal_block):
            continue
        literal_block = indent if line.rstrip().endswith("::") else None
        parts = re.split(r"(``.*?``)", line)
        lines[i] = "".join(p if p.startswith("``") else re.sub(r"(?<!\\)([*|])", r"\\\1", p) for p in parts)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
