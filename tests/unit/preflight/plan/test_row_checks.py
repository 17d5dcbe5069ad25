"""A plan shows where a model would be asked in other tokens than its few-shots have."""

from flexray.models.checkpoint import load_tokenizer
from tests.plans import make_plan
from tests.ray.jobs import question
from tests.tiny_model import save_tiny_model
from tests.unit.preflight.plan.test_problems import problems_of

JOINING = {"question_template": "{question}", "answer_prefix": "tory:", "few_shots": [], "instruction": ""}


def test_both_token_lists_of_a_template_that_the_tokenizer_joins_are_shown_once(config_of):
    records = [question(0, question="the his", paraphrases=["a his", "b his"]), question(1)]
    plan = make_plan(config_of(records, prompt=JOINING))
    (warning,) = problems_of(plan, "warn")
    assert plan.ready
    assert warning.startswith("prompt: ")
    assert "in parts ['a', 'Ġhis', 't', 'ory', ':'], as a whole ['a', 'Ġhistory', ':']." in warning


def test_a_template_whose_parts_keep_their_tokens_is_no_problem(config_of):
    assert make_plan(config_of()).problems == []


def test_a_tokenizer_without_bos_is_a_warning_unless_none_is_wanted(config_of, tmp_path, smollm2):
    without = load_tokenizer(smollm2)
    without.bos_token = None
    config = config_of(model={"path": str(save_tiny_model(tmp_path / "model", without))})
    (warning,) = problems_of(make_plan(config), "warn")
    assert "the tokenizer has no BOS token, so prompts begin without one" in warning
    unwanted = config.prompt.model_copy(update={"add_bos": False})
    assert make_plan(config.model_copy(update={"prompt": unwanted})).problems == []
