"""The registry of methods: names, what is refused, and how a recipe names them."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flexray.config import MethodConfig, load_config, parse_config
from flexray.errors import ConfigError
from flexray.methods import METHODS, make_methods
from flexray.methods.draws import subsets_of

RECIPE = {"output": "out", "data": {"name": "qa", "files": "a.jsonl"}, "model": {"path": "m"}}


def test_an_unknown_kind_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ConfigError, match="unknown kind 'median'") as refused:
        make_methods([MethodConfig(kind="median")])
    assert all(kind in str(refused.value) for kind in METHODS)


@pytest.mark.parametrize("kind", sorted(set(METHODS) - {"attention"}))
def test_a_setting_of_attention_is_refused_by_every_other_kind(kind):
    with pytest.raises(ConfigError, match=f"{kind} has no layout, positions; only attention has"):
        make_methods([MethodConfig(kind=kind, layout="full_prompt", positions="restart")])


@pytest.mark.parametrize("kind", sorted(set(METHODS) - {"ape"}))
def test_a_setting_of_ape_is_refused_by_every_other_kind(kind):
    with pytest.raises(ConfigError, match=f"{kind} has no attention_scale; only ape has"):
        make_methods([MethodConfig(kind=kind, attention_scale=1)])


@pytest.mark.parametrize("key", ["attention_temperature", "attention_scale"])
def test_ape_has_a_temperature_and_a_scale_above_0_and_its_records_tell_what_is_not_the_default(key):
    with pytest.raises(ValueError, match="greater than 0"):
        MethodConfig(kind="ape", **{key: 0})
    method = MethodConfig(kind="ape", **{key: 0.75})
    assert method.name == f"ape/{key} 0.75"
    assert method.model_dump().keys() - MethodConfig(kind="ape").model_dump().keys() == {key}
    assert MethodConfig(**method.model_dump()) == method


@pytest.mark.parametrize("kind", sorted(set(METHODS) - {"sampled", "confidence"}))
def test_a_setting_of_sampling_is_refused_by_methods_that_do_not_sample(kind):
    with pytest.raises(ConfigError, match=f"{kind} has no samples; only sampled and confidence have"):
        make_methods([MethodConfig(kind=kind, samples=3, seed=1)])


@pytest.mark.parametrize("kind", sorted(set(METHODS) - {"draws", "nbce"}))
def test_a_setting_of_draws_or_nbce_is_refused_by_other_methods(kind):
    with pytest.raises(ConfigError, match=f"{kind} has no draws, size; only draws has"):
        make_methods([MethodConfig(kind=kind, draws=3, size=2)])
    with pytest.raises(ConfigError, match=f"{kind} has no beta; only nbce has"):
        make_methods([MethodConfig(kind=kind, beta=1)])


def test_more_sequences_than_can_be_counted_are_refused():
    with pytest.raises(ValueError, match="draws and size: 500 x 5 sequences a question, of at most 2000"):
        MethodConfig(kind="draws", draws=500, fusion="avg")
    assert MethodConfig(kind="draws", draws=500).max_paraphrases == 63


@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_subsets_are_of_row_and_seed_only_and_have_no_paraphrase_twice(count, draws, size, seed):
    subsets = subsets_of("qa/test/1", count, draws, size, seed)
    assert subsets == subsets_of("qa/test/1", count, draws, size, seed)
    assert subsets[:1] == subsets_of("qa/test/1", count, 1, size, seed)
    assert [len(subset) for subset in subsets] == [min(size, count)] * draws
    assert all(len(set(subset)) == len(subset) and set(subset) <= set(range(count)) for subset in subsets)


def test_subsets_differ_between_rows_seeds_and_draws():
    drawn = {subsets_of(f"qa/test/{row}", 20, 2, 5, seed) for row in range(20) for seed in range(2)}
    assert len(drawn) == 40
    assert len({subset for subsets in drawn for subset in subsets}) == 80


@pytest.mark.parametrize("kind", sorted(set(METHODS) - {"sampled", "confidence", "draws"}))
def test_other_methods_draw_if_asked_and_say_so_in_their_names(kind):
    with pytest.raises(ConfigError, match=f"{kind} has no seed, temperature without `do_sample: true`"):
        make_methods([MethodConfig(kind=kind, temperature=0.5, seed=1)])
    (method,) = make_methods([MethodConfig(kind=kind, do_sample=True, top_p=0.5)])
    assert method.name.endswith("/do_sample/top_p 0.5")
    assert method.name.startswith(MethodConfig(kind=kind).name)


@pytest.mark.parametrize(
    "twice",
    [
        MethodConfig(kind="avg"),
        MethodConfig(layout="full_prompt"),
        MethodConfig(layout="myriadlama", cross_attention=True, paraphrase_scale="-log N"),
    ],
    ids=lambda config: config.name,
)
def test_a_method_that_stands_there_twice_is_refused_by_name(twice):
    with pytest.raises(ConfigError, match=f"{twice.name} stands there twice"):
        make_methods([MethodConfig(), twice, MethodConfig(kind="max"), twice.model_copy()])


def test_attention_may_stand_there_several_times_with_different_settings():
    configs = [MethodConfig(), MethodConfig(positions="continuous"), MethodConfig(paraphrase_scale=-1.0)]
    assert len({m.name for m in make_methods(configs)}) == 3


@pytest.mark.parametrize("kind", sorted(set(METHODS) - {"attention"}))
def test_the_name_of_a_method_that_is_not_attention_is_its_kind(kind):
    (method,) = make_methods([MethodConfig(kind=kind)])
    assert method.name == kind


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "attention/shared_context/restart"),
        ({"layout": "full_prompt", "positions": "continuous"}, "attention/full_prompt/continuous"),
        ({"layout": "myriadlama"}, "attention/myriadlama/restart"),
        ({"layout": "myriadlama", "cross_attention": True}, "attention/myriadlama/restart/cross"),
        ({"paraphrase_scale": "-log N"}, "attention/shared_context/restart/scale -log N"),
        ({"paraphrase_scale": -0.5}, "attention/shared_context/restart/scale -0.5"),
        ({"paraphrase_scale": 0}, "attention/shared_context/restart"),
    ],
)
def test_the_name_of_attention_says_its_settings(settings, name):
    (method,) = make_methods([MethodConfig(**settings)])
    assert method.name == name


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"samples": 100, "temperature": 0.7}, "sampled/samples 100/temperature 0.7"),
        ({"temperature": 2.0, "top_p": 0.95, "seed": 12}, "sampled/temperature 2/top_p 0.95/seed 12"),
        ({"temperature": 1, "top_p": 1}, "sampled"),
        ({"temperature": 0.00001, "seed": 1_000_000}, "sampled/temperature 1e-05/seed 1e+06"),
        ({"seed": 1_234_567}, "sampled/seed 1234567"),
    ],
)
def test_the_name_of_a_method_that_samples_says_what_is_not_the_default(settings, name):
    (method,) = make_methods([MethodConfig(kind="sampled", **settings)])
    assert method.name == name


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("seed", (1_234_567, 1_234_568, 2**60, 2**60 + 1)),
        ("temperature", (0.7, 0.7000001, 1.0000001, 1_000_000.5)),
        ("top_p", (0.9, 0.90000001)),
    ],
)
def test_settings_that_are_close_have_different_names(key, values):
    methods = make_methods([MethodConfig(kind="sampled", **{key: value}) for value in values])
    assert len(methods) == len(values)


def test_methods_keep_the_order_of_the_recipe():
    kinds = ["max", "origin", "avg", "per_prompt"]
    assert [m.name for m in make_methods([MethodConfig(kind=kind) for kind in kinds])] == kinds


def test_only_methods_that_weigh_need_confidences():
    methods = make_methods([MethodConfig(kind=kind) for kind in METHODS])
    assert {m.name for m in methods if m.needs_confidences} == {"weighted_avg", "weighted_max"}


def test_a_recipe_names_a_method_by_its_kind_or_by_its_settings(tmp_path):
    path = tmp_path / "job.yaml"
    methods = ["avg", {"layout": "full_prompt", "positions": "continuous"}, {"kind": "max"}]
    path.write_text(yaml.safe_dump({**RECIPE, "methods": methods}))
    for config in (load_config(str(path)), parse_config({**RECIPE, "methods": methods}, source="job")):
        names = [m.name for m in make_methods(config.methods)]
        assert names == ["avg", "attention/full_prompt/continuous", "max"]


def test_a_recipe_of_a_single_method_needs_no_list():
    assert parse_config({**RECIPE, "methods": "origin"}, source="job").methods[0].kind == "origin"


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], "methods: "),
        ([{"kind": "attention", "layuot": "full_prompt"}], "methods.0.layuot: .*known here: .*layout"),
        (["avg", {"layout": "round"}], "methods.1.layout: .*'shared_context', 'full_prompt' or 'myriadlama'"),
        ([{"cross_attention": True}], "methods.0: .*only layout myriadlama"),
        ([{"paraphrase_scale": "log N"}], "methods.0.paraphrase_scale"),
    ],
)
def test_a_faulty_method_in_a_recipe_is_refused_with_its_place(methods, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({**RECIPE, "methods": methods}, source="job")


def test_the_name_of_a_plug_in_tells_each_setting_that_is_not_the_default():
    settings = {"paraphrase_scale": 1.0, "cross_attention": True, "layout": "myriadlama", "seed": 1234567}
    name = MethodConfig(kind="mine", **settings).name
    assert name == "mine/layout myriadlama/cross_attention True/paraphrase_scale 1/seed 1234567"
    assert MethodConfig(kind="mine").name == "mine"
