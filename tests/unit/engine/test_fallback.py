"""Faults of backends, injected by FLEXRAY_FAULTS: who answers then, and what the rows say about it."""

import dataclasses
import json

import pytest
import torch

from flexray.config import MethodConfig
from flexray.config.fault_injection import VARIABLE
from flexray.engine import scheduler_config
from flexray.engine.fallback import FAULTS_ALLOWED, describe_fault, is_poisoned
from flexray.engine.kv_cache import BLOCK_SIZE
from flexray.engine.request import Request
from tests.expected import oracle_answers, tokens

NO_KERNEL = "raise:NotImplementedError"
OUT_OF_MEMORY = "raise:torch.OutOfMemoryError"


@pytest.fixture
def inject(monkeypatch, tmp_path):
    """Lets faults happen in the prefill of rows from now on."""
    calls = []

    def inject(action, *, times=1, skip=0, **match):
        calls.append(action)
        fault = {"point": "engine.prefill", "match": match, "action": action, "skip": skip, "times": times}
        monkeypatch.setenv(VARIABLE, json.dumps([{**fault, "ledger": str(tmp_path / f"{len(calls)}")}]))

    return inject


def only(generations):
    """Of engines of one method with one answer a prompt."""
    return [g for ((g,),) in generations]


@pytest.mark.parametrize("place", [0, 4, 8])
def test_a_row_that_no_backend_can_answer_is_isolated_and_all_others_are_answered(
    make_model, make_engine, make_prompts, inject, place
):
    prompts = make_prompts(9)
    bad = dataclasses.replace(prompts[place], segments=((33, 34, 35),))
    prompts[place] = bad
    inject(NO_KERNEL, times=None, ids="33 34 35 *")
    engine = make_engine(make_model(), strict=False)
    generations = engine.generate(prompts)

    failed = only(generations)[place]
    assert failed.finish_reason == "error"
    assert failed.error.startswith("no backend could answer this row: ")
    for backend in ("flex", "sdpa", "eager"):
        assert f"{backend}: NotImplementedError: injected at engine.prefill" in failed.error
    assert (failed.token_ids, failed.backend_used) == ((), "")

    others = generations[:place] + generations[place + 1 :]
    good = prompts[:place] + prompts[place + 1 :]
    assert tokens(others) == oracle_answers(make_model(), good, engine)
    assert {(g.backend_used, g.error) for g in only(others)} == {("flex", "")}


def test_a_bad_row_is_an_error_of_every_method_and_its_trunks(make_model, make_engine, make_prompts, inject):
    prompts = make_prompts(4)
    prompts[2] = dataclasses.replace(prompts[2], segments=((33, 34, 35), (36,)))
    inject(NO_KERNEL, times=None, ids="33 34 35 *")
    methods = [MethodConfig(), MethodConfig(positions="continuous"), MethodConfig(kind="per_prompt")]
    engine = make_engine(make_model(), methods=methods, backend="sdpa", strict=False)
    generations = engine.generate(prompts)
    for i, by_method in enumerate(generations):
        assert len(by_method) == len(methods)
        assert all(bool(g.error) == (i == 2) for said in by_method for g in said)
    assert [len(said) for said in generations[2]] == [1, 1, 1]


