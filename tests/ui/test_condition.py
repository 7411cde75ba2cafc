"""Conditions that readers write: what is refused, what is answered as pandas does, and that none runs for long."""

import duckdb
import pandas as pd
import pytest

from ifguide.errors import InputError
from ifguide.ui.documents import store as document_store
from ifguide.ui.documents.condition import EXAMPLE, LONGEST
from ifguide.ui.documents.store import DocumentFilter, open_documents
from tests.app.fake_study import write_study


@pytest.fixture
def store(table):
    return table[0]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A store, and its documents as a data frame with the names that conditions use."""
    store = open_documents(write_study(tmp_path_factory.mktemp("condition") / "cache"), "default")
    return store, pd.DataFrame(store.rows(store.order(DocumentFilter())))


HOSTILE = {
    "(select count(*) from documents) > 1": "subquery",
    "exists (select 1)": "subquery",
    "id in (select id from documents)": "subquery",
    "rank = any (select rank from documents)": "subquery",
    "true) union select document from listed where (true": "behind the condition",
    "true) limit (1": "behind the condition",
    "true) group by (document": "behind the condition",
    "true); drop table documents; select (true": "statements|SELECT",
    "true; drop table documents": "syntax error",
    "true) -- )": "syntax error|behind",
    "true /* )": "comment",
    "--": "function 'row'|syntax error",
    "pragma database_list": "syntax error",
    "copy documents to 'x.csv'": "syntax error",
    "read_csv('/etc/passwd') is not null": "function 'read_csv'",
    "read_text('/etc/passwd') = 'x'": "function 'read_text'",
    "getenv('HOME') = 'x'": "function 'getenv'",
    "current_setting('threads') = 1": "function 'current_setting'",
    "nextval('x') = 1": "function 'nextval'",
    "repeat('x', 1000000000) = id": "function 'repeat'",
    "id || id = id": "function '||'",
    "count(*) > 1": "function 'count_star'",
    "row_number() over () = 1": "window",
    "columns(*) > 1": "star",
    "rank = ?": "parameter",
    "main.lower(id) = 'x'": "function 'lower'",
    "document = 1": "column 'document'",
    "documents.rank = 1": "column 'documents.rank'",
    "spark is null": "column 'spark'",
    "rowid = 1": "column 'rowid'",
    "id::blob = 'x'": "a type",
    "rank::integer[] = rank": "a type",
    "id = 'x'::regclass": "a type",
    "list_filter([1], lambda x: true) is null": "lambda|function|syntax",
    "regexp_matches(id, '(x{1000}){1000}')": r"expression with \{",
    f"regexp_matches(id, '{'x' * 200}')": "at most 100 characters",
    "regexp_matches(id, id)": "at most 100 characters",
    "id like '%a_%a_%a_%a_%b'": "more than 2 %",
    "id like '%a' || '%b_' || '%c'": "at most 100 characters",
    "(" * 240 + "true" + ")" * 240 + " and nothing": "column 'nothing'",
    "x" * (LONGEST + 1): "more than 500 characters",
    "id = 'a\0b'": "not printed",
    "id = '\ud800'": "not printed",
    "id > 5": "compare|convert",
    "cast(id as integer) = 1": "convert",
    "": "function 'row'|syntax error",
}


@pytest.mark.parametrize("condition", HOSTILE)
def test_what_is_no_condition_is_refused_with_the_reason_an_example_and_the_columns(store, condition):
    with pytest.raises(InputError, match=HOSTILE[condition]) as caught:
        store.order(DocumentFilter(where=condition or " "))
    assert EXAMPLE in str(caught.value) and "hit_sum" in str(caught.value)
    assert len(store.order(DocumentFilter())) == store.n_documents


ALLOWED = {
    EXAMPLE: "hit_sum > 5 and n_tokens < 400",
    "true -- a remark": "rank > 0",
    "HITS BETWEEN 1 AND 3 OR span_tokens IS NULL": "1 <= hits <= 3",
    "source in ('forum', 'wiki') and not selected = 0": "source in ('forum', 'wiki') and selected != 0",
    "id like 'doc-00%'": "id.str.startswith('doc-00')",
    "id not ilike '%DOC%'": "not id.str.contains('doc')",
    "regexp_matches(id, '[13579]$') and starts_with(id, 'doc')": "id.str.match('doc.*[13579]$')",
    "case when source = 'forum' then sum > 0 else max > 1 end": "source == 'forum' and sum > 0"
    " or source != 'forum' and max > 1",
    "abs(own_loss_sum) % 2 >= 1 and coalesce(mean_loss, 0)::double > 0.5": "sum.abs() % 2 >= 1 and mean_loss > 0.5",
    "length(lower(id)) = 7 and hit_sum / n_tokens is not null": "id.str.len() == 7",
    "id = 'a''b; drop table documents' or rank is not distinct from 1": "rank == 1",
}


@pytest.mark.parametrize("condition", ALLOWED)
def test_a_condition_keeps_what_pandas_keeps(table, condition):
    store, rows = table
    kept = rows.query(ALLOWED[condition], engine="python")["document"]
    assert len(kept) > 0 and store.order(DocumentFilter(where=condition)).tolist() == kept.tolist()


def test_a_condition_narrows_the_other_filters(table):
    store, rows = table
    kept = rows.query("source == 'forum' and rank <= 30")["document"].tolist()
    assert store.order(DocumentFilter(sources=("forum",), where="rank <= 30")).tolist() == kept


def test_a_condition_that_takes_long_is_stopped(tmp_path, monkeypatch):
    store = open_documents(write_study(tmp_path / "cache"), "default")
    endless = "CREATE OR REPLACE VIEW listed AS SELECT range % 9 AS document, range AS rank FROM range(99999999999)"
    store._connection.execute(endless)
    monkeypatch.setattr(document_store, "CONDITION_SECONDS", 0.05)
    with pytest.raises(InputError, match=r"longer than 0\.05 seconds"):
        store.order(DocumentFilter(where="sqrt(rank) = 3.3"))


def test_nothing_can_open_files_or_change_the_limits(store):
    for statement in ("SELECT * FROM read_text('/etc/passwd')", "SET memory_limit = '1TB'", "SET threads = 64"):
        with pytest.raises(duckdb.Error, match=r"disabled|configuration"):
            store._connection.cursor().execute(statement)
