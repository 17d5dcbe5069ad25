"""On a GPU: a row's answer depends on the row alone, in bfloat16 and FP8, whatever is computed beside it."""

import random

import pytest

from tests.unit.engine.test_determinism import METHODS, answers_of, with_head


@pytest.mark.parametrize(
    ("quantization", "num_context"), [(None, 70), ("fp8", 70), (None, 700)], ids=["bfloat16", "fp8", "apart"]
)
def test_no_row_of_4096_differs_with_its_neighbours_their_order_the_call_or_the_methods(
    make_model, make_engine, make_prompts, quantization, num_context
):
    count = 4096
    prompts = with_head(make_prompts(count, num_context=num_context))

    def engine_of(methods):
        return make_engine(
            make_model(heads=24, kv_heads=8, head_dim=128).bfloat16().cuda(),
            methods=methods,
            quantization=quantization,
            max_num_seqs=512,
            gpu_memory_utilization=0.5,
        )

    engine = engine_of(METHODS)
    together = answers_of(engine, prompts)
    shuffled = list(range(count))
    random.Random(1).shuffle(shuffled)
    differ = {}
    for size, asked in ((count, count), (512, count), (7, 70), (1, 8)):
        differ[size] = 0
        for start in range(0, asked, size):
            call = shuffled[start : min(asked, start + size)]
            answers = answers_of(engine, [prompts[i] for i in call])
            differ[size] += sum(answer != together[i] for i, answer in zip(call, answers, strict=True))
    assert differ == {count: 0, 512: 0, 7: 0, 1: 0}
    engine.reset()
    for number in (0, 1):
        alone = answers_of(engine_of(METHODS[number : number + 1]), prompts)
        assert sum(row[0] != said[number] for row, said in zip(alone, together, strict=True)) == 0
