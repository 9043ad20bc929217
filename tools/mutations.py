"""The changes that tools/mutants.py plants: small faults of Python and C++ sources, each in one place."""

from __future__ import annotations

import ast
import collections
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

COMPARISONS = {b"<": b"<= >=", b"<=": b"< >", b">": b">= <=", b">=": b"> <", b"==": b"!=", b"!=": b"==",
               b"is": b"is~not", b"is not": b"is", b"in": b"not~in", b"not in": b"in"}  # fmt: skip
COMPARISON = re.compile(rb"is\s+not|not\s+in|<=|>=|==|!=|<|>|\bis\b|\bin\b")
OPPOSITES = ("min max", "minimum maximum", "amin amax", "argmin argmax", "fmin fmax", "nanmin nanmax", "idxmin idxmax")
OPPOSITE = {a: b for pair in OPPOSITES for a, b in (pair.split(), pair.split()[::-1])}
DROPPED_CALLS = {"detach", "detach_", "clamp", "clamp_", "clamp_min", "clamp_max", "clip"}
MODULES = {"torch", "np", "numpy", "F"}  # torch.clamp(x, …) instead of x.clamp(…)
# The order of their arguments does not matter, or a swap is always a TypeError.
NEVER_SWAPPED = {*OPPOSITE, "isinstance", "issubclass", "getattr", "setattr", "hasattr", "cast", "equal", "allclose"}
MESSAGES = re.compile(r"(logging|logger|warnings|console|rich)\.|print$|.*\.print$")
SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "type_params"}
SKIPPED_KEYWORDS = {"strict", "stacklevel"}  # zip(…, strict=True) is an assertion


class Change(NamedTuple):
    """Replace the bytes from start to end."""

    operator: str
    start: int
    end: int
    new: bytes

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.new + source[self.end :]


class Places(ast.NodeVisitor):
    """Collect the changes of a Python source: no strings, annotations, decorators, assertions, messages or logging."""

    def __init__(self, source: bytes) -> None:
        self.source, self.changes = source, list[Change]()
        self.lines = [0, *(match.end() for match in re.finditer(b"\n", source))]
        self.functions: list[tuple[str, collections.Counter[str]]] = []  # name, and how often each variable is bound
        self.visit(ast.parse(source))

    def start(self, node: Any) -> int:
        return self.lines[node.lineno - 1] + int(node.col_offset)

    def end(self, node: Any) -> int:
        return self.lines[node.end_lineno - 1] + int(node.end_col_offset)

    def text(self, node: ast.AST) -> bytes:
        return self.source[self.start(node) : self.end(node)]

    def add(self, operator: str, start: int, end: int, new: bytes) -> None:
        self.changes.append(Change(operator, start, end, new))

    def between(self, operator: str, left: ast.AST, right: ast.AST, pattern: bytes, new: dict[bytes, bytes]) -> None:
        """Replace the operator between two operands; ``new`` has its alternatives, with ~ for a space."""
        found = re.compile(pattern).search(self.source, self.end(left), self.start(right))
        if found:
            for other in new[b" ".join(found[0].split())].split():
                self.add(operator, *found.span(), other.replace(b"~", b" "))

    def drop(self, node: ast.stmt) -> None:
        if self.functions:
            self.add("dropped statement", self.start(node), self.end(node), b"pass")

    def generic_visit(self, node: ast.AST) -> None:
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in SKIPPED_FIELDS:
                    self.visit(child)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Assert(self, node: ast.Assert) -> None:
        pass

    def visit_Raise(self, node: ast.stmt) -> None:
        self.drop(node)

    visit_Continue = visit_Break = visit_Delete = visit_Raise

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        bound = stored([node]) + [child.arg for child in ast.walk(node.args) if isinstance(child, ast.arg)]
        self.functions.append((node.name, collections.Counter(bound)))
        self.generic_visit(node)
        self.functions.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Return(self, node: ast.Return) -> None:
        self.drop(node) if node.value is None else self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in SKIPPED_KEYWORDS:
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, right in zip([node.left, *node.comparators], node.comparators, strict=False):
            self.between("comparison", left, right, COMPARISON.pattern, COMPARISONS)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.between("and/or", left, right, rb"\b(and|or)\b", {b"and": b"or", b"or": b"and"})
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        sequence = ast.List | ast.ListComp | ast.Tuple  # + joins them; - would be a TypeError
        joins = any(isinstance(side, sequence) or is_text(side) for side in (node.left, node.right))
        if isinstance(node.op, ast.Add | ast.Sub) and not joins:
            self.between("sign", node.left, node.right, rb"[+-]", {b"+": b"-", b"-": b"+"})
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub):
            self.add("sign", self.start(node), self.start(node) + 1, b"")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.drop(node)
        if isinstance(node.op, ast.Add | ast.Sub) and not is_text(node.value):
            self.between("sign", node.target, node.value, rb"[+-]", {b"+": b"-", b"-": b"+"})
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        name, bound = self.functions[-1] if self.functions else ("", collections.Counter[str]())
        # Without its first assignment, a variable or an attribute does not exist: the error would prove nothing.
        if name != "__init__" and all(bound[variable] > 1 for variable in stored(node.targets)):
            self.drop(node)
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call) and not MESSAGES.match(ast.unparse(node.value.func)):
            self.drop(node)
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in OPPOSITE and isinstance(node.ctx, ast.Load):
            self.add("min/max", self.start(node), self.end(node), OPPOSITE[node.id].encode())

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in OPPOSITE and isinstance(node.ctx, ast.Load):
            self.add("min/max", self.end(node) - len(node.attr), self.end(node), OPPOSITE[node.attr].encode())
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool | int | float):
            new = not node.value if isinstance(node.value, bool) else node.value + 1
            self.add("constant", self.start(node), self.end(node), repr(new).encode())

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if MESSAGES.match(name):
            return
        if isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED_CALLS:
            method = self.source[self.start(node) : self.end(node.func)].rpartition(b".")[0].rstrip()
            argument = self.text(node.args[0]) if node.args else b""
            kept = b"(" + argument + b")" if ast.unparse(node.func.value) in MODULES else method
            self.add("dropped detach or clamp", self.start(node), self.end(node), kept)
        for left, right in zip(node.args, node.args[1:], strict=False):
            texts = self.text(left), self.text(right)
            plain = not any(isinstance(arg, ast.Starred) or is_text(arg) for arg in (left, right))
            if plain and texts[0] != texts[1] and name.rpartition(".")[2] not in NEVER_SWAPPED:
                swapped = texts[1] + self.source[self.end(left) : self.start(right)] + texts[0]
                self.add("swapped arguments", self.start(left), self.end(right), swapped)
        self.generic_visit(node)


