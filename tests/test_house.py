"""The house: which room may import which, what stays light, and what no file may do. `docs/architecture.md` draws
it."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.app.fake_study import write_study

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "ifguide"
HEAVY = {"torch", "transformers", "datasets", "sklearn", "accelerate"}
SCREEN = {"streamlit", "plotly"}
PAGES = sorted((REPOSITORY / "pages").glob("*.py"))
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__main__.py"
}
COMPUTE = [name for name in MODULES if not name.startswith("ifguide.ui")]
WITH_TORCH = {
    "ifguide.models.layers",
    *(f"ifguide.evaluation.{n}" for n in ("generation", "logit_lens", "prefix_search", "query_batches", "steering")),
    *(f"ifguide.training.{name}" for name in ("objective", "parts", "record", "rows", "state", "train", "trainer")),
}
"""Modules that are about tensors through and through, and may import torch at the top; `ifguide.influence` may, too."""
NO_STREAMLIT = (
    "ifguide.ui.compare.charts",
    "ifguide.ui.results.frontier",
    "ifguide.ui.documents.lines",
    "ifguide.ui.documents.token_view",
    "ifguide.ui.format",
    "ifguide.ui.palette",
)
"""Figures, and the HTML of tokens."""
PICKLES = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are there after some code ran in a fresh interpreter."""
    code += "\nimport sys; print('loaded:', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("loaded: ").split())


def imported(path: Path, *, inside_functions: bool = True) -> set[str]:
    """Top-level names of what a file imports; what only type checkers see is left out."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if not inside_functions and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return {name.split(".")[0] for name in found}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]


def test_every_room_keeps_to_its_floor():
    """The contracts of `[tool.importlinter]` in pyproject.toml."""
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(REPOSITORY / "pyproject.toml"), no_cache=True) == 0


def test_every_room_says_what_it_is_and_the_shelf_is_short():
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 16, sorted(path.name for path in entries)
    for room in (path for path in entries if path.is_dir()):
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert text and len(text.split()) >= 15, f"{room.name}/__init__.py says too little"


def test_files_are_short():
    for path in [
        *PACKAGE.rglob("*.py"),
        *PAGES,
        *REPOSITORY.glob("tests/**/*.py"),
        *REPOSITORY.glob("benchmarks/*.py"),
    ]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 450, f"{path}: {len(lines)} lines"
        assert max(map(len, lines), default=0) <= 120, path
        assert "fmt: " + "skip" not in path.read_text(encoding="utf-8"), path


def test_names_say_what_they_hold():
    """Of these names a few may be left, where the word is the right one. Dictionaries that hold some arguments of a
    call hide them from mypy."""
    files = [*PACKAGE.rglob("*.py"), *PAGES, REPOSITORY / "app.py"]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = Counter(getattr(node, field, None) for node in nodes for field in ("id", "arg", "attr", "name"))
    assert sum(names[vague] for vague in ("found", "wanted", "known", "said")) <= 40
    keywords = [node for node in nodes if isinstance(node, ast.keyword) and isinstance(node.value, ast.Name)]
    splatted = {keyword.value.id for keyword in keywords if not keyword.arg}
    assert not splatted & {"how", "look", "extra"}, splatted


def test_compute_runs_without_the_screen():
    loaded = loaded_after("\n".join(f"import {name}" for name in COMPUTE))
    assert not loaded & SCREEN and "torch" in loaded


def test_screens_and_studies_load_nothing_heavy():
    code = "\n".join(f"import {name}" for name in MODULES if name.startswith("ifguide.ui"))
    loaded = loaded_after(code)
    assert "streamlit" in loaded and not loaded & HEAVY
    light = (
        "ifguide.study.reading, ifguide.study.freshness, ifguide.selection.saved, ifguide.data.corpus,"
        " ifguide.runtime.jobs"
    )
    assert not loaded_after(f"import {light}") & (HEAVY | SCREEN)


def test_every_page_shows_a_whole_study_without_anything_heavy(tmp_path):
    write_study(tmp_path)
    code = f"""
import os
os.environ["IFGUIDE_CACHE"] = {str(tmp_path)!r}
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest
from tests.app.whole_app import start_after_the_first_page
PagesManager.__init__ = start_after_the_first_page
app = AppTest.from_file("app.py", default_timeout=60).run()
for page in {[path.stem for path in PAGES]!r}:
    app.switch_page(f"pages/{{page}}.py").run()
    assert not app.exception and app.title[0].value == page.capitalize().replace("_", " "), page
"""
    assert not loaded_after(code) & HEAVY


def test_torch_is_imported_inside_functions_outside_the_tensor_modules():
    light = [name for name in COMPUTE if name not in WITH_TORCH and not name.startswith("ifguide.influence")]
    assert len(light) > 60 and MODULES.keys() >= WITH_TORCH
    for name in light:
        assert not imported(MODULES[name], inside_functions=False) & HEAVY, name


def test_pages_import_nothing_heavy_and_figures_no_streamlit():
    for path in [REPOSITORY / "app.py", *PAGES]:
        assert not imported(path) & HEAVY, path
    for name in NO_STREAMLIT:
        assert "streamlit" not in imported(MODULES[name]), name


def test_the_mathematics_opens_no_file():
    files = {"open", "open_memmap", "save", "load", "memmap", "tofile", "fromfile", "save_file", "load_file"}
    others = ("selection.algorithm", "selection.coverage", "training.objective")
    names = [name for name in MODULES if name.startswith("ifguide.influence") or name.endswith(others)]
    assert len(names) > 9
    for name in names:
        used = {getattr(call.func, "id", None) or getattr(call.func, "attr", None) for call in calls(MODULES[name])}
        assert not used & files, name


@pytest.mark.parametrize("forbidden", ["trust_remote_code=True", "allow_pickle=True", "torch.load", "import pickle"])
def test_nothing_pickles_or_runs_foreign_code(forbidden):
    for path in [*MODULES.values(), *PAGES]:
        assert forbidden not in path.read_text(encoding="utf-8"), path
        assert not imported(path) & PICKLES, path
        assert not {getattr(call.func, "id", None) for call in calls(path)} & {"eval", "exec"}, path
