"""The tree stays readable: imports go one way, without circles; an algorithm is small to load; one path per step."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from loaded import loaded_by

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
    {"bench", "doctor", "runners", "summary", "completion", "parsing"},
    {"multi_seed", "tune_command", "demo"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Algorithms, and how much their import may load.
ALGORITHMS = [
    "automl_ext.nas.strategies.renas",
    "automl_ext.nas.supernets.darts",
    "automl_ext.nas.supernets.entmax_gdas",
    "automl_ext.nas.supernets.gdas",
    "automl_ext.rl.algorithms.a2c",
    "automl_ext.rl.algorithms.dqn",
    "automl_ext.rl.algorithms.ppo",
    "automl_ext.rl.algorithms.reinforce",
    "automl_ext.rl.dreamer",
]
MOST_MODULES, MOST_LINES = 70, 7000

# ops ← core ← algorithms ← extras ← commands. Package or module → what its modules import of automl_ext, at most.
BASE = {"ops", "training", "data.images", "data.pixels"}
NAS = {"nas.data", "nas.evaluation", "nas.costs", "nas.hooks", "nas.spaces", "nas.training"}
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
}
NEVER = {"training.pictures"}  # of all of them, except what draws cells
DRAWS = {"nas.spaces.draw", "nas.spaces.draw_cells", "nas.training.network_pictures"}
ONE_PATH = ["nas"]  # packages whose gradients all come from autograd


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
            if here and there and here != there and level[there[0]] >= level[here[0]]:
                wrong.append(f"{name} imports {other}")
    return wrong


GRAPH = import_graph(ROOT)


def test_imports_go_one_way() -> None:
    package = {name: others for name, others in GRAPH.items() if name.startswith("automl_ext.")}
    del package["automl_ext.__main__"]  # it starts the console script, which starts cli.py
    assert {name.split(".")[1] for name in package} <= LEVEL.keys()
    inside = {name: {other for other in others if other.startswith("automl_ext.")} for name, others in package.items()}
    assert upward(inside, LEVEL) == []


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


@pytest.mark.parametrize("module", ALGORITHMS)
def test_algorithms_are_small_to_load(module: str) -> None:
    loaded = loaded_by(module)
    assert loaded.modules <= MOST_MODULES
    assert loaded.lines <= MOST_LINES


@pytest.mark.parametrize("package", ONE_PATH)
def test_gradients_come_from_autograd(package: str) -> None:
    files = sorted((ROOT / "automl_ext" / package).rglob("*.py"))
    files = [path for path in files if path.name != "synced_norm.py"]  # goes with the ranks of image training
    assert {str(path.relative_to(ROOT)): lines for path in files if (lines := own_gradients(path.read_text()))} == {}


def own_gradients(source: str) -> list[str]:
    """Lines that compute a gradient by hand: an autograd function, or a write to ``.grad`` other than None or 0."""

    def is_grad(node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute) and node.attr == "grad"

    found = []
    for node in ast.walk(ast.parse(source)):
        wrong = False
        if isinstance(node, ast.ClassDef):
            wrong = any(ast.unparse(base).endswith("autograd.Function") for base in node.bases)
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            cleared = isinstance(node.value, ast.Constant) and node.value.value is None
            wrong = any(map(is_grad, targets)) and not cleared
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # x.grad.copy_(…)
            wrong = is_grad(node.func.value) and node.func.attr.endswith("_") and node.func.attr != "zero_"
        if wrong:
            found.append(ast.unparse(node).splitlines()[0])
    return found


def test_class_names_have_one_meaning() -> None:
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "automl_ext").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_planted_faults_are_found(tmp_path: Path) -> None:
    package = tmp_path / "automl_ext"
    for folder in ("ops", "nas"):
        (package / folder).mkdir(parents=True)
    (package / "ops/a.py").write_text("from automl_ext.nas import b\n")
    (package / "nas/b.py").write_text("def f():\n    import automl_ext.nas.c\n")
    (package / "nas/c.py").write_text("from automl_ext.nas.b import f\n")
    graph = import_graph(tmp_path)
    assert upward(graph, LEVEL) == ["automl_ext.ops.a imports automl_ext.nas.b"]
    assert set(circle(graph)) == {"automl_ext.nas.b", "automl_ext.nas.c"}
    assert rooms(graph, 2)["automl_ext.ops"] == {"automl_ext.nas"}
    assert forbidden(graph, "ops") == ["ops.a imports nas.b"]
    (package / "nas/gradient.py").write_text("class F(torch.autograd.Function):\n    pass\n\np.grad = g\np.grad += g\n")
    assert own_gradients((package / "nas/gradient.py").read_text()) == [
        "class F(torch.autograd.Function):",
        "p.grad = g",
        "p.grad += g",
    ]
    assert own_gradients("p.grad = None\np.grad.zero_()\ny = p.grad\nclip_grad_norm_(p)") == []
    assert own_gradients("p.grad.copy_(g)") == ["p.grad.copy_(g)"]
