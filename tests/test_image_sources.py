"""Folders of images and tables that name images: what is read, whether it changed, and what `mlbench new` proposes."""

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlbench.core.errors import DataError
from mlbench.data.folders import is_image_folder, places_of
from mlbench.data.places import find_files, images_root, source_fingerprint
from mlbench.data.sources import read_table


def png(seed: int = 0, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def folder_of(path, rows: int = 12, classes=("cat", "dog"), tops=("",)):
    "Class folders with small pictures, below some top folders."
    for top in tops:
        for n in range(rows):
            place = path / top / classes[n % len(classes)]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{n:03}.png").write_bytes(png(n + 1000 * len(top)))
    return path


class TestFolders:
    def test_class_folders_become_a_table_of_words(self, tmp_path):
        folder_of(tmp_path / "pets", classes=("0", "1", "2"))
        (tmp_path / "pets" / "README.txt").write_text("about these pets")
        read = read_table("pets", base=tmp_path)
        assert list(read.frame.columns) == ["image", "label"] and len(read.frame) == 12
        assert read.frame["label"].tolist() == sorted(["0", "1", "2"] * 4) and str(read.frame["label"].dtype) == "str"
        assert (tmp_path / read.frame["image"][0]).is_file()
        assert [a.what for a in read.assumptions] == ["images"] and "12 in 3 folders" in repr(read)

    def test_absolute_and_outer_paths_lead_to_the_files(self, tmp_path, monkeypatch):
        folder_of(tmp_path / "pets")
        (tmp_path / "project").mkdir()
        for source, base in ((tmp_path / "pets", None), ("../pets", tmp_path / "project")):
            read = read_table(source, base=base)
            assert all(((base or tmp_path) / cell).is_file() for cell in read.frame["image"])
        monkeypatch.chdir(tmp_path)
        assert all(os.path.isfile(cell) for cell in read_table("pets").frame["image"])
        monkeypatch.chdir(tmp_path / "pets")
        assert read_table(".").frame["image"][0] == "cat/000.png"

    def test_folders_that_divide_the_rows(self, tmp_path):
        folder_of(tmp_path / "pets", rows=4, tops=("train", "val", "Test"))
        frame = read_table("pets", base=tmp_path).frame
        assert frame["split"].value_counts().to_dict() == {"train": 4, "val": 4, "test": 4}
        assert set(frame["label"]) == {"cat", "dog"}

    def test_unlabelled_pictures_have_no_label(self, tmp_path):
        folder_of(tmp_path / "pets", rows=4, tops=("train",))
        (tmp_path / "pets" / "test").mkdir()
        (tmp_path / "pets" / "test" / "x.png").write_bytes(png())
        read = read_table("pets", base=tmp_path)
        assert read.frame["label"].isna().sum() == 1 and [a.what for a in read.assumptions] == ["images", "no label", "split"]
        flat = read_table("pets/test", base=tmp_path)
        assert list(flat.frame.columns) == ["image"] and "there is no label" in repr(flat)

    def test_few_rows_are_taken_from_all_classes(self, tmp_path):
        folder_of(tmp_path / "pets")
        few = read_table("pets", base=tmp_path, n_rows=4).frame
        assert few["label"].tolist() == ["cat", "cat", "dog", "dog"] and few.index.tolist() == [0, 1, 2, 3]
        assert len(read_table("pets", base=tmp_path, n_rows=99).frame) == 12

    def test_a_table_beside_pictures_is_the_source(self, tmp_path):
        folder_of(tmp_path / "pets")
        pd.DataFrame({"photo": ["cat/000.png"] * 3, "y": [1, 2, 3]}).to_csv(tmp_path / "pets" / "animals.csv", index=False)
        assert not is_image_folder(tmp_path / "pets")
        assert list(read_table("pets", base=tmp_path).frame.columns) == ["photo", "y"]

    def test_what_is_hidden_or_wrapped_or_linked(self, tmp_path):
        folder_of(tmp_path / "zip" / "animals-main")
        shutil.copytree(tmp_path / "zip" / "animals-main", tmp_path / "zip" / "__MACOSX")
        (tmp_path / "zip" / ".git").mkdir()
        (tmp_path / "zip" / ".git" / "a.png").write_bytes(b"")
        (tmp_path / "zip" / "animals-main" / "cat" / "loop").symlink_to(tmp_path / "zip")
        assert {p.label for p in places_of(tmp_path / "zip")} == {"cat", "dog"} and len(places_of(tmp_path / "zip")) == 12

    def test_options_of_tables_are_refused(self, tmp_path):
        folder_of(tmp_path / "pets")
        for options, words in (({"separator": ";"}, "separator= is for text files"), ({"query": "select 1"}, "query= is for databases")):
            with pytest.raises(DataError, match=f"{words}.*folder of images"):
                read_table("pets", base=tmp_path, **options)

    def test_a_folder_without_anything_says_what_it_could_hold(self, tmp_path):
        (tmp_path / "none").mkdir()
        with pytest.raises(DataError, match="holds no table .*pictures lie in one folder for each class"):
            read_table("none", base=tmp_path)


class TestFingerprints:
    def test_a_picture_that_changes_moves_or_comes_changes_the_fingerprint(self, tmp_path):
        folder = folder_of(tmp_path / "pets")
        seen = [source_fingerprint("pets", tmp_path)]
        os.utime(folder / "cat" / "000.png")
        assert source_fingerprint("pets", tmp_path) == seen[0]
        (folder / "cat" / "000.png").write_bytes(png(77))
        seen.append(source_fingerprint("pets", tmp_path))
        (folder / "cat" / "000.png").rename(folder / "dog" / "900.png")
        seen.append(source_fingerprint("pets", tmp_path))
        (folder / "dog" / "901.png").write_bytes(png(78))
        seen.append(source_fingerprint("pets", tmp_path))
        assert len(set(seen)) == 4
        shutil.copytree(folder, tmp_path / "copy")
        assert source_fingerprint("copy", tmp_path) == seen[-1]

    def test_a_table_knows_of_its_pictures_where_they_are_named(self, tmp_path):
        folder_of(tmp_path / "shots")
        (tmp_path / "t.csv").write_text("photo,y\ncat/000.png,1\n")
        plain, named = source_fingerprint("t.csv", tmp_path), source_fingerprint("t.csv", tmp_path, images="shots")
        (tmp_path / "shots" / "cat" / "000.png").write_bytes(png(99, side=9))
        assert source_fingerprint("t.csv", tmp_path) == plain
        assert source_fingerprint("t.csv", tmp_path, images="shots") not in (named, plain)

    def test_where_paths_start(self, tmp_path):
        folder_of(tmp_path / "data" / "shots")
        (tmp_path / "data" / "t.csv").write_text("photo,y\nshots/cat/000.png,1\n")
        assert images_root("data/t.csv", tmp_path) == tmp_path / "data"
        assert images_root("data/t.csv", tmp_path, "data/shots") == tmp_path / "data" / "shots"
        assert images_root("data/shots", tmp_path) == tmp_path
        assert images_root("sqlite:///x.db", tmp_path) == tmp_path
        assert find_files("data/shots", tmp_path) == [tmp_path / "data" / "shots"]
        with pytest.raises(DataError, match="data.images names gone"):
            images_root("data/t.csv", tmp_path, "gone")

    def test_asking_about_a_plain_table_loads_neither_numpy_nor_pillow(self, tmp_path):
        (tmp_path / "t.csv").write_text("a,b\n1,2\n")
        code = "import sys; from mlbench.data.places import source_fingerprint as f; f('t.csv'); print({'numpy', 'PIL', 'pandas'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"
