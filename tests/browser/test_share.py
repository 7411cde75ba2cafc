"""What leaves the machine, and what is said when the app is gone."""

import pytest

from tests.browser.conftest import needs_browser
from tests.browser.running_app import FORKING, serve_app, visit

pytestmark = needs_browser


@pytest.mark.parametrize(
    ("named", "start", "local"),
    [
        ((), "http://127.0.0.1:", True),
        (
            ("--browser.serverAddress", "studio.example.org", "--browser.serverPort", "443"),
            "https://studio.example.org/",
            False,
        ),
    ],
)
def test_share_copies_the_address_of_others_or_says_that_there_is_none(page, cache, named, start, local):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with serve_app(cache, (*FORKING, *named)) as address:
        visit(page, address, "queries")
        page.get_by_role("button", name="Share", exact=True).click()
        page.get_by_role("button", name="Link copied").wait_for()
        link = page.evaluate("navigator.clipboard.readText()")
        assert link.startswith(start) and "/queries?study=fake&state=" in link
        assert (
            page.get_by_role("status").filter(has_text="machine").all_inner_texts()
            == ["Only this machine can open it: the app has no address for others."] * local
        )
        if local:
            address.process.kill()
            page.get_by_role("dialog").get_by_text("ifguide app").wait_for()
            assert "streamlit" not in page.get_by_role("dialog").inner_text().lower()
