"""How many small faults the tests of selection, attribution and loss notice.

    python -m benchmarks.mutants                        every mutant of the three modules (some ten minutes of one core)
    python -m benchmarks.mutants --sample 40 --seed 1   forty drawn from each module
    python -m benchmarks.mutants --module suppress      one module

A mutant is a module with one small change: a comparison, an operator, a constant, a condition, a call, or a statement
left out. The module's own tests run on it until one fails. A mutant that no test notices has survived: either it
computes the same as before, or a test is missing. Messages of errors, annotations and docstrings are not changed.

Each mutant runs in a process forked from one that has imported the libraries but nothing of ifguide, so it costs little
more than its tests. The changed module is compiled in memory; no file is touched.
"""

import argparse
import ast
import gc
import importlib
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "ifguide.selection.algorithm": ("tests/selection/test_algorithm.py",),
    "ifguide.influence.attribution": ("tests/influence/test_attribution.py", "tests/influence/test_several.py"),
    "ifguide.training.objective": ("tests/training/test_objective.py",),
}
"""The quick tests that belong to each module."""
BAR = 0.8
"""Share of the mutants that must be noticed."""

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    "min": "max",
    "max": "min",
    "minimum": "maximum",
    "maximum": "minimum",
    "any": "all",
    "all": "any",
    "zeros": "ones",
    "ceil": "floor",
    "zeros_like": "ones_like",
}
WORDS = {"right": "left", "left": "right"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One small change to a module."""

    line: int
    before: str
    """The changed expression or statement as it was."""
    after: str
    kind: str
    """`comparison`, `operator`, `constant`, `condition`, `call` or `statement`."""
    apply: Callable[[], None]
    """Makes the change in the module's tree, in place."""


def find_mutants(tree: ast.Module) -> list[Mutant]:
    """Every change to a module, in the order of its lines."""
    mutants = []
    for parent, node in _changeable(tree):
        for kind, whole, place, name, new in _changes(parent, node):
            before = ast.unparse(whole)
            old = getattr(place, name)
            setattr(place, name, new)
            after = "left out" if kind == "statement" else ast.unparse(whole)
            setattr(place, name, old)
            if name == "test":
                after = f"not ({before})"
            apply = lambda place=place, name=name, new=new: setattr(place, name, new)  # noqa: E731
            line = getattr(node, "lineno", getattr(whole, "lineno", 0))
            mutants.append(Mutant(line=line, before=before, after=after, kind=kind, apply=apply))
    return sorted(mutants, key=lambda mutant: mutant.line)


def _changeable(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(parent, node) of all that a reader of the results would call code."""
    for name, field in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for node in field if isinstance(field, list) else [field]:
            if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
                continue
            yield tree, node
            if not isinstance(node, ast.Raise):
                yield from _changeable(node)


def _changes(parent: ast.AST, node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST, str, object]]:
    """(kind, what to show, where, field, its new value)."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            yield "comparison", node, node, "ops", [COMPARISONS[type(op)]()]
        case ast.Compare(ops=[first, *others]):
            yield "comparison", node, node, "ops", [COMPARISONS[type(first)](), *others]
            yield "comparison", node, node, "ops", [first, *(COMPARISONS[type(op)]() for op in others)]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield "operator", node, node, "op", OPERATORS[type(op)]()
        case ast.BoolOp(op=op):
            yield "condition", node, node, "op", ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.USub()):
            yield "operator", node, node, "op", ast.UAdd()
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            yield "operator", node, node, "operand", ast.UnaryOp(ast.Invert(), operand)  # ~~x is x
        case ast.Constant(value=bool(value)):
            yield "constant", parent, node, "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield "constant", parent, node, "value", value + 1
        case ast.Constant(value=str(value)) if value in WORDS:
            yield "constant", parent, node, "value", WORDS[value]
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield "condition", test, node, "test", ast.UnaryOp(ast.Not(), test)
        case ast.Name(id=name) if isinstance(parent, ast.Call) and parent.func is node and name in NAMES:
            yield "call", parent, node, "id", NAMES[name]
        case ast.Attribute(attr=name) if isinstance(parent, ast.Call) and parent.func is node and name in NAMES:
            yield "call", parent, node, "attr", NAMES[name]
    if isinstance(node, ast.stmt):
        yield from _removals(parent, node)


def _removals(parent: ast.AST, node: ast.stmt) -> Iterator[tuple[str, ast.AST, ast.AST, str, object]]:
    """Leaving out a statement that others can do without."""
    works = isinstance(node, ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    stores = isinstance(node, ast.Assign) and not any(
        isinstance(target, ast.Name | ast.Tuple) for target in node.targets
    )
    for name in ("body", "orelse"):
        block = getattr(parent, name, None)
        if (works or stores) and isinstance(block, list) and node in block:
            yield "statement", node, parent, name, [ast.Pass() if other is node else other for other in block]


class ChangedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, module: str, path: Path, tree: ast.Module):
        self.module, self.path, self.tree, self.loaded = module, path, tree, False

    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self, origin=str(self.path)) if name == self.module else None

    def exec_module(self, module) -> None:
        self.loaded = True
        exec(compile(ast.fix_missing_locations(self.tree), str(self.path), "exec"), module.__dict__)


