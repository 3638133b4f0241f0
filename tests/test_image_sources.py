"""Folders of images and tables that name images: what is read, whether it changed, and what `mlbench new` proposes."""

import io
import json
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

    def test_what_is_not_read_and_what_is_empty_is_told(self, tmp_path):
        folder_of(tmp_path / "pets")
        for name in ("cat/a.heic", "cat/b.HEIC", "dog/c.svg", "dog/Thumbs.db"):
            (tmp_path / "pets" / name).write_bytes(b"x")
        (tmp_path / "pets" / "bird" / "young").mkdir(parents=True)
        told = {a.what: (a.value, a.why) for a in read_table("pets", base=tmp_path).assumptions}
        assert told["not read"][0] == "2 .heic, 1 .svg" and "write them as .jpg or .png" in told["not read"][1] and told["no image"][0] == "bird"

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


@pytest.fixture
def here(tmp_path, monkeypatch):
    "An empty folder as the working directory, in no project."
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLBENCH_PROJECT", raising=False)
    return tmp_path


def problem_of(folder):
    from mlbench.problem.problem import Problem

    return Problem.load(folder)


class TestProposals:
    def test_new_with_a_folder_of_divided_classes(self, here, say):
        folder_of(here / "digits", rows=24, classes="0123456789ab"[:11], tops=("train", "test"))
        code, told, _ = say("new", "shop", "--data", "digits")
        assert code == 0, told
        problem = problem_of(here / "shop")
        assert (problem.task, problem.target, problem.data.source, problem.data.images) == ("multiclass", "label", "../digits", None)
        assert (problem.split.strategy, problem.split.column, problem.split.folds) == ("column", "split", 4)
        assert "8 x 8 pixels, in colour" in told and "each of the 11 folders is a class" in " ".join(told.split())
        frame = problem.read().frame
        problem.check_frame(frame)
        kept = problem.keep_images(frame)
        assert kept.columns == ["image"] and not kept.evidence and len(list((here / "shop/data/images").rglob("*.png"))) == 48

    @pytest.mark.parametrize(
        ("classes", "tops", "words"),
        [
            (("cat",), ("",), "pets has only one class folder with images, cat (12 images), so there is nothing to tell apart"),
            (("cat",), ("train", "test"), "only one class folder with images, cat (24 images)"),
            ((".",), ("",), "pets holds 12 images and no class folders, so nothing says what is to be predicted"),
        ],
    )
    def test_new_says_that_there_is_nothing_to_tell_apart(self, here, say, classes, tops, words):
        folder_of(here / "pets", classes=classes, tops=tops)
        (here / "pets" / "fish").mkdir()
        code, out, err = say("new", "shop", "--data", "pets")
        told = " ".join((out + err).split())
        assert code == 2 and words in told and "No image was found in fish." in told and "Put the images of" in told
        assert not (here / "shop").exists()

    def test_new_says_why_no_picture_is_found(self, here, say):
        folder_of(here / "data" / "deep" / "shots", rows=30)
        names = [f"{n % 2 and 'dog' or 'cat'}/{n:03}.png" for n in range(30)]
        rows = pd.DataFrame({"photo": names, "weight": range(30), "sold": ["yes", "no", "no"] * 10})

        def hint(cells) -> str:
            rows.assign(photo=cells).to_csv(here / "data" / "t.csv", index=False)
            return " ".join(say("new", "shop", "--data", "data/t.csv", "--target", "sold", "--dry-run")[1].split())

        assert "--images" in hint(names) and "deep/shots" in hint(names)
        assert "000.png lies at deep/shots/cat/000.png: write the paths of all" in hint([c[4:] for c in names])
        assert "it is an address, and pictures are not fetched" in hint([f"https://x.org/{c}" for c in names])
        assert "Windows machine" in hint([f"C:\\me\\{c}" for c in names])

    def test_new_points_out_names_without_ending_and_finds_folders_beside_its_own(self, here, say):
        folder_of(here / "shots", rows=30, classes=(".",))
        (here / "labels").mkdir()
        rows = pd.DataFrame({"photo": [f"{n:03}" for n in range(30)], "weight": np.arange(30) % 7, "sold": ["yes", "no", "no"] * 10})
        rows.to_csv(here / "names.csv", index=False)
        told = " ".join(say("new", "shop", "--data", "names.csv", "--target", "sold", "--dry-run")[1].split())
        assert "column photo: shots/000.png (its cells are names of images without their ending" in told
        rows.assign(photo=rows["photo"] + ".png").to_csv(here / "labels" / "t.csv", index=False)
        assert say("new", "shop", "--data", "labels/t.csv", "--target", "sold")[0] == 0
        assert problem_of(here / "shop").data.images == "../shots"

    def test_new_finds_the_folder_of_a_path_column(self, here, say):
        folder_of(here / "data" / "shots", rows=30)
        names = [f"{n % 2 and 'dog' or 'cat'}/{n:03}.png" for n in range(30)]
        pd.DataFrame({"photo": names, "weight": range(30), "sold": ["yes", "no", "no"] * 10}).to_csv(here / "data" / "t.csv", index=False)
        code, told, _ = say("new", "shop", "--data", "data/t.csv", "--target", "sold")
        problem = problem_of(here / "shop")
        assert code == 0 and problem.data.images == "../data/shots" and problem.split.folds == 4
        kept = problem.keep_images(problem.read().frame)
        assert kept.frame["photo"].notna().all() and kept.sentence().startswith("30 images of photo kept in data/images, 30 different ones")
        assert "30 of 30 paths of photo are found" in (here / "shop" / "problem.yaml").read_text()
        before = problem.fingerprint()
        (here / "data" / "shots" / "cat" / "000.png").write_bytes(png(5, side=9))
        assert problem.fingerprint() != before

    def test_new_says_when_no_picture_is_found(self, here, say):
        pd.DataFrame({"photo": [f"far/{n}.png" for n in range(30)], "x": range(30), "y": ["a", "b", "b"] * 10}).to_csv(here / "t.csv", index=False)
        code, told, _ = say("new", "shop", "--data", "t.csv", "--target", "y", "--dry-run")
        assert code == 0 and "--images FOLDER" in " ".join(told.split()) and "none of the first 30 paths of photo" in " ".join(told.split())
        folder_of(here / "elsewhere" / "deep" / "far")
        for n in range(30):
            (here / "elsewhere" / "deep" / "far" / f"{n}.png").write_bytes(png(n))
        assert say("new", "shop", "--data", "t.csv", "--target", "y", "--images", "elsewhere/deep")[0] == 0
        assert problem_of(here / "shop").data.images == "../elsewhere/deep"

    def test_a_project_among_its_pictures_is_not_part_of_them(self, here, say, monkeypatch):
        folder_of(here / "pets", rows=20)
        monkeypatch.chdir(here / "pets")
        assert say("new", "shop", "--data", ".")[0] == 0
        problem = problem_of(here / "pets" / "shop")
        before, frame = problem.fingerprint(), problem.read().frame
        problem.keep_images(frame)
        assert problem.fingerprint() == before and len(problem.read().frame) == 20 and problem.task == "binary"

    def test_a_plain_table_is_proposed_as_before(self, here, say):
        rows = pd.DataFrame({"x": range(60), "set": ["train", "test"] * 30, "y": ["a", "b", "b"] * 20})
        rows.to_csv(here / "t.csv", index=False)
        code, told, _ = say("new", "shop", "--data", "t.csv", "--target", "y")
        problem = problem_of(here / "shop")
        assert code == 0 and problem.split.folds == 5 and problem.split.strategy == "auto" and "image" not in told
        assert problem.to_dict()["data"] == {"source": "../t.csv"}
        frame = problem.read().frame
        assert problem.keep_images(frame).frame is frame and not (here / "shop" / "data" / "images").exists()


