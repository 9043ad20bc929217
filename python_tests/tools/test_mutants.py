"""tools/mutants.py: it draws mutants that parse and differ, and finds out whether a test notices them."""

from __future__ import annotations

import functools
import json
import random
import subprocess
from pathlib import Path

import mutants
import pytest
from mutations import changes, differs

# Each line: a source, an operator, and all changed sources of this operator.
CASES = [
    ("y = (a) < (b)", "comparison", ["y = (a) <= (b)", "y = (a) >= (b)"]),
    ("y = a is  not b", "comparison", ["y = a is b"]),
    ("y = 'ä' in b == c", "comparison", ["y = 'ä' not in b == c", "y = 'ä' in b != c"]),
    ("y = a + -b", "sign", ["y = a - -b", "y = a + b"]),
    ("y -= a", "sign", ["y += a"]),
    ("y = 'a' + b", "sign", []),
    ("y = max(a.argmin(), b)", "min/max", ["y = min(a.argmin(), b)", "y = max(a.argmax(), b)"]),
    ("y = a and (b or c)", "and/or", ["y = a or (b or c)", "y = a and (b and c)"]),
    ("y: int = 2", "constant", ["y: int = 3"]),
    ("y = f(0.5, True)", "constant", ["y = f(1.5, True)", "y = f(0.5, False)"]),
    ("y = zip(a, b, strict=True)", "constant", []),
    ("y = (a + b).detach()", "dropped detach or clamp", ["y = (a + b)"]),
    ("y = 2 * torch.clamp(a + b, 0, 1)", "dropped detach or clamp", ["y = 2 * (a + b)"]),
    ("y = f((a, b), c, *d)", "swapped arguments", ["y = f(c, (a, b), *d)"]),
    ("y = max(a, b)", "swapped arguments", []),
    ("def f(y):\n    z = y\n    y = z", "dropped statement", ["def f(y):\n    z = y\n    pass"]),
    ("def f(y):\n    g(y)\n    h = 1", "dropped statement", ["def f(y):\n    pass\n    h = 1"]),
    ("def f(y):\n    return", "dropped statement", ["def f(y):\n    pass"]),
    ("class A:\n    def __init__(self, y):\n        self.y = y", "dropped statement", []),
    ("def f(y):\n    raise ValueError(1 + y)", "dropped statement", ["def f(y):\n    pass"]),
]  # fmt: skip

UNTOUCHED = '''
"""A text with 1 < 2."""
from typing import Literal
LEVEL: Literal[3] = "a 1 < 2"

@decorator(4, frozen=True)
def f(x: tuple[int, 5], y: "6") -> Literal[7]:
    """Return max(8, 9) and nothing."""
    print(10 + x, y)
    warnings.warn(f"got {x + 11}", stacklevel=2)
    logging.info("got %s", max(x, 12))
    assert x > 13
    return f"{x + 14}, expected 15 and more"
'''

CPP = b"""// 1 < 2
#include "a1.h" // 2
#define TWICE(x) \\
  ((x) + 2)
static_assert(sizeof(float) == 4, "4");
int f(std::array<int, N> x) {  /* 1
  + 2 */
  check(a <= b && b, "3 < 4");
  return std::min(a, 5) - 0x6;
}
"""


@pytest.mark.parametrize(("source", "operator", "expected"), CASES)
def test_operators(source: str, operator: str, expected: list[str]) -> None:
    made = [
        each.apply(source.encode()).decode() for each in changes(source.encode(), ".py") if each.operator == operator
    ]
    assert sorted(made) == sorted(expected)


def test_texts_annotations_and_logging_are_untouched() -> None:
    assert changes(UNTOUCHED.encode(), ".py") == []


def test_cpp_code_only() -> None:
    made = [(each.operator, CPP[each.start : each.end], each.new) for each in changes(CPP, ".h")]
    assert made == [
        ("comparison", b"<=", b"<"),
        ("comparison", b"<=", b">"),
        ("sign", b"-", b"+"),
        ("and/or", b"&&", b"||"),
        ("min/max", b"min", b"max"),
        ("constant", b"5", b"6"),
    ]


def test_a_draw_is_reproducible_and_its_mutants_parse(tmp_path: Path) -> None:
    files = sorted((mutants.ROOT / "automl_ext/rl/replay").glob("*.py"))
    faults = functools.partial(mutants.small_changes, mutants.ROOT, files)
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        mutants.draw(mutants.ROOT, seed, 5, faults, tmp_path / name)
    first, again, other = ((tmp_path / name).read_text() for name in "abc")
    assert first == again != other
    header, drawn = mutants.read(tmp_path / "a")
    assert header["seed"] == 1
    assert len(drawn) == 5
    for mutant in drawn.values():
        source = (mutants.ROOT / mutant["file"]).read_text()
        assert mutant["before"] in source
        changed = mutants.replaced(source, [mutant])
        assert compile(changed, mutant["file"], "exec")
        assert changed != source


def test_no_change_is_not_drawn() -> None:
    source = b"y = f(1, 1)"
    change = changes(source, ".py")[0]
    assert differs(source, change)
    assert not differs(source, change._replace(new=b"0x1"))
    assert not differs(source, change._replace(new=b"("))


