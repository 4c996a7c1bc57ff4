"""Every field of every stage: a wrong value is refused by its name, before anything runs."""

import dataclasses
import math
from datetime import date
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onerec.config import PRESETS, PipelineConfig, Runtime, SettingError, ValidatedConfig
from onerec.datasets.simulator.config import SimulatorConfig

SECTIONS: dict[str, ValidatedConfig] = {
    **{f.name: getattr(PipelineConfig(), f.name) for f in dataclasses.fields(PipelineConfig)},
    "simulator": SimulatorConfig(),
    "runtime": Runtime(),
}
FIELDS = [(section, f.name) for section, c in SECTIONS.items() for f in dataclasses.fields(c)]
POISON = [
    None, True, "", "3", "x" * 1000, [], [1], {}, -1, -(10**30), 10**30, 10**400, 0.5, -0.5, 1e308,
    math.nan, math.inf, -math.inf, b"1", date(1, 1, 1), date(9999, 12, 31), {"a": {"b": []}},
]  # fmt: skip


def kind_of(section: str, name: str) -> Any:
    return get_type_hints(type(SECTIONS[section]))[name]


def limits_of(section: str, name: str) -> dict[str, Any]:
    return next(
        f.metadata["limits"] for f in dataclasses.fields(SECTIONS[section]) if f.name == name
    )


def is_legal(section: str, name: str, value: object) -> bool:
    """The declared type and range, computed without pydantic."""
    kind, limits = kind_of(section, name), limits_of(section, name)
    if get_origin(kind) is Literal:
        return type(value) is str and value in get_args(kind)
    if type(value) is not kind and not (kind is float and type(value) is int):
        return False
    if kind in (bool, str):
        return True
    number: Any = value
    return (
        (kind is date or abs(number) < math.inf)
        and ("ge" not in limits or number >= limits["ge"])
        and ("gt" not in limits or number > limits["gt"])
        and ("le" not in limits or number <= limits["le"])
        and ("lt" not in limits or number < limits["lt"])
    )


NO_WEIGHT = {f"weight_{n}": 0 for n in ("swt", "vtr", "wtr", "ltr", "watch_seconds", "watch_share")}


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_every_number_has_a_range_and_its_default_lies_inside(section: str, name: str) -> None:
    limits = limits_of(section, name)
    if kind_of(section, name) in (int, float, date):
        assert {"ge", "gt"} & limits.keys()
        assert {"le", "lt"} & limits.keys()
    else:
        assert not limits
    assert is_legal(section, name, getattr(SECTIONS[section], name))


def outcome(section: str, name: str, value: object) -> ValidatedConfig | SettingError:
    try:
        return SECTIONS[section].changed({name: value}, section)
    except SettingError as error:
        return error


@pytest.mark.parametrize(("section", "name"), FIELDS)
def test_a_poisoned_value_is_refused_by_its_name_or_legal(section: str, name: str) -> None:
    for value in POISON:
        found = outcome(section, name, value)
        if isinstance(found, ValidatedConfig):
            assert is_legal(section, name, value), value
            assert getattr(found, name) == value
            continue
        if not is_legal(section, name, value):  # else it does not go with another field
            assert found.field == f"{section}.{name}"
        assert found.field.startswith(f"{section}.")
        assert found.remedy
        assert len(str(found)) < 600


@pytest.mark.parametrize(("section", "name"), [f for f in FIELDS if kind_of(*f) is int])
def test_a_whole_number_beyond_its_range_is_refused(section: str, name: str) -> None:
    limits = limits_of(section, name)
    for beyond in (limits["ge"] - 1, limits["le"] + 1):
        with pytest.raises(SettingError, match=f"{section}.{name}={beyond}: use a whole number"):
            SECTIONS[section].changed({name: beyond}, section)


@given(st.sampled_from(FIELDS), st.one_of(st.integers(), st.floats(), st.text(), st.booleans()))
def test_any_value_is_legal_or_refused(field: tuple[str, str], value: object) -> None:
    section, name = field
    assert isinstance(outcome(section, name, value), SettingError) or is_legal(section, name, value)


def test_a_whole_number_becomes_a_float_where_one_is_meant() -> None:
    """Else two files that say the same would key two artifacts."""
    config = PipelineConfig().override({"reward": {"weight_swt": 2}}).reward
    assert repr(config.weight_swt) == "2.0"


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        ("model", {"num_heads": 5}, "model.num_heads=5: use a divisor of d_model=64"),
        ("model", {"active_experts": 5}, "model.active_experts=5: use at most num_experts=4"),
        ("model", {"context_kv_layers": 3}, "context_kv_layers=3: use at most decoder_layers=2"),
        ("model", {"dense_decoder_layers": 3}, "dense_decoder_layers=3: use at most"),
        ("model", {"context_kv_heads": 3}, "context_kv_heads=3: use 0 or a divisor"),
        ("model", {"architecture": "lazy_decoder", "causal_encoder": True}, "causal_encoder=True"),
        ("tokenizer", {"codebook_size": 8192, "num_levels": 5}, "num_levels=5: codebook_size=8192"),
        ("tokenizer", {"num_levels": 50}, "num_levels=50: use a whole number from 1 to 16"),
        ("reward", {"d_model": 30}, "reward.d_model=30: use a multiple of num_heads=4"),
        ("reward", NO_WEIGHT, "at least one weight"),
        ("sessions", {"min_positive_share": 1}, "use at most max_positive_share=0.99"),
        ("alignment", {"pairs": "sampling"}, "IPA compares the model's own beams"),
        ("alignment", {"method": "sdpo", "pairs": "feedback"}, "no group of sessions"),
        ("alignment", {"method": "ppo"}, "method='ppo': use 'ipa', 'dpo', "),
        ("evaluation", {"cutoffs": "5,20"}, "cutoffs='5,20': use numbers"),
        ("evaluation", {"cutoffs": "0,10"}, "cutoffs='0,10': use numbers"),
        ("evaluation", {"cutoffs": "10,"}, "cutoffs='10,': use numbers"),
        ("evaluation", {"baselines": "itemknn"}, "popularity among them"),
        ("evaluation", {"baselines": "popularity,svd"}, "baselines='popularity,svd': use names"),
        ("evaluation", {"baseline_width": 63}, "baseline_width=63: use an even number"),
        ("decoding", {"serving_precision": "float16"}, "use 'float64' or 'float32'"),
    ],
)
def test_settings_that_exclude_each_other(stage: str, values: dict, message: str) -> None:
    with pytest.raises(SettingError) as raised:
        PipelineConfig().override({stage: values})
    assert message in str(raised.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_legal(preset: str) -> None:
    for field in dataclasses.fields(PipelineConfig):
        config = getattr(PRESETS[preset], field.name)
        assert dataclasses.replace(config) == config
