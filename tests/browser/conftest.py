"""A made-up study, the app for all files, a Chromium for each, and a page whose script errors fail the test."""

import pytest

from tests.app.fake_study import write_map, write_study
from tests.browser.running_app import FORKING, LISTEN, find_chromium, launch_browser, serve_app

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]
"""`pytestmark` of the files that drive a browser."""


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A folder of studies with one in it, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("browser") / "cache"
    write_map(write_study(folder, weights=True))
    return folder


@pytest.fixture(scope="session")
def address(cache):
    """Where the app shows it."""
    with serve_app(cache, FORKING) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    """For one file: while Playwright runs, no other test of the process could use asyncio."""
    with launch_browser() as launched:
        yield launched


@pytest.fixture(scope="module")
def context(browser):
    """One for all tests of a file, so that Streamlit's scripts are read and compiled once."""
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    made.add_init_script(f"({LISTEN})()")
    yield made
    made.close()


@pytest.fixture
def page(context):
    """A tab that knows nothing of those before it."""
    opened = context.new_page()
    opened.failures = []
    opened.on("pageerror", lambda error: opened.failures.append(str(error)))
    yield opened
    forget(context)
    assert opened.failures == []


def forget(context) -> None:
    """Close a context's pages, and remove what they left in it."""
    for opened in context.pages:
        opened.evaluate("() => { try { localStorage.clear(); } catch { } }")  # a page without an address has none
        opened.close()
    context.clear_cookies()
    context.clear_permissions()
