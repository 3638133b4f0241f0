"""A model of texts and images behind HTTP: what may be sent, what is refused in words, and what is kept of it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import subprocess
import sys
import time
import zlib

import httpx
import numpy as np
import pandas as pd
import pytest
from bundles import BLOCKED, packed_in
from test_media_export import fitted, offers, png

from mlbench.core.files import read_json, read_lines
from mlbench.deployment import Bundle, ask, request_rows, smoke_test, start_service
from mlbench.deployment.rows import REQUEST_BYTES, InputError
from mlbench.deployment.whatif import swings, what_if_figure


def saved(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **settings) -> str:
    "A picture of any format, in base64."
    from PIL import Image

    image, out = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(out, kind, **settings)
    return base64.b64encode(out.getvalue()).decode()


def bomb(side: int) -> str:
    "A PNG of a few bytes that says it has side * side pixels."
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    "A model of offers with texts and photos, its rows, and its bundle."
    model, frame = fitted(offers(), "binary", "network")
    return model, frame, packed_in(tmp_path_factory.mktemp("bundles") / "offers", model, frame)


@pytest.fixture(scope="module")
def served(packed, tmp_path_factory):
    "A running service, and its log."
    log = tmp_path_factory.mktemp("log") / "predictions.jsonl"
    with start_service(packed[2].folder, options=["--log", str(log)]) as service:
        yield service, log


@pytest.fixture(scope="module")
def row(packed):
    "A request of one row."
    frame = packed[1].dropna()
    return request_rows(packed[2], frame, 1)[0]


def test_the_bundle_says_how_images_are_decoded(packed):
    _, _, bundle = packed
    field = next(f for f in bundle.fields if f.name == "photo")
    assert field.type == "image"
    assert field.shape == [10, 10, 3]
    assert len(field.fill) == 3
    assert "pillow==" in (bundle.folder / "requirements.txt").read_text()
    assert Bundle.load(bundle.folder).fields == bundle.fields
    sent = read_json(bundle.folder / "example.json")["rows"]
    assert all(r["photo"].startswith("data:image/png;base64,") for r in sent)


def test_training_rows_in_the_bundle_hold_hashes_in_place_of_images(packed):
    _, frame, bundle = packed
    kept = pd.read_parquet(bundle.folder / "reference.parquet")["photo"]
    assert kept.isna().sum() == frame["photo"].isna().sum()
    first = base64.b64decode(frame["photo"].dropna().iloc[0].split(",")[1])
    assert kept.dropna().iloc[0] == f"sha256:{hashlib.sha256(first).hexdigest()}"


def test_it_answers_like_the_model_over_http(packed, served):
    model, frame, bundle = packed
    assert smoke_test(served[0].url, model, bundle, frame, tolerance=1e-4)["rows"] == 50
    assert np.abs(bundle.predict_proba(frame) - model.predict_proba(frame)).max() < 1e-4


def test_every_format_and_every_gap_is_answered(row, served):
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (21, 13, 3), dtype=np.uint8)
    forms = [saved(photo), png(photo), saved(photo, "JPEG"), saved(photo, "JPEG", "CMYK"), saved(photo, "GIF", "P"), saved(photo, "BMP"), saved(photo, "WEBP")]
    forms += [saved(photo, "TIFF"), saved(photo, "PNG", "RGBA"), saved(photo[..., 0]), saved(photo[..., 0].astype(np.uint16) * 256), None]
    answer = ask(served[0].url, [row | {"photo": f} for f in forms])
    assert len(answer["predictions"]) == len(forms)
    assert np.allclose(answer["probabilities"][0], answer["probabilities"][1], atol=0), "with and without the head of a data URI"
    assert np.isfinite(np.array(answer["probabilities"])).all()


TEXTS = ["", " ", "שלום עולם", "👍🏽 great film 👨‍👩‍👧", "good " * 50_000, "x" * 1_000_000, "\u202egood\u202c", "a\nb\tc"]


def test_odd_texts_are_answered(row, served):
    for text in TEXTS:
        assert ask(served[0].url, [row | {"note": text}])["predictions"][0] in ("sold", "left")


WRONG = {
    "a path": "/etc/passwd",
    "a path with an ending": "photos/1.png",
    "a reference": "image:" + "0" * 64 + ".png",
    "no image": base64.b64encode(b"this is no picture at all").decode(),
    "cut off": saved(np.zeros((40, 40, 3), np.uint8))[:-60],
    "a number": 7,
    "a list": [1, 2],
    "an object": {"a": 1},
    "a flag": True,
    "a bomb": bomb(60_000),
    "a large picture that lies": bomb(7_000),
    "letters": "not base64 !!",
    "other data": "data:text/html;base64,PGI+",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_image_is_refused_with_row_and_field(row, served, what):
    began = time.process_time()
    answer = httpx.post(f"{served[0].url}/predict", json={"rows": [row, row | {"photo": WRONG[what]}]})
    assert answer.status_code == 422
    (mistake,) = answer.json()["fields"]
    assert (mistake["row"], mistake["field"]) == (1, "photo")
    assert "Send a PNG or JPEG as a data URI" in mistake["problem"]
    assert "Traceback" not in answer.text
    assert time.process_time() - began < 5


@pytest.mark.parametrize(("text", "words"), [(7, "send text"), (["a"], "send text"), ("a\x00b", "character of value zero")])
def test_what_is_no_text_is_refused(row, served, text, words):
    answer = httpx.post(f"{served[0].url}/predict", json={"rows": [row | {"note": text}]})
    assert answer.status_code == 422
    assert words in answer.json()["fields"][0]["problem"]


def test_broken_bodies_get_words_and_no_traceback(served):
    for body, code in ((b"\xff\xfe{", 400), (b'{"rows": [{"note": "\xed\xa0\x80"}]}', 400), (b"[" * 5000, 400), (b'{"rows": 3}', 422)):
        answer = httpx.post(f"{served[0].url}/predict", content=body)
        assert answer.status_code == code
        assert answer.json()["error"]


def test_pictures_of_one_request_are_counted_together(packed, row):
    photo = saved(np.zeros((4000, 4000), np.uint8))
    packed[2].predict([row | {"photo": photo}])
    with pytest.raises(InputError, match=r"row 3, field 'photo' .* 4000 x 4000 pixels, and the images of a request may have 50,000,000 together"):
        packed[2].predict([row | {"photo": photo}] * 4)


def test_more_images_than_memory_has_room_for_are_refused(packed, row):
    most = REQUEST_BYTES // 300
    with pytest.raises(InputError, match=rf"field 'photo' holds {most + 1:,} images, and {most:,} are read at once"):
        packed[2].predict({name: [value] * (most + 1) for name, value in row.items()})


def test_a_data_frame_may_name_files_and_a_request_may_not(packed, row, tmp_path):
    from PIL import Image

    photo = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "p.png")
    named = row | {"photo": str(tmp_path / "p.png")}
    by_name = packed[2].predict_proba(pd.DataFrame([named]))
    assert np.allclose(by_name, packed[2].predict_proba([row | {"photo": png(photo)}]), atol=0)
    with pytest.raises(InputError, match="names a file"):
        packed[2].predict_proba([named])


def test_the_log_keeps_hashes_and_no_images(row, served):
    service, log = served
    ask(service.url, [row])
    line = read_lines(log)[-1]
    digest = hashlib.sha256(base64.b64decode(row["photo"].split(",")[1])).hexdigest()
    assert line["rows"][0]["photo"] == f"sha256:{digest}"
    assert line["rows"][0]["note"] == row["note"]
    assert "base64" not in log.read_text()


def test_the_description_for_tools_names_the_form(served, row):
    schema = httpx.get(f"{served[0].url}/openapi.json").json()
    properties = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["rows"]["items"]["properties"]
    assert "base64" in properties["photo"]["description"]
    example = properties["photo"]["examples"][0]
    assert ask(served[0].url, [row | {"photo": example}])["predictions"]


def test_what_if_shows_no_image_as_letters(packed):
    _, frame, bundle = packed
    table = swings(bundle, frame)
    assert set(table["column"]) == {"price", "town", "note", "photo"}
    assert not table.astype(str).apply(lambda c: c.str.contains("base64")).any().any()
    figure = what_if_figure(bundle, frame, column="photo")
    assert "base64" not in json.dumps(figure.to_plotly_json(), default=str)


def test_the_service_needs_none_of_the_training_libraries(packed, row, tmp_path):
    code = "import sys, runpy\n" + "".join(f"sys.modules[{n!r}] = None\n" for n in BLOCKED)
    code += "sys.argv = ['service', *sys.argv[1:]]\nrunpy.run_module('mlbench.deployment.service', run_name='__main__')"
    command = [sys.executable, "-c", code, str(packed[2].folder), "--port", "0", "--ready-file", str(tmp_path / "url"), "--with-parent"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "url").exists():
            assert process.poll() is None and time.monotonic() < end, process.stderr.read().decode()
            time.sleep(0.02)
        assert len(ask((tmp_path / "url").read_text(), [row])["predictions"]) == 1
    finally:
        process.terminate()
        process.wait(10)
        process.stdin.close()
        process.stderr.close()
