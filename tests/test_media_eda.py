"""Images in the second stage: what is found, what is drawn, and that plain tables pay nothing for it."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlbench.data.images import ImageStore, keep_images
from mlbench.data.schema import infer_schema
from mlbench.eda.findings import find_all, find_media
from mlbench.eda.images import ImageLook, difference_hashes, image_figures, image_findings, media_figures_of, near_pairs
from mlbench.eda.look import look_at
from mlbench.problem.problem import Problem
from mlbench.problem.sheets import sheet
from mlbench.problem.target import make_target


def scene(seed: int, side: int = 24) -> np.ndarray:
    "A picture with some large patches in it."
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 200, (6, 6, 3)), np.ones((side // 6, side // 6, 1))).astype(np.uint8)


def table_of(pictures, answers, folder):
    "A look at a table whose pictures were kept in a project, as the second stage has it."
    cells = []
    for picture in pictures:
        buffer = io.BytesIO()
        if picture is not None:
            (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, "PNG")
        cells.append(buffer.getvalue() or None)
    (folder / "problem.yaml").write_text("name: x\n")
    frame, evidence = keep_images(pd.DataFrame({"photo": cells, "y": answers}), ["photo"], folder, ImageStore.of(folder))
    assert not evidence
    return look_of(frame)


def look_of(frame):
    task = "regression" if frame["y"].dtype.kind == "f" else "multiclass" if frame["y"].nunique() > 2 else "binary"
    problem = Problem.from_dict({"name": "x", "task": task, "data": "x.csv", "target": "y"})
    return look_at(frame, infer_schema(frame), problem, make_target(frame["y"], problem))


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBENCH_PROJECT", str(tmp_path))
    return tmp_path


class TestFindings:
    def test_a_clean_table_is_left_in_peace(self, project):
        look = table_of([scene(k) for k in range(60)], ["a", "b", "c"] * 20, project)
        assert image_findings(look) == [] and [f.kind for f in find_media(look)] == []

    def test_copies_near_copies_and_contradictions(self, project):
        pictures = [scene(k) for k in range(60)]
        again = io.BytesIO()
        Image.fromarray(pictures[3]).save(again, "JPEG", quality=60)
        pictures += [pictures[0], pictures[0], np.asarray(Image.open(again)), pictures[7] + 10]
        answers = ["a", "b"] * 30 + ["a", "b", "b", "b"]
        [found] = image_findings(table_of(pictures, answers, project))
        assert found.kind == "repeated images" and found.severity == "warning"
        assert found.evidence == {"rows": 4, "exact": 2, "groups with different answers": 1}
        assert found.details[0] == {"rows": "0, 60, 61", "copies": 3, "answers": 2} and "columns: {group: COLUMN}" in found.proposal

    def test_copies_that_lost_some_of_their_edges(self, project):
        def photo(seed: int) -> Image.Image:
            return Image.fromarray(scene(seed)).resize((80, 80), Image.Resampling.BICUBIC)

        pictures = [photo(k) for k in range(40)]
        for k, box in enumerate([(1, 1, 80, 80), (0, 0, 76, 80), (4, 4, 76, 76), (5, 0, 80, 75)]):
            again = io.BytesIO()
            photo(k).crop(box).save(again, "JPEG", quality=80)
            pictures.append(Image.open(again))
        [found] = [f for f in image_findings(table_of(pictures, ["a", "b"] * 22, project)) if f.kind == "repeated images"]
        assert found.evidence["rows"] == 4 and found.evidence["exact"] == 0
        assert {d["rows"] for d in found.details} == {"0, 40", "1, 41", "2, 42", "3, 43"}

    def test_copies_with_other_answers_stand_first(self, project):
        pictures = [scene(k) for k in range(40)] + [scene(0)] * 5 + [scene(1)]
        [found] = image_findings(table_of(pictures, ["a", "b"] * 20 + ["a"] * 6, project))
        assert [d["answers"] for d in found.details] == [2, 1] and found.details[1]["copies"] == 6

    def test_pictures_on_both_sides_of_the_split(self, project):
        from mlbench.eda.images import shared_images

        pictures = [scene(k) for k in range(40)] + [scene(0), scene(1) + 9, scene(2)]
        frame = table_of(pictures, ["a", "b"] * 20 + ["a", "b", "b"], project).frame
        frame["split"] = ["train"] * 40 + ["test"] * 3
        [found] = shared_images(frame, np.array([40, 41, 42]), ["photo"], "y")
        assert found.evidence == {"rows": 3, "exact": 2, "other answers": 1} and "of them with another y there" in found.what
        assert shared_images(frame, np.array([20]), ["photo"], "y") == shared_images(frame.drop(columns="photo"), np.array([40]), [], "y") == []

    def test_scans_with_hardly_any_light_are_told(self, project):
        look = table_of([scene(k) // 8 for k in range(40)], ["a", "b"] * 20, project)
        assert [f.kind for f in image_findings(look)] == ["dark images"]

    def test_files_that_tell_the_answer(self, project):
        pictures = [scene(k, 24 if k % 2 else 30) for k in range(80)]
        [found] = image_findings(table_of(pictures, ["cat", "dog"] * 40, project))
        assert found.kind == "image files tell" and found.severity == "warning" and found.evidence["strength"] > 0.8
        by_chance = np.random.default_rng(0).choice(["cat", "dog"], 80)
        assert image_findings(table_of(pictures, by_chance, project)) == []

    def test_missing_blank_grey_slim_and_sizes(self, project):
        pictures: list = [scene(k) for k in range(60)]
        pictures[:6] = [None] * 6
        pictures[6:9] = [np.full((24, 24, 3), shade, dtype=np.uint8) for shade in (0, 255, 90)]
        pictures[9:20] = [Image.fromarray(p).convert("L") for p in pictures[9:20]]
        pictures[20:25] = [np.tile(p, (1, 8, 1)) for p in pictures[20:25]]
        found = {f.kind: f for f in image_findings(table_of(pictures, ["a", "b", "c"] * 20, project))}
        assert set(found) == {"missing images", "blank images", "image sizes", "slim images", "grey images"}
        assert found["missing images"].evidence["share"] == 0.1 and found["blank images"].evidence["images"] == 3
        assert "features.image_size=" in found["image sizes"].proposal

    def test_pictures_that_cannot_be_opened_do_not_stop_the_stage(self, project):
        frame = pd.DataFrame({"photo": [f"far/{k}.png" for k in range(60)], "x": np.arange(60.0) % 7, "y": ["a", "b", "c"] * 20})
        look = look_of(frame)
        [found] = image_findings(look)
        assert found.kind == "unusable images" and image_figures(look) == {} and len(find_all(look, False, False))

    def test_all_pictures_missing_or_the_same(self, project):
        look = table_of([scene(0)] * 40 + [None] * 20, ["a", "b", "c"] * 20, project)
        frame = look.frame
        assert infer_schema(frame).kind("photo") == "categorical"
        images = ImageLook("photo", frame["photo"].where(frame["photo"].notna(), None).tolist())
        assert (images.alike[:40] == images.alike[0]).all() and (images.alike[40:] == -1).all()

    def test_a_whole_look_at_a_table_of_pictures_alone(self, project):
        look = table_of([scene(k) for k in range(120)], ["a", "b", "c"] * 40, project)
        assert look.strengths["strength"].tolist() == [0.0] and look.most_telling == "y"
        assert {f.severity for f in find_all(look)} <= {"note"}


class TestHashes:
    def test_shifted_light_keeps_the_bits_and_mirrors_change_them(self):
        thumbs = np.random.default_rng(0).integers(20, 200, (20, 16, 18), dtype=np.uint8)
        assert (difference_hashes(thumbs) == difference_hashes(thumbs + 30)).all()
        assert np.bitwise_count(difference_hashes(thumbs) ^ difference_hashes(thumbs[:, :, ::-1])).min() > 10

    def test_every_pair_is_found_across_the_blocks_of_the_search(self):
        thumbs = np.random.default_rng(0).integers(0, 256, (600, 16, 18), dtype=np.uint8)
        thumbs[599], thumbs[300] = thumbs[2], thumbs[255]
        assert near_pairs(thumbs).tolist() == [[2, 599], [255, 300]]
        assert near_pairs(thumbs[:0]).shape == (0, 2)


class TestFigures:
    def test_sheets_show_the_classes_and_stay_small(self, project):
        look = table_of([scene(k) for k in range(130)], [f"class {k % 13:02}" for k in range(130)], project)
        figures = media_figures_of(look)
        assert list(figures) == ["classes of photo", "light of photo"]
        names = figures["classes of photo"].layout.yaxis.ticktext
        assert len(names) == 10 and "10 classes with the most rows" in figures["classes of photo"].layout.title.text
        assert sum(len(f.to_json()) for f in figures.values()) < 150_000

    def test_a_quantity_is_cut_into_groups(self, project):
        look = table_of([scene(k) for k in range(50)], np.arange(50.0), project)
        figure = image_figures(look)["classes of photo"]
        assert len(figure.layout.yaxis.ticktext) == 5 and " to " in figure.layout.yaxis.ticktext[0]

    def test_every_size_is_drawn_once(self, project):
        look = table_of([scene(k, 24 if k % 3 else 12) for k in range(60)], ["a", "b"] * 30, project)
        figure = image_figures(look)["sizes of photo"]
        assert sorted(figure.data[0].x) == [12, 24] and "24 x 24 pixels in 66.7 %" in figure.layout.title.text

    def test_a_tile_that_cannot_be_opened_stays_white(self, project):
        assert (sheet([["gone.png", None]], 8) == 255).all()


def test_plain_tables_have_no_figures_and_load_no_pillow():
    code = """
import sys
import numpy as np, pandas as pd
from mlbench.data.schema import infer_schema
from mlbench.eda.findings import find_media
from mlbench.eda.images import media_figures_of
from mlbench.eda.look import look_at
from mlbench.problem.problem import Problem
from mlbench.problem.target import make_target
frame = pd.DataFrame({"x": np.arange(60.0), "k": ["a", "b"] * 30, "y": ["no", "yes", "no"] * 20})
problem = Problem.from_dict({"name": "x", "task": "binary", "data": "x.csv", "target": "y"})
look = look_at(frame, infer_schema(frame), problem, make_target(frame["y"], problem))
assert find_media(look) == [] and media_figures_of(look) == {} and problem.keep_images(frame).frame is frame
print("PIL" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist_10k.npz", "cifar10_5000.npz"])
def test_real_pictures_hardly_give_cause_for_words(shared_data, project, name):
    with np.load(shared_data(name), allow_pickle=False) as data:
        pictures, answers = data["x_train"][:200], data["y_train"][:200].astype(str)
    look = table_of(list(pictures), answers, project)
    assert [f.kind for f in image_findings(look) if f.severity != "note"] == []
    assert "classes of photo" in image_figures(look)
