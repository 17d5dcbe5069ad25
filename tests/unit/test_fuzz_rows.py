"""Whatever a source file holds, each planned row becomes one output row: answered, or an error that says why.

Rows are drawn by hypothesis: broken text, wrong types, spelled-out special tokens, far too much of anything.
Reading and tokenising sees many of them; the engine and the commit, which take longer, some.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from flexray.config import GenerationConfig, MethodConfig, PromptConfig, RunConfig, parse_config
from flexray.data import scan, to_questions
from flexray.data.question import Question
from flexray.errors import DataError, RowFault
from flexray.methods import make_methods
from flexray.pipeline.answer import Answerer
from flexray.pipeline.prepare import PreparedShard, prepare_shard
from flexray.prompts import PromptBuilder
from flexray.runs.commit import Commit
from flexray.sink import OutputFolder, read_committed, specs_of, verify
from tests.nasty_rows import FIELDS, NastyFile, good_record, json_files, parquet_files
from tests.runs import planned

PROMPT: dict[str, Any] = {
    "instruction": "Answer <|im_end|></s> now.",
    "few_shots": [{"question": "1 + 1 <|im_start|>?", "answer": "<|endoftext|> 2"}],
}
METHODS = [{"layout": "shared_context"}, {"layout": "full_prompt", "positions": "continuous"}, "per_prompt"]
WEIGHTED = ["avg", "weighted_avg", "weighted_max"]
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
# The same examples each time: a random model that cannot tell two tokens apart would fail a build by chance.
FEW = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=SLOW)


def run_config(model: Path, file: NastyFile, path: Path, output: str = "o", **sections: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "output": output,
        "data": {"name": "fuzz", "files": str(path), "fields": FIELDS, **file.settings},
        "model": {"path": str(model)},
        "prompt": PROMPT,
        "generation": {"max_new_tokens": 2},
        "engine": {"backend": "sdpa", "strict": True, "max_num_seqs": 8},
    }
    return parse_config(tree | sections, source="test")


def assert_fault(error: str, path: Path, row: int) -> None:
    """One fault or several, each with file, row, field, problem, value and advice; all of it plain text."""
    start = re.escape(f"{path}, row {row}, field ")
    assert re.match(rf"{start}(['\"]).+?\1: \S.* \(value: .*\)\. [A-Z].*[.\]]$", error), error
    assert error.isprintable(), repr(error)
    assert len(error) < 20_000
    error.encode()


def assert_usable(question: Question) -> None:
    """A row without a fault has all that the later stages count on."""
    texts = [question.question, *question.paraphrases, *(question.answers or ())]
    assert question.paraphrases
    assert question.answers
    assert all(text.strip() and text.encode() for text in texts)
    assert 0 <= question.num_manual <= len(question.paraphrases)
    assert question.confidences is not None
    assert len(question.confidences) == len(question.paraphrases)
    assert all(0 <= c <= 1 for c in question.confidences)


@pytest.fixture(scope="module")
def builder(tokenizer) -> PromptBuilder:
    methods = [MethodConfig(), MethodConfig(layout="full_prompt", positions="continuous")]
    prompt, generation = PromptConfig.model_validate(PROMPT), GenerationConfig(max_new_tokens=2)
    return PromptBuilder(tokenizer, prompt, methods, generation, 2048, vocab_size=len(tokenizer))


@pytest.fixture(scope="module")
def special_ids(tokenizer) -> set[int]:
    return set(tokenizer.added_tokens_decoder)


def read_and_tokenise(file: NastyFile, builder: PromptBuilder, special_ids: set[int]) -> None:
    """All of a run before the engine, and what must be true of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = file.write(Path(folder))
        config = run_config(Path("m"), file, path).data
        try:
            table = scan(config)
        except DataError:  # the file as a whole: a field that no record has, for one
            assert file.good_rows == ()
            return
    questions = to_questions(table, dataset=config.name, split=config.split)
    assert len({q.row_id for q in questions}) == len(questions) == file.num_rows
    for number, question in enumerate(questions, start=1):
        assert question.source_row == number
        assert isinstance((question.row_id + question.source_id).encode(), bytes)
        if question.error:
            assert_fault(question.error, path, number)
            assert number not in file.good_rows
            continue
        assert_usable(question)
        try:
            prompt = builder.build(question)
        except RowFault as fault:
            assert_fault(str(fault), path, number)
            continue
        ids = {i for part in (prompt.context[1:], *prompt.segments, prompt.answer_prefix) for i in part}
        assert not ids & special_ids
        assert len(prompt.segments) == len(question.paraphrases)


