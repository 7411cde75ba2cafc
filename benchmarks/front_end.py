"""How long a browser's first files take from `streamlit run` and from the app's own server: `python -m
benchmarks.front_end`.

Every file that the first page names is asked for over one connection that stays open, as a browser does over a few, on
each server in turn; the median of three rounds counts.
"""

import http.client
import re
import statistics
import tempfile
import time
from pathlib import Path

from tests.browser.running_app import SERVER, serve_app

PEER = ("streamlit", "run", "app.py")
ROUNDS = 3


def measure(module: tuple[str, ...]) -> tuple[int, float]:
    """How many files there are, and seconds for all of them."""
    with tempfile.TemporaryDirectory() as cache, serve_app(Path(cache), module) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"))

        def fetch(path: str) -> bytes:
            connection.request("GET", path)
            return connection.getresponse().read()

        files = re.findall(r'(?:src|href)="\.(/static/js/[^"]+)"', fetch("/").decode("utf-8"))
        seconds = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            for file in files:
                fetch(file)
            seconds.append(time.perf_counter() - started)
        connection.close()
    return len(files), statistics.median(seconds)


def main() -> None:
    """Print the table."""
    n_files, peer = measure(PEER)
    _, ours = measure(SERVER)
    print(f"| {n_files} files over one connection | seconds |\n|---|---|")
    print(f"| `streamlit run app.py` | {peer:.2f} |\n| `ifguide app` | {ours:.2f} |\n| ratio | {ours / peer:.2f} |")


if __name__ == "__main__":
    main()
