"""The server of the app without the method of uvicorn that it wraps."""

import uvicorn

from ifguide.ui import server


def test_the_app_is_served_without_uvicorns_hook_and_one_line_says_so(monkeypatch, capsys):
    async def other_arguments(self):
        pass

    for found in (None, lambda self, sockets=None: None, other_arguments):
        monkeypatch.setattr(uvicorn.Server, "startup", found)
        assert server.prepare() is False
        assert uvicorn.Server.startup is found
        assert capsys.readouterr().err.count("\n") == 1

    async def startup(self, sockets=None):
        pass

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    assert server.prepare() is True
    assert uvicorn.Server.startup.__wrapped__ is startup
    assert capsys.readouterr().err == ""


def test_the_installed_uvicorn_has_the_hook(monkeypatch):
    monkeypatch.setattr(uvicorn.Server, "startup", uvicorn.Server.startup)
    assert server.prepare() is True
