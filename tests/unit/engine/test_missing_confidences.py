"""A row without confidences: its weighted methods fail, and nothing else does."""

import dataclasses

from flexray.config import MethodConfig


def test_only_the_weighted_methods_of_a_row_without_confidences_fail(make_model, make_engine, make_prompts):
    kinds = ["origin", "weighted_avg", "avg", "weighted_max"]
    bare, other = make_prompts(2)
    rated = dataclasses.replace(other, confidences=(0.5,) * len(other.segments))
    engine = make_engine(
        make_model(), methods=[MethodConfig(kind=kind) for kind in kinds], max_new_tokens=2, backend="sdpa"
    )
    first, second = engine.generate([bare, rated])
    assert [bool(said[0].error) for said in first] == [False, True, False, True]
    assert "no confidences" in first[1][0].error
    assert not any(said[0].error for said in second)
    assert engine.generate([other])[0][0] == second[0]  # what was not weighed is as it is alone


def test_a_run_of_weighted_methods_only_goes_on_without_such_a_row(make_model, make_engine, make_prompts):
    bare, other = make_prompts(2)
    rated = dataclasses.replace(other, confidences=(1.0,) * len(other.segments))
    methods = [MethodConfig(kind="weighted_max")]
    engine = make_engine(make_model(), methods=methods, max_new_tokens=2, backend="sdpa")
    found = engine.generate([bare, rated, bare])
    assert [bool(said[0].error) for (said,) in found] == [True, False, True]
