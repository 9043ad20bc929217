"""The tree stays readable, and algorithms can be read alone.

1. Imports go one way, without circles: from extras to algorithms to the core to ops, never back.
2. Outside ``ops`` there is one forward pass, one loss and one update, by autograd: no ``torch.autograd.Function``, no
   gradient that is written by hand, and in ``rl`` no NumPy where networks compute.
3. Constructing an agent costs at most 1.5 CPU-seconds beyond the import of torch.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import fresh_python
import pytest

ROOT = Path(__file__).parents[2]
# From the lowest room to the highest. Rooms in one row do not import each other.
LEVELS = [
    {"_version", "_build", "_lazy"},
    {"_native"},
    {"ops"},
    {"training"},
    {"data"},
    {"parallel"},
    {"nas", "rl", "tune"},
    {"tabular"},
    {"bench", "doctor", "summary", "completion", "parsing"},
    {"run_options", "demo"},
    {"multi_seed", "tune_command"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# ops ← core ← algorithms ← extras ← commands. Package or module → what its modules import of automl_ext, at most.
BASE = {"ops", "training", "data.images", "data.pixels"}
NAS = {"nas.data", "nas.evaluation", "nas.costs", "nas.spaces", "nas.training"}
RL_CORE = {"rl.loop", "rl.networks", "rl.envs", "rl.replay"}
ALLOWED = {
    "ops": {"_lazy", "_native", "ops"},
    "nas.spaces": {"ops", "training", "nas.spaces"},
    "nas.training.training_options": {"training", "data.pixels"},
    "nas.training.network_training": BASE | {"nas.data", "nas.spaces.space", "nas.training"},
    "nas.strategies": {
        "training",
        "nas.evaluation",
        "nas.spaces.space",
        "nas.training.training_options",
        "nas.strategies",
    },
    "nas.supernets": BASE | {"nas.data", "nas.spaces", "nas.training", "nas.supernets", "parallel.ranked_run"},
    "nas.supernets.perturbation": BASE
    | {"nas.spaces", "nas.training", "nas.supernets", "nas.estimators", "nas.screening"},
    "nas.estimators": BASE | NAS | {"nas.estimators"},
    "rl.envs": {"training", "rl.envs"},
    "rl.networks": {"ops", "training", "rl.envs.groups", "rl.envs.packed", "rl.networks"},
    "rl.replay": {"_native", "ops", "training", "rl.envs", "rl.replay"},
    "rl.loop": {"_version", "training", *RL_CORE},
    "rl.algorithms": {"ops", "training", *RL_CORE, "rl.algorithms"},
    "rl.dreamer": {"ops", "training", *RL_CORE, "rl.dreamer"},
    "rl.extras": {"ops", "training", *RL_CORE, "rl.extras"},
}
NEVER = {"training.pictures"}  # of all of them, except what draws cells
DRAWS = {"nas.spaces.draw", "nas.spaces.draw_cells", "nas.training.network_pictures"}
# Packages whose gradients all come from autograd, and the files that may write some.
ONE_PATH = ["nas", *sorted(RL_CORE), "rl.algorithms", "rl.dreamer", "rl.extras"]
WRITES_GRADIENTS = {
    "rl/networks/parameters.py",  # makes the gradients of all parameters views of one vector
}
# Functions that compute with networks, by the ends of their names. Losses and updates do not touch arrays. Functions
# that act compute with tensors, and convert only the actions.
LEARNING = ("loss", "losses", "update", "gradient", "targets", "step", "leg", "transitions", "minibatches", "errors")
LEARNING += ("forward", "policy", "log_probs", "entropy", "mode", "rmsprop", "advantages")
ACTING = ("sample", "greedy", "act", "evaluation_actions")
# The files and folders where these functions are looked for.
COMPUTE = ["rl/algorithms", "rl/dreamer", "rl/extras", "rl/networks", "rl/loop/policy_agent.py", "rl/loop/seams.py"]


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: Iterable[str]) -> set[str]:
    """The modules of the package that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import name`: the name may be a module of the package, else it is defined in it.
            names = [full if (full := f"{node.module}.{a.name}") in modules else node.module for a in node.names]
        else:
            continue
        found.update(name for name in names if name in modules)
    return found


def import_graph(root: Path) -> dict[str, set[str]]:
    """The modules of both packages, and what each imports."""
    files = {module_name(path, root): path for path in sorted(root.glob("automl_ext*/**/*.py"))}
    return {name: imports_of(path, files) - {name} for name, path in files.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle in the graph; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def rooms(graph: dict[str, set[str]], depth: int) -> dict[str, set[str]]:
    """The graph between folders: every module stands for the first ``depth`` parts of its name."""

    def room(name: str) -> str:
        return ".".join(name.split(".")[:depth])

    between: dict[str, set[str]] = {}
    for name, imported in graph.items():
        between.setdefault(room(name), set()).update(room(other) for other in imported)
    return {name: others - {name} for name, others in between.items()}


def upward(graph: dict[str, set[str]], level: dict[str, int]) -> list[str]:
    """Imports from a room to one that is not below it. The package's ``__init__`` collects the ops."""
    wrong = []
    for name, imported in graph.items():
        here = name.split(".")[1:2]
        for other in imported:
            there = other.split(".")[1:2]
            inside = other.startswith("automl_ext.") and here and here != there
            if inside and level[there[0]] >= level[here[0]]:
                wrong.append(f"{name} imports {other}")
    return wrong


GRAPH = import_graph(ROOT)


def test_imports_go_one_way() -> None:
    package = {name: others for name, others in GRAPH.items() if name.startswith("automl_ext.")}
    del package["automl_ext.__main__"]  # it starts the console script, which starts cli.py
    assert {name.split(".")[1] for name in package} <= LEVEL.keys()
    assert upward(package, LEVEL) == []


def of_the_table(graph: dict[str, set[str]]) -> list[str]:
    """Imports of the table of commands by what is not a command."""
    below = set().union(*LEVELS[: LEVEL["summary"]])
    return [
        f"{name} imports {other}"
        for name, imported in graph.items()
        for other in sorted(imported)
        if name.split(".")[1:2] and name.split(".")[1] in below and other.startswith("automl_ext_cli")
    ]


def test_only_commands_import_their_table() -> None:
    assert of_the_table(GRAPH) == []


def test_no_circle_between_files() -> None:
    assert circle({n: others - {"automl_ext"} for n, others in GRAPH.items() if n != "automl_ext"}) == []


@pytest.mark.parametrize("room", ["nas", "rl"])
def test_no_circle_between_the_folders_of_a_room(room: str) -> None:
    """A package's own ``__init__`` collects what its folders hold, so it is left out."""
    package = f"automl_ext.{room}"
    inside = {name: {o for o in others if o.startswith(package + ".")} for name, others in GRAPH.items()}
    assert circle(rooms({name: others for name, others in inside.items() if name.startswith(package + ".")}, 3)) == []


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_from_algorithms_to_core(package: str) -> None:
    assert forbidden(GRAPH, package) == []


def forbidden(graph: dict[str, set[str]], package: str) -> list[str]:
    """Imports that the entry of a package in ``ALLOWED`` lacks; parts with an entry of their own are left out."""

    def within(name: str, packages: Iterable[str]) -> bool:
        return any(name == p or name.startswith(p + ".") for p in packages)

    inner = [other for other in ALLOWED if other.startswith(package + ".")]
    wrong = []
    for module, imported in graph.items():
        name = module.removeprefix("automl_ext.")
        if within(name, [package]) and not within(name, inner):
            names = {other.removeprefix("automl_ext.") for other in imported - {"automl_ext"}}
            wrong += [
                f"{name} imports {other}"
                for other in sorted(names)
                if not within(other, ALLOWED[package]) or (within(other, NEVER) and name not in DRAWS)
            ]
    return wrong


def files(folder: str) -> list[Path]:
    """Return the files of a folder of the package; a file stands for itself."""
    path = ROOT / "automl_ext" / folder
    found = [path] if path.suffix else sorted(path.rglob("*.py"))
    assert found, f"{folder} has no files"
    return found


@pytest.mark.parametrize("package", ONE_PATH)
def test_gradients_come_from_autograd(package: str) -> None:
    for path in files(package.replace(".", "/")):
        if path.relative_to(ROOT / "automl_ext").as_posix() not in WRITES_GRADIENTS:
            assert list(own_gradients(ast.parse(path.read_text()))) == [], path.name


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


@pytest.mark.parametrize("folder", COMPUTE)
def test_networks_compute_in_torch(folder: str) -> None:
    count = 0
    for path in files(folder):
        tree = ast.parse(path.read_text())
        assert list(arrays(tree)) == [], path.name
        count += len(list(functions(tree, LEARNING + ACTING)))
    assert count > 0


def test_class_names_have_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "automl_ext").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_planted_imports_are_found(tmp_path: Path) -> None:
    package = tmp_path / "automl_ext"
    for folder in ("ops", "nas"):
        (package / folder).mkdir(parents=True)
    (package / "ops/a.py").write_text("from automl_ext.nas import b\n")
    (package / "nas/b.py").write_text("def f():\n    import automl_ext.nas.c\n")
    (package / "nas/c.py").write_text("from automl_ext.nas.b import f\nfrom automl_ext_cli.table import COMMANDS\n")
    (tmp_path / "automl_ext_cli").mkdir()
    (tmp_path / "automl_ext_cli/table.py").write_text("")
    graph = import_graph(tmp_path)
    assert of_the_table(graph) == ["automl_ext.nas.c imports automl_ext_cli.table"]
    assert upward(graph, LEVEL) == ["automl_ext.ops.a imports automl_ext.nas.b"]
    assert set(circle(graph)) == {"automl_ext.nas.b", "automl_ext.nas.c"}
    assert rooms(graph, 2)["automl_ext.ops"] == {"automl_ext.nas"}
    assert forbidden(graph, "ops") == ["ops.a imports nas.b"]


@pytest.mark.parametrize(
    ("source", "find", "text"),
    [
        ("class F(torch.autograd.Function): pass", own_gradients, "class F"),
        ("from torch.autograd import Function\nclass F(Function): pass", own_gradients, "class F"),
        ("p.grad = gradient", own_gradients, "line 1"),
        ("self.parameters.grad[0] = 1", own_gradients, "line 1"),
        ("p.grad += gradient", own_gradients, "line 1"),
        ("p.grad.mul_(2)", own_gradients, "line 1"),
        ("def q_loss(x):\n    return np.mean(x)", arrays, "q_loss: line 2 uses NumPy"),
        ("def update(x):\n    return x.numpy()", arrays, "update: line 2 leaves torch"),
        ("def greedy(x):\n    return np.tanh(x.numpy())", arrays, "greedy: line 2 uses NumPy"),
    ],
)
def test_planted_faults_are_found(source: str, find: Callable[[ast.AST], Iterator[str]], text: str) -> None:
    (fault,) = find(ast.parse(source))
    assert text in fault


@pytest.mark.parametrize(
    ("source", "find"),
    [
        ("p.grad.zero_()\np.grad = None\ng = p.grad\nassert p.grad is not None", own_gradients),
        ("def greedy(x: np.ndarray) -> np.ndarray:\n    return net(x).argmax(1).numpy(force=True)", arrays),
        ("def explore(x):\n    return np.where(x, 0, 1)", arrays),
    ],
)
def test_what_is_allowed_is_no_fault(source: str, find: Callable[[ast.AST], Iterator[str]]) -> None:
    assert list(find(ast.parse(source))) == []


def test_constructing_agents_takes_little_time() -> None:
    code = (
        "import time; start = time.process_time()\n"
        "from automl_ext import rl; rl.make('a2c', 'CartPole-v1'); rl.make('dreamer', 'CartPole-v1')\n"
        "print(time.process_time() - start)"
    )
    # CPU-seconds, the best of three attempts: another process may slow down this one.
    assert any(fresh_python.facts(code) <= 1.5 for _ in range(3))
