"""A browser that trusts nothing: every request but those to the app is blocked and noted, so is every dialog and script
error."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.browser.hostile_study import ICON, PROBE


@dataclass
class Watch:
    """What a watched page did that it should not."""

    page: object
    foreign: list[str] = field(default_factory=list)
    """Requests to anything but the app."""
    dialogs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Script errors."""
    opened: list[str] = field(default_factory=list)
    """Windows opened beside it."""

    def check(self, where: str) -> None:
        """Fail unless the page is what the app made, and nothing else happened."""
        assert self.page.evaluate("window.__ran") is None, where
        made = self.page.evaluate(PROBE, ICON)
        assert made == [], f"{where}: {made}"
        assert (self.foreign, self.dialogs, self.errors, self.opened) == ([], [], [], []), where


@contextlib.contextmanager
def watched(browser, address: str, **options) -> Iterator[Watch]:
    """A page in a context of its own, watched from its first request on."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, **options)
    watch = Watch(context.new_page())
    ours = (f"{address}/", "data:", "blob:", "file:")

    def allow(route):
        if route.request.url.startswith(ours):
            route.continue_()
        else:
            watch.foreign.append(route.request.url)
            route.abort()

    context.route("**/*", allow)
    watch.page.on("websocket", lambda s: s.url.startswith(address.replace("http", "ws")) or watch.foreign.append(s.url))
    watch.page.on("dialog", lambda dialog: (watch.dialogs.append(dialog.message), dialog.dismiss()))
    watch.page.on("pageerror", lambda error: watch.errors.append(str(error)))
    watch.page.on("popup", lambda popup: watch.opened.append(popup.url))
    yield watch
    context.close()
