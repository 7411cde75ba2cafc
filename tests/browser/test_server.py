"""What the server of `ifguide app` lets in, and how it sends."""

import http.client
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.web import cli
from streamlit.web.server.starlette import starlette_server

from ifguide.ui import server
from tests.browser.running_app import serve_app


def ask(address: str, method: str, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse()


STREAM = "/_stcore/stream"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def test_a_page_of_another_site_gets_no_connection(address):
    assert ask(address, "GET", STREAM, Origin=address, **UPGRADE).status == 101
    for origin in ("http://outside.invalid", "https://127.0.0.1.outside.invalid", "null"):
        assert ask(address, "GET", STREAM, Origin=origin, **UPGRADE).status == 403, origin


SHAPES = ("site{}.invalid", "localhost.site{}.invalid", "127.0.0.1.site{}.invalid:8501", "localhost@site{}.invalid")
SHAPES += ("10.0.0.{}", "127.0.0.1{}", "[::1{}]:8501", "0.0.0.0:{}", "localhost{}", "ifguide.example.org.{}")


def answers(address: str, host: str) -> tuple[int, int]:
    """What a page and an open connection get that ask for a host, as a page of that host would."""
    stream = ask(address, "GET", STREAM, Host=host, Origin=f"http://{host}", **UPGRADE)
    return ask(address, "GET", "/", Host=host).status, stream.status


def test_a_site_whose_name_leads_to_this_machine_gets_nothing(address):
    """DNS rebinding: its page and `Host` have the same name, and the connection comes from the reader's own browser."""
    foreign = [shape.format(number) for shape in SHAPES for number in range(100, 150)]
    assert len(set(foreign)) == 500
    assert {answers(address, host) for host in foreign} == {(403, 403)}
    assert b"ifguide app --host" in ask(address, "GET", "/", Host=foreign[0]).read()
    port = address.rpartition(":")[2]
    for host in ("localhost", "127.0.0.1", "[::1]", f"localhost:{port}", f"[::1]:{port}", "LOCALHOST:9000"):
        assert answers(address, host) == (200, 101), host


def test_behind_a_proxy_the_app_answers_to_the_names_that_it_was_given(tmp_path):
    """docs/deploy.md: nginx and oauth2-proxy hand on the name that people typed."""
    options = ("--host", "other.example.org", "--browser.serverAddress", "https://ifguide.example.org/studio")
    with serve_app(tmp_path, ("ifguide", "app", *options)) as address:
        for host in ("ifguide.example.org", "other.example.org:443", "localhost"):
            assert answers(address, host) == (200, 101), host
        assert answers(address, "example.org") == answers(address, "more.other.example.org") == (403, 403)


def test_a_file_without_the_xsrf_token_is_refused(address):
    path = "/_stcore/upload_file/session/file"
    assert ask(address, "PUT", path, Origin="http://outside.invalid").status == 403
    assert ask(address, "DELETE", path).status == 403
    answer = ask(address, "GET", "/_stcore/health", Origin="http://outside.invalid")
    assert answer.getheader("Access-Control-Allow-Origin") in (None, "")


def test_no_path_of_an_address_leads_to_a_file_of_ours(address, cache):
    for path in (
        "/../pyproject.toml",
        "/..%2fpyproject.toml",
        "/app.py",
        "/cache/fake/study.toml",
        "/app/static/..%2f..%2fpyproject.toml",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/component/ifguide.reader/..%2f..%2f..%2fpyproject.toml",
        "/_stcore/bidi-components/ifguide.reader/../../../../etc/passwd",
        "/static/../../../../etc/passwd",
        f"/{cache}/fake/study.toml",
        "/media/../../etc/passwd",
    ):
        body = ask(address, "GET", path).read()
        assert not any(ours in body for ours in (b"[project]", b"root:", b"[corpus]", b"import layout")), path


def test_the_server_listens_on_this_machine_only(address):
    connections = psutil.Process(address.process.pid).net_connections("inet")
    listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    assert listening and listening <= {"127.0.0.1", "::1"}


def test_app_py_runs_the_first_page_of_a_new_server(monkeypatch):
    """Run by itself, because of the folder `pages`, it would lose what its reader types."""
    monkeypatch.setattr(PagesManager, "uses_pages_directory", None)
    monkeypatch.setattr(starlette_server, "create_starlette_app", starlette_server.create_starlette_app)
    monkeypatch.setattr(server, "prepare", lambda: None)
    monkeypatch.setattr(cli, "main", lambda command, prog_name: command[1])
    with pytest.raises(SystemExit) as ended:
        server.main([])
    first = PagesManager(ended.value.code).get_initial_active_script("")
    assert first and Path(first["script_path"]).name == "app.py" and not PagesManager.uses_pages_directory


def test_what_is_sent_waits_for_no_confirmation():
    """Connections inherit the option from the listening socket, for which asyncio would leave it off."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert server.send_at_once()
        with socket.create_connection(listening.getsockname()):
            connection, _ = listening.accept()
            with connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_preloading_imports_every_page_and_no_torch():
    script = "import sys; from ifguide.ui.server import preload; preload(); print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    pages = {"ifguide.ui.threshold.board", "ifguide.ui.documents.reader", "ifguide.ui.components"}
    assert {"pandas", "duckdb", *pages} <= set(names)
    assert "torch" not in names
