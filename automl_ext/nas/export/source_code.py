"""Collects the source code of classes and of everything that they need from their packages."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module

DROPPED = {"__str__", "__repr__"}  # an exported module does not print genotypes


@dataclass
class Definition:
    """A class, function or constant of a module, with its syntax tree and the lines of the module."""

    module: str
    node: ast.stmt
    lines: list[str]

    def parts(self, used: set[str]) -> Iterator[ast.AST]:
        """Iterate over the parts to keep: all except methods and class attributes whose names are not in ``used``."""
        if not isinstance(self.node, ast.ClassDef):
            yield self.node
            return
        yield from (*self.node.bases, *self.node.keywords, *self.node.decorator_list)
        yield from (item for item in self.node.body if _is_kept(item, used))

    def text(self, used: set[str]) -> str:
        """Return the source code of the parts to keep."""
        decorators = getattr(self.node, "decorator_list", [])
        begin = min([self.node.lineno, *(d.lineno for d in decorators)])
        while begin > 1 and self.lines[begin - 2].startswith("#"):  # include the comment above
            begin -= 1
        if not isinstance(self.node, ast.ClassDef):
            return "\n".join(self.lines[begin - 1 : self.node.end_lineno])
        first = self.node.body[0]
        end = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", []))]) - 1
        kept = self.lines[begin - 1 : end]
        for item in self.node.body:  # include the comments and empty lines above
            assert item.end_lineno is not None
            if _is_kept(item, used):
                kept += self.lines[end : item.end_lineno]
            end = item.end_lineno
        return "\n".join(kept).rstrip()


def _is_kept(item: ast.stmt, used: set[str]) -> bool:
    if isinstance(item, ast.FunctionDef):
        special = item.name.startswith("__") and item.name.endswith("__") and item.name not in DROPPED
        return special or item.name == "forward" or item.name in used
    if isinstance(item, ast.Assign):
        names = [target.id for target in item.targets if isinstance(target, ast.Name)]
        return any(name in used or name.startswith("__") for name in names)
    return True


@dataclass
class Sources:
    """Collects the source code of classes and functions, with all that they depend on, into one module.

    Call :meth:`add`, then :meth:`close`, then :meth:`text`.

    Args:
        packages: top-level packages whose code is copied; others are imported.

    Attributes:
        imports: name → the statement that imports it.
        used: names of the attributes that the definitions read.
    """

    packages: set[str]
    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    _trees: dict[str, tuple[ast.Module, list[str]]] = field(default_factory=dict)

    def add(self, module: str, name: str) -> None:
        """Add the definition or the import of ``name`` in ``module``; builtins and local names need none.

        Raises:
            ValueError: two modules define ``name`` differently, or one of the packages' modules is used as an object.
            OSError: a module has no source file.
        """
        tree, lines = self._tree(module)
        for node in _top_level(tree.body):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for alias in node.names:
                    if (alias.asname or alias.name.partition(".")[0]) == name:
                        self._add_import(node, alias, name)
            elif name in _bound(node):
                known = self.definitions.setdefault(name, Definition(module, node, lines))
                if known.module != module:
                    raise ValueError(
                        f"{name!r}: expected one definition, got different ones in {known.module} and {module}"
                    )

    def _add_import(self, node: ast.Import | ast.ImportFrom, alias: ast.alias, name: str) -> None:
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.partition(".")[0] not in self.packages:
                self.imports[name] = f"from {node.module} import {alias.name}{renamed}"
                return
            if not renamed and f"{node.module}.{alias.name}" not in sys.modules:
                self.add(node.module, alias.name)
                return
        elif isinstance(node, ast.Import) and alias.name.partition(".")[0] not in self.packages:
            self.imports[name] = f"import {alias.name}{renamed}"
            return
        raise ValueError(
            f"cannot copy the import {ast.unparse(node)!r}: expected from PACKAGE.MODULE import NAME, without as"
        )

    def _tree(self, module: str) -> tuple[ast.Module, list[str]]:
        if module not in self._trees:
            source = inspect.getsource(sys.modules.get(module) or import_module(module))
            self._trees[module] = ast.parse(source), source.splitlines()
        return self._trees[module]

    def close(self) -> None:
        """Add everything that the definitions need, transitively."""
        size = None
        while size != (size := (len(self.definitions), len(self.imports), len(self.used))):
            for definition in list(self.definitions.values()):
                for part in definition.parts(self.used):
                    for node in ast.walk(part):
                        if isinstance(node, ast.Attribute):
                            self.used.add(node.attr)
                        elif isinstance(node, ast.Name):
                            self.add(definition.module, node.id)

    def text(self) -> str:
        """Return the source code of all definitions, ordered so that each follows those that it needs."""
        ordered: dict[str, Definition] = {}
        for name in self.definitions:
            self._order(name, ordered, set())
        constants: list[str] = []
        blocks: list[str] = []
        for definition in {id(d.node): d for d in ordered.values()}.values():  # one statement may define several names
            text = definition.text(self.used)
            if isinstance(definition.node, (ast.ClassDef, ast.FunctionDef)):
                blocks += ["\n".join(constants)] * bool(constants) + [text]
                constants = []
            else:
                constants.append(text)
        return "\n\n\n".join([*blocks, *(["\n".join(constants)] if constants else [])])

    def _order(self, name: str, ordered: dict[str, Definition], pending: set[str]) -> None:
        if name in ordered or name in pending:
            return
        pending.add(name)
        definition = self.definitions[name]
        for part in definition.parts(self.used):
            for node in ast.walk(part):
                if isinstance(node, ast.Name) and node.id in self.definitions:
                    self._order(node.id, ordered, pending)
        ordered[name] = definition


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield from _top_level(node.body) if isinstance(node, ast.If) else [node]


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
