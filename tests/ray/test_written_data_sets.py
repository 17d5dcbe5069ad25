"""Data sets that a model writes: paraphrases, then confidences, then a run that reads both."""

import json

import pytest

from flexray.config import load_config
from flexray.evaluation.answer_metrics import normalize_answer
from flexray.sink import OutputFolder, read_committed
from tests.ray.jobs import assert_whole, flexray_here, make_tree, question, rows_of, write, write_config
from tests.runs import run_shards

pytestmark = pytest.mark.usefixtures("local_ray")

NUMBER = 5
BAD = question(NUMBER, question="")


@pytest.fixture(scope="module")
def chain(tiny_model, tmp_path_factory):
    """Asks bare questions, one of them bad, for paraphrases and then for confidences; returns the folder."""
    folder = tmp_path_factory.mktemp("chain")
    bare = [question(i, paraphrases=...) for i in range(NUMBER)] + [BAD | {"paraphrases": []}]
    data = write(folder / "bare.jsonl", bare)

    def config(name, method, source, **fields):
        tree = make_tree(folder / name, tiny_model, source, generation={"max_new_tokens": 6})
        tree["methods"] = method
        tree["data"] |= fields
        return write_config(tmp_path_factory.mktemp(name), tree)

    sampling = {"kind": "sampled", "samples": 6, "temperature": 2.0, "seed": 3}
    first = config("written", [sampling], data, include_question=True, fields={"paraphrases": None})
    told = flexray_here("paraphrase", "-c", first, "--to", folder / "paraphrases.jsonl", "--keep", 4)
    second = config(
        "sure",
        [{"kind": "confidence", "samples": 3}],
        data,
        include_question=True,
        fields={"paraphrases": None},
        paraphrase_files=str(folder / "paraphrases.jsonl"),
    )
    told_too = flexray_here("confidence", "-c", second, "--to", folder / "sure.parquet")
    return folder, config, first, (told, told_too)


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_paraphrases_are_the_samples_without_copies_and_error_rows_are_left_out_and_counted(chain):
    folder, _, _, ((code, out, _), _) = chain
    assert code == 0
    found, rows = records(folder / "paraphrases.jsonl"), rows_of(folder / "written")
    assert_whole(folder / "written", NUMBER + 1)
    assert [record["id"] for record in found] == [f"q{i}" for i in range(NUMBER)]
    assert out.splitlines()[-1].endswith("left_out_errors=1")
    for record in found:
        row = rows[f"qa/test/{record['id']}"]
        assert len(row["samples"]) == 6
        normal = [normalize_answer(text) for text in record["paraphrases"]]
        assert len({*normal, normalize_answer(row["question"]), ""}) == len(normal) + 2
        assert {*normal} <= {normalize_answer(text) for text in row["samples"]}
        assert len(normal) <= 4
        assert (record["question"], record["answers"]) == (row["question"], row["answers"])
    assert any(record["paraphrases"] for record in found)


def test_confidences_are_shares_of_the_samples_and_each_paraphrase_has_one(chain):
    import pyarrow.parquet as pq

    folder, _, _, (_, (code, _, _)) = chain
    assert code == 0
    written = {record["id"]: record["paraphrases"] for record in records(folder / "paraphrases.jsonl")}
    found = pq.read_table(folder / "sure.parquet").to_pylist()
    assert len(found) == NUMBER
    for record in found:
        assert record["paraphrases"] == [record["question"], *written[record["id"]]]
        assert len(record["confidences"]) == len(record["paraphrases"])
        assert {round(3 * c, 6) for c in record["confidences"]} <= {0, 1, 2, 3}


def test_a_repeated_job_computes_nothing_and_writes_the_same_bytes(chain):
    folder, _, first, _ = chain
    before = (folder / "paraphrases.jsonl").read_bytes()
    code, out, _ = flexray_here("paraphrase", "-c", first, "--to", folder / "again.jsonl", "--keep", 4)
    assert code == 0
    assert "nothing to do" in out
    assert (folder / "again.jsonl").read_bytes() == before


@pytest.mark.slow  # that draws depend on no size is tested without Ray, in unit/engine/test_determinism.py
def test_a_fresh_job_of_other_sizes_writes_the_same_bytes(chain):
    folder, _, first, _ = chain
    before = (folder / "paraphrases.jsonl").read_bytes()
    sizes = [f"output={folder / 'other'}", "data.shard_rows=2", "engine.max_num_seqs=3"]
    other = [word for size in sizes for word in ("--set", size)]
    code, _, _ = flexray_here("paraphrase", "-c", first, "--to", folder / "fresh.jsonl", "--keep", 4, *other)
    assert code == 0
    assert (folder / "fresh.jsonl").read_bytes() == before


def test_the_data_sets_feed_the_weighted_methods(chain):
    folder, config, _, _ = chain
    kinds = ["weighted_avg", "weighted_max"]
    last = config("weighted", kinds, folder / "sure.parquet", fields={"confidences": "confidences"})
    run_shards(load_config([str(last)], []), range(2))  # without Ray: it is the files that matter
    assert_whole(folder / "weighted", 2 * NUMBER)
    for table in read_committed(OutputFolder(str(folder / "weighted"))):
        assert set(table["error"].to_pylist()) == {""}


def test_samples_of_several_few_shot_sets_are_taken_in_turn(chain):
    folder, config, _, _ = chain
    sampling = {"kind": "sampled", "samples": 3, "temperature": 2.0, "seed": 3}
    recipe = config(
        "sets", [sampling], folder / "bare.jsonl", include_question=True, fields={"paraphrases": None}
    )
    sets = [[{"question": f"q{i}?", "answer": f"{i}?"}] for i in range(2)]
    told = ("--set", "prompt.few_shots=[]", "--set", f"prompt.few_shot_sets={json.dumps(sets)}")
    code, out, _ = flexray_here("paraphrase", "-c", recipe, "--to", folder / "sets.jsonl", "--keep", 6, *told)
    assert code == 0
    by_set = [rows_of(folder / "sets" / f"set-{i}") for i in range(2)]
    for record in records(folder / "sets.jsonl"):
        one, other = (rows[f"qa/test/{record['id']}"]["samples"] for rows in by_set)
        assert one != other
        drawn = [" ".join(text.split()) for pair in zip(one, other, strict=True) for text in pair]
        order = [drawn.index(text) for text in record["paraphrases"]]
        assert order == sorted(order)
        assert {place % 2 for place in order} == {0, 1}
    assert out.splitlines()[-1].endswith("left_out_errors=1")


@pytest.mark.parametrize("command", ["paraphrase", "confidence"])
def test_a_recipe_for_another_method_is_refused_before_anything_runs(chain, command):
    folder, config, _, _ = chain
    wrong = config("wrong", ["origin"], folder / "bare.jsonl")
    code, _, err = flexray_here(command, "-c", wrong, "--to", folder / "x.jsonl")
    assert code == 2
    assert "and no other, found origin" in err
    assert not (folder / "wrong").exists()


def test_a_file_of_another_kind_is_refused(chain):
    folder, config, _, _ = chain
    first = config("refused", [{"kind": "sampled"}], folder / "bare.jsonl")
    code, _, err = flexray_here("paraphrase", "-c", first, "--to", folder / "x.csv")
    assert code == 2
    assert ".jsonl or .parquet" in err
    assert not (folder / "refused").exists()
