"""What goes with the package: the container's steps, the citation, the changelog's form, templates for issues."""

import fnmatch
import json
import os
import re
import shutil
import site
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from ifguide import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read_dockerfile() -> list[tuple[str, str]]:
    """Its instructions as (name, rest), continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def test_the_container_is_no_root_has_a_health_check_and_copies_what_is_there():
    steps = read_dockerfile()
    names, found = [name for name, _ in steps], dict(steps)
    assert names[0] == "FROM" and names.count("USER") == 1 and found["USER"] not in ("root", "0")
    assert names.index("USER") < names.index("ENTRYPOINT") and not [
        n for n in names[names.index("USER") :] if n == "RUN"
    ]
    assert "/_stcore/health" in found["HEALTHCHECK"] and found["EXPOSE"] == "8501" and "8501/" in found["HEALTHCHECK"]
    command = json.loads(found["ENTRYPOINT"]) + json.loads(found["CMD"])
    assert command[:4] == ["ifguide", "app", "--server.address", "0.0.0.0"]
    assert not re.search(r"(?i)token|password|secret", " ".join(rest for _, rest in steps))
    shown = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert "-p 127.0.0.1:8501:8501" in shown and found["VOLUME"] in shown
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for sources in (rest.split()[:-1] for name, rest in steps if name == "COPY"):
        for source in sources:
            assert (ROOT / source).exists() and any(fnmatch.fnmatch(source, one) for one in kept), source


@pytest.mark.thorough
@pytest.mark.timeout(3600)
def test_the_containers_steps_run_one_by_one_and_it_says_that_it_is_healthy(tmp_path):
    """Without Docker: FROM is a new virtual environment, the image's folders are inside a temporary one, and no user is
    added. Dependencies that this environment has count as installed, unless IFGUIDE_FROM_EMPTY asks for all of them."""
    image, environment = tmp_path / "image", {"HOME": str(tmp_path), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment |= {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "SSL_", "LANG"))}
    here, started, health = image, [], ""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def inside(text: str) -> str:
        """Absolute paths of the image under the temporary folder, and a free port."""
        return re.sub(r"(?<![\w.:/])/(?=(opt|studies)\b)", f"{image}/", text).replace("8501", port)

    def run(command: str, limit: int = 3000) -> subprocess.CompletedProcess:
        options = {"cwd": here, "env": environment, "capture_output": True, "text": True, "timeout": limit}
        return subprocess.run(["sh", "-ec", command], **options)

    for name, rest in read_dockerfile():
        if name == "FROM":
            image.mkdir()
            subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
            environment["PATH"] = f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin"
            if not os.environ.get("IFGUIDE_FROM_EMPTY"):
                [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
                (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
        elif name == "RUN":
            parts = [part for part in rest.split(" && ") if not part.startswith(("useradd ", "chown "))]
            done = run(inside(" && ".join(parts)))
            assert done.returncode == 0, f"{name} {rest}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        elif name == "WORKDIR":
            here = Path(inside(rest))
            here.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                place = here / (target if target != "./" else source)
                place.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, place)
        elif name == "ENV":
            environment |= dict(inside(pair).split("=") for pair in rest.split())
        elif name == "HEALTHCHECK":
            health = inside(rest.partition("CMD ")[2])
        elif name in ("ENTRYPOINT", "CMD"):
            started += json.loads(inside(rest))
        else:
            assert name in ("USER", "VOLUME", "EXPOSE"), f"a step that this test does not know: {name}"
    assert run("python -c 'import ifguide; print(ifguide.__file__)'").stdout.startswith(str(tmp_path / "venv"))
    assert run(health).returncode != 0, "healthy before it was started"
    started = [word.replace("0.0.0.0", "127.0.0.1") for word in started]  # nobody else's to reach while it is tested
    program = shutil.which(started[0], path=environment["PATH"])
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([program, *started[1:]], cwd=here, env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 90
            while run(health).returncode != 0:
                assert time.monotonic() < until and server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
        finally:
            server.terminate()
            server.wait(timeout=20)


def test_the_citation_is_complete_and_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["version"] == __version__ == PROJECT["version"]
    assert cited["license"] == PROJECT["license"] and cited["message"] and cited["title"] and cited["authors"]
    assert cited["abstract"].strip() == PROJECT["description"]
    [paper] = cited["references"]
    bibtex = (ROOT / "README.md").read_text(encoding="utf-8").partition("```bibtex")[2]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert " and ".join(names) in bibtex and str(paper["year"]) in bibtex
    assert paper["identifiers"][0]["value"] in bibtex and paper["url"] == PROJECT["urls"]["Paper"]


def test_the_changelog_keeps_the_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    _, *parts = re.split(r"^## ", text, flags=re.M)
    assert parts[0].startswith("Unreleased\n")
    assert [part.split("\n")[0] for part in parts[1:2]] == [__version__] or f"what {__version__} will hold" in parts[0]
    for part in parts:
        kinds = re.findall(r"^### (.+)$", part, flags=re.M)
        assert kinds and set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
        assert len(kinds) == len(set(kinds)), "a kind of change has one list"
        assert not re.search(r"^- ", part.partition("### ")[0], flags=re.M), "an entry under no kind"


def test_templates_for_issues_are_forms_that_ask():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert {form.stem for form in forms} >= {"bug", "idea", "config"}
    for form in forms:
        found = yaml.safe_load(form.read_text(encoding="utf-8"))
        if form.stem == "config":
            assert isinstance(found["blank_issues_enabled"], bool)
            continue
        assert found["name"] and found["description"]
        fields = [part for part in found["body"] if part["type"] != "markdown"]
        ids = [part["id"] for part in fields]
        assert len(ids) == len(set(ids)) and all(part["attributes"]["label"] for part in fields)
        assert any(part.get("validations", {}).get("required") for part in fields)


def test_the_security_policy_says_how_to_report():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "How to report" in text and "Which versions" in text
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / target).exists(), target
