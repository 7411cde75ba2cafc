"""The wheel: what is installed from it runs without the checkout."""

import contextlib
import json
import os
import shutil
import site
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from pathlib import Path

import psutil
import pytest

from ifguide import __version__
from ifguide.ui.frame import PAGES
from tests.tiny_study import save_tiny_model, write_tiny_inputs

ROOT = Path(__file__).resolve().parent.parent

EVERY_PAGE = """
import os
from streamlit.testing.v1 import AppTest
from streamlit.runtime.pages_manager import PagesManager
from ifguide.ui import shipped
from ifguide.ui.frame import PAGES

start = PagesManager.__init__
def start_after_the_first_page(self, *args, **kwargs):  # as tests/app/whole_app.py says
    start(self, *args, **kwargs)
    PagesManager.uses_pages_directory = False

PagesManager.__init__ = start_after_the_first_page
os.chdir(shipped.app_folder())
app = AppTest.from_file("app.py", default_timeout=60).run()
for name, title, _ in PAGES:
    app = app.switch_page(f"pages/{name}.py").run()
    said = [str(element.value) for element in [*app.exception, *app.error]]
    assert not said and app.title[0].value == title, (name, said)
    print(name)
"""
SETTINGS = """
import os
from ifguide.ui.shipped import app_folder
os.chdir(app_folder())
from streamlit import config
print(*map(config.get_option, ("client.toolbarMode", "server.address", "server.headless")))
"""


def build(kind: str, source: Path, out: Path) -> Path:
    """The sdist or the wheel of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    [path] = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel built from the sdist, which therefore has everything that the wheel needs."""
    pytest.importorskip("hatchling", reason="the build backend is not installed; `make test` installs it")
    folder = tmp_path_factory.mktemp("dist")
    with tarfile.open(build("sdist", ROOT, folder)) as archive:
        archive.extractall(folder / "source", filter="data")
    [source] = (folder / "source").iterdir()
    return build("wheel", source, folder)


@pytest.fixture(scope="module")
def outside(wheel, tmp_path_factory):
    """Runs a command of a new virtual environment, whose only ifguide is the wheel, in an empty folder.

    The dependencies are this environment's own: the new one sees them through a .pth file, which reads no other.
    """
    venv, empty = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=120)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    python = str(venv / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True, capture_output=True, timeout=120)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"IFGUIDE_CACHE": str(empty / "cache"), "PATH": f"{venv / 'bin'}:{os.environ['PATH']}"}

    def run(*command):
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    run.site, run.empty, run.environment, run.python, run.ifguide = (
        packages,
        empty,
        environment,
        python,
        venv / "bin/ifguide",
    )
    return run


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ifguide").rglob("*") if path.is_file()}
    app = {"app.py", "docs/method.md", ".streamlit/config.toml"}
    app |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "pages").glob("*.py")}
    copies = {f"ifguide/ui/app_files/{name}" for name in app}
    assert names == copies | {"ifguide/py.typed"} | {name for name in files if "__pycache__" not in name}
    assert {Path(name).suffix for name in names if name.startswith("ifguide/ui/static/")} == {
        ".css",
        ".js",
        ".svg",
        ".txt",
    }


def test_the_installed_commands_run_outside_the_checkout(outside):
    assert __version__ in outside(outside.ifguide, "--version")
    assert "demo" in outside(outside.ifguide, "list"), (
        "an empty cache: it names the command that builds the first study"
    )
    assert "--background" in outside(outside.ifguide, "demo", "--help")
    code = "import ifguide, ifguide.ui.report.page, ifguide.ui.components as c; print(ifguide.__file__, c.__file__)"
    for place in outside(outside.python, "-c", code).split():
        assert Path(place).is_relative_to(outside.site)


def test_streamlit_reads_the_shipped_settings(outside):
    assert outside(outside.python, "-c", SETTINGS).split() == ["minimal", "localhost", "True"]


@pytest.mark.thorough
def test_a_study_is_built_and_every_page_shows_it(outside):
    """From `ifguide new` to the report, then the app, from an empty folder."""
    inputs = outside.empty / "inputs"
    write_tiny_inputs(inputs)
    save_tiny_model("gpt_neox", inputs / "model")
    options = {"--model": inputs / "model", "--corpus": inputs / "corpus.jsonl", "--id-field": "id"}
    options |= {"--toxic": inputs / "toxic.jsonl", "--safe": inputs / "safe.jsonl", "--spans-field": "spans"}
    options |= {"--heldout": inputs / "heldout.jsonl"}
    settings = ("training.epochs=1", "training.early_checkpoints=1", "selection.quantile=0.9")
    settings += ("training.batch_size=4", "evaluate.n_samples=2", "evaluate.max_new_tokens=3", "compute.device=cpu")
    words = [str(word) for option in options.items() for word in option]
    outside(outside.ifguide, "new", "tiny", *words, *(word for s in settings for word in ("--set", s)))
    outside(outside.ifguide, "run", "tiny")
    status = json.loads(outside(outside.ifguide, "status", "tiny", "--json"))
    assert {stage["state"] for stage in status["stages"].values()} == {"fresh"}
    assert "wrote tiny-report.html" in outside(outside.ifguide, "report", "tiny")
    assert len(outside(outside.python, "-c", EVERY_PAGE).split()) == len(PAGES)


@pytest.mark.thorough
def test_the_installed_app_is_served_to_this_machine_only(outside):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(outside.ifguide), "app", "--server.port", str(port)]
    log = (outside.empty / "app.log").open("wb+")
    process = subprocess.Popen(command, cwd=outside.empty, env=outside.environment, stdout=log, stderr=log)
    try:
        until, answer = time.monotonic() + 60, b""
        while not answer and time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/", timeout=5) as page:
                answer = page.read()
            time.sleep(0.1)
        log.seek(0)
        assert b"<title>" in answer, log.read()
        connections = psutil.Process(process.pid).net_connections("inet")
        assert {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN} <= {"127.0.0.1", "::1"}
        log.seek(0)
        assert b"slower" not in log.read()
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


@pytest.mark.thorough
def test_every_file_compiles_under_every_python_that_is_installed(outside):
    tried = []
    for version in ("3.11", "3.12", "3.13", "3.14"):
        python = shutil.which(f"python{version}")
        if python and subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            outside(python, "-m", "compileall", "-q", "-f", str(outside.site / "ifguide"))
            outside(python, "-c", f"import sys; sys.path.insert(0, {str(outside.site)!r}); import ifguide.errors")
            tried.append(version)
    if not tried:
        pytest.skip("found no python3.11 to python3.14 on the path")
