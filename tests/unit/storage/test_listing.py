import fsspec
import pytest

from flexray.storage import connect, matches, reads_output
from tests.faulty_s3 import answer

FILES = ("a.jsonl", "b.txt", "x/a.jsonl", "x/y/a.jsonl", "xx/b.jsonl", "z/[1].jsonl")


GLOBS = {
    "*.jsonl": ["a.jsonl"],
    "*/*.jsonl": ["x/a.jsonl", "xx/b.jsonl", "z/[1].jsonl"],
    "x*/?.jsonl": ["x/a.jsonl", "xx/b.jsonl"],
    "x/*/a.jsonl": ["x/y/a.jsonl"],
    "**/a.jsonl": ["a.jsonl", "x/a.jsonl", "x/y/a.jsonl"],
    "x/**": ["x/a.jsonl", "x/y/a.jsonl"],
    "[xz]/*": ["x/a.jsonl", "z/[1].jsonl"],
    "[!x]/*": ["z/[1].jsonl"],
    "no*/*": [],
    "nothing/*": [],
}


@pytest.fixture(params=["s3", "local", "memory"])
def root(request, tmp_path):
    """A folder with the files; on S3 one of its folders was made by hand and has an object of its own."""
    if request.param != "s3":
        url = str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
        fs, name = fsspec.core.url_to_fs(url)
        for file in FILES:
            fs.makedirs(f"{name}/{file}".rpartition("/")[0], exist_ok=True)
            fs.pipe_file(f"{name}/{file}", b"{}")
        return url
    _, bucket, behind = (request.getfixturevalue(name) for name in ("s3", "bucket", "behind"))
    behind.touch(f"{bucket}/in/x/")
    for file in FILES:
        behind.pipe_file(f"{bucket}/in/{file}", b"{}")
    return f"s3://{bucket}/in"


def test_globs_find_what_fsspecs_own_do(root):
    for glob, expected in GLOBS.items():
        fs, name = connect(f"{root}/{glob}")
        found = matches(fs, name, root)
        assert found == [f"{name.removesuffix(glob)}{file}" for file in expected], glob
        theirs = fs.glob(name, detail=True).items()
        assert found == sorted(n for n, info in theirs if info["type"] == "file" and not n.endswith("/"))


@pytest.mark.parametrize("root", ["s3"], indirect=True)
@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (500, "InternalError")])
def test_a_folder_that_cannot_be_listed_is_an_error_and_not_left_out(root, s3, impatient, status, code):
    fs, name = connect(f"{root}/*/*.jsonl")
    s3.fail("GET", "*prefix=in%2Fxx%2F*", answer(status, code), times=None)
    assert len(fs.glob(name)) == 2  # of three: what fsspec's own glob makes of it
    with pytest.raises(OSError, match=code):
        matches(fs, name, root)


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_a_listing_that_fails_once_is_repeated(root, s3):
    s3.fail("GET", "*prefix=in%2Fxx%2F*", answer(503, "SlowDown"))
    fs, name = connect(f"{root}/*/*.jsonl")
    assert len(matches(fs, name, root)) == 3


def test_a_class_may_be_negated_as_in_a_shell(root):
    fs, name = connect(root)
    assert matches(fs, f"{name}/[^x]/*", root) == matches(fs, f"{name}/[!x]/*", root) != []


@pytest.mark.parametrize(
    ("files", "output", "is_read"),
    [
        ("d/**/*.parquet", "d/out", True),
        ("d/**", "d/a/b/out", True),
        ("**/*.json", "out", True),
        ("s3://b/d/**/*.parquet", "s3://b/d/out", True),
        ("d/**/*.jsonl", "d/out", False),
        ("d/**/*.parquet", "d/.out", False),
        ("d/[^x]/**", "d/x/out", False),
        ("d/[^x]/**", "d/y/out", True),
        ("d/*.parquet", "d/out", False),
        ("d/**/*.parquet", "out", False),
        ("d/x*/**/*.parquet", "d/out", False),
        ("s3://b/d/**/*.parquet", "d/out", False),
    ],
)
def test_an_output_that_a_second_start_would_read_is_found(files, output, is_read):
    assert reads_output(files, output) == is_read
