"""A new user's first study, from an empty cache: made in the app, run, and watched from every page all along."""

import psutil
import pytest

from ifguide.runtime.jobs import active_job, latest_job
from tests.browser.conftest import needs_browser
from tests.browser.running_app import FORKING, serve_app, visit, wait_until_still
from tests.tiny_study import save_tiny_model, write_tiny_inputs

pytestmark = needs_browser

PAGES = ("", "studies", "new_study", "documents", "threshold", "compare", "queries")
WATCH = """() => new MutationObserver((changes) => {
  for (const { target, addedNodes } of changes)
    for (const node of addedNodes.length ? addedNodes : [target])
      if (node.textContent?.includes("Something unexpected")) failed(node.textContent);
}).observe(document, { subtree: true, childList: true, characterData: true })"""
"""A script for every page of a tab: tells of the words that stand for an error nobody foresaw, even for a moment."""


@pytest.fixture
def watched(page):
    page.expose_function("failed", lambda text: page.failures.append(text))
    page.add_init_script(f"({WATCH})()")
    return page


def see_all(page, address):
    for name in PAGES:
        visit(page, address, f"{name}?study=mine")


def test_a_study_is_made_run_and_watched_from_every_page_and_none_fails(watched, tmp_path):
    page, inputs, root = watched, tmp_path / "in", tmp_path / "cache" / "mine"
    write_tiny_inputs(inputs)
    save_tiny_model("gpt2", inputs / "model", 2)
    with serve_app(root.parent, FORKING) as address:
        visit(page, address, "")
        visit(page, address, "new_study")
        for label, value in {
            "Name": "mine",
            "Corpus": inputs / "corpus.jsonl",
            "Toxic examples": inputs / "toxic.jsonl",
            "Safe examples": inputs / "safe.jsonl",
            "Held-out text (optional)": inputs / "heldout.jsonl",
            "Model": inputs / "model",
        }.items():
            page.get_by_role("textbox", name=label, exact=True).fill(str(value))
            page.keyboard.press("Enter")
            wait_until_still(page)
        for choice in ("Use it as it is", "Quick"):
            page.get_by_text(choice, exact=True).click()
        wait_until_still(page)
        page.get_by_role("button", name="Check and plan").click()
        page.get_by_role("button", name="Create and run").and_(page.locator(":enabled")).click(timeout=120_000)
        page.wait_for_url("**study=mine*")
        process = psutil.Process(active_job(root).status().pid)
        process.suspend()  # so that each page is seen before the run ends
        see_all(page, address)
        process.resume()
        while active_job(root):
            see_all(page, address)
        assert latest_job(root).status().state == "done", latest_job(root).log()
        see_all(page, address)
        assert page.locator("[data-testid=stAlert]").all_inner_texts() == []
        page.get_by_role("link", name="Ready").wait_for()
