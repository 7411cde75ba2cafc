"""The Threshold page's board of a sample of shards, in a real Chromium."""

import numpy as np
import pytest

from ifguide.study.sharing.shard_sample import EXACT, read_sketch
from tests.browser.conftest import needs_browser
from tests.browser.running_app import FORKING, serve_app
from tests.browser.test_threshold import above, drag, figure, settle, visit, whole
from tests.study.test_shard_sample import open_few

pytestmark = needs_browser


def test_a_sample_of_shards_shows_the_count_of_all_of_them_while_the_handle_moves(page, tmp_path):
    study = open_few(tmp_path, exact=EXACT)
    sketch, scores = read_sketch(study), np.sort(study.scores("shards"))
    with serve_app(tmp_path / "cache", FORKING) as address:
        visit(page, f"{address}/threshold?study=sampled&above=40")
        title = "Above it in all shards"
        assert whole(figure(page, title)) == sketch.tokens_above(scores[-41:-40].astype(float))[0, 0]
        assert f"of {sketch.n_valid:,} tokens, exact" in page.locator(".figure", has_text=title).inner_text()
        assert "of the sample" in page.locator(".figure", has_text="Selected tokens").inner_text()
        drag(page, -60)
        moved, above_it = above(page), whole(figure(page, title))
        assert moved > 40 and above_it >= moved and "exact" not in page.locator(".figure", has_text=title).inner_text()
        page.mouse.up()
        settle(page)
        assert whole(figure(page, title)) == pytest.approx(above_it, rel=0.1)
        assert f" --threshold {float(scores[-above(page) - 1])!r}" in page.locator("code").inner_text()
