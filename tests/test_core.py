"The core floor under faults: killed writers, torn lines, passwords, hashes."

import json
import os
import signal
import string
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbench.core import errors, files, secrets, settings


def test_every_error_is_one_of_ours_and_has_an_exit_code():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) >= 11
    for cls in classes:
        assert issubclass(cls, errors.MlbenchError) and cls.exit_code in (1, 2, 3)


def test_a_killed_writer_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / "result.json"
    files.write_json(target, {"whole": True})
    code = (
        "import sys, time\nfrom mlbench.core.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('{\"who')\n    print('half', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "half"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert json.loads(target.read_text()) == {"whole": True}


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    with pytest.raises(ZeroDivisionError), files.atomic_path(tmp_path / "bundle") as temporary:
        temporary.mkdir()
        (temporary / "model.onnx").write_bytes(b"x")
        1 / 0
    assert list(tmp_path.iterdir()) == []
    for content in (b"1", b"2"):
        with files.atomic_path(tmp_path / "bundle") as temporary:
            temporary.mkdir()
            (temporary / "model.onnx").write_bytes(content)
    assert (tmp_path / "bundle" / "model.onnx").read_bytes() == b"2" and len(list(tmp_path.iterdir())) == 1


def test_four_processes_add_lines_and_none_is_torn(tmp_path):
    log = tmp_path / "events.jsonl"
    code = (
        "import sys\nfrom mlbench.core.files import append_line\n"
        "for i in range(500): append_line(sys.argv[1], {'who': sys.argv[2], 'i': i, 'pad': 'x' * 300})"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(log), str(n)]) for n in range(4)]
    assert [w.wait() for w in workers] == [0] * 4
    lines = files.read_lines(log)
    assert len(lines) == 2000 and {(line["who"], line["i"]) for line in lines} == {(str(n), i) for n in range(4) for i in range(500)}


def test_a_torn_line_in_the_middle_is_an_error_and_not_silently_lost(tmp_path):
    log = tmp_path / "events.jsonl"
    log.write_text('{"a": 1}\n{"b\n{"c": 3}\n')
    with pytest.raises(ValueError):
        files.read_lines(log)


def test_the_hash_of_a_folder_sees_names_and_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = files.sha256_path(tmp_path / "a")
    os.utime(tmp_path / "a" / "x", (1, 1))
    assert files.sha256_path(tmp_path / "a") == first
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert files.sha256_path(tmp_path / "a") != first


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(SCALARS, lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=8))
def test_stable_json_is_json_and_does_not_depend_on_order(value):
    text = files.stable_json(value)
    assert json.loads(text, parse_constant=lambda c: pytest.fail(c)) == files.plain(value)
    if isinstance(value, dict):
        assert files.stable_json(dict(reversed(value.items()))) == text


@pytest.mark.parametrize(
    "text, value",
    [("1e-3", 0.001), ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("0777", 777), ("true", True), ("~", None), ("[1, a]", [1, "a"])],
)
def test_values_follow_yaml_1_2(text, value):
    assert files.parse_yaml_value(text) == value


SAFE = string.ascii_letters + string.digits + "!#$%&()*+,-.;=?@[]^_`{|}~/:"


@given(st.text(SAFE, min_size=8, max_size=20))
def test_a_password_in_an_address_never_survives(password):
    text = f"cannot reach postgresql://ana:{password}@db.example:5432/shop, sorry"
    masked = secrets.mask(text)
    assert password not in masked and "@db.example:5432/shop, sorry" in masked


def test_addresses_without_a_password_stay_as_they_are():
    for text in ("sqlite:///data/shop.db", "https://host:8080/a?page=2", "see http://a/b and mail me@there.org", "s3://bucket/key"):
        assert secrets.mask(text) == text


def test_threads_the_user_set_stay():
    assert settings.thread_environment(environ={"OMP_NUM_THREADS": "7"})["OMP_NUM_THREADS"] == "7"


def test_importing_the_core_is_light():
    code = (
        "import sys, mlbench.core.files, mlbench.core.settings, mlbench.core.progress, mlbench.core.plots, mlbench.core.show\n"
        "print([m for m in ('pandas', 'numpy', 'plotly', 'ruamel.yaml', 'torch', 'sklearn') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_progress_is_throttled_but_the_last_of_a_count_is_kept(tmp_path):
    from mlbench.core import progress

    progress.set_sink(tmp_path, "04_training")
    start = time.monotonic()
    list(progress.track(range(5000), "row"))
    progress.set_sink(None)
    lines = files.read_lines(tmp_path / "events.jsonl")
    assert lines[-1]["done"] == 5000 and len(lines) <= 3 + (time.monotonic() - start) / 0.2
