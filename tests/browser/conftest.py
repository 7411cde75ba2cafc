"""The browser that a module's tests share."""

import pytest

from tests.browser.running_app import launch_browser


@pytest.fixture(scope="module")
def browser():
    with launch_browser() as launched:
        yield launched
