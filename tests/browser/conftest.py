"""A made-up study, the app for all files, a Chromium for each, and a page whose script errors fail the test."""

import pytest

from tests.app.fake_study import write_map, write_study
from tests.browser.running_app import FORKING, LISTEN, find_chromium, launch_browser, serve_app

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]
"""`pytestmark` of the files that drive a browser."""
SIZE = {"width": 1280, "height": 900}


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
    made = browser.new_context(viewport=SIZE)
    made.add_init_script(f"({LISTEN})()")
    yield made
    made.close()


@pytest.fixture
def page(context):
    """The file's tab, as if it was new; a script error in it fails the test."""
    opened = tab_of(context)
    opened.failures.clear()
    yield opened
    forget(context)
    assert opened.failures == []


def tab_of(context):
    """The one tab that the tests of a context share: a new one would start a process and compile all scripts again."""
    if context.pages:
        return context.pages[0]
    opened = context.new_page()
    opened.failures = []
    opened.on("pageerror", lambda error: opened.failures.append(str(error)))
    return opened


def forget(context) -> None:
    """Close a context's pages but the shared tab, and remove what they left in it."""
    shared, *others = context.pages
    for opened in context.pages:
        opened.evaluate("() => { try { localStorage.clear(); sessionStorage.clear(); } catch { } }")
    for opened in others:
        opened.close()
    shared.unroute_all()
    shared.emulate_media(color_scheme="null", reduced_motion="null")
    shared.set_viewport_size(SIZE)
    shared.goto("about:blank")
    context.clear_cookies()
    context.clear_permissions()
