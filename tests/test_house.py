"""The house: which room may import which, what stays light, and what no file may do. `docs/architecture.md` draws
it."""

import ast
import subprocess
import sys
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


def loaded_after(code: str) -> set[str]:
    """Top-level modules that are there after some code ran in a fresh interpreter."""
    code += "\nimport sys; print('loaded:', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("loaded: ").split())


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
    assert not app.exception and app.title[0].value == page.capitalize(), page
"""
    assert not loaded_after(code) & HEAVY


def test_the_mathematics_opens_no_file():
    files = {"open", "open_memmap", "save", "load", "memmap", "tofile", "fromfile", "save_file", "load_file"}
    names = [
        n for n in MODULES if n.startswith("ifguide.influence") or n.endswith(("selection.algorithm", ".objective"))
    ]
    assert len(names) > 9
    for name in names:
        used = {getattr(call.func, "id", None) or getattr(call.func, "attr", None) for call in calls(MODULES[name])}
        assert not used & files, name


@pytest.mark.parametrize("forbidden", ["trust_remote_code=True", "allow_pickle=True", "torch.load", "import pickle"])
def test_nothing_pickles_or_runs_foreign_code(forbidden):
    for path in [*MODULES.values(), *PAGES]:
        assert forbidden not in path.read_text(encoding="utf-8"), path
        assert not {getattr(call.func, "id", None) for call in calls(path)} & {"eval", "exec"}, path
