"""The public API on a Ray: a recipe with a plug-in, and a processor in a Ray Data pipeline."""

import shutil

import pytest
import yaml

import flexray
from tests.ray.jobs import make_tree, question, write

PLUGIN = """
import flexray
from flexray.masks.layout import AttentionScope, SharedPrefix

def last(config):
    def scopes(prompt):
        return (AttentionScope(len(prompt.segments) - 1),)
    return flexray.Method(name=config.name, prefix=SharedPrefix(), scopes=scopes)

flexray.register_method("last_one", last)
"""


@pytest.fixture
def tree(tmp_path, local_ray, tiny_model):
    data = write(tmp_path / "questions.jsonl", [question(0), question(1), question(2, paraphrases=[])])
    return make_tree(tmp_path / "out", tiny_model, data, ray={"address": local_ray})


def test_a_recipe_with_a_plug_in_is_run_read_and_evaluated(tree, tmp_path):
    plugin = tmp_path / "last_one.py"
    plugin.write_text(PLUGIN)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tree | {"plugins": [str(plugin)], "methods": ["last_one", "origin"]}))
    result = flexray.run(recipe, log=lambda line: None)
    assert result.rows_now == 6
    rows = flexray.read(tmp_path / "out").to_arrow().to_pylist()
    shutil.copytree(tmp_path / "out", tmp_path / "dataset=z" / "out")  # no partition
    in_ray = flexray.read(tmp_path / "dataset=z" / "out").to_ray().take_all()
    keys = ("row_id", "method", "dataset", "prediction")
    assert sorted([row[key] for key in keys] for row in in_ray) == sorted(
        [row[key] for key in keys] for row in rows
    )
    assert sorted((row["row_id"], row["method"]) for row in rows) == [
        (f"qa/test/q{i}", method) for i in range(3) for method in ("last_one", "origin")
    ]
    assert {row["source_id"] for row in rows if row["error"]} == {"q2"}
    scores = flexray.evaluate(tmp_path / "out")
    assert [(m.method, m.errors, m.scored) for m in scores.methods] == [("last_one", 1, 2), ("origin", 1, 2)]
    flexray.run(recipe, overrides=["methods=[origin]"], log=lambda line: None)  # the other one is left out
    for everything, count in ((False, 3), (True, 6)):
        seen = flexray.read(tmp_path / "out", everything=everything)
        in_ray = sorted((row["method"], row["row_id"]) for row in seen.to_ray().take_all())
        assert len(in_ray) == count
        assert in_ray == sorted((row["method"], row["row_id"]) for row in seen.to_arrow().to_pylist())


def test_a_processor_keeps_the_rows_other_columns_and_error_rows(tree, tiny_model, tmp_path):
    import ray.data

    plugin = tmp_path / "last_too.py"
    plugin.write_text(PLUGIN.replace("last_one", "last_too"))
    processor = flexray.build_processor(
        {
            "model": tree["model"],
            "engine": tree["engine"],
            "generation": tree["generation"],
            "prompt": tree["prompt"],
            "plugins": [str(plugin)],
            "methods": ["attention", "last_too"],
        },
        preprocess=lambda row: {"kept": row["n"] * 10, **row["asked"]},
        postprocess=lambda row: {
            "kept": row["kept"],
            "id": row["id"],
            **{k: row[k] for k in ("method", "error", "token_ids", "prediction")},
        },
        batch_size=2,
        num_gpus=0,
    )
    asked = [question(0), question(1), question(2, question="")]
    ds = processor(ray.data.from_items([{"n": n, "asked": row} for n, row in enumerate(asked)]))
    rows = sorted(ds.take_all(), key=lambda row: (row["kept"], row["method"]))
    assert [(row["kept"], row["id"]) for row in rows] == [
        (n * 10, f"q{n}") for n in range(3) for _ in range(2)
    ]
    assert [row["method"] for row in rows[:2]] == ["attention/shared_context/restart", "last_too"]
    assert [bool(row["error"]) for row in rows] == [False] * 4 + [True] * 2

    llm = flexray.LLM(tiny_model, backend="sdpa")
    alone = llm.answer(
        [question(0)],
        instruction="Answer.",
        few_shots=tree["prompt"]["few_shots"],
        max_new_tokens=4,
        include_question=False,
    )
    assert tuple(rows[0]["token_ids"]) == alone[0].token_ids
    assert rows[0]["prediction"] == alone[0].text