def test_scans_of_different_whites_in_one_column_are_a_warning(tmp_path):
    from mlbench.problem.problem import Problem

    class Card:
        def __init__(self):
            self.told = []

        def finding(self, kind, what, severity="note", evidence=None, proposal=""):
            self.told.append((kind, severity, evidence, proposal))

    for n, top in enumerate([4_000, 4_000, 60_000, 3_000]):
        place = tmp_path / "scans" / "ab"[n % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.linspace(0, top, 64).reshape(8, 8).astype(np.uint16)).save(place / f"{n}.png")
    problem, seen = Problem.from_dict({"name": "x", "task": "binary", "target": "label", "data": "scans"}, base=tmp_path), []
    for frame in (problem.read().frame, problem.read().frame.iloc[[0, 2, 3]]):
        card = Card()
        problem.keep_images(frame.reset_index(drop=True)).tell(card)
        seen += card.told
    assert [(kind, severity, evidence["images"]) for kind, severity, evidence, _ in seen] == [("images", "warning", 4), ("images", "note", 3)]
    assert seen[0][2]["whites"] == {"its white is 4,095": 3, "its white is 65,535": 1} and "same white" in seen[0][3]


def test_data_images_that_is_no_folder_is_told(tmp_path):
    from mlbench.problem.problem import Problem

    (tmp_path / "t.csv").write_text("photo,y\na.png,1\n")
    problem = Problem.from_dict({"name": "x", "task": "regression", "target": "y", "data": {"source": "t.csv", "images": "gone"}}, base=tmp_path)
    for work in (problem.fingerprint, lambda: problem.keep_images(problem.read().frame)):
        with pytest.raises(DataError, match="data.images names gone, and there is no such folder"):
            work()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shape"), [("mnist_10k.npz", (28, 28, 1)), ("cifar10_5000.npz", (32, 32, 3))])
