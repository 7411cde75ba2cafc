"""Made-up studies and the app on top of them, without a browser."""

import functools

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from ifguide.runtime import jobs
from tests import warm
from tests.app.fake_study import write_study
from tests.app.whole_app import start_after_the_first_page
from tests.browser.running_app import REPOSITORY

# Whenever a test starts the app, Streamlit reads the metadata of every installed package.
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with one whole study; tests of this module must leave it whole."""
    folder = tmp_path_factory.mktemp("app") / "cache"
    write_study(folder)
    return folder


@pytest.fixture
def open_app(monkeypatch):
    """Start the app on a cache, on one of its pages, with a query string's values."""
    monkeypatch.setattr(PagesManager, "__init__", start_after_the_first_page)
    monkeypatch.setattr(jobs, "subprocess", warm)  # jobs are forks
    monkeypatch.setattr("ifguide.ui.models_process.model_worker", FakeWorker)  # models are loaded ahead by nobody

    def start(folder, page: str = "overview", **parameters) -> AppTest:
        monkeypatch.setenv("IFGUIDE_CACHE", str(folder))
        monkeypatch.chdir(REPOSITORY)
        app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60)
        for name, value in parameters.items():
            app.query_params[name] = value
        app.run()
        if page != "overview":
            app.switch_page(f"pages/{page}.py")
            for name, value in parameters.items():
                app.query_params[name] = value
            app.run()
        return app

    return start


def shown_text(app: AppTest) -> str:
    """Everything the page says in Streamlit's own elements."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "error", "success", "text")
    return "\n".join(str(element.value) for kind in kinds for element in getattr(app, kind)).replace("\\", "")


class FakeWorker:
    """Answers as the models' process does; a ProcessError where `answers` has one."""

    def __init__(self, *answers):
        self.answers, self.asked, self.loads, self.cancelled = list(answers), [], [], []

    def ask(self, **request):
        (self.loads if request.get("load") else self.asked).append(request)
        return "1.1"

    def read(self, id, *, cancel=False):
        if cancel:
            self.cancelled.append(id)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, Exception):
            raise found
        return {"message": "", "cells": [], "ahead": 0} | found


@pytest.fixture
def use_worker(monkeypatch):
    def use(*answers):
        worker = FakeWorker(*answers)
        monkeypatch.setattr("ifguide.ui.models_process.model_worker", lambda: worker)
        return worker

    return use
