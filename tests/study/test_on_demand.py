"""Results on demand: named by what they are made from, whole or absent."""

import pytest

from ifguide.errors import StaleError
from ifguide.study import on_demand
from ifguide.study.freshness import unit_digest
from ifguide.study.lineage import Unit
from tests.small_study import make_study


def test_a_result_is_kept_under_the_digest_of_what_it_is_made_from(tmp_path):
    study = make_study(tmp_path)
    units = (Unit("corpus"), Unit("selection", "default"))
    made_of = [1, "a setting", *(unit_digest(study, unit) for unit in units)]
    path = on_demand.result_path(study, "answers", made_of, "prompt-3")
    assert path.parent == study.root / "answers" and path.name.startswith("prompt-3-")
    for other in ([2, *made_of[1:]], [1, "another", *made_of[2:]], [*made_of[:-1], "another selection"]):
        assert on_demand.result_path(study, "answers", other, "prompt-3") != path
    assert on_demand.read_result(path) is None
    assert on_demand.keep_result(path, {"x": "ü"}) == on_demand.read_result(path) == {"x": "ü"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    for damage in (b"", b'{"x": ', b"\xff\xfe", bytes(99)):
        path.write_bytes(damage)
        assert on_demand.read_result(path) is None, damage


def test_what_is_missing_is_named_with_the_command_that_builds_it(tmp_path):
    study = make_study(tmp_path)
    with pytest.raises(StaleError, match="evaluate base is missing; build it with `ifguide run small`"):
        unit_digest(study, Unit("evaluate", "base"))
