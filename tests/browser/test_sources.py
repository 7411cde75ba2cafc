"""The table of sources on the Threshold page, in a real Chromium."""

import re

from tests.browser.conftest import needs_browser
from tests.browser.running_app import visit

pytestmark = needs_browser


def test_a_source_that_is_taken_far_more_often_is_said_before_saving_and_columns_have_intervals(page, address):
    visit(page, address, "threshold?part=Sources")
    assert re.search(r"Takes tokens of forum \d+\.\d× as often as other tokens: see Sources", page.inner_text("body"))
    sources = page.get_by_role("table", name="Selected tokens by source")
    forum = sources.get_by_role("row", name="forum")
    ratio, low, high = map(float, re.search(r"([\d.]+)×\s*\[([\d.]+), ([\d.]+)\]", forum.inner_text()).groups())
    assert 1 < low < ratio < high and ratio > 2
    page.get_by_role("radio", name="Length").click()
    lengths = page.get_by_role("table", name="Selected tokens by length")
    lengths.wait_for()
    assert lengths.get_by_role("row").count() == 5
    page.wait_for_url("**by=Length**")
