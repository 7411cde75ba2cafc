"""The app's server: `python -m ifguide.ui.server [options of streamlit run]`.

It is `streamlit run app.py` with two differences. What pages need is imported while the first browser still fetches
Streamlit's front end, rather than by its page. And what the server writes leaves at once: asyncio turns Nagle's
algorithm off only for sockets whose protocol is named when they are made, which the listening socket's is not, so that
every answer's second half waited some 40 ms for the browser to confirm its first
(https://github.com/Kludex/uvicorn/issues/3149).
"""

import contextlib
import functools
import gc
import importlib
import inspect
import pkgutil
import socket
import sys
import threading
from typing import NoReturn

from ifguide import ui
from ifguide.ui.shipped import app_folder

LIBRARIES = (
    "numpy",
    "pandas",
    "pyarrow.compute",
    "pyarrow.parquet",
    "duckdb",
    "rensa",
    "psutil",
    "PIL.Image",
    "plotly.graph_objects",
    "streamlit.material_icon_names",
)
"""What pages, and Streamlit for them, import when something is drawn."""


def preload() -> None:
    """Import what pages need, once the server exists: components register with it. What cannot be imported is left to
    the page, which says what is missing. A page that comes earlier imports its own part; Python lets only one thread
    import a module, and no two of ours import each other."""
    ours = (module.name for module in pkgutil.walk_packages(ui.__path__, f"{ui.__name__}."))
    for name in (*LIBRARIES, *ours):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    inspect.stack()  # Streamlit asks for it when a script runs first, and the files of all modules are looked up then
    gc.collect()
    gc.freeze()  # Streamlit collects after every run of a script; objects that stay for good need no check each time


def prepare() -> bool:
    """Have Streamlit's server send without waiting for confirmations, and preload on the side once it listens.

    Returns:
        Whether that will happen. uvicorn does not document the method that this wraps; without it the app works too,
        and one line on standard error says that it is slower.
    """
    import uvicorn

    start = getattr(uvicorn.Server, "startup", None)
    if not inspect.iscoroutinefunction(start) or "sockets" not in inspect.signature(start).parameters:
        print(
            f"uvicorn {uvicorn.__version__} has no Server.startup(sockets); the app works, but its pages open slower",
            file=sys.stderr,
        )
        return False

    @functools.wraps(start)
    async def startup(self: uvicorn.Server, sockets: list[socket.socket] | None = None) -> None:
        for listening in sockets or ():
            if listening.family in (socket.AF_INET, socket.AF_INET6):  # connections inherit the option from this socket
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await start(self, sockets=sockets)
        threading.Thread(target=preload, daemon=True).start()

    uvicorn.Server.startup = startup  # type: ignore[method-assign]
    return True


def main(options: list[str]) -> NoReturn:
    """Serve the app until it is stopped; `options` are those of `streamlit run`."""
    prepare()
    from streamlit.web import cli

    sys.exit(cli.main(["run", str(app_folder() / "app.py"), *options], prog_name="streamlit"))


if __name__ == "__main__":
    main(sys.argv[1:])