def test_real_pictures_come_out_of_a_folder_as_they_went_in(shared_data, tmp_path, name, shape):
    from mlbench.data.images import pixels_of
    from mlbench.problem.problem import Problem

    with np.load(shared_data(name), allow_pickle=False) as data:
        pixels, labels = data["x_train"][:200].reshape(200, *shape), data["y_train"][:200]
    for n, (picture, label) in enumerate(zip(pixels, labels)):
        place = tmp_path / "pictures" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.squeeze()).save(place / f"{n:04}.png")
    problem = Problem.from_dict({"name": "x", "task": "multiclass", "target": "label", "data": "pictures"}, base=tmp_path)
    kept = problem.keep_images(problem.read().frame)
    order = [int(c[-8:-4]) for c in problem.read().frame["image"]]
    assert kept.frame["label"].astype(int).tolist() == labels[order].tolist() and not kept.evidence
    assert (pixels_of(kept.frame["image"], shape, [0] * shape[2], tmp_path) == pixels[order]).all()


@pytest.mark.parametrize("data", [{"source": "../pets"}, {"source": "../t.csv", "images": ".."}, {"source": "../t.csv", "images": "../pets"}])
def test_a_reproduction_sees_the_same_pictures_from_its_own_folder(tmp_path, data):
    from mlbench.chain.project import Project
    from mlbench.chain.replay import _link_all
    from mlbench.problem.problem import Problem

    folder_of(tmp_path / "pets", rows=20)
    pd.DataFrame({"photo": [f"pets/cat/{n:03}.png" for n in range(0, 20, 2)] * 2, "label": list("ab") * 10}).to_csv(tmp_path / "t.csv", index=False)
    homes = [tmp_path / "shop", tmp_path / "shop" / "reproductions" / "r1" / "up" / "shop"]
    for home in homes:
        home.mkdir(parents=True)
        record = {"name": "x", "task": "binary", "target": "label", "data": data}
        (home / "problem.yaml").write_text(json.dumps(record))
    first = Problem.load(homes[0])
    first.keep_images(first.read().frame)
    before, again = first.fingerprint(), Project.open(homes[1])
    made = _link_all(again, homes[0])
    assert again.problem.fingerprint() == before == first.fingerprint()
    assert len(list((homes[1] / "data" / "images").rglob("*.png"))) == len(list((homes[0] / "data" / "images").rglob("*.png")))
    assert all(path.exists() for path in made) and len(list((homes[1].parent / "pets").rglob("*.png"))) == 20


def test_scoring_reads_pictures_from_the_folder_of_the_table(tmp_path, monkeypatch):
    from mlbench.cli import serving
    from mlbench.deployment import bundle

    folder_of(tmp_path / "far" / "shots")
    (tmp_path / "far" / "t.csv").write_text("photo,x\nshots/cat/000.png,1\nshots/dog/001.png,2\n")
    asked = []

    class Loaded:
        def answer(self, frame):
            asked.append(frame)
            return {"predictions": [0, 1]}

    monkeypatch.setattr(bundle.Bundle, "load", classmethod(lambda cls, folder: Loaded()))
    monkeypatch.chdir(tmp_path)
    scored = serving.score_table("any", "far/t.csv")
    assert scored["photo"].tolist() == ["shots/cat/000.png", "shots/dog/001.png"] and scored["prediction"].tolist() == [0, 1]
    assert asked[0]["photo"].tolist() == [str(tmp_path / "far" / c) for c in scored["photo"]]
