import pytest

from flexray.storage import describe, redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("s3://key:sec/ret@bucket/a", "s3://***@bucket/a"),
        ("ftp://user@host/a", "ftp://***@host/a"),
        ("https://user:p@ss@host/a", "https://***@host/a"),
        ("https://host/a?sig=abc&sv=2020", "https://host/a?sig=***&sv=***"),
        ("https://host/a?X-Amz-Signature=abc#part", "https://host/a?X-Amz-Signature=***#***"),
        ("http://host/a#token=abc", "http://host/a#token=***"),
        ("https://host/a?abc", "https://host/a?***"),
        ("https://host/a?key=a b c", "https://host/a?key=***"),
        ("https://host/a;session=abc", "https://host/a;session=***"),
        ("s3://user:12/abc@host", "s3://***@host"),
        ("s3://us/er:12/abc@host", "s3://***@host"),
        ("s3://user:12 34@host/a", "s3://***@host/a"),
        ("s3://us er:pass word@host/a", "s3://***@host/a"),
        ("output=s3://user:pass word@host/a", "output=s3://***@host/a"),
        ("http://host:8000/path@v1", "http://***@v1"),  # or it is a password that begins with 8000/
        ("https://user:p?ss@host/a", "https://***"),  # or the @ stands in a query
        ("https://host/a?to=b:c@abc", "https://***"),
        ("https://user:p%20ss@host/a", "https://***@host/a"),
        ("https%3A%2F%2Fuser%3Apass%40host", "https%3A%2F%2F***%40host"),
        ("zip://q/a::https://user:pa ss@host/a.zip?sig=abc", "zip://q/a::https://***@host/a.zip?sig=***"),
        ("simplecache::s3://k:s@bucket/a", "simplecache::s3://***@bucket/a"),
    ],
)
def test_credentials_are_taken_out_of_urls(url, shown):
    assert redact(url) == shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/part-?.jsonl",
        "hf://datasets/squad@main/train.parquet",
        "http://host:8000/a: not found. Ask me@example.org",
        "zip://q/a.jsonl::/data/a.zip",
        "--set generation.max_new_tokens=4",
        "the token: <s>",
        "/local/a@b?c=d",
        "me@example.org",
        "Q: {question}?",
    ],
)
def test_strings_without_credentials_stay_as_they_are(text):
    assert redact(text) == text


def test_nested_values_are_redacted_and_others_kept():
    tree = {"a": ["see https://x/?t=1 and https://y/?u=2", 3, None], "b": {"c": ("s3://k:s@b",)}, "d": True}
    clean = {
        "a": ["see https://x/?t=*** and https://y/?u=***", 3, None],
        "b": {"c": ["s3://***@b"]},
        "d": True,
    }
    assert redact(tree) == clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://a:b@c/x, s3://d:e f@g/y: denied", "s3://***@c/x, s3://***@g/y: denied"),
        ("https://h/x?t=1: gone, https://h/y?t=2, or z", "https://h/x?t=***: gone, https://h/y?t=***, or z"),
        ("(value: 's3://u:pass word@h/a')", "(value: 's3://***@h/a')"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("{'aws_secret_access_key': 'abc/def', 'n': 1}", "{'aws_secret_access_key': '***', 'n': 1}"),
        ("password=hunter2, host=h", "password=***, host=h"),
        ("key AKIAIOSFODNN7EXAMPLE is not known", "key *** is not known"),
    ],
)
def test_credentials_are_taken_out_of_texts(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


def test_parts_of_a_password_that_a_package_repeats_are_hidden():
    url = "s3://user:1234/abcdef@host/a"
    error = ValueError("Invalid bucket name 'user:1234', key abcdef@host/a")
    assert describe(error, url) == "ValueError: Invalid bucket name '***', key ***@host/a."
