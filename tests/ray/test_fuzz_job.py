"""A whole job over a nasty file: every row is accounted for, and nothing of it, or secret, gets elsewhere."""

import functools
import http.server
import json
import os
import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from flexray.sink import OutputFolder, read_committed
from tests.nasty_rows import FIELDS, NastyFile, good_record, json_files
from tests.ray.jobs import assert_whole, flexray_command, make_tree, write_config

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIASECRET0000000001",
    "AWS_SECRET_ACCESS_KEY": "env/SECRET/0000000002",
    "AWS_SESSION_TOKEN": "SECRET0000000003",
    "HF_TOKEN": "hf_SECRET0000000004",
}
PASSWORD, SIGNATURE = "SECRET0000000005", "SECRET0000000006"
ODD_IDS = [
    "../../y",
    "/etc/passwd",
    "a/b",
    "C:\\x",
    "a\x00b\n",
    "\x1b]0;owned\x07",
    "..",
    "~",
    "$(id)",
    "é" * 5000,
]
METHODS = ["attention/shared_context/restart", "per_prompt"]
COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OUTPUT_FILES = re.compile(
    r"_run\.json|plan/\d{4}\.parquet|data/qa-test-\d{6}-[0-9a-f]{32}\.parquet"
    r"|_manifests/(qa-test-\d{6}\.json|compact-[0-9a-f]{64}\.jsonl)"
)


def draw_file() -> NastyFile:
    """The largest of some files that hypothesis draws, the same in each run."""
    drawn: list[NastyFile] = []

    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(file=json_files(min_rows=20, max_rows=30))
    def collect(file: NastyFile) -> None:
        if file.settings["format"] == "jsonl":
            drawn.append(file)

    collect()
    return max(drawn, key=lambda file: file.num_rows)


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as object stores do."""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        status, part = 200, data
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            status, last = 206, int(asked[2] or len(data))
            part = data[int(asked[1]) : last + 1]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A folder that is served, and its host and port."""
    folder = tmp_path_factory.mktemp("served")
    handler = functools.partial(Server, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.fixture(scope="module")
def job(server, tiny_model, tmp_path_factory):
    """A finished `flexray run`: the file's description, output folder, its rows, all that was printed."""
    served, address = server
    place = tmp_path_factory.mktemp("fuzz")
    file = draw_file()
    extra = file.settings["include_question"]
    odd = [good_record(i, include_question=extra) | {"id": name} for i, name in enumerate(ODD_IDS)]
    (place / "odd.jsonl").write_text("".join(json.dumps(record) + "\n" for record in odd))
    file.write(served)
    url = f"http://user:{PASSWORD}@{address}/nasty.jsonl?sig={SIGNATURE}"
    tree = make_tree(
        place / "out",
        tiny_model,
        data={
            **file.settings,
            "shard_rows": 8,
            "files": [url, str(place / "odd.jsonl")],
            "fields": FIELDS,
        },
        prompt={"instruction": "Answer <|im_end|></s>."},
        generation={"max_new_tokens": 2},
    )
    tree |= {"methods": ["attention", "per_prompt"], "limits": {"max_error_share": 0.01}}
    before = {path for path in place.rglob("*") if path.is_file()}
    config = write_config(place, tree)
    command = [*flexray_command(config), "--set", f"data.files=['{url}','{place}/odd.jsonl']"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=400, env=os.environ | SECRETS, cwd=place
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 1, printed  # for its many error rows
    after = {path for path in place.rglob("*") if path.is_file() and path != config}
    rows = [r for t in read_committed(OutputFolder(str(place / "out"))) for r in t.to_pylist()]
    return file, place / "out", rows, printed, after - before


def test_each_row_of_a_nasty_file_is_there_once_for_each_method(job):
    file, output, rows, _, _ = job
    assert file.num_rows >= 20
    assert_whole(output, (file.num_rows + len(ODD_IDS)) * len(METHODS))
    numbers = {(row["source_file"].startswith("http"), row["source_row"], row["method"]) for row in rows}
    wanted = {(True, number, m) for number in range(1, file.num_rows + 1) for m in METHODS}
    assert numbers == wanted | {(False, number, m) for number in range(1, len(ODD_IDS) + 1) for m in METHODS}


def test_a_whole_run_with_more_error_rows_than_its_limit_says_so(job):
    _, _, rows, printed, _ = job
    errors = sum(bool(row["error"]) for row in rows)
    wanted = f"error: {errors} of {len(rows)} rows are errors, more than limits.max_error_share (0.01) allows"
    assert wanted in printed


def test_rows_are_answered_or_say_what_is_wrong_where(job):
    file, _, rows, _, _ = job
    for row in rows:
        if row["error"]:
            assert row["error"].startswith(f"{row['source_file']}, row {row['source_row']}, field ")
            assert row["error"].isprintable()
            assert (row["prediction"], row["token_ids"], row["finish_reason"]) == ("", [], "error")
        else:
            assert 1 <= len(row["token_ids"]) <= 2
            assert row["backend_used"] == "sdpa"
    good = [row for row in rows if row["source_row"] in file.good_rows or row["source_id"] in ODD_IDS]
    too_long = [row for row in good if "the prompt is longer" in row["error"]]
    assert {row["error"] for row in good} - {row["error"] for row in too_long} == {""}
    assert len(too_long) < len(good)


def test_no_id_or_name_of_the_data_becomes_a_file(job):
    _, output, rows, _, written = job
    assert {row["source_id"] for row in rows} >= set(ODD_IDS)
    assert written
    odd = [path for path in written if not OUTPUT_FILES.fullmatch(path.relative_to(output).as_posix())]
    assert odd == []


def test_no_secret_is_written_or_printed(job):
    _, output, rows, printed, written = job
    secrets = [*SECRETS.values(), PASSWORD, SIGNATURE]
    texts = [path.read_bytes().decode("latin-1") for path in written]  # Parquet is compressed: its rows too
    for text in (*texts, json.dumps(rows), printed):
        assert [secret for secret in secrets if secret in text] == []
    assert any("***" in text for text in texts)
    run = json.loads((output / "_run.json").read_text())
    assert "sig=***" in json.dumps(run["config"]["data"]["files"])


def test_nothing_that_is_printed_commands_the_terminal(job):
    _, _, _, printed, _ = job
    assert "qa-test-000000" in printed
    assert COMMANDS.findall(printed) == []
