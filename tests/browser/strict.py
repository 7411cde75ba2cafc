"""A page trusted with nothing: each request to others than the app is noted, and each dialog and script error."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.browser.conftest import forget, tab_of
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
def watched(context, address: str) -> Iterator[Watch]:
    """The context's tab, watched from its first request on. Chromium reaches nothing beyond this machine."""
    watch = Watch(tab_of(context))
    ours = (f"{address}/", "data:", "blob:", "file:")
    watches = {
        "request": lambda request: request.url.startswith(ours) or watch.foreign.append(request.url),
        "websocket": lambda s: s.url.startswith(address.replace("http", "ws")) or watch.foreign.append(s.url),
        "dialog": lambda dialog: (watch.dialogs.append(dialog.message), dialog.dismiss()),
        "pageerror": lambda error: watch.errors.append(str(error)),
        "popup": lambda popup: watch.opened.append(popup.url),
    }
    sources = {event: context if event == "request" else watch.page for event in watches}
    for event, note in watches.items():
        sources[event].on(event, note)
    yield watch
    for event, note in watches.items():
        sources[event].remove_listener(event, note)
    forget(context)
