"A bundle on its way through the world: tampered with, served, asked wrongly, killed."

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import httpx
import numpy as np
import pytest
from bundles import BLOCKED, packed_in
from test_deployment_export import customers, fitted

from mlbench.core.errors import MlbenchError
from mlbench.core.files import read_json, read_lines
from mlbench.deployment import Bundle, ask, measure_latency, request_rows, smoke_test, start_service
from mlbench.deployment.rows import InputError


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    "A model, its rows and its bundle."
    model, frame = fitted(customers(), "binary", "lightgbm")
    return model, frame, packed_in(tmp_path_factory.mktemp("bundles") / "customers", model, frame)


@pytest.fixture(scope="module")
def served(packed):
    "A running service of it."
    with start_service(packed[2].folder) as service:
        yield service


def test_bundle_answers_like_the_model_in_every_form(packed):
    model, frame, bundle = packed
    rows = request_rows(bundle, frame, 80)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    expected = model.predict_proba(frame.head(80))
    for given in (rows, columns, frame.head(80), json.loads(json.dumps(rows))):
        assert np.allclose(bundle.predict_proba(given), expected, rtol=0, atol=1e-14)
    assert (bundle.predict(frame) == model.predict(frame)).all()
    assert bundle.predict(frame[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"income": "a lot"}, "field 'income' is 'a lot'; send a number"),
        ({"city": 3}, "field 'city' is 3; send text, such as"),
        ({"since": "last week"}, "field 'since' is 'last week'; send a date"),
        ({"member": "perhaps"}, None),
        ({"surprise": 1}, "field 'surprise' is unknown"),
        ({"income": 10**400}, "too large"),
        ({"note": ["a"]}, "field 'note' is"),
    ],
)
def test_strict_reading_names_the_field(packed, change, words):
    row = request_rows(packed[2], packed[1], 1)[0] | change
    if words is None:
        assert len(packed[2].predict([row])) == 1
    else:
        with pytest.raises(InputError, match=words):
            packed[2].predict([row])


def test_everything_may_be_unknown(packed):
    nothing = dict.fromkeys([f.name for f in packed[2].fields])
    assert packed[2].predict([nothing])[0] in ("yes", "no")


