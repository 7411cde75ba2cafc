"""What the server lets in: it is `streamlit run app.py` as `make app` starts it, no address given."""

import os
import socket
import subprocess
import sys
import time

import psutil
import pytest

from tests.browser.running_app import REPOSITORY


@pytest.fixture
def listening(tmp_path):
    """Addresses the app listens on when nobody names one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    environment = {**os.environ, "IFGUIDE_CACHE": str(tmp_path)}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        found = set()
        while not found and time.monotonic() < deadline and process.poll() is None:
            found = {
                c.laddr.ip
                for c in psutil.Process(process.pid).net_connections("inet")
                if c.status == psutil.CONN_LISTEN
            }
            time.sleep(0.2)
        yield found
    finally:
        process.kill()
        process.wait()


def test_the_server_listens_on_this_machine_only(listening):
    assert listening
    assert listening <= {"127.0.0.1", "::1"}
