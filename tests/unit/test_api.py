"""The public Python API: rows in, answers out, without Ray."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

import flexray
from flexray.config import MethodConfig, PromptConfig
from flexray.data.in_memory import rows_of
from tests.conftest import PROJECT

ROWS = [
    {"question": "Who?", "paraphrases": ["Which person?", "Who is it?"], "answers": ["Ada"]},
    {"question": "Where?", "paraphrases": ["At which place?"], "answers": ["Rome", "Roma"]},
    {"question": "", "paraphrases": ["?"], "answers": ["no"]},
    {"question": "When?", "paraphrases": ["At what time?"], "answers": []},
]
METHODS = ["attention", {"kind": "per_prompt"}]


@pytest.fixture(scope="module")
def llm(tiny_model):
    return flexray.LLM(tiny_model, backend="sdpa")


def test_one_answer_a_row_and_method_and_error_rows_among_them(llm):
    answers = llm.answer(ROWS, METHODS, max_new_tokens=4)
    assert len(answers) == 8
    assert [a.row for a in answers] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [a.method for a in answers[:2]] == ["attention/shared_context/restart", "per_prompt"]
    assert [bool(a.error) for a in answers] == [False] * 4 + [True] * 2 + [True] * 2
    assert "rows, row 3, field 'question'" in answers[4].error
    assert all(a.token_ids and a.backend_used == "sdpa" and a.correct is False for a in answers[:4])
    assert len(answers[1].paraphrase_predictions) == 2
    assert answers[-1] == answers[7]
    with pytest.raises(IndexError):
        answers[8]


def test_calls_from_several_threads_take_turns(llm):
    rows = [{"question": f"Where is {i}?"} for i in range(12)]
    alone = {n: [a.text for a in llm.answer(rows, max_new_tokens=n)] for n in (3, 5)}
    with ThreadPoolExecutor(4) as threads:
        lengths = [3, 5] * 8
        said = threads.map(lambda n: [a.text for a in llm.answer(rows, max_new_tokens=n)], lengths)
        for n, texts in zip(lengths, said, strict=True):
            assert texts == alone[n]


def test_nothing_to_stop_at_may_be_none(llm):
    assert llm.answer(ROWS[:1], stop=None, few_shots=None, max_new_tokens=2)[0].token_ids


def test_rows_choose_among_their_candidates(llm):
    rows = [ROWS[0] | {"candidates": ["one", "two words"]}, ROWS[1] | {"candidates": ["three"]}]
    first, second = llm.answer(rows, candidates="row", max_new_tokens=30)
    assert first.text == ["one", "two words"][first.candidate_scores.index(max(first.candidate_scores))]
    assert (second.text, second.finish_reason) == ("three", "candidate")
    assert first.logprobs is None
    same = llm.answer(rows, candidates=["one", "two words"], max_new_tokens=30)[0]
    assert (same.text, same.candidate_scores) == (
        first.text,
        pytest.approx(first.candidate_scores, abs=1e-5),
    )
    (bad, good) = llm.answer([ROWS[0] | {"candidates": []}, rows[1]], candidates="row", max_new_tokens=30)
    assert "rows, row 1, field 'candidates'" in bad.error
    assert good.candidate_scores == pytest.approx(second.candidate_scores, abs=1e-5)


def test_rows_may_have_all_fields_by_their_names(llm):
    row = ROWS[0] | {"confidences": [0.25, 1.0], "relation": "P36", "num_manual": 1}
    (answer,) = llm.answer([row], "weighted_max", max_new_tokens=3)
    assert not answer.error
    (found,) = llm.answer([row], max_new_tokens=3).to_arrow().to_pylist()
    assert (found["relation"], found["num_manual"], found["confidences"]) == ("P36", 1, [0.25, 1.0])


def test_call_after_call_on_one_engine_computes_the_context_once(llm):
    few = [{"question": "What?", "answer": "This"}]
    asked = {"instruction": "Answer.", "few_shots": few, "max_new_tokens": 3}
    first = llm.answer(ROWS[:2], **asked)
    engine = llm._answerer._engine
    tokens = engine.stats.context_tokens
    again = llm.answer(ROWS[:1], **asked)
    assert llm._answerer._engine is engine
    assert engine.stats.context_tokens == tokens > 0
    assert again[0].token_ids == first[0].token_ids
    llm.answer(ROWS[:1], max_new_tokens=2)
    assert llm._answerer._engine is not engine


def test_rows_may_be_tables_and_data_sets(llm):
    import datasets

    plain = llm.answer(ROWS[:2], max_new_tokens=3).to_arrow()
    table = pa.Table.from_pylist(ROWS[:2])
    assert llm.answer(table, max_new_tokens=3).to_arrow() == plain
    assert llm.answer(datasets.Dataset.from_list(ROWS[:2]), max_new_tokens=3).to_arrow() == plain
    pandas = pytest.importorskip("pandas")
    assert llm.answer(pandas.DataFrame(ROWS[:2]), max_new_tokens=3).to_arrow() == plain
    frame = llm.answer(ROWS[:1], max_new_tokens=3).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["prediction"].tolist() == plain["prediction"][:1].to_pylist()


def test_a_question_without_paraphrases_is_asked_itself_and_equal_rows_are_all_answered(llm):
    answers = llm.answer(
        [{"query": "Who?"}, {"query": "Who?"}], fields={"question": "query"}, max_new_tokens=2
    )
    assert [a.error for a in answers] == ["", ""]
    assert answers[0].token_ids == answers[1].token_ids
    assert answers.to_arrow()["paraphrases"].to_pylist() == [["Who?"], ["Who?"]]
    assert [a.correct for a in answers] == [None, None]


@pytest.mark.parametrize("rows", ["Who?", {"question": "Who?"}, 3, ["Who?"]])
def test_what_is_no_rows_is_refused(rows):
    with pytest.raises(flexray.DataError, match="rows"):
        rows_of(rows)


def test_of_no_rows_there_is_no_answer(llm):
    for rows in ([], pa.table({"question": pa.array([], pa.string())}), iter(())):
        answers = llm.answer(rows, METHODS)
        assert answers == []
        assert answers.to_arrow().num_rows == 0


def test_each_row_may_lack_what_others_have(llm):
    whole = ROWS[0] | {"id": "w", "relation": "P36"}
    bare, none = {"question": "Where?"}, dict.fromkeys(whole) | {"question": "Where?"}
    answers = llm.answer([whole, bare, none], "per_prompt", max_new_tokens=3)
    assert [a.error for a in answers] == ["", "", ""]
    assert [len(a.paraphrase_predictions) for a in answers] == [2, 1, 1]
    assert [a.correct for a in answers] == [False, None, None]
    (alone,) = llm.answer([bare], "per_prompt", max_new_tokens=3)
    assert {a.token_ids for a in answers[1:]} == {alone.token_ids}


def test_settings_that_cannot_be_used_are_refused_by_their_key(llm):
    with pytest.raises(flexray.ConfigError, match=r"fields: questn: .* Known: id, question, "):
        llm.answer(ROWS, fields={"questn": "query"})
    with pytest.raises(flexray.UserError, match="no output folder is named"):
        flexray.evaluate([])
    with pytest.raises(flexray.ConfigError, match=r"a list of overrides is needed, such as"):
        flexray.run("my.yaml", overrides="data.limit=3")
    with pytest.raises(flexray.ConfigError, match=r"generation\.max_new_tokens"):
        llm.answer(ROWS[:1], max_new_tokens=0)
    with pytest.raises(flexray.ConfigError, match="unknown kind 'median'"):
        llm.answer(ROWS[:1], "median")


def test_answers_are_those_of_the_engine_that_a_run_has(llm, tiny_model):
    from flexray.config import EngineConfig, GenerationConfig
    from flexray.config.data import DataConfig, Fields
    from flexray.data.in_memory import fields_of, to_questions
    from flexray.engine.engine import Engine
    from flexray.models.checkpoint import load_model
    from flexray.prompts import PromptBuilder

    model, tokenizer = load_model(tiny_model)
    methods, generation = [MethodConfig()], GenerationConfig(max_new_tokens=5)
    engine = Engine(model, tokenizer, methods, generation, EngineConfig(backend="eager"))
    builder = PromptBuilder(
        tokenizer,
        PromptConfig(instruction="Say."),
        methods,
        generation,
        512,
        vocab_size=model.config.vocab_size,
    )
    data = DataConfig(name="rows", files=("-",), fields=fields_of(ROWS[:2], Fields()))
    prompts = [builder.build(q) for q in to_questions(ROWS[:2], data)]
    expected = [g.token_ids for ((g,),) in engine.generate(prompts)]
    assert [a.token_ids for a in llm.answer(ROWS[:2], instruction="Say.", max_new_tokens=5)] == expected


def test_the_package_and_its_llm_bring_no_ray():
    code = "import sys, flexray; a = 'torch' in sys.modules; flexray.LLM; print(a, 'ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_all_that_is_public_is_there():
    for name in flexray.__all__:
        assert getattr(flexray, name) is not None, name
    with pytest.raises(AttributeError, match="no attribute 'LML'"):
        flexray.LML  # noqa: B018


PLUGIN = '''
import flexray
from flexray.masks.layout import AttentionScope, SharedPrefix

def last(config):
    """The last paraphrase only."""
    def scopes(prompt):
        return (AttentionScope(len(prompt.segments) - 1),)
    return flexray.Method(name=config.name, prefix=SharedPrefix(), scopes=scopes)

flexray.register_method("last", last)
'''


def test_a_method_of_a_plug_in_answers(tmp_path, llm, request):
    from flexray.config.plugins import load_plugins, plugin_digests
    from flexray.methods import METHODS

    request.addfinalizer(lambda: METHODS.pop("last", None))  # other tests know of no such method
    path = tmp_path / "last.py"
    path.write_text(PLUGIN)
    load_plugins([str(path)])
    load_plugins([str(path)])  # again: it is there already
    alone = [{"question": "Who?", "paraphrases": ROWS[0]["paraphrases"][-1:]}]
    both = llm.answer(ROWS[:1], ["last", "origin"], max_new_tokens=4)
    assert both[0].token_ids == llm.answer(alone, "origin", max_new_tokens=4)[0].token_ids
    assert len(plugin_digests([str(path)])[str(path)]) == 64


def test_a_plug_in_that_is_not_there_or_fails_is_refused_by_name(tmp_path):
    from flexray.config.plugins import load_plugins

    bad = tmp_path / "bad.py"
    bad.write_text("1 / 0\n")
    with pytest.raises(flexray.ConfigError, match=r"bad\.py' cannot be imported: ZeroDivisionError"):
        load_plugins([str(bad)])
    with pytest.raises(flexray.ConfigError, match="no such file"):
        load_plugins([str(tmp_path / "none.py")])
    with pytest.raises(flexray.ConfigError, match="no_such_module_here"):
        load_plugins(["no_such_module_here"])


def test_a_folder_that_holds_no_run_is_a_user_error(tmp_path):
    with pytest.raises(flexray.UserError):
        flexray.read(tmp_path / "nothing").to_arrow()
    with pytest.raises(flexray.UserError):
        flexray.evaluate(tmp_path / "nothing")
