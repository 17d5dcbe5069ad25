"""How answers are scored is no part of what a run is: another recipe scores the same rows."""

import pytest

from flexray.config import EvaluationConfig
from flexray.errors import ConfigError
from flexray.evaluation import evaluate
from flexray.sink import OutputFolder, load_run
from tests.ray.jobs import make_config, question, write
from tests.runs import planned, run_shards


def test_another_headline_metric_changes_the_record_only(tmp_path, tiny_model):
    data = write(tmp_path / "qa.jsonl", [question(i) for i in range(3)])
    config = make_config(tmp_path / "out", tiny_model, data)
    run_shards(config, [0])
    before = load_run(OutputFolder(config.output))
    assert planned(config).record == before
    scored = config.model_copy(update={"evaluation": EvaluationConfig(headline="f1")})
    after = planned(scored).record
    assert after == load_run(OutputFolder(config.output))
    assert (after.fingerprint, after.plan) == (before.fingerprint, before.plan)
    assert next(iter(evaluate([config.output]).methods[0].metrics)) == "f1"
    with pytest.raises(ConfigError, match=r"evaluation.headline: there is no metric 'mine'"):
        planned(config.model_copy(update={"evaluation": EvaluationConfig(headline="mine")}))
