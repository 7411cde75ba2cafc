"""A Chromium for a module, and a page whose script errors fail the test."""

import pytest

from tests.browser.running_app import launch_browser


@pytest.fixture(scope="module")
def browser():
    with launch_browser() as launched:
        yield launched


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.failures = []
    opened.on("pageerror", lambda error: opened.failures.append(str(error)))
    yield opened
    context.close()
    assert opened.failures == []
