import gzip
import json
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import fsspec
import pytest

from flexray.data import list_files, list_ranges, scan, source_versions
from flexray.data.files import SourceFile, _format
from flexray.errors import DataError
from tests.unit.data.conftest import data_config, read_all, record, write
from tests.unit.data.test_text_formats import write_table


def test_files_are_sorted_and_named_once_whatever_the_configuration_says(tmp_path: Path) -> None:
    b, a = write(tmp_path / "b.jsonl", [record(1)]), write(tmp_path / "a.json", [record(2)])
    listed = list_files(data_config([b, tmp_path / "*.json*", a, f"file://{a}"]))
    assert listed == [SourceFile(str(a), "json"), SourceFile(str(b), "jsonl")]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.ndjson.jsonl", [record(1)])
    monkeypatch.chdir(tmp_path)
    assert list_files(data_config("a.ndjson.jsonl"))[0].path == str(path)


def test_a_name_with_glob_characters_is_read_as_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].jsonl", [record(1)])
    assert [q.source_file for q in read_all(data_config(path))] == [str(path)]


def test_memory_urls_and_globs_are_read() -> None:
    for name in ("b", "a"):
        with fsspec.open(f"memory://urls/{name}.jsonl", "w") as f:
            f.write(json.dumps(record(1, id=name)))
    for files in ("memory://urls/*.jsonl", ["memory://urls/a.jsonl", "memory://urls/b.jsonl"]):
        questions = read_all(data_config(files))
        assert [q.row_id for q in questions] == ["d/test/a", "d/test/b"]
        assert questions[0].source_file == "memory:///urls/a.jsonl"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nothing.jsonl", "no such file"),
        ("no*.jsonl", "no file matches"),
        ("folder", "a folder, not a file"),
        ("x.txt", "the format of the extension '.txt' is unknown"),
        ("x.txt.gz", "the format of the extension '.txt.gz' is unknown"),
        ("x.parquet.gz", "only text is read from compressed files"),
        ("x.zip", "cannot be listed: .*not a zip file"),
        ("x.tar.gz", "cannot be listed: .*Not a gzipped file"),
        ("x.7z", "Unpack the file"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "folder").mkdir()
    for file in ("x.txt", "x.txt.gz", "x.parquet.gz", "x.zip", "x.tar.gz", "x.7z"):
        (tmp_path / file).write_text("{}")
    with pytest.raises(DataError, match=problem) as e:
        list_files(data_config(tmp_path / name))
    assert name in str(e.value)


def test_an_unknown_protocol_is_a_data_error() -> None:
    with pytest.raises(DataError, match="nowhere://x"):
        list_files(data_config("nowhere://x/a.jsonl"))


def test_links_in_a_glob_are_followed_and_each_file_is_read_once(tmp_path: Path) -> None:
    first = write(tmp_path / "days" / "1" / "a.jsonl", [record(1)])
    write(tmp_path / "store" / "2" / "a.jsonl", [record(2)])
    linked = tmp_path / "days" / "2"
    linked.symlink_to(tmp_path / "store" / "2")
    (tmp_path / "days" / "0").symlink_to(first.parent)  # the same folder again
    (tmp_path / "days" / "1" / "0.jsonl").symlink_to(first)  # the same file again
    (tmp_path / "days" / "1" / "up").symlink_to(tmp_path / "days")  # a loop
    for glob in ("days/*/a.jsonl", "days/*/*.jsonl", "days/**/*.jsonl", "**/*.jsonl"):
        files = [Path(file.path) for file in list_files(data_config(tmp_path / glob))]
        assert [file.resolve() for file in files] == [first, tmp_path / "store" / "2" / "a.jsonl"], glob
        assert first in files, glob
    named = list_files(data_config([first, tmp_path / "days" / "0" / "a.jsonl", linked / "a.jsonl"]))
    assert [file.path for file in named] == [str(first), str(linked / "a.jsonl")]


def test_a_link_to_nothing_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [record(1)])
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl: cannot be read: "):
        read_all(data_config(tmp_path / "*.jsonl"))