@MANY
@given(file=json_files())
def test_each_record_of_json_becomes_one_question_with_a_prompt_or_a_fault(builder, special_ids, file):
    read_and_tokenise(file, builder, special_ids)


@MANY
@given(file=parquet_files())
def test_each_record_of_parquet_becomes_one_question_with_a_prompt_or_a_fault(builder, special_ids, file):
    read_and_tokenise(file, builder, special_ids)


def only_question(tmp_path: Path, **changes: Any) -> Question:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(good_record(1) | changes) + "\n")
    config = run_config(Path("m"), NastyFile(Path, {}, 1, ()), path).data
    (question,) = to_questions(scan(config), dataset=config.name, split=config.split)
    return question


def test_an_empty_list_of_confidences_is_a_fault(tmp_path):
    assert "0 numbers for 2 paraphrases" in only_question(tmp_path, confidences=[]).error


def test_a_field_full_of_faults_gives_a_short_error(tmp_path):
    error = only_question(tmp_path, paraphrases=list(range(10_000))).error
    assert error.endswith("And 9980 more fault(s).")
    assert_fault(error, tmp_path / "a.jsonl", 1)


@pytest.fixture(scope="module", params=[METHODS, WEIGHTED], ids=["fused", "weighted"])
def answerer(request, tiny_model) -> Answerer:
    """Ray's actor without Ray: one engine for all examples."""
    anything = NastyFile(Path, {}, 0, ())
    return Answerer(run_config(tiny_model, anything, Path("x.jsonl"), methods=request.param))


@FEW
@given(file=json_files() | parquet_files())
def test_each_planned_row_is_committed_once_and_good_rows_are_answered_as_if_alone(answerer, file):
    config = answerer._config
    methods = tuple(method.name for method in make_methods(config.methods))
    with tempfile.TemporaryDirectory() as place:
        path, output = file.write(Path(place)), OutputFolder(f"{place}/out")
        config = run_config(Path(config.model.path), file, path, methods=config.methods)
        config = config.model_copy(update={"output": output.url})
        try:
            record = planned(config).record
        except DataError:
            return
        commit = Commit(output.url, record.fingerprint)
        prepared = [prepare_shard(spec, config) for spec in specs_of(output, record).values()]
        for shard in prepared:
            commit(answerer.answer(shard))
        report = verify(output)
        assert report.ok, [str(finding) for finding in report.findings]
        assert report.rows == file.num_rows * len(methods)
        rows = [row for table in read_committed(output) for row in table.to_pylist()]
    by_key = {(row["method"], row["row_id"]): row for row in rows}
    assert len(by_key) == len(rows) == file.num_rows * len(methods)
    for shard in prepared:
        for number, prompt in enumerate(shard.prompts):
            question = shard.questions.slice(number, 1)
            mine = [by_key[method, question["row_id"][0].as_py()] for method in methods]
            if prompt is None:
                check_error_rows(mine, path)
                continue
            alone = answerer.answer(PreparedShard(shard.spec, question, [prompt]))
            for row, answers in zip(mine, alone.answers.to_pylist(), strict=True):
                assert row["error"] == ""
                assert row["token_ids"] in [answer["token_ids"] for answer in answers]
                assert row["prediction"] in [answer["text"] for answer in answers]
                assert row["paraphrases"] == question["paraphrases"][0].as_py()


def check_error_rows(rows: list[dict[str, Any]], path: Path) -> None:
    for row in rows:
        assert_fault(row["error"], path, row["source_row"])
        assert (row["finish_reason"], row["backend_used"], row["correct"]) == ("error", "", None)
        assert (row["prediction"], row["token_ids"], row["paraphrase_predictions"]) == ("", [], [])
