"""What the oracles leave out for speed changes nothing."""

import random

import pytest
import torch

from tests import oracles
from tests.random_models import make_model, make_prompts  # noqa: F401

MODES = [
    (layout, positions)
    for layout in ("shared_context", "full_prompt")
    for positions in ("restart", "continuous")
]


@pytest.mark.parametrize(("layout", "positions"), MODES)
def test_a_mask_by_parts_is_the_mask_pair_by_pair(make_prompts, layout, positions):  # noqa: F811
    rnd = random.Random(0)
    for prompt in make_prompts(8, num_context=4, longest=4):
        stream = oracles.stream(prompt, layout, positions, generated=[50, 51])
        joined = rnd.randint(0, len(prompt.segments))
        one_by_one = [
            [k <= q and oracles.sees(a.part, b.part, joined) for k, b in enumerate(stream)]
            for q, a in enumerate(stream)
        ]
        assert oracles.mask_of(stream, joined).tolist() == one_by_one


@pytest.mark.parametrize(("layout", "positions"), MODES)
def test_one_run_along_an_answer_is_the_runs_token_by_token(make_model, make_prompts, layout, positions):  # noqa: F811
    model, mode = make_model(), {"layout": layout, "positions": positions}
    for prompt in make_prompts(4):
        answer = oracles.answer(model, prompt, max_new_tokens=5, **mode)
        along = oracles.greedy_along(model, prompt, answer.token_ids, **mode)
        assert along.token_ids == answer.token_ids
        assert torch.allclose(torch.tensor(along.gaps), torch.tensor(answer.gaps), atol=1e-4)
        other = [*answer.token_ids[:2], (answer.token_ids[2] + 1) % 256, *answer.token_ids[3:]]
        assert oracles.greedy_along(model, prompt, other, **mode).token_ids != other
