"""Texts and images in every style: patterns, previews, changes, figures, and bad input."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from mlbench.core.errors import ParameterError, UsageError
from mlbench.data.schema import conform, infer_schema
from mlbench.features import (
    before_after,
    changes_of,
    changes_table,
    check_features,
    fit_styles,
    make_plan,
    plan_markdown,
    preview_rows,
    width_figure,
)
from mlbench.features.blocks import STYLES, TABLE_STYLES
from mlbench.features.media import augmented_figure, data_uri, media_figures, mosaic, patterns_figure, words_seen_figure
from mlbench.features.patches import PatchFeatures, patches_of, quarters, triangle
from mlbench.features.plan import FeaturePlan
from mlbench.features.sharing import SharedFits, SharedRows
from mlbench.features.tokens import Tokens
from mlbench.problem.problem import Problem


def stripes(rows: int, seed: int = 0, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    "Images of lying and upright stripes with noise, and which is which."
    rng = np.random.default_rng(seed)
    lying = rng.random(rows) < 0.5
    wave = 60 * np.sin(np.arange(side) * 1.5 + rng.uniform(0, 6, (rows, 1)))
    pixels = np.where(lying[:, None, None], wave[:, :, None], wave[:, None, :]) + rng.normal(128, 20, (rows, side, side))
    return np.clip(pixels, 0, 255).astype(np.uint8)[..., None], lying


def uri(pixels: np.ndarray) -> str:
    "An image as text."
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


ODD_TEXTS = ["", " ", "😀 👍🏽", "שלום עולם!", "مرحبا", "x" * 1_000_000, "late " * 200_000, "\x00 \ufffd", "<b>bold</b> & <script>alert(1)</script>", "一二三"]


def cards(rows: int = 80, **choices):
    "A table of stripes, odd texts, a category and a number; a plan with small patterns."
    pixels, lying = stripes(rows)
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"photo": [uri(p) for p in pixels], "price": rng.normal(size=rows), "shop": rng.choice(["a", "b", "c"], rows)})
    table["note"] = [f"a card with {'lines' if k else 'bars'} that {w} number {i}" for i, (k, w) in enumerate(zip(lying, rng.choice(["runs", "stands"], rows)))]
    table.loc[: len(ODD_TEXTS) - 1, "note"] = ODD_TEXTS
    table.loc[[15, 20], ["photo", "note"]] = None
    table["kind"] = np.where(lying, "lying", "upright")
    schema = infer_schema(table, {"photo": "image", "note": "text"})
    problem = Problem.from_dict({"name": "c", "task": "binary", "target": "kind", "data": "c.csv"})
    plan = make_plan(schema, problem, table, **({"patches": 12, "max_words": 30} | choices))
    return plan, table, schema, problem


@pytest.fixture(scope="module")
def shown():
    "The features of the cards in all styles."
    plan, table, schema, _ = cards()
    return plan, table, schema, fit_styles(plan, table, schema, STYLES)


def test_patches_are_those_cut_by_hand():
    images = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), dtype=np.uint8)
    cut = patches_of(images, 3, 2)
    assert cut.shape == (2, 3, 4, 27)
    for i, a, b in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        spot = images[i, 2 * a : 2 * a + 3, 2 * b : 2 * b + 3].astype(float).ravel()
        np.testing.assert_allclose(cut[i, a, b], (spot - spot.mean()) / np.sqrt(spot.var() + 10), atol=1e-5)


def test_triangle_and_quarters_by_hand():
    rng = np.random.default_rng(0)
    points, patterns = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    far = np.linalg.norm(points[:, None] - patterns[None], axis=2)
    np.testing.assert_allclose(triangle(points, patterns), np.maximum(far.mean(axis=1, keepdims=True) - far, 0), atol=1e-9)
    codes = rng.random((2, 5, 4, 3))
    by_hand = [codes[:, a, b].sum(axis=(1, 2)) for a in (slice(0, 2), slice(2, 5)) for b in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(quarters(codes), np.concatenate(by_hand, axis=1))


def test_patterns_tell_what_single_pixels_do_not():
    pixels, lying = stripes(140)
    flat, linear = pixels.reshape(140, -1), LogisticRegression(max_iter=500)
    with_patterns = cross_val_score(make_pipeline(PatchFeatures(8, 5), linear.set_params(C=100.0)), flat, lying, cv=3).mean()
    assert with_patterns > 0.9 > 0.75 > cross_val_score(LogisticRegression(max_iter=50), flat / 255, lying, cv=3).mean()


def test_patterns_are_the_same_again_and_in_any_portion(monkeypatch):
    pixels, _ = stripes(30)
    flat = pixels.reshape(30, -1)
    made = PatchFeatures(6, 4).fit(flat)
    np.testing.assert_array_equal(clone(made).fit(flat).patterns_, made.patterns_)
    whole = made.transform(flat)
    monkeypatch.setattr("mlbench.features.patches.BLOCK", 1)
    np.testing.assert_allclose(made.transform(flat), whole, atol=1e-6)
    assert PatchFeatures(6, 4, random_state=1).fit(flat).patterns_.tolist() != made.patterns_.tolist()


@pytest.mark.parametrize("pixels", [np.zeros((5, 64), np.uint8), np.full((1, 64), 255, np.uint8)])
def test_images_without_anything_in_them_are_finite(pixels):
    made = PatchFeatures(3, 4).fit_transform(pixels)
    assert np.isfinite(made).all() and made.shape == (len(pixels), 12)


def test_large_images_are_walked_in_larger_steps():
    big = np.random.default_rng(0).integers(0, 256, (3, 96 * 96 * 3), dtype=np.uint8)
    assert PatchFeatures(4).fit(big).step_ == 3 and PatchFeatures(4).fit(big[:, : 28 * 28]).step_ == 1


@pytest.mark.parametrize("wrong", [{"side": 40}, {"side": 1}, {"words": 0}, {"shape": (3, 3, 1)}])
def test_patterns_that_do_not_fit_are_refused(wrong):
    with pytest.raises(UsageError, match="words must be"):
        PatchFeatures(**wrong).fit(np.zeros((4, 144), np.uint8))
    with pytest.raises(UsageError, match="no square image"):
        PatchFeatures().fit(np.zeros((4, 145), np.uint8))


def test_every_style_takes_odd_texts_and_missing_images(shown):
    plan, table, schema, fitted = shown
    for style, features in fitted.items():
        matrix = features.matrix.toarray() if hasattr(features.matrix, "toarray") else features.matrix
        assert len(matrix) == 80 and not np.isinf(matrix).any() and (features.scaled or style in ("trees", "native"))
        assert matrix.shape[1] == len(features.names), style
        again = features.transformer.transform(conform(table.iloc[::-1], schema, plan.inputs))
        assert again.shape[0] == 80
    assert fitted["parts"].record.dtype.names == ("table", "tokens note", "pixels photo")
    assert (fitted["parts"].record["tokens note"][[0, 1, 15, 20]] == 0).all() and (fitted["parts"].record["tokens note"][2:6] > 0).any(axis=1).all()


def test_images_are_patterns_in_the_styles_of_matrices_and_pixels_in_parts(shown):
    _, _, _, fitted = shown
    for style in (*TABLE_STYLES, "words"):
        assert (fitted[style].names["column"] == "photo").sum() == 48, style
        assert fitted[style].names["feature"].str.contains("photo: pattern 12, below right").any()
    patterns = [fitted[s].transformer.named_transformers_["patches_0"].named_steps["patches"] for s in TABLE_STYLES]
    assert patterns[0] is patterns[1] is patterns[2], "learnt once for all styles"
    assert "note:card with" in set(fitted["words"].names["feature"]) and not (fitted["words"].names["feature"] == "note: score of its words").any()


def test_shared_rows_give_what_each_transformer_gives(shown):
    plan, table, schema, fitted = shown
    rows = conform(table, schema, plan.inputs)
    shared = SharedRows(rows)
    for style in (*TABLE_STYLES, "words"):
        once, alone = shared.through(fitted[style].transformer), fitted[style].transformer.transform(rows)
        np.testing.assert_array_equal(once.toarray() if hasattr(once, "toarray") else once, alone.toarray() if hasattr(alone, "toarray") else alone)
    opened = [value for key, value in shared._common.items() if "Pixels" in str(key)]
    assert len(opened) == 1, "the images are opened once for all styles"


def test_nothing_is_made_for_styles_that_nobody_asked_for(monkeypatch):
    plan, table, schema, _ = cards(30, patches=0)
    rows = conform(table, schema, plan.inputs)
    monkeypatch.setattr(Tokens, "fit", lambda *a: pytest.fail("words were learnt"))
    monkeypatch.setattr("mlbench.features.pixels.pixels_of", lambda *a, **k: pytest.fail("images were opened"))
    fits = SharedFits(plan, ("trees", "linear"))
    for style in ("trees", "linear"):
        fits.made(style, rows, np.arange(30) % 2, rows.iloc[:2])


def test_without_patterns_images_are_for_networks_alone():
    plan, table, schema, _ = cards(40, patches=0)
    fitted = fit_styles(plan, table, schema, ("linear", "parts"))
    assert not (fitted["linear"].names["column"] == "photo").any() and "pixels photo" in fitted["parts"].record.dtype.names
    assert "networks alone" in before_after(fitted["linear"], "photo").layout.title.text


@pytest.mark.parametrize("style", STYLES)
def test_every_column_can_be_looked_at_in_every_style(shown, style):
    plan, _, _, fitted = shown
    for column in plan.inputs:
        figure = before_after(fitted[style], column)
        assert figure.layout.title.text.startswith(f"{column}: ") and len(figure.to_json()) < 300_000
    table = preview_rows(fitted[style])
    assert table["column"].tolist() == plan.inputs and table["a value"].str.len().max() <= 60
    assert len(check_features(fitted[style])) == 4 and width_figure(fitted[style]).layout.title.text
    changes = changes_of(fitted[style])
    assert {c.column for c in changes} >= {"note", "photo"} and all(c.what and c.why for c in changes)


def test_titles_say_what_becomes_of_texts_and_images(shown):
    _, _, _, fitted = shown
    titles = {(s, c): before_after(fitted[s], c).layout.title.text for s in ("parts", "words", "linear") for c in ("note", "photo")}
    assert "texts become ids of" in titles["parts", "note"] and "12 x 12 pixels in grey" in titles["parts", "photo"]
    assert "words and runs of words" in titles["words", "note"] and "12 patterns in each quarter" in titles["linear", "photo"]
    assert "2.5 % is missing" in titles["linear", "photo"]


def test_the_document_tells_of_styles_and_choices_only_where_they_matter(shown):
    plan, _, schema, fitted = shown
    text = plan_markdown(plan, None, fitted, changes_table(changes_of(fitted["parts"])))
    assert "### Outputs, parts" in text and "- patches: 12" in text and "brought to one size" in text
    plain = make_plan(schema, cards(30)[3], exclude=["photo", "note"])
    text = plan_markdown(plain)
    assert "patches" not in text and "**parts**" not in text and "vocabulary" not in text and "**linear**" in text


def test_figures_of_texts_and_images(shown):
    plan, table, schema, _ = shown
    figures = media_figures(plan, table, schema)
    assert list(figures) == ["note as networks read it", "note changed in training", "photo as models see it", "photo changed in training", "patterns of photo"]
    assert sum(len(f.to_json()) for f in figures.values()) < 400_000
    assert all("<script>" not in f.to_json() and "\\u003cscript" not in f.to_json() for f in figures.values())
    assert {a.text for a in figures["photo as models see it"].layout.annotations} == {"lying", "upright"}
    assert media_figures(make_plan(schema, cards(30)[3], exclude=["photo", "note"]), table, schema) == {}


def test_figures_of_nothing():
    empty = np.array(["", None, "--"], dtype=object)
    empty[1] = ""
    tokens = Tokens().fit(empty[:, None])
    assert words_seen_figure(empty, tokens, "note").layout.title.text.startswith("note: ")
    assert augmented_figure(np.zeros((0, 8, 8, 1), np.uint8), "photo") is None and patterns_figure(np.zeros((1, 8, 8, 1), np.uint8), "photo") is None
    table = pd.DataFrame({"photo": [None] * 30, "n": np.sqrt(np.arange(30.0)), "kind": ["a", "b"] * 15})
    schema = infer_schema(table, {"photo": "image"})
    plan = FeaturePlan.from_dict(make_plan(schema, Problem.from_dict({"name": "c", "task": "binary", "target": "kind", "data": "c"}), table).to_dict())
    assert media_figures(plan, table, schema) == {} and plan.of_kind("image") == []


def test_a_sheet_holds_every_small_image_where_it_belongs():
    tiles = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((1, 1, 16, 16, 3), np.uint8)
    sheet = mosaic(tiles)
    assert sheet.shape == (2 * 51, 3 * 51, 3) and [int(sheet[51 * a, 51 * b, 0]) for a in range(2) for b in range(3)] == list(range(6))
    head, body = data_uri(sheet).split(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))).shape == sheet.shape


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"image_size": 5}, "8 to 512"),
        ({"grey": "perhaps"}, "'auto'"),
        ({"patches": -1}, "0 .none."),
        ({"ngrams": 7}, "pairs"),
        ({"vocabulary": 0}, "20,000"),
        ({"max_tokens": -2}, "10,000"),
    ],
)
def test_choices_out_of_range_are_refused_with_what_to_write(choice, words):
    with pytest.raises(ParameterError, match=words):
        cards(40, **choice)


def test_styles_are_fitted_when_they_are_asked_for():
    plan, table, schema, _ = cards(40, patches=0)
    fitted = fit_styles(plan, table, schema, ("linear",))
    assert set(fitted) == {"linear"} and fitted["words"].style == "words" and set(fitted) == {"linear", "words"}
    assert fitted["words"] is fitted["words"]
    with pytest.raises(UsageError, match="'words'"):
        fitted["word"]


def test_every_style_is_stored_and_read_again(shown):
    from mlbench.training.store import estimator_bytes, read_estimator

    plan, table, schema, fitted = shown
    rows = conform(table, schema, plan.inputs)
    for style in ("trees", "words", "parts"):
        data = estimator_bytes(fitted[style].transformer)
        again = read_estimator(data)
        assert estimator_bytes(again) == data, "the same bytes once more"
        one, other = fitted[style].transformer.transform(rows), again.transform(rows)
        if style == "parts":
            assert again.parts_ == fitted[style].transformer.parts_ and all(np.array_equal(one[f], other[f]) for f in one.dtype.names)
        else:
            np.testing.assert_array_equal(*(m.toarray() if hasattr(m, "toarray") else m for m in (one, other)))
