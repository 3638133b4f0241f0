"""Columns of images as pixels: size, colours, missing and broken ones, and the plan that settles them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone

from mlbench.core.errors import DataError, UsageError
from mlbench.data.parts import as_record
from mlbench.data.schema import conform, infer_schema
from mlbench.features import feature_table, make_plan
from mlbench.features.pixels import Pixels, cells_of, learn_side, sample_images
from mlbench.features.plan import FeaturePlan
from mlbench.features.records import parts_of
from mlbench.features.sharing import SharedFits, SharedRows
from mlbench.problem.problem import Problem


def picture(pixels: np.ndarray, form: str = "PNG", mode: str | None = None) -> bytes:
    "Pixels as the bytes of a file."
    out, image = io.BytesIO(), Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(out, form)
    return out.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    "Random pixels."
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def frame(cells) -> pd.DataFrame:
    "One column of images."
    return pd.DataFrame({"photo": pd.Series(list(cells), dtype=object)})


def test_images_of_one_size_stay_what_they_are():
    images = noise(5, 16, 16, 3)
    pixels = Pixels().fit(frame(map(picture, images)))
    np.testing.assert_array_equal(pixels.transform(frame(map(picture, images))).reshape(images.shape), images)
    assert pixels.shape_ == (16, 16, 3) and clone(pixels).get_params() == pixels.get_params()


@pytest.mark.parametrize(("shape", "side"), [((4, 3, 3), 8), ((32, 32, 3), 32), ((50, 90, 3), 90), ((600, 40, 3), 96)])
def test_side_is_the_median_of_the_longer_ones_within_limits(shape, side):
    assert Pixels().fit(frame([picture(noise(*shape))])).shape_ == (side, side, 3)


def test_median_is_of_the_images_that_can_be_opened():
    good = sample_images(cells_of(frame([picture(noise(n, n, 3)) for n in (10, 20, 60)] + [b"broken", None, np.nan, ""])))
    assert learn_side(good) == 20 and len(good) == 3


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_images_stored_without_colours_have_one_channel(mode):
    assert Pixels().fit(frame([picture(noise(9, 9, 3, seed=s), mode=mode) for s in range(3)])).shape_[2] == 1


def test_sixteen_bits_are_grey():
    deep = picture(noise(9, 9).astype(np.uint16) * 257)
    pixels = Pixels().fit(frame([deep]))
    assert pixels.shape_ == (9, 9, 1) and abs(pixels.transform(frame([deep])).astype(int).ravel() - noise(9, 9).ravel()).max() <= 1


def test_one_image_with_colours_keeps_the_channels_of_all():
    grey = [picture(noise(9, 9, seed=s)) for s in range(4)]
    assert Pixels().fit(frame(grey)).shape_[2] == 1 and Pixels().fit(frame([*grey, picture(noise(9, 9, 3))])).shape_[2] == 3
    assert Pixels(grey="no").fit(frame(grey)).shape_[2] == 3


def test_missing_images_get_the_colour_that_was_learnt():
    red = np.zeros((10, 10, 3), dtype=np.uint8)
    red[..., 0] = 200
    pixels = Pixels().fit(frame([picture(red)] * 3))
    seen = pixels.transform(frame([None, np.nan, "", pd.NA])).reshape(4, 10, 10, 3)
    assert pixels.fill_ == [200, 0, 0] and (seen == np.array([200, 0, 0])).all()


def test_a_column_without_any_image_is_middle_grey():
    pixels = Pixels().fit(frame([None, ""]))
    assert pixels.shape_ == (32, 32, 3) and (pixels.transform(frame([None])) == 128).all()


def test_what_is_told_is_not_looked_for():
    pixels = Pixels(size=12, grey="no", fill=(1, 2, 3)).fit(frame([b"broken"]))
    assert pixels.shape_ == (12, 12, 3) and pixels.fill_ == [1, 2, 3]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"size": 7}, "8 to 512"),
        ({"size": 4_000}, "8 to 512"),
        ({"grey": True}, "'auto'"),
        ({"fit_way": "squeeze"}, "'stretch'"),
        ({"fill": (1,)}, "3 numbers"),
    ],
)
def test_choices_that_cannot_be_obeyed(choices, words):
    with pytest.raises(UsageError, match=words):
        Pixels(**choices).fit(frame([picture(noise(9, 9, 3))]))


def test_columns_that_hold_no_images_are_refused_with_the_first_reason():
    with pytest.raises(DataError, match="None of 2 images.*no such file"):
        Pixels().fit(frame(["gone.png", "lost.jpg"]))
    pixels = Pixels().fit(frame([picture(noise(9, 9, 3))]))
    with pytest.raises(DataError, match="row 1"):
        pixels.transform(frame([picture(noise(9, 9, 3)), picture(noise(9, 9, 3))[:60]]))


def uri(pixels: np.ndarray) -> str:
    "An image as text."
    return "data:image/png;base64," + base64.b64encode(picture(pixels)).decode()


def shop(rows: int = 40, **choices):
    "A plan for rows with a price, some words and a photo."
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"price": rng.normal(9, 2, rows), "photo": [uri(noise(12, 10, 3, seed=s)) for s in range(rows)]})
    table["said"] = [" ".join(rng.choice(["late", "kind", "quick", "slow", "again"], 6)) + f" {i}" for i in range(rows)]
    table.loc[3, "photo"] = None
    table["back"] = np.where(rng.random(rows) < 0.5, "yes", "no")
    schema = infer_schema(table, {"photo": "image", "said": "text"})
    problem = Problem.from_dict({"name": "s", "task": "binary", "target": "back", "data": "s.csv"})
    plan = make_plan(schema, problem, table, **choices)
    return plan, conform(table, schema, plan.inputs), (table["back"] == "yes").to_numpy().astype(int), schema, problem, table


def test_a_plan_settles_size_and_stand_in_for_all_folds():
    plan, rows, y, schema, problem, table = shop()
    photo = next(c for c in plan.columns if c.name == "photo")
    assert photo.use and photo.shape == (12, 12, 3) and len(photo.fill) == 3 and "12 x 12 pixels, in colour" in photo.steps
    for part in (rows.iloc[:20], rows.iloc[20:], rows.iloc[[3]]):
        step = plan.transformer("parts").fit(part, None).named_transformers_["pixels_0"]
        assert step.shape_ == photo.shape and step.fill_ == list(photo.fill), "the same, whatever rows it is fitted on"
    again = FeaturePlan.from_dict(plan.to_dict())
    assert again == plan and again.version == plan.version
    assert make_plan(schema, problem, table, image_size=16).version != plan.version
    assert make_plan(schema, problem, table, image_size=16, grey="yes").of_kind("image") == ["photo"]


def test_a_record_of_numbers_words_and_pixels():
    plan, rows, y, *_ = shop()
    record = plan.transformer("parts")
    seen = record.fit_transform(rows, y)
    assert [p.kind for p in parts_of(record)] == ["table", "tokens", "pixels"]
    assert seen["pixels photo"].shape == (40, 12, 12, 3) and seen["pixels photo"].dtype == np.uint8
    assert (seen["pixels photo"][3] == np.array(record.named_transformers_["pixels_0"].fill_)).all()
    again, parts = as_record(seen, parts_of(record))
    assert parts == parts_of(record) and again["table"].dtype == np.float32
    assert feature_table(record)["column"].tolist() == ["price", "said", "photo"]


def test_shared_rows_and_fits_of_records_are_those_of_the_transformer_alone():
    plan, rows, y, *_ = shop()
    train, test = rows.iloc[:30], rows.iloc[30:]
    record, seen, held = SharedFits(plan, ("trees", "parts")).made("parts", train, y[:30], test)
    alone = plan.transformer("parts")
    for field in seen.dtype.names:
        np.testing.assert_array_equal(alone.fit_transform(train, y[:30])[field], seen[field])
        np.testing.assert_array_equal(alone.transform(test)[field], held[field])
        np.testing.assert_array_equal(SharedRows(test).through(record)[field], held[field])
    with pytest.raises(DataError, match="'photo'"):
        record.transform(test.drop(columns="photo"))


def test_schema_alone_leaves_the_size_to_the_folds():
    plan, rows, y, schema, problem, _ = shop()
    loose = make_plan(schema, problem)
    assert all(c.shape == () for c in loose.columns)
    assert loose.transformer("parts").fit(rows, y).named_transformers_["pixels_0"].shape_ == (12, 12, 3)


@pytest.mark.parametrize("cells", [["gone.png"] * 30, ["data:image/png;base64,AAAA"] * 30])
def test_images_that_cannot_be_opened_stop_the_plan_in_words(cells):
    table = pd.DataFrame({"photo": [*cells[:-1], cells[0] + " "], "back": ["yes", "no"] * 15, "n": range(30)})
    schema = infer_schema(table, {"photo": "image"})
    with pytest.raises(DataError, match="None of 30 images.*exclude"):
        make_plan(schema, Problem.from_dict({"name": "s", "task": "binary", "target": "back", "data": "s.csv"}), table, drop_useless=False)
