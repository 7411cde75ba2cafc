"""The wheel: what is installed from it runs without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ifguide import __version__

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built wheel."""
    pytest.importorskip("hatchling", reason="the build backend is not installed; `make test` installs it")
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def outside(wheel, tmp_path_factory):
    """Runs a command of what the wheel installs, in an empty folder from which the checkout is not to be seen."""
    site, empty = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(site), "IFGUIDE_CACHE": str(empty / "cache")}

    def run(*command):
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.site = site
    return run


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ifguide").rglob("*") if path.is_file()}
    app = {"app.py", "docs/method.md", ".streamlit/config.toml"}
    app |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "pages").glob("*.py")}
    copies = {f"ifguide/ui/app_files/{name}" for name in app}
    assert names == copies | {name for name in files if "__pycache__" not in name}
    assert {Path(name).suffix for name in names if name.startswith("ifguide/ui/static/")} == {".css", ".js", ".svg"}


def test_the_installed_command_runs_outside_the_checkout(outside):
    command = str(outside.site / "bin" / "ifguide")
    assert __version__ in outside(command, "--version")
    assert "demo" in outside(command, "list"), "an empty cache: it names the command that builds the first study"


def test_the_installed_package_is_the_one_that_is_imported(outside):
    code = "import ifguide, ifguide.ui.report.write, ifguide.ui.components as c; print(ifguide.__file__, c.__file__)"
    for place in outside(sys.executable, "-c", code).split():
        assert Path(place).is_relative_to(outside.site)


@pytest.mark.thorough
def test_every_file_compiles_under_every_python_that_is_installed(outside):
    tried = []
    for version in ("3.11", "3.12", "3.13", "3.14"):
        python = shutil.which(f"python{version}")
        if python and subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            outside(python, "-m", "compileall", "-q", "-f", str(outside.site / "ifguide"))
            outside(python, "-c", "import ifguide, ifguide.errors")
            tried.append(version)
    if not tried:
        pytest.skip("found no python3.11 to python3.14 on the path")
