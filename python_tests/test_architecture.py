"""Algorithms can be read alone: what their files import, and one implementation of every update.

1. Imports go from extras to algorithms to the core, never back.
2. Outside ``ops`` there is one forward pass, one loss and one update, by autograd: no ``torch.autograd.Function``, no
   gradient that is written by hand, no NumPy where networks compute.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RL_CORE = ("rl.loop", "rl.networks", "rl.envs", "rl.replay")

# Folder: the parts of the package that its files may import.
IMPORTS = {
    "rl/algorithms": {"ops", "training", *RL_CORE, "rl.algorithms"},
    "rl/dreamer": {"ops", "training", *RL_CORE, "rl.dreamer"},
    "rl/extras": {"ops", "training", *RL_CORE, "rl.extras"},
}
# Folder: the parts of the package that its files must not import.
NOT_IMPORTED = {
    **{part.replace(".", "/"): {"rl.algorithms", "rl.dreamer", "rl.extras", "nas"} for part in RL_CORE},
}
# Folders in which rule 2 holds.
ONE_PATH = [
    *(part.replace(".", "/") for part in RL_CORE),
    "rl/algorithms",
    "rl/dreamer",
    "rl/extras",
]
# Files that may write gradients: this one makes the gradients of all parameters views of one vector.
WRITES_GRADIENTS = {"rl/networks/parameters.py"}
# Functions that compute with networks, by the ends of their names. Losses and updates do not touch arrays. Functions
# that act compute with tensors, and convert only the actions.
LEARNING = ("loss", "losses", "update", "gradient", "targets", "step", "leg", "transitions", "minibatches", "errors")
LEARNING += ("forward", "policy", "log_probs", "entropy", "mode", "rmsprop", "advantages")
ACTING = ("sample", "greedy", "act", "evaluation_actions")
# The files and folders where these functions are looked for, and how many each has at least.
COMPUTE = {
    "rl/algorithms": 30,
    "rl/dreamer": 10,
    "rl/extras": 5,
    "rl/networks": 20,
    "rl/loop/policy.py": 3,
    "rl/loop/seams.py": 5,
}


def files(folder: str) -> list[Path]:
    """Return the files of a folder of the package; a file stands for itself."""
    path = ROOT / "automl_ext" / folder
    found = [path] if path.suffix else sorted(path.rglob("*.py"))
    assert found, f"{folder} has no files"
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the modules of the package that a file imports, without ``automl_ext.``, also inside functions."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.removeprefix("automl_ext.") for name in names if name.split(".")[0] == "automl_ext")


def within(module: str, parts: set[str]) -> bool:
    return any(module == part or module.startswith(part + ".") for part in parts)


def own_gradients(tree: ast.AST) -> Iterator[str]:
    """Yield autograd functions, and statements that write gradients other than to clear them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Function") for base in node.bases):
            yield f"class {node.name} is an autograd function"
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign) and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            targets = node.targets
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name.endswith("_") and not name.endswith("__") and name != "zero_":
                targets = [node.func.value]
        for target in targets:
            if any(isinstance(part, ast.Attribute) and part.attr == "grad" for part in ast.walk(target)):
                yield f"line {node.lineno} writes a gradient: {ast.unparse(node)}"


def functions(tree: ast.AST, ends: tuple[str, ...]) -> Iterator[ast.FunctionDef]:
    """Yield the functions whose name is one of ``ends``, or ends with ``_`` and one of them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(f"_{node.name}".endswith(f"_{end}") for end in ends):
            yield node


def arrays(tree: ast.AST) -> Iterator[str]:
    """Yield functions that learn or act and compute with NumPy."""
    for node in functions(tree, LEARNING + ACTING):
        for part in (inner for statement in node.body for inner in ast.walk(statement)):
            if isinstance(part, ast.Name) and part.id in ("np", "numpy"):
                yield f"{node.name}: line {part.lineno} uses NumPy"
    for node in functions(tree, LEARNING):
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and part.attr == "numpy":
                yield f"{node.name}: line {part.lineno} leaves torch"


@pytest.mark.parametrize("folder", IMPORTS)
def test_algorithms_import_ops_and_the_core_only(folder: str) -> None:
    for path in files(folder):
        wrong = [name for name in imported(ast.parse(path.read_text())) if not within(name, IMPORTS[folder])]
        assert wrong == [], path.name


@pytest.mark.parametrize("folder", NOT_IMPORTED)
def test_the_core_imports_no_algorithm_and_no_extra(folder: str) -> None:
    for path in files(folder):
        wrong = [name for name in imported(ast.parse(path.read_text())) if within(name, NOT_IMPORTED[folder])]
        assert wrong == [], path.name


@pytest.mark.parametrize("folder", ONE_PATH)
def test_gradients_come_from_autograd(folder: str) -> None:
    for path in files(folder):
        if str(path.relative_to(ROOT / "automl_ext")) not in WRITES_GRADIENTS:
            assert list(own_gradients(ast.parse(path.read_text()))) == [], path.name


@pytest.mark.parametrize("folder", COMPUTE)
def test_networks_compute_in_torch(folder: str) -> None:
    count = 0
    for path in files(folder):
        tree = ast.parse(path.read_text())
        assert list(arrays(tree)) == [], path.name
        count += len(list(functions(tree, LEARNING + ACTING)))
    assert count >= COMPUTE[folder]


@pytest.mark.parametrize(
    ("source", "find", "text"),
    [
        ("class F(torch.autograd.Function): pass", own_gradients, "class F"),
        ("from torch.autograd import Function\nclass F(Function): pass", own_gradients, "class F"),
        ("p.grad = gradient", own_gradients, "line 1"),
        ("self.parameters.grad[0] = 1", own_gradients, "line 1"),
        ("p.grad += gradient", own_gradients, "line 1"),
        ("p.grad.mul_(2)", own_gradients, "line 1"),
        ("def a2c_loss(x):\n    return np.mean(x)", arrays, "a2c_loss: line 2 uses NumPy"),
        ("def update(x):\n    return x.numpy()", arrays, "update: line 2 leaves torch"),
        ("def greedy(x):\n    return np.tanh(x.numpy())", arrays, "greedy: line 2 uses NumPy"),
    ],
)
def test_planted_faults_are_found(source: str, find: object, text: str) -> None:
    (fault,) = find(ast.parse(source))  # type: ignore[operator]
    assert text in fault


@pytest.mark.parametrize(
    ("source", "find"),
    [
        ("p.grad.zero_()\np.grad = None\ng = p.grad\nassert p.grad is not None", own_gradients),
        ("def greedy(x: np.ndarray) -> np.ndarray:\n    return net(x).argmax(1).numpy(force=True)", arrays),
        ("def explore(x):\n    return np.where(x, 0, 1)", arrays),
    ],
)
def test_what_is_allowed_is_no_fault(source: str, find: object) -> None:
    assert list(find(ast.parse(source))) == []  # type: ignore[operator]


def test_planted_imports_are_found() -> None:
    source = "from automl_ext.ops.returns import gae\ndef f():\n    from automl_ext.rl.extras import rnd\nimport torch"
    assert list(imported(ast.parse(source))) == ["ops.returns.gae", "rl.extras.rnd"]
    assert within("rl.extras.rnd", {"rl.extras"})
    assert not within("rl.loopy.x", {"rl.loop"})
