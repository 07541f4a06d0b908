"""Small changes of Python source, one at a time: what an automatic mutation of the losses tries."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMBINED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
RENAMED = {
    "minimum": "maximum",
    "maximum": "minimum",
    "min": "max",
    "max": "min",
    "sum": "mean",
    "expm1": "exp",
    "exp": "expm1",
    "log1p": "log",
    "log": "log1p",
    "any": "all",
    "all": "any",
    "zeros": "ones",
    "ones": "zeros",
    "argmax": "argmin",
    "sequence_mean": "sequence_sum",
    "sequence_sum": "sequence_mean",
    "sigmoid": "log_sigmoid",
    "sign": "abs",
    "square": "abs",
}
# Calls whose only argument, or whose first, can stand in their place.
# Whose two arguments can change places.
SYMMETRIC = {"minimum", "maximum", "min", "max", "logaddexp", "promote_types", "result_type", "clip"}
OMITTED = {"stop_gradient", "clip", "abs", "floored", "log_ratio", "masked_to_zero", "exp", "sqrt", "promote_types"}


@dataclass(frozen=True)
class Mutant:
    """``name``: the function, the passage before and after, and which of several of the same kind."""

    name: str
    line: int
    tree: ast.Module


def mutants(text: str) -> Iterator[Mutant]:
    """Every mutant of this source."""
    tree = ast.parse(text)
    seen: dict[str, int] = {}
    for path, node, where in _places(tree, (), "module"):
        for change in _changes(node):
            after = copy.deepcopy(tree)
            target = after
            for step in path:
                target = getattr(target, step) if isinstance(step, str) else target[step]
            parent = after
            for step in path[:-1]:
                parent = getattr(parent, step) if isinstance(step, str) else parent[step]
            new = change(target)
            if isinstance(path[-1], str):
                setattr(parent, path[-1], new)
            else:
                parent[path[-1]] = new
            name = f"{where}: {_shown(node)} -> {_shown(new)}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f" #{seen[name]}"
            ast.fix_missing_locations(after)
            yield Mutant(name, getattr(node, "lineno", 0), after)


def _shown(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())


def _places(node, path, where):
    """Every node that runs, with its path from the root: no annotations, decorators, docstrings, messages or imports."""
    if isinstance(node, ast.AST):
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.JoinedStr)):
            return
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            where = node.name if where == "module" else f"{where}.{node.name}"
        if path:
            yield path, node, where
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list", "ctx", "bases"):
                yield from _places(value, (*path, name), where)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            if not (isinstance(value, ast.Expr) and isinstance(value.value, ast.Constant)):
                yield from _places(value, (*path, i), where)


def _changes(node):
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for kind in COMPARED[type(node.ops[0])]:
            yield lambda n, kind=kind: ast.Compare(n.left, [kind()], n.comparators)
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for kind in COMPARED[type(op)][:1]:
                yield lambda n, i=i, kind=kind: ast.Compare(n.left, [*n.ops[:i], kind(), *n.ops[i + 1 :]], n.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in COMBINED and not _is_type(node):
        yield lambda n: ast.BinOp(n.left, COMBINED[type(n.op)](), n.right)
        yield lambda n: n.left
    elif isinstance(node, ast.BoolOp):
        yield lambda n: ast.BoolOp(ast.Or() if isinstance(n.op, ast.And) else ast.And(), n.values)
    elif isinstance(node, ast.UnaryOp):
        yield lambda n: n.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield lambda n: ast.Constant(not n.value)
        elif isinstance(node.value, (int, float)):
            yield lambda n: ast.Constant(n.value + 1)
            if node.value:
                yield lambda n: ast.Constant(0 * n.value)
    elif isinstance(node, ast.IfExp):
        yield lambda n: n.body
        yield lambda n: n.orelse
    elif isinstance(node, ast.If):
        yield lambda n: ast.If(ast.UnaryOp(ast.Not(), n.test), n.body, n.orelse)
        yield lambda n: ast.If(ast.Constant(False), n.body, n.orelse)
    elif isinstance(node, ast.AugAssign):
        yield lambda n: ast.Pass()
        if type(node.op) in COMBINED:
            yield lambda n: ast.AugAssign(n.target, COMBINED[type(n.op)](), n.value)
    elif isinstance(node, ast.Call):
        yield from _call_changes(node)


def _is_type(node: ast.BinOp) -> bool:
    return isinstance(node.right, ast.Constant) and node.right.value is None or "Callable" in ast.unparse(node)


def _call_changes(node: ast.Call):
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in RENAMED:

        def rename(n):
            new = RENAMED[name]
            func = (
                ast.Attribute(n.func.value, new, n.func.ctx)
                if isinstance(n.func, ast.Attribute)
                else ast.Name(new, ast.Load())
            )
            return ast.Call(func, n.args, n.keywords)

        yield rename
    if name in OMITTED and node.args:
        yield lambda n: n.args[0]
    if name == "where" and len(node.args) == 3:
        yield lambda n: n.args[1]
        yield lambda n: n.args[2]
        yield lambda n: ast.Call(n.func, [n.args[0], n.args[2], n.args[1]], n.keywords)
    elif len(node.args) >= 2 and name not in SYMMETRIC | {"isinstance", "getattr", "reshape", "full", "jit", "replace"}:
        yield lambda n: ast.Call(n.func, [n.args[1], n.args[0], *n.args[2:]], n.keywords)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in ("rule", "normalize") and name not in ("dataclass",):
            yield lambda n, i=i: ast.Call(n.func, n.args, [k for j, k in enumerate(n.keywords) if j != i])
