"""Writing the report."""

from pathlib import Path

from ifguide.errors import IFGuideError, InputError
from ifguide.storage.artifacts import replacing
from ifguide.study.reading import Study
from ifguide.ui.report.facts import collect_facts
from ifguide.ui.report.page import build_page
from ifguide.ui.report.templates import ENVIRONMENT

MOST_BYTES = 5_000_000
"""Largest report."""


def report_html(study: Study, *, selection: str = "default") -> str:
    """The report of a study as HTML, with the words, documents and examples of one selection. An InputError: nothing
    was evaluated, or the page would be larger than `MOST_BYTES`."""
    page = build_page(collect_facts(study, selection))
    if (size := len(page.encode())) > MOST_BYTES:
        raise InputError(f"report: expected at most {MOST_BYTES:,} bytes, got {size:,}; evaluate fewer models")
    return page


def report_or_reason(study: Study) -> str:
    """The report, or a page that says why there is none, since a download can show an error in no other way."""
    try:
        return report_html(study)
    except IFGuideError as error:
        page = "<!doctype html>\n<title>No report</title><p>No report could be made: {{ reason }}</p>\n"
        return ENVIRONMENT.from_string(page).render(reason=error)


def write_report(study: Study, path: Path, *, selection: str = "default") -> Path:
    """Write the report; the file appears complete or not at all. An InputError as from `report_html`, or if the file
    cannot be written."""
    page = report_html(study, selection=selection)
    try:
        with replacing(path) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        why = f"report: {path} cannot be written ({error.strerror}); choose another place with --out"
        raise InputError(why) from error
    return path
