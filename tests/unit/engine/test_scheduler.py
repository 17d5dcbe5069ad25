"""How many questions and sequences are worked on at once."""

import pytest

from flexray.config import MethodConfig
from flexray.engine.scheduler import DecodeBatch, PrefillBatch

METHODS = [
    MethodConfig(kind="avg"),
    MethodConfig(),
    MethodConfig(kind="per_prompt"),
    MethodConfig(kind="sampled", samples=4),
]


@pytest.fixture
def watch(monkeypatch):
    """The batches that an engine's runner gets, as they are when they run."""

    def watch(engine):
        seen = []
        run = engine.runner.run

        def watched(batch):
            seen.append((batch, list(batch.sequences)))
            return run(batch)

        monkeypatch.setattr(engine.runner, "run", watched)
        return seen

    return watch


def test_max_num_seqs_bounds_questions_at_once_and_sequences_a_batch_however_many_methods(
    make_model, make_engine, make_prompts, watch
):
    prompts = make_prompts(12, longest=5)
    engine = make_engine(make_model(), methods=METHODS, backend="sdpa", max_num_seqs=6, max_new_tokens=3)
    batches = watch(engine)
    engine.generate(prompts)
    running, most = set(), 0
    for batch, sequences in batches:
        requests = {sequence.request.index for sequence in sequences}
        if isinstance(batch, PrefillBatch):
            running |= requests
            assert len(requests) == 1 or len(sequences) <= 6
        else:
            assert isinstance(batch, DecodeBatch)
            groups = {s.fusion_group for s in sequences if s.fusion}
            assert len(sequences) <= 6 or len(groups) == 1
    rounds = [b for b in batches if isinstance(b[0], DecodeBatch)]
    at_once = max(len({s.request.index for _, part in rounds[i : i + 12] for s in part}) for i in range(3))
    most = max(most, at_once)
    assert 3 <= most <= 6, "several questions are under way, though each has over ten sequences"


def test_sequences_that_choose_together_are_always_in_one_batch(make_model, make_engine, make_prompts, watch):
    prompts = make_prompts(8, longest=5)
    engine = make_engine(make_model(), methods=METHODS, backend="sdpa", max_num_seqs=3, max_new_tokens=4)
    batches = watch(engine)
    engine.generate(prompts)
    for _, sequences in batches:
        for sequence in sequences:
            if sequence.fusion is not None:
                group = sequence.request.of_method(sequence.method)
                assert set(group) <= set(sequences)


def test_a_stream_yields_each_prompt_as_soon_as_all_methods_have_answered(
    make_model, make_engine, make_prompts
):
    prompts = make_prompts(10, longest=8)
    engine = make_engine(make_model(), methods=METHODS, backend="sdpa", max_num_seqs=2)
    expected = engine.generate(prompts)
    held, found = [], {}
    for index, answers in engine.stream(prompts):
        held.append(engine.runner.kv_cache.num_held)
        found[index] = answers
    assert [found[i] for i in range(10)] == expected
    assert held[0] > 0, "others are still under way"
    assert len(found) == len(held) == 10
