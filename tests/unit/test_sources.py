"""The sources as text."""

import re

import pytest

PLACES = re.compile(r"(?<![\w.{}-])/(home|Users|root|work)/")


@pytest.mark.parametrize("folder", ["flexray", "jobs", "cluster"])
def test_no_path_of_a_person_or_machine_is_in_the_code(request, folder):
    root = request.config.rootpath / folder
    files = [p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    found = [
        f"{path.relative_to(root.parent)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if PLACES.search(line)
    ]
    assert files
    assert found == []
