"""What two trees differ in, said in lines that can be read."""

from flexray.sink.records.differences import differences


def test_each_leaf_that_differs_is_named_and_lists_are_leaves():
    old = {"a": {"x": 1, "y": [1, 2]}, "b": None, "same": {"z": 0}}
    new = {"a": {"x": 2, "y": [2, 1]}, "c": None, "same": {"z": 0}}
    assert differences(old, new) == [
        "a.x: 1 -> 2",
        "a.y: [1, 2] -> [2, 1]",
        "b: null -> (absent)",
        "c: (absent) -> null",
    ]


def test_a_value_of_80_characters_is_shown_whole_and_a_longer_one_is_cut():
    text = "x" * 78  # and two quotes
    assert differences(text, 1, "k") == [f'k: "{text}" -> 1']
    assert differences(text + "y", 1, "k") == [f'k: "{text}y... -> 1']


def test_long_values_are_shown_from_shortly_before_the_first_difference():
    same, rest = "s" * 200, "r" * 200
    (line,) = differences(f"{same}1{rest}", f"{same}2{rest}", "k")
    assert line == f"k: ...{'s' * 20}1{'r' * 59}... -> ...{'s' * 20}2{'r' * 59}..."


def test_of_a_long_value_and_its_beginning_the_end_is_shown():
    text = "s" * 100
    (line,) = differences(f"{text}tail", text, "k")
    assert line == f'k: ...{"s" * 20}tail" -> ...{"s" * 20}"'
