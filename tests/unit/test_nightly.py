"""Which recipes a night is about; what is done with them is in tests/ray/test_nightly.py."""

from pathlib import Path

from flexray.runs.nightly import find_recipes


def test_a_folder_stands_for_its_recipes_but_not_for_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.yaml", "a[1].yaml", "._b.yaml", ".ipynb_checkpoints/c.yaml"):
        path = tmp_path / "[nightly]" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = str(tmp_path / "[nightly]")
    assert find_recipes([folder, "x.yaml"]) == [f"{folder}/a[1].yaml", f"{folder}/b.yaml", "x.yaml"]
