"""Several readers at once, for a few seconds: nobody gets an error, and the server gives its memory back."""

import asyncio

import pytest

from benchmarks.load import Load, drive, report
from tests.browser.conftest import needs_browser

pytestmark = needs_browser


@pytest.mark.thorough
def test_three_readers_at_once_get_no_error(address):
    load = asyncio.run(drive(address, address.process.pid, "fake", sessions=3, minutes=0.1, pause=0.5))
    assert load.errors == []
    assert len(load.seconds) >= 3 and min(load.seconds) > 0
    assert load.rss_end < 1.5 * load.rss_warm


def test_the_report_says_which_bars_are_missed():
    slow = Load(
        sessions=2, minutes=1, seconds=[0.5] * 10 + [3.0] * 10, errors=["documents: gone"], rss_warm=100, rss_end=120
    )
    lines = report(slow).splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.endswith("| no |")] == [
        "errors",
        "a page, 95th percentile",
        "growth",
    ]
    slow.pages = ["Compare"] * 10 + ["Queries"] * 10
    assert "| Queries, 95th percentile of 10 | 3.00 s |  |  |" in report(slow).splitlines()
    assert lines[-1] == "- documents: gone"
