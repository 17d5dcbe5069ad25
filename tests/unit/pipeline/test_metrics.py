"""What is counted agrees with the committed rows; labels are few; the documents name what there is."""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest

from flexray.engine.fallback import BACKENDS, describe_fault, handled_errors
from flexray.evaluation import to_table
from flexray.pipeline.answer import Answerer
from flexray.pipeline.metrics import METRICS, RUN_LABELS, Reason, RowCounts, classify, engine_counts
from flexray.pipeline.prepare import prepare_shard
from flexray.sink import OutputFolder, specs_of
from flexray.sink.records.rows import account
from tests.ray.jobs import make_config, question, write
from tests.runs import planned

PROJECT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((PROJECT / "cluster" / "grafana" / "flexray.json").read_text())
RAYS_LABELS = {"NodeAddress", "le"}


@pytest.fixture(scope="module")
def answered(tiny_model, tmp_path_factory):
    """(method names, a shard in which one row is faulty and one fell back)."""
    folder = tmp_path_factory.mktemp("metrics")
    data = write(folder / "a.jsonl", [question(0), question(1, question=""), question(2)])
    config = make_config(folder / "out", tiny_model, data)
    config = config.model_copy(
        update={"methods": (*config.methods, config.methods[0].model_copy(update={"kind": "per_prompt"}))}
    )
    (spec,) = specs_of(OutputFolder(config.output), planned(config).record).values()
    shard = Answerer(config).answer(prepare_shard(spec, config))
    reason = "sdpa: NotImplementedError: no kernel"
    answers = shard.answers.to_pylist()
    for row in (2, 5):  # the third question, by both methods
        for answer in answers[row]:
            answer |= {"backend_used": "eager", "fallback_reason": reason}
    shard = dataclasses.replace(shard, answers=pa.array(answers, shard.answers.type))
    return [method.name for method in config.methods], shard


def test_rows_are_counted_as_the_committed_rows_are(answered):
    methods, shard = answered
    counts = RowCounts.of(shard, methods)
    accounting = account(to_table(shard, tuple(methods)))
    assert counts.outcomes.total() == accounting.rows == 6
    assert {m: sum(n for (name, _), n in counts.outcomes.items() if name == m) for m in methods} == (
        accounting.rows_by_method
    )
    assert (
        sum(n for (_, outcome), n in counts.outcomes.items() if outcome == "error") == accounting.errors == 2
    )
    assert counts.fallbacks == Counter({"not_supported": 2})
    assert accounting.fallback_reason == {"": 4, "sdpa: NotImplementedError: no kernel": 2}


def test_an_engines_counters_are_added_up_over_shards(answered):
    _, shard = answered
    batch = [
        dataclasses.replace(
            shard, engine_stats=shard.engine_stats | {"mask_cache": {"hits": hits, "misses": 0}}
        )
        for hits in (2, 3)
    ]
    counts: Counter = Counter()
    for name, number, labels in engine_counts(batch):
        counts[name, *labels.values()] += number
    for kind in ("context", "prefill", "generated"):
        assert counts["flexray_tokens_total", kind] == 2 * shard.engine_stats[f"{kind}_tokens"] > 0
    assert counts["flexray_engine_seconds_total", "decode"] == 2 * shard.engine_stats["decode_seconds"]
    assert counts["flexray_mask_cache_total", "hit"] == 5
    assert counts["flexray_mask_cache_total", "miss"] == 0


def made(kind):
    """An error of a kind whose constructor may want a whole compiler's state."""
    error = kind.__new__(kind)
    for name in ("message", "error_message", "name", "required", "limit"):  # what triton's errors print
        setattr(error, name, "no such instruction")
    return error


def test_every_fault_that_is_fallen_back_from_has_a_class_of_its_kind():
    classes = {kind: classify(describe_fault("flex", made(kind))) for kind in handled_errors()}
    assert set(classes.values()) == {"out_of_memory", "not_supported", "compiler"}
    assert classes[NotImplementedError] == "not_supported"


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_text_of_an_error_becomes_a_label(backend):
    texts = ["", "a", "a; flex: ValueError: b", "\x00", "x" * 500, "\n{}", "é"]
    found = {classify(text) for text in texts}
    found |= {classify(describe_fault(backend, RuntimeError(text))) for text in texts}
    assert found <= set(get_args(Reason))


def expressions(node: Any) -> Iterator[str]:
    """All queries of the dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def exported() -> dict[str, set[str]]:
    """Each series that Ray serves of flexray's metrics -> its labels."""
    series = {}
    for spec in METRICS:
        endings = ("_bucket", "_count", "_sum") if spec.kind == "histogram" else ("",)
        series |= {f"ray_{spec.name}{end}": {*RUN_LABELS, *spec.labels} | RAYS_LABELS for end in endings}
    return series


def test_every_query_of_the_dashboard_names_metrics_and_labels_that_exist():
    known = exported()
    queries = list(expressions(DASHBOARD))
    assert len(queries) > 20
    for query in queries:
        names = re.findall(r"\bray_\w+", query)
        assert names, query
        assert set(names) <= set(known), query
        used = re.findall(r"(\w+)=~?\"", query)
        used += [label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")]
        assert set(used) <= set.intersection(*(known[name] for name in names)), query


def test_every_metric_is_on_the_dashboard():
    text = " ".join(expressions(DASHBOARD))
    assert [spec.name for spec in METRICS if f"ray_{spec.name}" not in text] == []


def test_the_panels_of_the_dashboard_do_not_overlap():
    taken: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken.update((x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"]))
    assert set(taken.values()) == {1}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_the_table_of_metrics_in_the_documents_is_that_of_the_code():
    lines = (PROJECT / "docs" / "operations.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `flexray_")]
    assert rows == [
        f"| `{spec.name}` | {spec.kind} | {''.join(f'`{label}`, ' for label in spec.labels)[:-2]}"
        f"{' ' if spec.labels else ''}| {spec.help} |"
        for spec in METRICS
    ]
