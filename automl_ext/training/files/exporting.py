"""Files of exported networks, which do not need automl_ext: their names, and Python modules."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from torch import nn

from automl_ext.training.errors import UserError

SUFFIXES = {"": (".pt2", ".py"), ".pt2": (".pt2",), ".py": (".py",)}

# A function of the exported modules. It reads the files of automl_ext.training.files.weights.
READ_WEIGHTS = '''def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a file of weights and check its SHA-256."""
    data = Path(path).read_bytes()
    content, _, digest = data.rpartition(b"automl_ext weights 1 sha256 ")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged: it does not match its SHA-256")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)'''


def check_out(out: Path) -> tuple[str, ...]:
    """Return the suffixes of the files to write for ``--out``: NAME.pt2, NAME.py, or NAME for both.

    Raises:
        UserError: a name with quotes, backslashes or line breaks, or with another suffix.
    """
    if out.suffix not in SUFFIXES or not re.fullmatch(r"[\w .+-]+", out.name):
        raise UserError(
            f"--out {out}: expected a name of letters, digits, spaces and _ . + -, ending in .pt2, .py or nothing"
        )
    return SUFFIXES[out.suffix]


def load_module(path: Path) -> nn.Module:
    """Execute an exported module and load its network."""
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # no __pycache__ beside the exported files
    try:
        spec.loader.exec_module(module)
        return module.load()
    finally:
        sys.dont_write_bytecode = before
        del sys.modules[spec.name]
