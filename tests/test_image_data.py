"""Records of parts, and images: what is read, refused, turned, kept and found again."""

import base64
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import cross_val_score

from mlbench.core.errors import DataError, UsageError
from mlbench.data.images import (
    ImageStore,
    decoded,
    evidence_sentence,
    image_bytes,
    image_columns,
    keep_images,
    look_at_image,
    pixels_of,
)
from mlbench.data.parts import Part, as_record, record_of

PARTS = [Part("table", "table", "", (2,)), Part("tokens a", "tokens", "a", (3,), 9), Part("pixels b", "pixels", "b", (2, 2, 3))]


def record(rows: int = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return record_of(PARTS, [rng.normal(size=(rows, 2)), rng.integers(0, 9, (rows, 3)), rng.integers(0, 256, (rows, 12))])


class TestRecords:
    def test_a_record_goes_through_cross_validation_and_keeps_its_fields(self):
        seen = []

        class Spy(ClassifierMixin, BaseEstimator):
            def fit(self, X, y):
                self.classes_ = np.unique(y)
                seen.append(X.dtype.names)
                return self

            def predict(self, X):
                return np.where(X["table"][:, 0] > 0, 1, 0)

        X = record(12)
        assert cross_val_score(Spy(), X, (X["table"][:, 0] > 0).astype(int), cv=3).tolist() == [1, 1, 1]
        assert seen == [("table", "tokens a", "pixels b")] * 3

    def test_joined_and_reordered_records_are_still_taken(self):
        X = record()
        joined = np.concatenate([X[:3], X[3:]])
        assert (as_record(joined, PARTS)[0]["pixels b"] == X["pixels b"]).all()
        other = record_of(PARTS[::-1], [X["pixels b"], X["tokens a"], X["table"]])
        again, parts = as_record(other, PARTS)
        assert again.dtype.names == ("table", "tokens a", "pixels b") and (again["tokens a"] == X["tokens a"]).all()

    def test_sparse_boolean_and_empty_blocks(self):
        only = [Part("table", "table", "", (2,))]
        assert record_of(only, [csr_matrix([[0.0, 1.0]])])["table"].tolist() == [[0, 1]]
        assert record_of(only, [np.array([[True, False]])])["table"].tolist() == [[1, 0]]
        assert len(record_of(PARTS, [np.zeros((0, 2)), np.zeros((0, 3), int), np.zeros((0, 12), np.uint8)])) == 0
        assert as_record(record(0))[1][1].size == 2

    def test_data_frames_are_tables(self):
        made, parts = as_record(pd.DataFrame({"a": [1, 2], "b": [0.5, None]}))
        assert parts == (Part("table", "table", "", (2,), 0),) and np.isnan(made["table"][1, 1])

    def test_words_beyond_the_vocabulary_are_unknown_and_the_caller_keeps_his_array(self):
        X = record()
        X["tokens a"][0] = [8, 9, 1000]
        made, _ = as_record(X, PARTS)
        assert made["tokens a"][0].tolist() == [8, 1, 1] and X["tokens a"][0, 2] == 1000

    @pytest.mark.parametrize(
        ("block", "words"),
        [
            (np.array([[1.5, 0, 0]]), "such as 1.5"),
            (np.array([[np.nan, 0, 0]]), "such as nan"),
            (np.array([[2.0**40, 0, 0]]), "from 0 to 2147483647"),
            (np.array([["a", "b", "c"]]), "such as .*'a'"),
        ],
    )
    def test_ids_that_are_none_are_refused(self, block, words):
        with pytest.raises(DataError, match=words):
            record_of(PARTS[1:2], [block])

    def test_words_in_a_table_are_refused(self):
        with pytest.raises(DataError, match="Encode its columns first"):
            record_of(PARTS[:1], [np.array([["a", "b"]])])

    def test_another_shape_than_at_fitting_names_both(self):
        other = record_of([PARTS[2]._replace(shape=(3, 4, 1))], [np.zeros((1, 12), np.uint8)])
        with pytest.raises(DataError, match=r"Expected: pixels b uint8 \(2, 2, 3\). Found: pixels b uint8 \(3, 4, 1\)"):
            as_record(other, PARTS[2:])
        with pytest.raises(UsageError, match="at least one part"):
            record_of([], [])


def png(array, kind: str = "PNG", **options) -> bytes:
    picture = Image.fromarray(array) if isinstance(array, np.ndarray) else array
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def zipped_bomb(side: int = 30_000) -> bytes:
    "A PNG of a few hundred kilobytes that claims, and holds, hundreds of millions of pixels."
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * ((side // 8 + 1) * 100))) + chunk(b"IEND", b"")


class TestLooking:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "it is empty"),
            (b"not a picture at all", "it is none of PNG.*begins with b'not a pictur'"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a drawing in SVG, which has no pixels: draw it as PNG"),
            (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg width="4"/>', "a drawing in SVG"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "HEIC format of phones, which is not opened: write it as JPEG"),
            (b"\0\0\0\x1cftypavif", "AVIF"),
            (b"%PDF-1.7", "a PDF document"),
            (b"<!DOCTYPE html><html>", "a web page: the address"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (bytes(128) + b"DICM", "a DICOM file"),
            (zipped_bomb(), "million pixels|30,000 x 30,000"),
            (zipped_bomb(10_000), "10,000 x 10,000 pixels, and at most 50 million"),
            (png(noise(64, 64, 3))[:3000], "cut off"),
            (png(noise(64, 64, 3), "JPEG")[:900], "cut off"),
            (png(noise(64, 64, 3), "WEBP")[:900], "none of|damaged|cut off"),
            (png(noise(64, 64, 3)).replace(b"IDAT", b"IDAX", 1), "damaged|cut off|none of"),
        ],
    )
    def test_what_cannot_be_used_is_told_and_never_raises(self, data, words):
        import re

        facts = look_at_image(data)
        assert re.search(words, facts.problem), facts.problem
        with pytest.raises(DataError, match=words):
            decoded(data, (8, 8, 3))

    @pytest.mark.filterwarnings("ignore")  # of Pillow, about tags of damaged files
    def test_any_cut_and_any_flipped_byte_is_survived(self):
        data, rng = png(noise(9, 9, 3)), np.random.default_rng(1)
        for kind in ("PNG", "GIF", "JPEG", "BMP", "TIFF", "WEBP"):
            data = png(Image.fromarray(noise(9, 9, 3)).convert("P" if kind == "GIF" else "RGB"), kind)
            for _ in range(25):
                bad = bytearray(data[: rng.integers(1, len(data) + 1)])
                bad[rng.integers(len(bad))] ^= int(rng.integers(1, 256))
                facts = look_at_image(bytes(bad))
                assert isinstance(facts.problem, str) and facts.bytes == len(bad)

    @pytest.mark.parametrize("at", range(41, 700, 60))
    def test_a_picture_that_looks_sound_can_be_decoded(self, at):
        "Pillow gives half a picture after a failure while it was asked for its EXIF."
        data = bytearray(png(noise(24, 24, 3)))
        data[at : at + 30] = bytes(30)
        facts = look_at_image(bytes(data))
        if facts.problem:
            with pytest.raises(DataError):
                decoded(bytes(data), (8, 8, 3))
        else:
            assert decoded(bytes(data), (8, 8, 3)).shape == (8, 8, 3)

    def test_formats_that_are_not_listed_are_not_opened(self):
        assert look_at_image(png(noise(4, 4, 3), "PPM")).problem.startswith("it is none of")
        assert look_at_image(png(noise(4, 4, 3), "ICO")).problem.startswith("it is none of")

    def test_a_file_that_is_too_long_is_not_opened(self, monkeypatch):
        monkeypatch.setattr("mlbench.data.images.MOST_BYTES", 50)
        assert "at most 0 are read" in look_at_image(png(noise(9, 9, 3))).problem

    def test_facts_of_a_film(self):
        frames = [Image.fromarray(noise(5, 7, seed=k)) for k in range(3)]
        facts = look_at_image(png(frames[0], "GIF", save_all=True, append_images=frames[1:]))
        assert (facts.width, facts.height, facts.frames, facts.format, facts.problem) == (7, 5, 3, "GIF", "")


class TestDecoding:
    @pytest.mark.parametrize("turn", range(1, 9))
    def test_all_eight_ways_of_holding_a_camera_show_the_same_picture(self, turn):
        seen = noise(4, 6, 3)
        back = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2), 6: np.rot90,
                7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: lambda a: np.rot90(a, 3)}[turn]  # fmt: skip
        note = Image.Exif()
        note[274] = turn
        data = png(np.ascontiguousarray(back(seen)), exif=note)
        assert (decoded(data, (4, 6, 3)) == seen).all()
        facts = look_at_image(data)
        assert (facts.width, facts.height, facts.turned) == (6, 4, turn > 1)

    def test_sixteen_bits_are_scaled_and_not_cut(self):
        eight = noise(5, 5)
        for kind in ("PNG", "TIFF"):
            assert (decoded(png(eight.astype(np.uint16) * 257, kind), (5, 5, 1))[..., 0] == eight).all()

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_scans_of_12_and_14_bits_use_the_whole_range(self, kind):
        eight = noise(9, 9)
        eight[0, 0] = 255
        for factor, white in ((4_095 / 255, 4_095), (16_383 / 255, 16_383)):
            data = png(np.rint(eight * factor).astype(np.uint16), kind)
            assert np.abs(decoded(data, (9, 9, 1))[..., 0].astype(int) - eight).max() <= 1
            assert look_at_image(data).white == white
        assert look_at_image(png(eight, kind)).white == 255

    def test_ink_palette_bilevel_transparency_and_grey_become_colour(self):
        red = np.zeros((3, 3, 3), dtype=np.uint8)
        red[..., 0] = 255
        picture = Image.fromarray(red)
        for data in (png(picture.convert("CMYK"), "TIFF"), png(picture.convert("P")), png(picture.convert("RGBA")), png(picture.convert("P"), "GIF")):
            assert np.abs(decoded(data, (3, 3, 3)).astype(int) - red).max() <= 3
        assert decoded(png(Image.new("1", (2, 2), 1)), (2, 2, 1)).ravel().tolist() == [255] * 4
        assert decoded(png(Image.new("LA", (1, 1), (0, 0))), (1, 1, 1)).tolist() == [[[255]]]
        palette = Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).convert("P")
        assert decoded(png(palette, transparency=0), (2, 2, 3)).min() == 255
        ink = decoded(png(picture.convert("CMYK"), "JPEG"), (3, 3, 3))
        assert ink[..., 0].min() > 230 and ink[..., 1].max() < 30

    def test_thin_lines_survive_being_made_smaller(self):
        page = np.full((160, 160), 255, dtype=np.uint8)
        page[::16] = 0
        small = decoded(png(page), (20, 20, 1))
        assert 200 < small.mean() < 250 and small.std(axis=0).max() < 60 and (small.min(axis=(1, 2)) < 255).any()

    @pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
    @pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 13), (32, 32)])
    def test_every_size_comes_out_in_the_shape_that_was_asked_for(self, fit, size):
        assert decoded(png(noise(*size, 3)), (8, 12, 3), fit).shape == (8, 12, 3)

    def test_the_same_file_gives_the_same_pixels(self):
        data = png(noise(700, 500, 3), "JPEG")
        assert (decoded(data, (32, 32, 3)) == decoded(data, (32, 32, 3))).all()


