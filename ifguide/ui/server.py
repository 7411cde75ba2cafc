"""The app's server: `python -m ifguide.ui.server [options of streamlit run]`.

It is `streamlit run app.py` with two differences. What pages need is imported before the server answers rather than by
the first reader's page. And what the server writes leaves at once: asyncio turns Nagle's algorithm off only for sockets
whose protocol is named when they are made, which the listening socket's is not, so that every answer's second half
waited some 40 ms for the browser to confirm its first (https://github.com/Kludex/uvicorn/issues/3149).
"""

import contextlib
import functools
import gc
import importlib
import inspect
import pkgutil
import socket
import sys

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
    the page, which says what is missing."""
    ours = (module.name for module in pkgutil.walk_packages(ui.__path__, f"{ui.__name__}."))
    for name in (*LIBRARIES, *ours):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    inspect.stack()  # Streamlit asks for it when a script runs first, and the files of all modules are looked up then


def prepare() -> bool:
    """Have Streamlit's server preload, and send without waiting for confirmations, before its first connection.

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
        preload()
        gc.collect()
        # Streamlit collects after every run of a script; objects that stay for good need no check each time
        gc.freeze()
        for listening in sockets or ():
            if listening.family in (socket.AF_INET, socket.AF_INET6):  # connections inherit the option from this socket
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await start(self, sockets=sockets)

    uvicorn.Server.startup = startup  # type: ignore[method-assign]
    return True


def main() -> None:
    """Serve the app until it is stopped."""
    prepare()
    from streamlit.web import cli

    sys.argv = ["streamlit", "run", str(app_folder() / "app.py"), *sys.argv[1:]]
    cli.main()


if __name__ == "__main__":
    main()