def stored(nodes: Sequence[ast.AST]) -> list[str]:
    """Return the variables that the nodes bind, with repetitions."""
    inside = [child for node in nodes for child in ast.walk(node) if isinstance(child, ast.Name)]
    return [child.id for child in inside if isinstance(child.ctx, ast.Store)]


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


TEXT = rb"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"  # comments, strings, characters
NO_CODE = TEXT + rb"|^ *#(?:[^\n]*\\\n)*[^\n]*|static_assert[^;]*;"
# clang-format puts spaces around operators, and none around the brackets of templates.
CPP = (
    ("comparison", rb"(?<= )(<=|>=|==|!=|<|>)(?= )", lambda old: COMPARISONS[old].split()),
    ("sign", rb"(?<= )([+-])(?==? )", lambda old: [b"-" if old == b"+" else b"+"]),
    ("and/or", rb"&&|\|\|", lambda old: [b"||" if old == b"&&" else b"&&"]),
    ("min/max", rb"\b(min|max|fmin|fmax)(?=\()", lambda old: [OPPOSITE[old.decode()].encode()]),
    ("constant", rb"(?<![\w.])\d+(?!\w)", lambda old: [b"%d" % (int(old) + 1)]),
)  # fmt: skip


def cpp_changes(source: bytes) -> list[Change]:
    """Return the changes of a C++ source: no comments, strings, characters, preprocessor lines or static assertions."""
    code = re.sub(NO_CODE, lambda match: re.sub(rb"[^\n]", b" ", match[0]), source, flags=re.MULTILINE | re.DOTALL)
    return [
        Change(operator, *found.span(), new)
        for operator, pattern, others in CPP
        for found in re.finditer(pattern, code)
        for new in others(found[0])
    ]


def changes(source: bytes, suffix: str) -> list[Change]:
    """Return all changes of a source: Python (``.py``), or C++."""
    return Places(source).changes if suffix == ".py" else cpp_changes(source)


def differs(source: bytes, change: Change) -> bool:
    """Whether a changed Python source parses to another tree."""
    try:
        return ast.dump(ast.parse(change.apply(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False