class TestCells:
    def test_every_form_of_a_cell(self, tmp_path):
        data = png(noise(4, 4, 3))
        (tmp_path / "a.png").write_bytes(data)
        (tmp_path / "no ending").write_bytes(data)
        text = base64.b64encode(data).decode()
        cells = ["a.png", tmp_path / "a.png", "no ending", text, f"data:image/png;base64,{text}", f"DATA:image/png;BASE64,{text[:40]}\n{text[40:]}", data]
        assert {image_bytes(c, tmp_path) for c in cells} == {data}
        assert (pixels_of([*cells, noise(4, 4, 3), Image.fromarray(noise(4, 4, 3))], (4, 4, 3), [0, 0, 0], tmp_path) == noise(4, 4, 3)).all()

    def test_paths_of_other_machines(self, tmp_path):
        (tmp_path / "shots").mkdir()
        (tmp_path / "shots" / "Ä b.png").write_bytes(png(noise(4, 4, 3)))
        assert image_bytes("shots\\Ä b.png", tmp_path) == png(noise(4, 4, 3))
        (tmp_path / "odd\\name.png").write_bytes(png(noise(4, 4, seed=5)))
        assert image_bytes("odd\\name.png", tmp_path) == png(noise(4, 4, seed=5))
        for cell, words in [
            ("shots/ä b.png", "capital letters"),
            ("C:\\Users\\a.png", "Windows machine"),
            ("\\\\server\\a.png", "Windows machine"),
            ("/gone/a.png", "there is no such file$"),
        ]:
            with pytest.raises(DataError, match=words):
                image_bytes(cell, tmp_path)

    @pytest.mark.parametrize("cell", ["/etc/passwd", "a.png", "../a.png", "image:" + "0" * 64 + ".png", "file:///a.png"])
    def test_a_service_follows_no_path(self, cell, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.png").write_bytes(png(noise(4, 4, 3)))
        with pytest.raises(DataError) as caught:
            look = image_bytes(cell, files=False)
            assert look_at_image(look).problem
            raise DataError("bytes of no picture")
        assert "root:" not in str(caught.value)

    def test_what_is_too_long_is_refused_before_it_is_unpacked_or_read(self, monkeypatch, tmp_path):
        monkeypatch.setattr("mlbench.data.images.MOST_BYTES", 2_000_000)
        with pytest.raises(DataError, match="at most 2 are read"):
            image_bytes("A" * 4_000_000)
        (tmp_path / "long.png").write_bytes(b"0" * 3_000_000)
        with pytest.raises(DataError, match="it has 3 MB"):
            image_bytes("long.png", tmp_path)

    def test_missing_cells_take_the_fill_and_errors_name_the_row(self, tmp_path):
        made = pixels_of([None, float("nan"), pd.NA, "", "  "], (2, 2, 3), [1, 2, 3])
        assert (made == np.array([1, 2, 3])).all()
        with pytest.raises(DataError, match="row 20 .b'..'|row 20 .2 bytes. cannot be used: it is none of"):
            pixels_of([png(noise(2, 2))] * 20 + [b"ab"], (2, 2, 1), [0])

    def test_a_file_that_changes_is_read_again(self, tmp_path):
        import os

        for seed in (1, 2):
            (tmp_path / "a.png").write_bytes(png(noise(4, 4, 3, seed=seed)))
            os.utime(tmp_path / "a.png", ns=(seed, seed))
            assert (pixels_of(["a.png"], (4, 4, 3), [0], tmp_path)[0] == noise(4, 4, 3, seed=seed)).all()

    def test_the_result_may_be_changed_without_changing_what_is_remembered(self, tmp_path):
        store = ImageStore.of(tmp_path)
        cell = store.put(png(noise(4, 4, 3)))
        pixels_of([cell], (4, 4, 3), [0], tmp_path)[:] = 0
        assert (pixels_of([cell], (4, 4, 3), [0], tmp_path)[0] == noise(4, 4, 3)).all()


class TestKeeping:
    def test_unusable_pictures_are_missing_and_told(self, tmp_path):
        good = png(noise(5, 5, 3))
        for name, data in {"good.png": good, "torn.png": good[:-30], "empty.jpg": b"", "page.png": b"<html>", "bomb.png": zipped_bomb(10_000)}.items():
            (tmp_path / name).write_bytes(data)
        names = ["good.png", "torn.png", "empty.jpg", "page.png", "bomb.png", "gone.png", None, "good.png"]
        frame = pd.DataFrame({"photo": names, "x": range(8)}, index=range(10, 18))
        kept, evidence = keep_images(frame, ["photo"], tmp_path, ImageStore.of(tmp_path / "project"))
        assert kept["photo"].notna().tolist() == [True] + [False] * 6 + [True]
        assert kept["photo"].iloc[0] == kept["photo"].iloc[7] and kept["photo"].dtype == "str" and kept.index[0] == 10
        assert [(e["row"], e["image"]) for e in evidence] == [(k, names[k]) for k in range(1, 6)]
        assert all(e["why"] and e["what"] == "left out" for e in evidence)
        said = evidence_sentence(evidence, 8)
        assert said.startswith("5 of the pictures in 8 rows could not be used and count as missing (such as torn.png in row 1: its pixels")

    def test_references_are_images_to_the_schema_and_survive_a_snapshot(self, tmp_path):
        from mlbench.data.schema import conform, infer_schema
        from mlbench.data.snapshots import read_snapshot, write_snapshot

        store = ImageStore.of(tmp_path)
        frame = pd.DataFrame({"photo": [png(noise(4, 4, seed=k)) for k in range(30)], "y": [0, 1, 2] * 10})
        kept, evidence = keep_images(frame, ["photo"], tmp_path, store)
        schema = infer_schema(kept)
        assert schema.kind("photo") == "image" and not evidence
        back = read_snapshot(write_snapshot(kept, tmp_path / "snapshots").path)
        assert (conform(back, schema)["photo"] == kept["photo"]).all() and image_columns(back) == ["photo"]
        assert (pixels_of(back["photo"], (4, 4, 1), [0], tmp_path)[7, ..., 0] == noise(4, 4, seed=7)).all()

    def test_a_kept_picture_that_is_changed_or_gone_is_noticed(self, tmp_path):
        store = ImageStore.of(tmp_path)
        cell = store.put(png(noise(4, 4)))
        store.path_of(cell).write_bytes(png(noise(4, 4, seed=9)))
        with pytest.raises(DataError, match="was changed after it was kept"):
            store.bytes_of(cell)
        store.path_of(cell).unlink()
        with pytest.raises(DataError, match="is not in .* Run the first stage again"):
            image_bytes(cell, tmp_path)

    def test_references_find_the_project_of_the_working_directory_and_of_a_run(self, tmp_path, monkeypatch):
        cell = ImageStore.of(tmp_path).put(png(noise(4, 4)))
        (tmp_path / "problem.yaml").write_text("name: x\n")
        (tmp_path / "deep" / "er").mkdir(parents=True)
        monkeypatch.delenv("MLBENCH_PROJECT", raising=False)
        monkeypatch.chdir(tmp_path / "deep" / "er")
        assert image_bytes(cell) == png(noise(4, 4))
        monkeypatch.chdir("/")
        with pytest.raises(DataError, match="belongs to a project, and this is none"):
            image_bytes(cell)
        monkeypatch.setenv("MLBENCH_PROJECT", str(tmp_path))
        assert image_bytes(cell) == png(noise(4, 4))

    def test_films_and_large_pictures_are_kept_with_a_note(self, tmp_path):
        note = Image.Exif()
        note[274] = 6
        (tmp_path / "tall.jpg").write_bytes(png(Image.new("RGB", (3000, 1500), "red"), "JPEG", exif=note))
        (tmp_path / "film.gif").write_bytes(png(Image.new("L", (4, 4)), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 200)]))
        (tmp_path / "scan.tiff").write_bytes(png(np.full((2000, 10), 65535, dtype=np.uint16), "TIFF"))
        store = ImageStore.of(tmp_path)
        kept, evidence = keep_images(pd.DataFrame({"p": ["tall.jpg", "film.gif", "scan.tiff"]}), ["p"], tmp_path, store)
        assert [e["what"] for e in evidence] == ["kept smaller", "first picture alone", "more than 8 bits", "kept smaller"]
        tall, scan = look_at_image(store.bytes_of(kept["p"][0])), look_at_image(store.bytes_of(kept["p"][2]))
        assert (tall.width, tall.height, tall.turned, tall.format) == (512, 1024, False, "JPEG")
        assert (scan.height, scan.mode, scan.format) == (1024, "L", "PNG")

    def test_a_plain_table_loads_no_pillow(self):
        code = (
            "import sys, pandas as pd, mlbench.data.images as i, mlbench.data.sources\n"
            "f = pd.DataFrame({'a': range(9), 'b': list('abcdefghi')})\n"
            "assert i.image_columns(f) == [] and i.keep_images(f, [], None, None)[0] is f\n"
            "print('PIL' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


def test_bytes_and_arrays_become_canonical_text_that_gives_the_same_pixels():
    from mlbench.data.schema import conform, infer_schema

    frame = pd.DataFrame({"photo": [png(noise(4, 4, 3)), noise(4, 4, 3), Image.fromarray(noise(4, 4, 3)), None], "x": [1, 2, 3, 4]})
    schema = infer_schema(frame, {"photo": "image"})
    done = conform(frame, schema)["photo"]
    assert done.dtype == "str" and done.isna().tolist() == [False] * 3 + [True] and done.str.startswith("data:image/png;base64,").sum() == 3
    assert (pixels_of(done, (4, 4, 3), [0, 0, 0])[:3] == noise(4, 4, 3)).all()
    assert infer_schema(pd.DataFrame({"photo": done.dropna()})).kind("photo") in ("image", "constant")