def test_out_of_memory_halves_the_rows_at_once_and_the_next_call_has_the_full_size(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(12)
    engine = make_engine(make_model(), backend="sdpa", strict=False, max_num_seqs=8)
    inject(OUT_OF_MEMORY)
    generations = engine.generate(prompts)
    assert engine.fallback.sizes.max_num_seqs == 4
    assert tokens(generations) == oracle_answers(make_model(), prompts, engine)
    for g in only(generations):
        assert g.fallback_reason.startswith("sdpa: OutOfMemoryError: injected at engine.prefill")
        assert g.fallback_reason.endswith("(rows at once halved to 4)")
        assert (g.backend_used, g.attempts, g.error) == ("sdpa", 2, "")

    again = engine.generate(prompts)
    assert engine.fallback.sizes == engine.fallback.full_sizes
    assert tokens(again) == tokens(generations)
    assert {(g.backend_used, g.attempts, g.fallback_reason) for g in only(again)} == {("sdpa", 1, "")}


def test_a_row_that_needs_more_than_half_of_the_cache_is_answered_after_it_was_halved(
    make_model, make_engine, make_prompts, inject, monkeypatch
):
    monkeypatch.setattr(scheduler_config, "MIN_CACHE_SLOTS", 64)
    prompts = make_prompts(6)
    prompts[3] = dataclasses.replace(prompts[3], segments=tuple((40 + i,) * 40 for i in range(15)))
    engine = make_engine(make_model(), backend="sdpa", strict=False, max_num_seqs=4)
    sizes = dataclasses.replace(engine.fallback.sizes, max_num_slots=31 * BLOCK_SIZE)
    engine.fallback.full_sizes = engine.fallback.sizes = sizes
    inject(OUT_OF_MEMORY, times=2)
    generations = engine.generate(prompts)
    assert engine.fallback.sizes.max_num_seqs == 1
    assert 600 < engine.fallback.sizes.max_num_slots < sizes.max_num_slots
    assert tokens(generations) == oracle_answers(make_model(), prompts, engine)


def test_out_of_memory_behind_the_last_answer_changes_none_of_them(make_model, make_engine, make_prompts):
    engine = make_engine(make_model(), backend="sdpa", strict=False)
    (group,) = engine.groups
    requests = [Request(i, prompt, group, 6) for i, prompt in enumerate(make_prompts(3))]

    def attempt(given, backend, alone):
        yield from given
        raise torch.OutOfMemoryError

    assert list(engine.fallback.run(requests, attempt)) == requests
    assert [(request.backend, request.attempts) for request in requests] == [("sdpa", 1)] * 3


def test_after_so_many_calls_in_which_the_full_size_failed_the_rows_at_once_stay_halved(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(10)
    engine = make_engine(make_model(), backend="sdpa", strict=False, max_num_seqs=16)
    for _ in range(FAULTS_ALLOWED):
        inject(OUT_OF_MEMORY)
        assert {g.attempts for g in only(engine.generate(prompts))} == {2}
        assert engine.fallback.sizes.max_num_seqs == 8
    again = only(engine.generate(prompts))
    assert {g.attempts for g in again} == {1}
    assert engine.fallback.sizes.max_num_seqs == 8
    # other sizes may decide near-ties otherwise, so each row says so
    assert {g.fallback_reason.endswith("(rows at once halved to 8)") for g in again} == {True}


def test_a_call_that_halves_the_rows_again_and_again_counts_once(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(10)
    engine = make_engine(make_model(), backend="sdpa", strict=False, max_num_seqs=16)
    inject(OUT_OF_MEMORY, times=FAULTS_ALLOWED)
    generations = engine.generate(prompts)
    assert {g.attempts for g in only(generations)} == {1 + FAULTS_ALLOWED}
    assert engine.fallback.sizes.max_num_seqs == 16 >> FAULTS_ALLOWED
    engine.generate(prompts)
    assert engine.fallback.sizes == engine.fallback.full_sizes


def test_out_of_memory_with_one_row_at_once_is_left_to_the_next_backend(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(3)
    engine = make_engine(make_model(), backend="sdpa", strict=False, max_num_seqs=1)
    inject(OUT_OF_MEMORY, times=None, backend="sdpa")
    generations = engine.generate(prompts)
    assert tokens(generations) == oracle_answers(make_model(), prompts, engine)
    assert {g.backend_used for g in only(generations)} == {"eager"}


@pytest.mark.parametrize("action", [OUT_OF_MEMORY, NO_KERNEL])
def test_rows_of_several_branches_are_answered_wherever_in_the_flow_a_fault_comes(
    make_brief_model, make_engine, make_prompts, inject, action
):
    prompts = make_prompts(8)
    settings = {
        "methods": [MethodConfig(kind="per_prompt"), MethodConfig(), MethodConfig(kind="avg")],
        "max_new_tokens": 12,
        "backend": "sdpa",
        "strict": False,
        "max_num_seqs": 3,
    }
    good = make_engine(make_brief_model(), **settings).generate(prompts)
    lengths = {tuple(len(g.token_ids) for g in said) for said, *_ in good}
    assert any(len(set(of_a_row)) > 1 for of_a_row in lengths)
    for skip in (0, 1, 3, 6, 7):
        inject(action, skip=skip)
        found = make_engine(make_brief_model(), **settings).generate(prompts)
        for expected, by_method in zip(good, found, strict=True):
            for right, said in zip(expected, by_method, strict=True):
                assert [g.token_ids for g in said] == [g.token_ids for g in right], skip
        attempts = [g.attempts for by_method in found for said in by_method for g in said]
        assert set(attempts) <= {1, 2}
        assert 2 in attempts


def test_a_backend_that_fails_once_after_it_has_worked_is_used_again_in_the_next_call(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(4)
    engine = make_engine(make_model(), backend="sdpa", strict=False)
    engine.generate(prompts)
    inject(NO_KERNEL, backend="sdpa")
    faulty, healed = only(engine.generate(prompts)), only(engine.generate(prompts))
    assert {(g.backend_used, g.attempts) for g in faulty} == {("eager", 2)}
    assert all(g.fallback_reason.startswith("sdpa: NotImplementedError: ") for g in faulty)
    assert {(g.backend_used, g.attempts, g.fallback_reason) for g in healed} == {("sdpa", 1, "")}


def test_a_backend_that_has_worked_but_fails_again_and_again_is_given_up(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(4)
    engine = make_engine(make_model(), backend="sdpa", strict=False)
    engine.generate(prompts)
    inject(NO_KERNEL, backend="sdpa", times=FAULTS_ALLOWED)
    attempts = [{g.attempts for g in only(engine.generate(prompts))} for _ in range(FAULTS_ALLOWED + 1)]
    assert attempts == [{2}] * FAULTS_ALLOWED + [{1}]
    assert list(engine.fallback.given_up) == ["sdpa"]


def test_a_backend_that_has_never_worked_is_not_tried_again_and_the_rows_still_say_why(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(4)
    engine = make_engine(make_model(), backend="sdpa", strict=False)
    inject(NO_KERNEL, backend="sdpa")
    first, second = only(engine.generate(prompts)), only(engine.generate(prompts))
    assert {(g.backend_used, g.attempts) for g in first} == {("eager", 2)}
    assert {(g.backend_used, g.attempts) for g in second} == {("eager", 1)}
    assert all(g.fallback_reason.startswith("sdpa: NotImplementedError: ") for g in [*first, *second])


@pytest.mark.parametrize("action", [NO_KERNEL, OUT_OF_MEMORY])
def test_strict_raises_the_backend_s_own_error(make_model, make_engine, make_prompts, inject, action):
    prompts = make_prompts(4)
    engine = make_engine(make_model(), backend="sdpa", strict=True)
    inject(action)
    with pytest.raises((NotImplementedError, torch.OutOfMemoryError), match="injected at engine"):
        engine.generate(prompts)
    assert tokens(engine.generate(prompts)) == oracle_answers(make_model(), prompts, engine)


@pytest.mark.parametrize("error", ["ZeroDivisionError", "RuntimeError"])
def test_an_error_that_is_not_on_the_list_is_raised(make_model, make_engine, make_prompts, inject, error):
    engine = make_engine(make_model(), backend="sdpa", strict=False)
    inject(f"raise:{error}")
    with pytest.raises((ZeroDivisionError, RuntimeError), match="injected at engine") as raised:
        engine.generate(make_prompts(4))
    assert raised.type.__name__ == error


def test_after_an_error_that_was_raised_the_engine_answers_as_before(
    make_model, make_engine, make_prompts, inject
):
    prompts = make_prompts(6)
    engine = make_engine(make_model(), backend="sdpa", strict=False)
    inject("raise:ZeroDivisionError")
    with pytest.raises(ZeroDivisionError):
        engine.generate(prompts)
    assert tokens(engine.generate(prompts)) == oracle_answers(make_model(), prompts, engine)


def test_after_a_failed_kernel_the_device_is_lost_and_after_other_errors_it_is_not():
    assert is_poisoned(RuntimeError("CUDA error: device-side assert triggered"))
    assert is_poisoned(torch.AcceleratorError("an illegal memory access was encountered"))
    assert not is_poisoned(RuntimeError("shapes do not match"))
    assert not is_poisoned(ValueError("not a CUDA error"))
    assert not is_poisoned(torch.OutOfMemoryError("CUDA out of memory"))


def test_a_reason_names_backend_and_error_on_one_short_line():
    assert describe_fault("flex", NotImplementedError()) == "flex: NotImplementedError: "
    long = "x" * 161
    assert describe_fault("sdpa", RuntimeError(f"\n  {long}\nmore")) == f"sdpa: RuntimeError: {long[:160]}"