@pytest.mark.parametrize("fault", ["flip", "cut", "swap", "add", "remove", "link", "folder link", "format"])
def test_a_bundle_that_was_touched_is_refused(packed, tmp_path, fault):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(packed[2].folder, copy)
    model = copy / "model.onnx"
    if fault == "flip":
        data = bytearray(model.read_bytes())
        data[len(data) // 2] ^= 1
        model.write_bytes(bytes(data))
    elif fault == "cut":
        model.write_bytes(model.read_bytes()[:-100])
    elif fault == "swap":
        shutil.copy(copy / "card.md", copy / "runbook.md")
    elif fault == "add":
        (copy / "native" / "evil.pkl").write_bytes(b"\x80\x04.")
    elif fault == "remove":
        (copy / "reference.parquet").unlink()
    elif fault == "link":
        model.unlink()
        model.symlink_to(packed[2].folder / "model.onnx")
    elif fault == "folder link":
        (copy / "more").symlink_to("/etc")
    else:
        (copy / "SHA256SUMS").write_text("")
    with pytest.raises(MlbenchError, match="bundle"):
        Bundle.load(copy)


def test_sha256sum_agrees(packed):
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=packed[2].folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_service_needs_none_of_the_training_libraries(packed, tmp_path):
    code = "import sys, runpy\n" + "".join(f"sys.modules[{n!r}] = None\n" for n in BLOCKED)
    code += "sys.argv = ['service', *sys.argv[1:]]\nrunpy.run_module('mlbench.deployment.service', run_name='__main__')"
    command = [sys.executable, "-c", code, str(packed[2].folder), "--port", "0", "--ready-file", str(tmp_path / "url"), "--with-parent"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 30
        while not (tmp_path / "url").exists():
            assert process.poll() is None and time.monotonic() < end, process.stderr.read().decode()
            time.sleep(0.02)
        answer = ask((tmp_path / "url").read_text(), request_rows(packed[2], packed[1], 3))
        assert len(answer["predictions"]) == 3
    finally:
        process.terminate()
        process.wait(10)
        process.stdin.close()
        process.stderr.close()


def test_smoke_test_and_latency(packed, served):
    model, frame, bundle = packed
    assert smoke_test(served.url, model, bundle, frame)["largest_difference"] < 1e-12
    assert measure_latency(served.url, request_rows(bundle, frame), requests=50).p95_ms < 200


def test_wrong_requests_have_their_status_and_no_traceback(served, packed):
    row = request_rows(packed[2], packed[1], 1)[0]
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        cases = [
            (client.post("/predict", content=b"{"), 400),
            (client.post("/predict", content=b"\xff"), 400),
            (client.post("/predict", content=b"[" * 200_000), 400),
            (client.post("/predict", content=b'{"rows": [{"income": NaN}]}'), 400),
            (client.post("/predict", json=[row]), 422),
            (client.post("/predict", json={"rows": []}), 422),
            (client.post("/predict", json={"rows": [row | {"income": "x"}]}), 422),
            (client.post("/predict", json={"rows": [{"income": 1}]}), 422),
            (client.post("/predict", json={"rows": [row | {"<script>": 1}]}), 422),
            (client.get("/nothing"), 404),
            (client.get("/../../etc/passwd"), 404),
            (client.put("/predict", json={}), 405),
            (client.get("/metadata", headers={"host": "evil.example"}), 421),
        ]
        for answer, status in cases:
            assert answer.status_code == status and "Traceback" not in answer.text and "/mlbench/" not in answer.text, answer.text
            assert answer.headers["content-type"] == "application/json" and answer.json()["error"]
        assert client.post("/predict", json={"rows": [row]}).status_code == 200
        assert client.get("/health/ready").json()["status"] == "ready" and client.get("/").headers["content-type"].startswith("text/html")
        described = client.get("/metadata").json()
        assert [i["name"] for i in described["inputs"]] == [f.name for f in packed[2].fields]
        assert client.post("/predict", json=described["example"]).status_code == 200
        assert set(client.get("/openapi.json").json()["paths"]["/predict"]) == {"post"}


def test_a_large_body_is_refused_early_with_and_without_its_length(served):
    def chunks():
        for _ in range(300):
            yield b" " * 1_000_000

    sent = 0

    def counted():
        nonlocal sent
        for piece in chunks():
            sent += len(piece)
            yield piece

    with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client:
        assert client.post("/predict", content=b" " * 9_000_000).status_code == 413
    try:
        with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client:
            assert client.post("/predict", content=counted()).status_code == 413
    except httpx.WriteError:  # the service had closed the connection already
        pass
    assert sent < 100_000_000
    assert urllib.request.urlopen(served.url + "/health/live", timeout=5).status == 200


def test_half_open_connections_do_not_hold_others_up(served):
    host, port = served.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(200)]
    for connection in held:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n")
    began = time.monotonic()
    assert urllib.request.urlopen(served.url + "/health/ready", timeout=5).status == 200
    assert time.monotonic() - began < 1
    for connection in held:
        connection.close()


def test_overload_is_answered_with_come_again(packed, served):
    rows = request_rows(packed[2], packed[1], 400)
    body, statuses, lock = json.dumps({"rows": rows * 5}).encode(), [], threading.Lock()

    def client():
        with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as c:
            for _ in range(2):
                answer = c.post("/predict", content=body)
                with lock:
                    statuses.append((answer.status_code, answer.headers.get("retry-after")))

    threads = [threading.Thread(target=client) for _ in range(40)]
    for t in threads:
        t.start()
    began = time.monotonic()
    alive = urllib.request.urlopen(served.url + "/health/live", timeout=10).status
    waited = time.monotonic() - began
    for t in threads:
        t.join()
    assert alive == 200 and waited < 5 and len(statuses) == 80
    assert {s for s, _ in statuses} <= {200, 503} and all(retry == "1" for status, retry in statuses if status == 503)
    assert any(status == 200 for status, _ in statuses)


def test_the_log_holds_every_answered_row(packed, tmp_path):
    rows = request_rows(packed[2], packed[1], 20)
    with start_service(packed[2].folder, options=["--log", str(tmp_path / "log.jsonl")]) as service:
        for row in rows:
            ask(service.url, [row])
        os.kill(service.pid, signal.SIGKILL)
    lines = read_lines(tmp_path / "log.jsonl")
    assert [line["rows"][0] for line in lines] == rows and {line["sha256"] for line in lines} == {packed[2].sha256}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path(f"/proc/{pid}/status").exists() else False


def test_no_service_outlives_a_killed_parent(packed, tmp_path):
    code = (
        "import sys, time\nfrom mlbench.deployment import start_service\n"
        "with start_service(sys.argv[1]) as service:\n    print(service.pid, flush=True)\n    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(packed[2].folder)], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    assert _alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(pid)


def test_a_taken_port_and_a_broken_bundle_say_so(packed, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MlbenchError, match="cannot start.*[Aa]ddress already in use"), start_service(packed[2].folder, port=taken.getsockname()[1]):
            raise AssertionError("it started")
    with pytest.raises(MlbenchError, match="no bundle"), start_service(tmp_path):
        raise AssertionError("it started")


def test_an_error_inside_the_block_stops_the_service(packed):
    with pytest.raises(ZeroDivisionError), start_service(packed[2].folder) as service:
        raise ZeroDivisionError
    assert not _alive(service.pid)


def test_the_runbook_speaks_the_truth(packed):
    text = (packed[2].folder / "runbook.md").read_text()
    sent = text.split("-d ", 1)[1].split("\n", 1)[0]
    assert sent == "@bundle/example.json"
    with start_service(packed[2].folder) as service:
        sent = f"@{packed[2].folder / 'example.json'}"
        command = ["curl", "-s", f"{service.url}/predict", "-H", "content-type: application/json", "-d", sent]
        answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert answer["predictions"] == packed[2].answer(read_json(packed[2].folder / "example.json")["rows"])["predictions"]