HIDDEN = (".b.jsonl", ".ipynb_checkpoints/a-checkpoint.jsonl", "_temporary/0/c.jsonl", "x/._a.jsonl")


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_glob_passes_over_hidden_names_unless_it_spells_them(tmp_path: Path, where: str) -> None:
    root = str(tmp_path) if where == "local" else f"memory:///{tmp_path.name}"
    for name in ("a.jsonl", "x/_a.jsonl", *HIDDEN):
        with fsspec.open(f"{root}/{name}", "w", auto_mkdir=True) as stream:
            stream.write(json.dumps(record(1)))

    def found(*globs: str) -> set[str]:
        files = list_files(data_config([f"{root}/{glob}" for glob in globs]))
        return {file.path.removeprefix(f"{root}/") for file in files}

    assert found("**/*.jsonl") == found("**") == found("*.jsonl", "*/*.jsonl") == {"a.jsonl", "x/_a.jsonl"}
    assert found(".*.jsonl", ".*/*.jsonl", "_temporary/**", "*/.*.jsonl") == set(HIDDEN)
    with pytest.raises(DataError, match=r"matches only hidden files, such as .*/x/\._a\.jsonl\. "):
        found("x/?_a.jsonl")


def test_members_of_archives_are_read_by_name_and_by_glob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped,
        tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tarred,
    ):
        for name in ("a.jsonl", "b.parquet", "c.json"):
            path = write(tmp_path / name, [record(i) for i in range(7)])
            zipped.write(path, f"q/{name}")
            tarred.add(path, f"q/{name}")
    monkeypatch.chdir(tmp_path)
    for kind, archive in (("zip", "a.zip"), ("tar", "a.tar.gz")):
        for name in ("a.jsonl", "b.parquet", "c.json", "*.jsonl"):
            config = data_config(f"{kind}://q/{name}::{archive}")
            path = list_files(config)[0].path
            assert (
                path == f"{kind}://q/{name.replace('*', 'a')}::{tmp_path / archive}"
            )  # for any working folder
            assert [question.source_id for question in read_all(config)] == [f"q{i}" for i in range(7)]


def test_an_archive_stands_for_its_members_of_known_formats(tmp_path: Path) -> None:
    lines, array = write(tmp_path / "b.jsonl", [record(1)]), write(tmp_path / "c.json", [record(2)])
    table = write_table(tmp_path / "a.csv", [record(0)])
    table.write_bytes(gzip.compress(table.read_bytes()))
    members = {
        "relation=P1/q/a.csv.gz": table,
        "relation=P36/b.jsonl": lines,
        "relation=P36/c.json": array,
        "README.md": lines,
        "__MACOSX/._b.jsonl": lines,
        ".git/b.jsonl": lines,
    }
    with (
        zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped,
        tarfile.open(tmp_path / "a.tgz", "w:gz") as tarred,
        tarfile.open(tmp_path / "a.tar.xz", "w:xz") as xz,
        tarfile.open(tmp_path / "a.tar.bz2", "w:bz2") as bz2,
        tarfile.open(tmp_path / "a.tar", "w") as plain,
    ):
        for name, path in members.items():
            zipped.write(path, name)
            for tar in (tarred, xz, bz2, plain):
                tar.add(path, name)
    tars = [("tar", f"a.{end}") for end in ("tgz", "tar.xz", "tar.bz2", "tar")]
    for kind, files in (("zip", "a.zip"), ("zip", "*.zip"), *tars):
        config = data_config(tmp_path / files, fields={"relation": "relation"})
        archive = tmp_path / files.replace("*", "a")
        assert [file.path for file in list_files(config)] == [
            f"{kind}://{name}::{archive}" for name in list(members)[:3]
        ]
        found = [(q.source_id, q.relation, q.error) for q in read_all(config)]
        assert found == [("q0", "P1", ""), ("q1", "P36", ""), ("q2", "P36", "")]
    chosen = data_config(f"zip://*/b.jsonl::{tmp_path}/a.zip")
    assert [q.source_id for q in read_all(chosen)] == ["q1"]


def test_an_archive_without_a_readable_member_says_what_it_has(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("notes.txt", "{}")
    with pytest.raises(
        DataError, match=r"a\.zip: no member .* known format .*found: 'notes\.txt'.*data\.format"
    ):
        list_files(data_config(tmp_path / "a.zip"))
    (file,) = list_files(data_config(tmp_path / "a.zip", format="jsonl"))
    assert file.path == f"zip://notes.txt::{tmp_path}/a.zip"
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"bad\.zip: cannot be listed: "):
        list_files(data_config(tmp_path / "bad.zip"))


