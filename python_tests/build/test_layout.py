"""The tree stays readable: imports go one way, without circles; files and folders stay small."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the lowest room to the highest. Rooms in one row do not import each other.
LEVELS = [
    {"_version", "_build"},
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
LONGEST_FILE = 350  # lines
LARGEST_FOLDER = 16  # files
CODE = {".py", ".cpp", ".h", ".inc", ".cu", ".cuh"}


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


def code_files() -> list[Path]:
    folders = ["automl_ext", "csrc", "cpp_tests", "python_tests", "tools", "benchmarks"]
    return [path for f in folders for path in (ROOT / f).rglob("*") if path.suffix in CODE and path.name != "_build.py"]


def test_files_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): n
        for path in code_files()
        if (n := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert long == {}


def test_folders_are_small() -> None:
    files: dict[str, int] = {}
    for path in code_files():
        folder = str(path.parent.relative_to(ROOT))
        files[folder] = files.get(folder, 0) + 1
    assert {folder: n for folder, n in files.items() if n > LARGEST_FOLDER} == {}


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
