"""Code that changes prompts or answers must have another VALUES_VERSION."""

import json

from flexray.engine.values import VALUES_VERSION
from flexray.methods import METHODS
from tests import golden

KEPT = json.loads(golden.FILE.read_text())


def test_prompts_and_answers_are_those_of_this_values_version():
    assert golden.complaint(KEPT, golden.compute(), VALUES_VERSION) == ""


def test_every_method_has_golden_answers():
    assert {name.partition("/")[0] for name in KEPT["answers"]} == set(METHODS)


def test_a_changed_answer_asks_for_another_version_and_for_new_golden_answers():
    changed = json.loads(json.dumps(KEPT))
    changed["answers"]["origin"][0][0][0] += 1
    said = golden.complaint(KEPT, changed, KEPT["values_version"])
    assert "answers of origin" in said
    assert "bump VALUES_VERSION" in said
    assert "renew the golden answers by" in said


def test_a_new_version_asks_for_new_golden_answers():
    assert "renew the golden answers by" in golden.complaint(KEPT, KEPT, KEPT["values_version"] + 1)
