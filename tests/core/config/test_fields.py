"""The error that a wrong setting raises."""

import pickle

import pytest

from onerec.config import PipelineConfig, SettingError, require
from onerec.config.fields import LONGEST_VALUE, shortened


def test_it_names_field_value_and_remedy():
    with pytest.raises(SettingError) as raised:
        require(False, "days", 0, "use at least 1")
    error = raised.value
    assert (error.field, error.value, error.remedy) == ("days", 0, "use at least 1")
    assert str(error) == "days=0: use at least 1"
    assert str(error.within("window")) == "window.days=0: use at least 1"
    assert isinstance(error, ValueError)


def test_it_survives_the_way_to_another_process():
    assert str(pickle.loads(pickle.dumps(SettingError("a", 1, "b")))) == "a=1: b"


def test_a_value_is_shown_in_at_most_200_characters():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    wide = [[["x" * 1000] * 1000] * 1000] * 1000
    for value in ("x" * 10**6, 10**10_000, deep, wide, {"a" * 300: "b" * 300}, object()):
        assert len(shortened(value)) <= LONGEST_VALUE
    assert shortened("abc") == "'abc'"
    assert shortened([1, 2.5]) == "[1, 2.5]"


@pytest.mark.parametrize("changes", [{"modell": {}}, {"model": {"depth": 3}}, {"model": {1: 3}}])
def test_an_unknown_name_is_answered_with_the_known_ones(changes):
    with pytest.raises(
        SettingError, match=r"no such (stage; use one of sess|setting; use one of a)"
    ):
        PipelineConfig().override(changes)


def test_an_empty_section_changes_nothing():
    assert PipelineConfig().override({"model": None}) == PipelineConfig()
    assert PipelineConfig().override(None) == PipelineConfig()
