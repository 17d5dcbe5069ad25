"""Differences between releases of torch and transformers."""

from types import SimpleNamespace

import pytest
from transformers import LlamaConfig

from flexray.errors import ConfigError
from flexray.models import compat
from flexray.models.compat import adopt_rope, check_flex, rope_arguments, rope_parameters, transformers_before

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_flexattention_is_refused_on_a_cpu_where_its_kernels_are_broken():
    check_flex("cpu", "2.13.0+cpu")
    check_flex("cuda", "2.11.0+cu130")
    with pytest.raises(ConfigError, match=r"torch 2\.11\.0 cannot be trusted .* engine\.backend to sdpa"):
        check_flex("cpu", "2.11.0")


@pytest.mark.parametrize(
    "rope", [{"rope_type": "default", "rope_theta": 100000.0}, LLAMA3], ids=["default", "llama3"]
)
def test_a_configuration_has_the_rope_it_is_given_and_that_of_a_file_of_transformers_5(rope):
    given = LlamaConfig(**rope_arguments(rope))
    found = LlamaConfig()
    if transformers_before("5.0.0rc0"):
        adopt_rope(found, {"rope_parameters": rope})
    else:
        found = LlamaConfig(rope_parameters=rope)
    for config in (given, found):
        assert {"rope_type": "default", **rope_parameters(config)} == rope


def test_what_phi3_has_of_rope_is_found_with_transformers_4_too(monkeypatch):
    monkeypatch.setattr(compat, "transformers_before", lambda version: True)
    old = SimpleNamespace(rope_theta=1e4, rope_scaling={"type": "longrope", "long_factor": [1.0]})
    assert rope_parameters(old)["rope_type"] == "longrope"
    written_by_5 = {"rope_type": "default", "rope_theta": 5e4, "partial_rotary_factor": 0.75}
    adopt_rope(old, {"rope_parameters": written_by_5})
    assert (old.rope_theta, old.rope_scaling, old.partial_rotary_factor) == (5e4, None, 0.75)
