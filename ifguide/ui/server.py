"""The app's server: `python -m ifguide.ui.server [options of streamlit run]`.

It is `streamlit run app.py` with four differences. It answers to its own names alone: Streamlit refuses others only
for the open connection. What pages need is imported while the first browser still fetches Streamlit's front end. And
the server sends everything at once: asyncio turns off Nagle's algorithm only for sockets that were created with a named
protocol. Streamlit's socket is not, so the second half of every answer would wait some 40 ms until the browser confirms
the first (https://github.com/Kludex/uvicorn/issues/3149). And app.py runs the first page too: run by itself, because of
the folder `pages`, the page would lose what was typed, for the same input has another identity in its next run."""

import contextlib
import gc
import importlib
import inspect
import pkgutil
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import psutil

from ifguide import ui
from ifguide.ui.shipped import app_folder

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LIBRARIES = (
    "numpy",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "duckdb",
    "rensa",
    "PIL.Image",
    "plotly.graph_objects",
    "streamlit.material_icon_names",
)
"""Imported by pages, or by Streamlit for them, when something is drawn."""

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
REFUSAL = "The app does not answer to this name. Start it with `ifguide app --host NAME` if the name is its own.\n"


def only_own_names(app: "ASGIApp") -> Any:
    """The app with status 403 for every request and connection to another name than `LOCAL_NAMES`,
    `browser.serverAddress` and `server.allowedHosts`, at any port. A site whose name is made to lead to this machine
    (DNS rebinding) would otherwise be taken for the app's own page."""
    from starlette.datastructures import Headers
    from starlette.responses import PlainTextResponse
    from streamlit import config
    from streamlit.url_util import get_hostname
    from streamlit.web.server.starlette.starlette_websocket import is_host_allowed

    named = (config.get_option("browser.serverAddress"), *config.get_option("server.allowedHosts"))
    config.set_option("server.allowedHosts", [*LOCAL_NAMES, *(get_hostname(name) or name for name in named)])

    async def answer(scope: "Scope", receive: "Receive", send: "Send") -> None:
        allowed = scope["type"] == "lifespan" or is_host_allowed(Headers(scope=scope).get("host"))
        await (app if allowed else PlainTextResponse(REFUSAL, 403))(scope, receive, send)

    return answer


def preload() -> None:
    """Import what pages need, after the server was created: components register with it. What cannot be imported is
    left to the page, which says what is missing. A page that is opened meanwhile imports its own part; only one thread
    can import a module at a time, and no two of ours import each other."""
    ours = (module.name for module in pkgutil.walk_packages(ui.__path__, f"{ui.__name__}."))
    for name in (*LIBRARIES, *ours):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    inspect.stack()  # Streamlit calls it when a script first runs, and it looks up the files of all modules
    gc.collect()
    gc.freeze()  # Streamlit collects after every run of a script; permanent objects need no check each time


def send_at_once() -> bool:
    """Turn off Nagle's algorithm for all connections to the ports that this process listens on; returns whether there
    are any. Connections inherit the option from the listening socket."""
    ports = [port for port in psutil.Process().net_connections("tcp") if port.status == psutil.CONN_LISTEN]
    for port in ports:
        with socket.fromfd(port.fd, port.family, port.type) as listening:
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bool(ports)


def prepare() -> None:
    """Once the server listens, let it send at once, and import what pages need."""
    while not send_at_once():
        time.sleep(0.01)
    preload()


def main(options: list[str]) -> NoReturn:
    """Serve the app until it is stopped; `options` are those of `streamlit run`."""
    threading.Thread(target=prepare, daemon=True).start()
    from streamlit.runtime.pages_manager import PagesManager
    from streamlit.web import cli
    from streamlit.web.server.starlette import starlette_server

    PagesManager.uses_pages_directory = False
    make = starlette_server.create_starlette_app
    starlette_server.create_starlette_app = lambda runtime: only_own_names(make(runtime))
    sys.exit(cli.main(["run", str(app_folder() / "app.py"), *options], prog_name="streamlit"))


if __name__ == "__main__":
    main(sys.argv[1:])
