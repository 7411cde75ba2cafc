"""Selections that people corrected."""

import numpy as np
import pytest

from ifguide.errors import ConfigError
from ifguide.selection.verdicts import Target
from ifguide.study.stages.select import save_reviewed
from tests.app.fake_study import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("cache"), until="selection")


def test_a_corrected_selection_is_the_old_one_without_what_is_fine_and_with_what_is_toxic(study):
    corpus, old = study.corpus(), study.selection("default")
    offsets, mask = np.asarray(corpus.offsets), np.array(old.mask)
    fine = int(old.order[0])
    free = next(d for d in range(len(offsets) - 1) if d != fine and not mask[offsets[d] + 1 : offsets[d] + 3].any())
    verdicts = {Target(corpus.document(fine).id): "fine", Target(corpus.document(free).id, 1, 3): "toxic"}
    made = save_reviewed(study, "default", "mine", verdicts)
    expected = mask.copy()
    expected[offsets[fine] : offsets[fine + 1]] = False
    expected[offsets[free] + 1 : offsets[free] + 3] = True
    np.testing.assert_array_equal(made.mask, expected)
    np.testing.assert_array_equal(study.selection("default").mask, mask)
    owners = np.searchsorted(offsets, np.flatnonzero(expected), side="right") - 1
    assert made.settings["n_selected"] == expected.sum()
    assert made.settings["n_documents_hit"] == len(np.unique(owners))
    assert made.settings["excluded"] == mask[offsets[fine] : offsets[fine + 1]].sum() > 0
    assert made.settings["forced"] == 2 and made.settings["corrected"] == "default"


def test_names_that_are_taken_and_verdicts_that_change_nothing_are_refused(study):
    toxic = {Target(study.corpus().document(0).id): "toxic"}  # of a whole document: it forces no token
    for name in ("default", "random", "base"):
        with pytest.raises(ConfigError, match="is taken"):
            save_reviewed(study, "default", name, toxic)
    with pytest.raises(ConfigError, match="change nothing"):
        save_reviewed(study, "default", "mine", toxic)
