import pytest

from flexray.storage import scrub


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("s3://key:sec/ret@bucket/a", "s3://***@bucket/a"),
        ("ftp://user@host/a", "ftp://***@host/a"),
        ("https://user:p@ss@host/a", "https://***@host/a"),
        ("https://host/a?sig=abc&sv=2020", "https://host/a?sig=***&sv=***"),
        ("https://host/a?X-Amz-Signature=abc#part", "https://host/a?X-Amz-Signature=***#part"),
        ("simplecache::s3://k:s@bucket/a", "simplecache::s3://***@bucket/a"),
    ],
)
def test_credentials_are_taken_out_of_urls(url, shown):
    assert scrub(url) == shown
    assert scrub(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/part-?.jsonl",
        "hf://datasets/squad@main/train.parquet",
        "http://host:8000/path@v1",
        "/local/a@b?c=d",
        "me@example.org",
        "Q: {question}?",
    ],
)
def test_strings_without_credentials_stay_as_they_are(text):
    assert scrub(text) == text


def test_nested_values_are_scrubbed_and_others_kept():
    tree = {"a": ["see https://x/?t=1 and https://y/?u=2", 3, None], "b": {"c": ("s3://k:s@b",)}, "d": True}
    clean = {
        "a": ["see https://x/?t=*** and https://y/?u=***", 3, None],
        "b": {"c": ["s3://***@b"]},
        "d": True,
    }
    assert scrub(tree) == clean