def path_of(module: str) -> Path:
    """The module's file."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def run_tests(module: str, mutant: Mutant | None, limit: float) -> str:
    """`survived`, `killed`, or `too slow`: a module's tests on one mutant, or on the unchanged module for None.

    Args:
        limit: seconds after which the tests are stopped: a mutant may loop for ever.

    Raises:
        RuntimeError: no test ran, or they ran on another module than the changed one.
    """
    child = os.fork()
    if not child:
        os._exit(_run_in_child(module, mutant))
    until = time.monotonic() + limit
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "too slow"
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(status)
    if code in (_NO_TESTS, _OTHER_MODULE):
        raise RuntimeError(f"expected the tests of {module} to run on the changed module, got exit code {code}")
    return "survived" if code == 0 else "killed"


_NO_TESTS, _OTHER_MODULE = 5, 77


def _run_in_child(module: str, mutant: Mutant | None) -> int:
    import pytest

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        if mutant is not None:
            mutant.apply()
        finder = ChangedModule(module, path_of(module), TREES[module])
        sys.meta_path.insert(0, finder)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # other plugins take longer to load than the tests to run
        plugins = ["-p", "no:cacheprovider", "-p", "pytest_timeout"]
        code = pytest.main(["-x", "-q", *plugins, *(str(ROOT / test) for test in TESTS[module])])
        return int(code) if finder.loaded else _OTHER_MODULE
    except BaseException:
        return 1


TREES: dict[str, ast.Module] = {}
"""The module's syntax trees, which a child changes for itself alone."""


def import_libraries(modules: list[str]) -> None:
    """Import all that the tests import, and forget ifguide and the tests again."""
    importlib.import_module("pytest_timeout")
    for module in modules:
        for test in TESTS[module]:
            importlib.import_module(test.removesuffix(".py").replace("/", "."))
    for name in [name for name in sys.modules if name.split(".")[0] in ("ifguide", "tests")]:
        del sys.modules[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", help="part of a module's name; all three if not given")
    parser.add_argument("--sample", type=int, default=0, help="mutants drawn from each module; 0: all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    modules = [name for name in TESTS if not options.module or any(part in name for part in options.module)]
    os.chdir(ROOT)
    import_libraries(modules)
    gc.freeze()  # objects from before are not scanned, and so not copied, in every child
    rows, survivors, passed = [], [], True
    for module in modules:
        TREES[module] = ast.parse(path_of(module).read_text(encoding="utf-8"))
        mutants = find_mutants(TREES[module])
        n_all = len(mutants)
        if options.sample and options.sample < n_all:
            mutants = sorted(random.Random(options.seed).sample(mutants, options.sample), key=lambda m: m.line)
        started = time.monotonic()
        if run_tests(module, None, 600) != "survived":
            sys.exit(f"error: expected the tests of {module} to pass on the unchanged module; fix them first")
        limit = 20 + 5 * (time.monotonic() - started)
        outcomes = Counter()
        for number, mutant in enumerate(mutants):
            result = run_tests(module, mutant, limit)
            outcomes[result] += 1
            if result == "survived":
                survivors.append((module, mutant))
            print(
                f"\r{module}: {number + 1} of {len(mutants)}, {outcomes['survived']} survived ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        print(file=sys.stderr)
        killed = len(mutants) - outcomes["survived"]
        passed &= killed >= BAR * len(mutants)
        seconds = time.monotonic() - started
        rows.append(
            f"| `{module}` | {n_all} | {len(mutants)} | {killed} | {outcomes['too slow']} | {outcomes['survived']} |"
            f" {killed / len(mutants):.1%} | {seconds:.0f} |"
        )
    print("| module | mutants | tried | noticed | of these, never ended | survived | share noticed | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    print(*rows, sep="\n")
    print("\nSurvivors:\n")
    for module, mutant in survivors:
        first, last = (" ".join(text.split()) for text in (mutant.before, mutant.after))
        print(f"- `{module}` line {mutant.line}, {mutant.kind}: `{first}` → `{last}`")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
