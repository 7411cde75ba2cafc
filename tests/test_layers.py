"""Who may import whom. What runs in a job knows nothing of the app; what the app reads through needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.fake_study import write_study

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "ifguide"
SCREEN = {"streamlit", "plotly"}
HEAVY = {"torch", "transformers", "datasets", "sklearn", "accelerate"}

MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
UI = {name: path for name, path in MODULES.items() if name == "ifguide.ui" or name.startswith("ifguide.ui.")}
SCREENS = {path.stem: path for path in [REPOSITORY / "app.py", *sorted((REPOSITORY / "pages").glob("*.py"))]}
COMPUTE = {name: path for name, path in MODULES.items() if name not in UI and name != "ifguide.__main__"}
REPORT = {name for name in MODULES if name == "ifguide.report" or name.startswith("ifguide.report.")}
"""The report is written outside the app with the app's own numbers and words, so it may use these parts of `ifguide.ui`:"""
SHARED_WITH_REPORT = {f"ifguide.ui.{name}" for name in ("comparison", "format", "metric_details", "palette", "words")}
WITH_TORCH = {"ifguide.evaluate.generation", "ifguide.evaluate.steering", "ifguide.logit_lens", "ifguide.prefix_search", "ifguide.query_batches", "ifguide.suppress", "ifguide.trainer", "ifguide.training", "ifguide.training_record", "ifguide.training_rows", "ifguide.training_state"}  # fmt: skip
"""Modules that are about tensors through and through, and may import torch at the top; `ifguide.influence` may, too."""


def imported(path: Path, *, inside_functions: bool = True) -> set[str]:
    """Dotted names that a file imports; `from a import b` gives a and a.b. What only type checkers see is left out."""
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
            found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are there after some code ran in a fresh interpreter."""
    code += "\nimport sys; print('loaded:', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("loaded: ").split())


def test_there_is_something_to_check():
    assert {"ifguide.pipeline", "ifguide.cli", "ifguide.influence.ekfac", "ifguide.demo.sources.news"} <= COMPUTE.keys()
    assert {"ifguide.ui.charts", "ifguide.ui.token_view"} <= UI.keys()
    assert {"app", "overview", "documents", "threshold", "compare"} <= SCREENS.keys()
    assert COMPUTE.keys() >= WITH_TORCH


@pytest.mark.parametrize("name", COMPUTE)
def test_compute_never_imports_the_screen_not_even_inside_a_function(name):
    names = imported(COMPUTE[name])
    assert not roots(names) & SCREEN
    shown = {n for n in names if n.startswith("ifguide.ui.")}
    if name in REPORT:
        assert {".".join(n.split(".")[:3]) for n in shown} <= SHARED_WITH_REPORT
    else:
        assert not shown and "ifguide.ui" not in names


def test_all_of_compute_runs_without_the_screen():
    code = "\n".join(f"import {name}" for name in COMPUTE)
    loaded = loaded_after(code)
    assert not loaded & SCREEN
    assert "torch" in loaded  # so the list above did import something


@pytest.mark.parametrize("name", [*UI, *SCREENS])
def test_the_screen_never_imports_torch_not_even_inside_a_function(name):
    assert not roots(imported((UI | SCREENS)[name])) & HEAVY


def test_the_screen_and_the_study_load_nothing_heavy():
    code = "import ifguide\n" + "\n".join(f"import {name}" for name in UI)
    for path in SCREENS.values():  # pages run when imported, so only what they import is
        code += "".join(
            f"\nimport {name}" for name in sorted(imported(path)) if name in MODULES or name in ("streamlit", "plotly")
        )
    loaded = loaded_after(code)
    assert "streamlit" in loaded
    assert not loaded & HEAVY
    assert not loaded_after("import ifguide.study, ifguide.selections, ifguide.corpus, ifguide.jobs") & (HEAVY | SCREEN)


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
for page in {sorted(SCREENS.keys() - {"app"})!r}:
    app.switch_page(f"pages/{{page}}.py").run()
    assert not app.exception and app.title[0].value == page.capitalize(), page
"""
    assert not loaded_after(code) & HEAVY


LIGHT = sorted(name for name in COMPUTE.keys() - WITH_TORCH if not name.startswith("ifguide.influence"))


@pytest.mark.parametrize("name", LIGHT)
def test_torch_is_imported_inside_functions_outside_the_tensor_modules(name):
    assert not roots(imported(COMPUTE[name], inside_functions=False)) & HEAVY


PURE = [name for name in COMPUTE if name.startswith("ifguide.influence") or name in ("ifguide.selection", "ifguide.suppress", "ifguide.index.coverage")]  # fmt: skip


@pytest.mark.parametrize("name", PURE)
def test_the_mathematics_touches_no_files(name):
    names = imported(COMPUTE[name])
    assert not roots(names) & {"os", "pathlib", "shutil", "json", "io", "tempfile", "pyarrow", "pandas", "safetensors"}
    assert not names & {"ifguide.artifacts", "ifguide.study", "ifguide.corpus", "ifguide.config"}
    calls = [node for node in ast.walk(ast.parse(COMPUTE[name].read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]  # fmt: skip
    assert not {getattr(call.func, "id", None) or getattr(call.func, "attr", None) for call in calls} & {
        "open", "open_memmap", "save", "load", "memmap", "tofile", "fromfile", "save_file", "load_file"
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "ifguide.ui.charts",
        "ifguide.ui.token_view",
        "ifguide.ui.document_list",
        "ifguide.ui.palette",
        "ifguide.ui.format",
    ],
)
def test_figures_and_the_html_of_tokens_know_no_streamlit(name):
    assert "streamlit" not in roots(imported(UI[name]))


def test_study_and_pipeline_stand_above_what_they_use():
    """Floors of the package: nothing below the study imports it or anything above it."""
    above = {f"ifguide.{name}" for name in ("study", "scoring", "stages", "pipeline", "inputs", "jobs", "cli", "export", "status", "compare", "demo")}  # fmt: skip
    below = ("errors", "config", "artifacts", "readers", "hub", "tokenizing", "spans", "corpus", "corpus_writer", "queries", "packing",
             "selection", "near_duplicates", "audit", "verdicts", "index.build", "index.chunks", "index.counts", "index.coverage", "index.hits",
             "index.results", "models", "suppress", "training", "training_rows", "progress", "lock",
             "distributed", "shards")  # fmt: skip
    for name in below:
        assert not imported(COMPUTE[f"ifguide.{name}"]) & above, name


@pytest.mark.parametrize("name", MODULES)
def test_nothing_pickles_or_runs_foreign_code(name):
    text = MODULES[name].read_text(encoding="utf-8")
    assert not roots(imported(MODULES[name])) & {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    assert "trust_remote_code=True" not in text
    assert "allow_pickle=True" not in text
    assert "torch.load" not in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", None)
            assert called not in ("eval", "exec"), f"line {node.lineno}"