def test_nearest_tests() -> None:
    nearest = mutants.nearest(mutants.ROOT, "automl_ext/rl/algorithms/ppo.py")
    assert nearest[0] == "python_tests/rl/algorithms/test_ppo.py"
    assert "python_tests/ops/test_conformance.py" in mutants.nearest(mutants.ROOT, "csrc/common/tensors.h")
    assert mutants.nearest(mutants.ROOT, "csrc/replay/sum_tree.h")[0] == "python_tests/rl/replay/test_sum_tree.py"


@pytest.mark.parametrize(
    ("code", "output", "verdict"),
    [
        (0, "1 passed", None),
        (1, "FAILED python_tests/test_a.py::test[a b] - AssertionError: 1\n", "noticed"),
        (1, "FAILED python_tests/test_a.py::test[a b] - TypeError: f() takes 1\n", "invalid"),
        (1, "NameError: name 'x'\nFAILED python_tests/test_a.py::test[a b] - assert 1 == 0\n", "invalid"),
        (1, "E   TypeError: no tensor\nFAILED python_tests/test_a.py::test[a b] - assert 1 == 0\n", "noticed"),
        (1, "python_tests/test_a.py::test[a b] Timeout (0:01:00)!\nThread 1\n", "timeout"),
        (-11, "python_tests/test_a.py::test[a b] Fatal Python error: Segmentation fault\n", "noticed"),
        (-9, "python_tests/test_a.py::test[a b]", None),  # out of time
    ],
)
def test_verdicts_of_outputs(code: int, output: str, verdict: str | None) -> None:
    found = mutants.failure(code, output)
    assert (
        found is None
        if verdict is None
        else found is not None and found[:2] == (verdict, "python_tests/test_a.py::test[a b]")
    )


def git(folder: Path, *command: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=folder, check=True)


def commit(folder: Path, subject: str) -> None:
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", subject)


def test_lines_nearest_to_the_number_are_replaced() -> None:
    edit = {"line": 4, "before": "a", "after": "b\nc"}
    assert mutants.replaced("a\nx\na\ny\n", [edit]) == "a\nx\nb\nc\ny\n"
    assert mutants.replaced("a\nx\na\ny\n", [edit, {"line": 1, "before": "a\nx", "after": "x"}]) == "x\nb\nc\ny\n"
    assert mutants.replaced("A\n", [edit]) is None


def test_mends_are_commits_of_one_source_and_a_test(tmp_path: Path) -> None:
    source, test = tmp_path / "automl_ext/part/sums.py", tmp_path / "python_tests/part/test_sums.py"
    for path in (source, test):
        path.parent.mkdir(parents=True)
    git(tmp_path, "init", "--quiet")

    def change(text: str, subject: str, *, tested: bool = True) -> None:
        source.write_text(text)
        test.write_text(f"# {subject}\n" if tested else test.read_text())
        commit(tmp_path, subject)

    change("def f(x):\n    return x - 1\n", "A new file")
    change("def f(x):\n    return x + 1\n", "Mended")
    change("# Sums.\n\n\ndef f(x):\n    return x + 1\n", "A comment")
    change("# Sums.\n\n\ndef f(x):\n    return x + 1\n\n\ndef g(x):\n    return x\n", "No test", tested=False)
    (found,) = mutants.mends(tmp_path, [source], random.Random(0))
    assert (found["subject"], found["tests"]) == ("Mended", ["python_tests/part/test_sums.py"])
    text = mutants.replaced(source.read_text(), found["edits"])
    assert text is not None
    assert "return x - 1" in text
    assert "return x\n" in text


@pytest.mark.slow
def test_planted_mutants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # installed plugins take most of a run
    files = {
        "tiny/part/sums.py": "def more(x):\n    return x + 1\n\n\ndef less(x):\n    return x - 1\n",
        "python_tests/part/test_sums.py": "from tiny.part.sums import more\n\n\n"
        "def test_wrong():\n    assert more(1) == 3\n\n\ndef test_more():\n    assert more(1) == 2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, "The first")
    out = tmp_path / "mutants.jsonl"
    faults = functools.partial(mutants.small_changes, tmp_path, [tmp_path / "tiny/part/sums.py"])
    mutants.draw(tmp_path, 1, 9, faults, out)
    with out.open("a") as lines:
        print(json.dumps({"id": 0, "verdict": "survived", "equivalent": "of an earlier run"}), file=lines)
    mutants.run(tmp_path, out)
    drawn = mutants.read(out)[1].values()
    assert len(drawn) == 4
    for mutant in list(drawn)[1:]:
        assert mutant["verdict"] == ("noticed" if mutant["line"] == 2 else "survived")
        # The wrong test fails without a mutant too.
        assert mutant.get("test", "").endswith("test_more" if mutant["line"] == 2 else "")
    noticed = sum(mutant["verdict"] == "noticed" for mutant in drawn)
    (tmp_path / "python_tests/part/test_sums.py").write_text("def test_nothing():\n    assert True\n")
    mutants.run(tmp_path, out, again=True)
    assert sum(mutant.get("again") == "survived" for mutant in mutants.read(out)[1].values()) == noticed
    assert "noticed before" in mutants.report(out)
    assert f"noticed of those not equivalent: {noticed} of 3" in mutants.report(out)
    assert "of an earlier run" in mutants.report(out)
    assert (tmp_path / "tiny/part/sums.py").read_text() == files["tiny/part/sums.py"]
