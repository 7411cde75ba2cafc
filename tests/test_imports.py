"""Which part may import what, read from the source: imports inside functions count as well."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCREENS = {"streamlit", "plotly"}
LEARNING = {"torch", "transformers", "datasets"}
COMPUTE = sorted(p for p in (ROOT / "ifguide").rglob("*.py") if "ui" not in p.relative_to(ROOT / "ifguide").parts)
SHOWN = sorted([ROOT / "app.py", *(ROOT / "pages").rglob("*.py"), *(ROOT / "ifguide" / "ui").rglob("*.py")])
PURE = [
    path
    for path in COMPUTE
    if path.parent.name == "influence"
    or path.relative_to(ROOT / "ifguide").as_posix() in ("selection.py", "suppress.py")
]
FILES = {"pathlib", "shutil", "tempfile", "ifguide.artifacts"}
by_path = lambda path: path.relative_to(ROOT).as_posix()  # noqa: E731


def imported_names(source: str, package: str) -> set[str]:
    """Every module that a source imports, anywhere in it; `from a import b` counts as `a` and `a.b`.

    Imports that only type checkers read (`if TYPE_CHECKING:`) are left out.
    """
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            children = node.orelse
        else:
            children = ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            found.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "__import__",
            "importlib.import_module",
            "import_module",
        ):
            found.update(a.value for a in node.args[:1] if isinstance(a, ast.Constant))
        for child in children:
            walk(child)

    walk(ast.parse(source))
    return found


def names_of(path: Path) -> set[str]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return imported_names(path.read_text(encoding="utf-8"), package)


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def screens_behind(names: set[str]) -> set[str]:
    """The screen libraries that these modules of `ifguide.ui` lead to, by whatever way inside it."""
    found, waiting, seen = set(), set(names), set()
    while waiting:
        name = waiting.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        if name in seen or not name.startswith("ifguide.ui.") or not path.is_file():
            continue
        seen.add(name)
        found |= roots(names_of(path)) & SCREENS
        waiting |= names_of(path)
    return found


def test_imports_are_found_wherever_they_stand():
    source = "import a.b\ndef f():\n    from c import d\n    import e as g\nclass H:\n    try:\n        from . import i\n    except ImportError: __import__('j')\nfrom ..k import l"
    assert imported_names(source, "p.q") == {"a.b", "c", "c.d", "e", "p.q", "p.q.i", "j", "p.k", "p.k.l"}
    assert imported_names("if TYPE_CHECKING:\n    import a\nelse:\n    import b", "p") == {"b"}


def test_there_is_something_to_look_at():
    assert screens_behind({"ifguide.ui.charts"}) == {"plotly"} and screens_behind({"ifguide.ui.reader"}) >= {
        "streamlit"
    }
    assert len(COMPUTE) > 60 and len(SHOWN) > 25 and len(PURE) > 8


@pytest.mark.parametrize("path", COMPUTE, ids=by_path)
def test_what_computes_knows_no_screen(path):
    names = names_of(path)
    assert not roots(names) & SCREENS
    if path.parent.name == "report":  # it shows the app's numbers, through the parts of the app that know no screen
        assert not screens_behind(names)
    else:
        assert not [name for name in names if name.startswith("ifguide.ui")]


@pytest.mark.parametrize("path", SHOWN, ids=by_path)
def test_what_is_shown_needs_no_learning(path):
    assert not roots(names_of(path)) & LEARNING


@pytest.mark.parametrize("path", PURE, ids=by_path)
def test_the_method_reads_and_writes_no_file(path):
    names = names_of(path)
    assert not {name for name in names if name in FILES or name.startswith("ifguide.artifacts")}
    assert "open" not in {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