def zip_of(path: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, text in members.items():
            zipped.writestr(name, text)
    return path


def line(i: int) -> str:
    return json.dumps(record(i)) + "\n"


def test_an_archive_and_a_link_to_it_are_one(tmp_path: Path) -> None:
    plain = zip_of(tmp_path / "plain.zip", {"a.jsonl": line(1)})
    link = tmp_path / "link.zip"
    link.symlink_to(plain)
    for files in ([plain, link], [link, f"zip://a.jsonl::{plain}"], [f"zip://*::{link}", plain]):
        assert [file.path for file in list_files(data_config(files))] == [f"zip://a.jsonl::{plain}"]


def test_members_are_found_by_the_names_they_have_when_unpacked(tmp_path: Path) -> None:
    names = ["c.jsonl", "./d.jsonl", "x/./e.jsonl", "x//f.jsonl", ".h/g.jsonl"]
    path = zip_of(tmp_path / "a.zip", {name: line(i) for i, name in enumerate(names)})
    assert sorted(q.source_id for q in read_all(data_config(path))) == [f"q{i}" for i in range(5)]
    for pattern, found in {"*.jsonl": 2, "x/*": 2, "**/[c-g].jsonl": 4, "d.jsonl": 1, "x/e.jsonl": 1}.items():
        assert len(read_all(data_config(f"zip://{pattern}::{path}"))) == found, pattern
    for i in range(2):
        write(tmp_path / "in" / "s" / f"{i}.jsonl", [record(i)])
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tarred:
        tarred.add(tmp_path / "in", ".")  # as tar -czf x.tgz .
    for files in (tmp_path / "x.tgz", f"tar://**/*.jsonl::{tmp_path}/x.tgz", f"tar://s/*::{tmp_path}/x.tgz"):
        assert [q.source_id for q in read_all(data_config(files))] == ["q0", "q1"]
    with pytest.raises(DataError, match=r"a folder, not a file\. .* tar://s/\*\.parquet::/.*x\.tgz\.$"):
        list_files(data_config(f"tar://s::{tmp_path}/x.tgz"))


@pytest.mark.parametrize("name", ["/etc/a.jsonl", "../b.jsonl", "x/../../b.jsonl", "a::b.jsonl"])
def test_a_member_whose_name_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path = zip_of(tmp_path / "a.zip", {"c.jsonl": line(1), name: line(2)})
    for files in (path, f"zip://**/*.jsonl::{path}"):
        with pytest.raises(DataError, match=r"a\.zip: the member .* cannot be read") as e:
            list_files(data_config(files))
        assert repr(name) in str(e.value)
        assert f"name the others: zip://MEMBER::{path}" in str(e.value)
    assert len(read_all(data_config(f"zip://c.jsonl::{path}"))) == 1


def test_two_members_that_unpack_to_one_file_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jsonl": line(1), "./a.jsonl": line(2)})
    with pytest.raises(DataError, match=r"'a\.jsonl' and '\./a\.jsonl' have the same name"):
        list_files(data_config(path))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr("a.jsonl", line(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            packed.writestr("a.jsonl", line(2))
    with pytest.raises(DataError, match=r"'a\.jsonl' and 'a\.jsonl' have the same name"):
        list_files(data_config(tmp_path / "b.zip"))


def test_links_in_an_archive_are_not_other_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "in" / "a.jsonl", [record(1)]).parent
    (folder / "soft.jsonl").symlink_to("a.jsonl")
    (folder / "z-hard.jsonl").hardlink_to(folder / "a.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        for name in ("a", "soft", "z-hard", "pipe"):
            tarred.add(folder / f"{name}.jsonl", f"{name}.jsonl")
    soft = zipfile.ZipInfo("soft.jsonl")
    soft.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.write(folder / "a.jsonl", "a.jsonl")
        zipped.writestr(soft, "a.jsonl")
    for kind in ("tar", "zip"):
        for files in (tmp_path / f"a.{kind}", f"{kind}://*.jsonl::{tmp_path}/a.{kind}"):
            caplog.clear()
            assert [q.source_id for q in read_all(data_config(files))] == ["q1"]
            assert f"a.{kind}: members that are links or special files are not read: " in caplog.text
            assert "'soft.jsonl'" in caplog.text
        with pytest.raises(DataError, match=r"'soft\.jsonl'\. Name the file that a link leads to"):
            list_files(data_config(f"{kind}://soft.jsonl::{tmp_path}/a.{kind}"))


@pytest.mark.timeout(60)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "in" / "a.jsonl", [record(1)]).parent
    os.mkfifo(folder / "pipe.jsonl")
    for files in (folder / "pipe.jsonl", folder / "*.jsonl"):
        with pytest.raises(DataError, match=r"pipe\.jsonl: a pipe, socket or device, not a file\. "):
            list_files(data_config(files))
    assert [file.path for file in list_files(data_config(folder / "a*"))] == [str(folder / "a.jsonl")]


def test_of_an_archive_with_a_format_the_members_of_it_are_read(tmp_path: Path) -> None:
    members = {"README.md": "# About", "LICENSE": "MIT", "a.jsonl": line(1), "b.jsonl.gz": "", "c.csv": "id"}
    path = zip_of(tmp_path / "a.zip", members)
    files = list_files(data_config(path, format="jsonl"))
    assert [file.path for file in files] == [f"zip://{name}::{path}" for name in ("a.jsonl", "b.jsonl.gz")]
    path = zip_of(tmp_path / "b.zip", {"README.md": "# About", "a.txt": line(1)})
    advice = rf"If this member .* is not meant, name one that is, or a glob: zip://MEMBER::{path}\."
    with pytest.raises(DataError, match=rf"^zip://README\.md::{path}: none of the 1 row.*{advice}$"):
        read_all(data_config(path, format="jsonl"))
    assert len(read_all(data_config(f"zip://*.txt::{path}", format="jsonl"))) == 1
    for name, text in {
        "package.json": '{"name": 1}',
        "a.csv": "a,a\n",
        "a.parquet": "no",
        "a.jsonl": "{}",
    }.items():
        path = zip_of(tmp_path / f"{name}.zip", {name: text})
        with pytest.raises(DataError, match=rf"zip://MEMBER::{path}\.$") as e:
            read_all(data_config(path))
        assert str(e.value).count("MEMBER") == 1


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
def test_an_archive_that_is_cut_off_is_to_be_copied_again(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"question": "a"}\n' * 5000)
    path = Path(shutil.make_archive(str(tmp_path / "a"), kind, tmp_path / "in"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"cannot be listed: .*\. Copy the archive again\."):
        list_files(data_config(path))


def test_members_of_archives_are_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(i) for i in range(50)])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.write(path, "a.jsonl")
    assert len(list_ranges(data_config(path), 100)) > 1
    assert len(list_ranges(data_config(tmp_path / "a.zip"), 100)) == 1


def test_a_member_of_an_archive_has_the_version_of_the_archive(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [record(1)])

    def versions(i: int) -> set[str]:
        path = write(tmp_path / "a.jsonl", [record(i)])
        with (
            zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped,
            tarfile.open(tmp_path / "a.tgz", "w:gz") as tarred,
        ):
            zipped.write(path, "a.jsonl")
            tarred.add(path, "a.jsonl")
        return {source_versions(config) for config in configs for _ in range(2)}

    packed = (tmp_path / "a.zip", tmp_path / "a.tgz", f"zip://a.jsonl::tar://a.zip::{tmp_path}/b.tar")
    with tarfile.open(tmp_path / "b.tar", "w") as outer, zipfile.ZipFile(tmp_path / "a.zip", "w") as inner:
        inner.write(path, "a.jsonl")
        inner.close()
        outer.add(tmp_path / "a.zip", "a.zip")
    configs = [data_config(path) for path in packed]
    before, after = versions(1), versions(22)
    assert (len(before), len(after), len(before & after)) == (3, 3, 1)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", [record(1)])
    monkeypatch.setenv("HOME", str(tmp_path))
    for files in ("~/a.jsonl", "~/*.jsonl"):
        assert [file.path for file in list_files(data_config(files))] == [str(path)]


@pytest.mark.parametrize("query", ["?sig=SECRET", "?SECRET", "#SECRET"])
def test_the_query_of_a_web_address_is_no_glob_and_is_not_shown(query: str) -> None:
    with pytest.raises(DataError, match=r"the format of the extension .* is unknown") as e:
        _format(f"https://host/a.php{query}")
    assert "SECRET" not in str(e.value)
    assert _format(f"https://host/a.jsonl{query}") == "jsonl"


def test_data_and_side_files_that_cannot_be_reached_are_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexray.storage.access.FIRST_PATIENCE", 0)
    path, refused = write(tmp_path / "a.jsonl", [record(1)]), "http://127.0.0.1:9/b.jsonl?sig=SECRET"
    for settings in ({"files": refused}, {"files": path, "paraphrase_files": refused}):
        with pytest.raises(DataError, match=r"sig=\*\*\*: cannot be listed: .* \(tried 1 times in"):
            scan(data_config(**settings))
