"Changes of batches: the same again from the same generator, nothing outside training, types, edges, faults."

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mlbench.core.errors import DataError, UsageError
from mlbench.data.parts import Part
from mlbench.models.augment import (
    NAMES,
    Augment,
    as_shares,
    augment_of,
    beta_shares,
    between_neighbours,
    cut_out,
    learned_synonyms,
    moved,
    paraphrases,
    rand_augmented,
    smote,
    squares,
    synonym_table,
    turned,
    usual_names,
    variants,
    with_paraphrases,
    with_swaps,
    with_synonyms,
    without_words,
)

PIXELS = SimpleNamespace(kind="pixels", shape=(8, 8, 3))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch_for(name, rows=24, channels=3):
    "Parts of the kind that a name is for, and classes."
    random = np.random.default_rng(0)
    target = torch.from_numpy(random.integers(0, 4, rows))
    if "tokens" in NAMES[name]:
        tokens = random.integers(2, 20, (rows, 12)).astype(np.int32)
        tokens[np.arange(12)[None] >= random.integers(1, 13, rows)[:, None]] = 0
        return {"tokens": torch.from_numpy(tokens)}, target
    if "pixels" in NAMES[name]:
        return {"pixels": torch.from_numpy(random.integers(0, 256, (rows, 10, 14, channels), dtype=np.uint8))}, target
    return {"table": torch.from_numpy(random.normal(size=(rows, 5)).astype(np.float32))}, target


def made(name, **more):
    synonyms = {"tokens": np.tile(np.array([[4, 5, 0]], dtype=np.int32), (20, 1))}
    return Augment((name,), classes=4, synonyms=synonyms, **more)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_is_a_function_of_batch_and_generator_alone(name):
    parts, target = batch_for(name)
    before = {k: v.clone() for k, v in parts.items()}
    state = torch.random.get_rng_state()
    first, again, other = (made(name)(parts, target, seeded(s)) for s in (3, 3, 4))
    for k, v in first[0].items():
        assert v.dtype == parts[k].dtype and v.shape == parts[k].shape
        assert torch.equal(v, again[0][k]) and not torch.equal(v, other[0][k]) and not torch.equal(v, parts[k])
        assert torch.equal(parts[k], before[k]), "the batch that came was changed"
    assert torch.equal(first[1], again[1])
    assert torch.equal(state, torch.random.get_rng_state()), "torch's own random state was used"


@pytest.mark.parametrize("name", NAMES)
def test_rows_outside_training_are_untouched_and_draw_nothing(name):
    parts, target = batch_for(name)
    generator = seeded(1)
    state = generator.get_state()
    new, same = made(name)(parts, target, generator, training=False)
    assert new is parts and same is target and torch.equal(generator.get_state(), state)
    assert made(name, strength=0.0)(parts, target, generator)[0] is parts


def test_a_stop_at_any_step_changes_nothing_because_a_step_needs_only_its_seed():
    parts, target = batch_for("crop")
    change = Augment(("crop", "flip", "rotate", "colour", "randaugment", "cutout", "mixup", "cutmix"), classes=4)
    whole = [change(parts, target, seeded(step)) for step in range(6)]
    rest = [change(parts, target, seeded(step)) for step in range(4, 6)]
    assert all(torch.equal(a[0]["pixels"], b[0]["pixels"]) and torch.equal(a[1], b[1]) for a, b in zip(whole[4:], rest))


def test_two_threads_give_what_one_gives():
    parts, target = batch_for("crop")
    change = Augment(("crop", "rotate", "mixup"), classes=4)
    one = [change(parts, target, seeded(s)) for s in range(8)]
    with ThreadPoolExecutor(2) as pool:
        two = list(pool.map(lambda s: change(parts, target, seeded(s)), range(8)))
    assert all(torch.equal(a[0]["pixels"], b[0]["pixels"]) and torch.equal(a[1], b[1]) for a, b in zip(one, two))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [n for n in NAMES if NAMES[n] == ("pixels",)])
def test_images_of_floats_and_of_whole_numbers_change_alike(name, channels):
    parts, target = batch_for(name, channels=channels)
    floats = {"pixels": parts["pixels"].float() / 255}
    whole, bright = made(name)(parts, target, seeded(2))[0]["pixels"], made(name)(floats, target, seeded(2))[0]["pixels"]
    assert bright.dtype == torch.float32 and bright.min() >= 0 and bright.max() <= 1 + 1e-6
    assert (whole.float() - bright * 255).abs().max() <= 0.51


def test_images_without_an_axis_of_channels_and_of_one_pixel():
    change = Augment(("crop", "flip", "rotate", "zoom", "colour", "randaugment", "cutout"), strength=2.0)
    for shape in [(5, 8, 8), (5, 1, 1), (5, 1, 1, 3), (1, 3, 2, 1)]:
        pixels = torch.randint(0, 256, shape, generator=seeded(), dtype=torch.uint8)
        new, _ = change({"pixels": pixels}, torch.zeros(shape[0], dtype=torch.int64), seeded())
        assert new["pixels"].shape == pixels.shape and new["pixels"].dtype == torch.uint8


def test_each_image_gets_its_own_change():
    pixels = torch.from_numpy(np.tile(load_digits().images[0].astype(np.uint8)[None] * 15, (16, 1, 1)))
    for name in ("crop", "rotate", "zoom", "randaugment", "cutout"):
        new = Augment((name,))({"pixels": pixels}, torch.zeros(16, dtype=torch.int64), seeded(1))[0]["pixels"]
        assert len(torch.unique(new.flatten(1), dim=0)) > 4, name


def test_moves_beyond_the_image_stay_inside_of_it():
    images = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4)
    for steps in range(-9, 10):
        new = moved(images, torch.tensor([steps]), torch.tensor([0]))
        assert set(new.flatten().tolist()) <= set(range(16))
    right = moved(images, torch.tensor([0]), torch.tensor([1]))
    assert right[0, 0].tolist() == [1, 0, 1, 2]


def test_images_that_are_not_square_turn_without_being_bent():
    image = torch.zeros(1, 9, 17, 1)
    image[0, 4, 4:13] = 1  # a bar of nine pixels in the middle
    upright = turned(image, 90)[0, :, :, 0]
    assert upright[:, 8].min() > 0.99 and upright[:, :7].max() < 1e-3 and abs(float(upright.sum()) - 9) < 0.1
    larger = turned(image, zoom=2.0)[0, :, :, 0]
    assert larger[4].min() > 0.4 and larger[4, 1:16].min() > 0.99


def test_what_is_hidden_has_the_mean_colour_of_its_own_image():
    images = torch.rand(3, 6, 6, 3, generator=seeded())
    middle = torch.full((3,), 3.0)
    hidden = squares(6, 6, middle, middle, 2, 4)
    new = cut_out(images, hidden)
    assert hidden.sum(dim=(1, 2)).tolist() == [8, 8, 8]
    assert torch.allclose(new[:, 2, 2], images.mean(dim=(1, 2))) and torch.equal(new[~hidden], images[~hidden])


def test_a_rand_augment_of_no_strength_only_stretches():
    images = torch.rand(40, 6, 6, 3, generator=seeded()) * 0.5 + 0.2
    new = rand_augmented(images, seeded(), level=0.0)
    same = torch.isclose(new, images, atol=1e-5).flatten(1).all(dim=1)
    stretched = (new.amax(dim=(1, 2)) > 0.999).all(dim=1) & (new.amin(dim=(1, 2)) < 1e-3).all(dim=1)
    assert (same | stretched).all() and same.any() and stretched.any()


def test_shares_of_a_beta_distribution():
    draws = torch.rand(20_000, generator=seeded())
    for alpha in (0.1, 0.4, 1.0, 5.0):
        shares = beta_shares(draws, alpha)
        assert abs(float(shares.mean()) - 0.5) < 0.01 and abs(float(shares.var()) - 0.25 / (2 * alpha + 1)) < 0.005
        assert shares.min() >= 0 and shares.max() <= 1


def test_blends_keep_the_sum_of_the_answers_and_fit_the_pixels():
    black_white = torch.cat([torch.zeros(16, 8, 8, 1), torch.full((16, 8, 8, 1), 255.0)]).to(torch.uint8)
    target = torch.tensor([0] * 16 + [1] * 16)
    for names in (("mixup",), ("cutmix",), ("mixup", "cutmix")):
        new, shares = Augment(names, classes=2)({"pixels": black_white}, target, seeded(1))
        assert torch.allclose(shares.sum(dim=1), torch.ones(32))
        assert torch.allclose(new["pixels"].float().mean(dim=(1, 2, 3)) / 255, shares[:, 1], atol=0.003), names
        assert ((shares[:, 1] > 0.01) & (shares[:, 1] < 0.99)).any()


def test_all_parts_of_a_row_are_blended_with_the_same_row_and_share():
    value = torch.arange(8, dtype=torch.float32)
    parts = {"a": value[:, None].repeat(1, 3), "b": (value * 10).to(torch.uint8)[:, None, None, None].repeat(1, 4, 4, 1), "c": value[:, None] * 2}
    new, target = Augment(("mixup",))(parts, value, seeded(2))
    assert torch.allclose(new["a"][:, 0], target, atol=1e-5) and torch.allclose(new["c"][:, 0], 2 * target, atol=1e-5)
    assert (new["b"][:, 0, 0, 0].float() - 10 * target).abs().max() <= 0.51 and not torch.equal(target, value)


def test_blends_refuse_words_and_unknown_numbers_of_classes():
    words = {"tokens 0": torch.ones(4, 3, dtype=torch.int32)}
    with pytest.raises(UsageError, match="'tokens 0' holds words"):
        Augment(("mixup",), classes=2)(words, torch.zeros(4, dtype=torch.int64), seeded())
    with pytest.raises(UsageError, match="classes=0"):
        Augment(("mixup",))({"table": torch.zeros(4, 2)}, torch.zeros(4, dtype=torch.int64), seeded())
    with pytest.raises(UsageError, match="target is a number"):
        Augment(("smote",))({"table": torch.zeros(4, 2)}, torch.zeros(4), seeded())
    assert as_shares(torch.ones(3, 2), 0).shape == (3, 2)


def test_words_are_left_out_and_moved_without_holes_and_without_new_ones():
    parts, _ = batch_for("swap", rows=200)
    tokens = parts["tokens"]
    for step in range(5):
        draws = torch.rand(tokens.shape, generator=seeded(step))
        fewer, swapped = without_words(tokens, draws, 0.5), with_swaps(tokens, draws, 0.3)
        assert torch.equal(swapped.sort(dim=1).values, tokens.sort(dim=1).values)
        length = (fewer != 0).sum(dim=1)
        assert (length >= 1).all() and torch.equal(fewer != 0, torch.arange(12)[None] < length[:, None])
        assert torch.equal(swapped != 0, tokens != 0)
        for old, new in zip(tokens.tolist(), fewer.tolist()):
            rest = iter(old)
            assert all(word in rest for word in new if word), "the order of the words changed"
    left = (without_words(tokens, torch.rand(tokens.shape, generator=seeded()), 0.3) != 0).sum() / (tokens != 0).sum()
    assert 0.6 < left < 0.8


def test_like_words_come_from_the_table_and_only_there():
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(3000, 16))
    embeddings[2000] = embeddings[7] * 3
    table = synonym_table(embeddings, most=3, least=0.9)
    assert table[7].tolist() == [2000, 0, 0] and table[2000].tolist() == [7, 0, 0] and not table[:2].any()
    assert np.count_nonzero(table) < 60
    tokens = torch.tensor([[7, 2000, 3, 0], [1, 7, 5000, 0]], dtype=torch.int32)
    new = with_synonyms(tokens, table, torch.zeros(2, 2, 4))
    assert new.dtype == torch.int32 and new.tolist() == [[2000, 7, int(table[3, 0]) or 3, 0], [1, 2000, 5000, 0]]
    assert synonym_table(np.ones((2, 4))).shape == (2, 5)


def test_texts_go_through_translators_in_batches():
    seen = []

    def there(texts):
        seen.append(len(texts))
        return [f"{t} !" for t in texts]

    said = paraphrases([f"text {i}" for i in range(10)], there, lambda texts: [t.removesuffix(" !") + " again" for t in texts], batch=4)
    assert said[9] == "text 9 again" and seen == [4, 4, 2]
    texts, y, rows = with_paraphrases(["a b", "c", "d"], ["x", "y", "z"], lambda texts: [t.replace("b", "e") for t in texts])
    assert texts == ["a b", "c", "d", "a e"] and y.tolist() == ["x", "y", "z", "x"] and rows.tolist() == [0, 1, 2, 0]
    half = with_paraphrases([str(i) for i in range(10)], range(10), lambda texts: [t + "!" for t in texts], share=0.5, seed=1)
    assert len(half[0]) == 15 and half[0][10:] == [f"{i}!" for i in half[2][10:]] and half[1].tolist() == half[2].tolist()


@pytest.mark.parametrize("given", [lambda t: t[:-1], lambda t: [None] * len(t), lambda t: [*t, "more"]])
def test_a_translator_that_gives_something_else_is_named(given):
    def lazy(texts):
        return given(texts)

    with pytest.raises(DataError, match="'lazy' was given 3 texts"):
        paraphrases(["a", "b", "c"], lazy)
    with pytest.raises(UsageError, match="no translator"):
        paraphrases(["a"])


def test_neighbours_are_of_the_own_class_and_missing_values_stay():
    random = np.random.default_rng(0)
    X = torch.from_numpy(np.concatenate([random.normal(size=(20, 3)), random.normal(100, 1, (20, 3))]).astype(np.float32))
    codes = torch.tensor([0] * 20 + [1] * 20)
    new = between_neighbours(X, codes, torch.rand(2, 40, generator=seeded()))
    assert new[:20].max() < 50 < new[20:].min() and not torch.equal(new, X)
    X[3, 1] = float("nan")
    holed = between_neighbours(X, codes, torch.rand(2, 40, generator=seeded()))
    assert torch.isnan(holed[3, 1]) and torch.isfinite(holed[3, [0, 2]]).all()


def test_rare_classes_are_filled_up_between_their_rows():
    random = np.random.default_rng(0)
    X = np.concatenate([random.normal(size=(60, 2)), random.normal(8, 1, (6, 2)), [[-9.0, -9.0]]])
    X = np.column_stack([X, np.r_[random.integers(0, 3, 66), 2]])
    y = np.array(["many"] * 60 + ["few"] * 6 + ["one"])
    new, labels = smote(X, y, categories=[2], seed=1)
    assert dict(zip(*np.unique(labels, return_counts=True))) == {"many": 60, "few": 60, "one": 60}
    assert np.array_equal(new[:67], X) and set(new[:, 2]) <= {0.0, 1.0, 2.0}
    few = new[67:][labels[67:] == "few"]
    assert len(np.unique(few[:, 0])) > 40 and few[:, :2].min() >= X[60:66, :2].min() and (new[67:][labels[67:] == "one"] == X[66]).all()
    assert np.array_equal(smote(X, y, seed=1)[0], smote(X, y, seed=1)[0]) and not np.array_equal(smote(X, y, seed=1)[0], smote(X, y, seed=2)[0])
    with pytest.raises(DataError, match="finite numbers"):
        smote(np.array([[1.0], [np.nan]]), [0, 1])


def test_the_parameter_is_read_and_checked_against_the_parts():
    words, table = SimpleNamespace(kind="tokens", shape=(12,)), SimpleNamespace(kind="table", shape=(3,))
    writing = SimpleNamespace(kind="pixels", shape=(28, 28))
    assert usual_names([writing]) == ("crop", "rotate", "zoom") and usual_names([PIXELS]) == ("flip", "crop")
    assert augment_of("auto", [table]) is None and augment_of(None, [table]) is None and augment_of("none", [table]) is None
    assert augment_of("auto", [table, words, writing]).names == ("word_dropout", "crop", "rotate", "zoom")
    assert augment_of(["flip"], [PIXELS]) == augment_of("flip", [PIXELS]) == Augment(("flip",))
    own = Augment(("flip",), 0.5)
    assert augment_of(own, [PIXELS]) is own
    for wrong, words_of_error in [("flip+smote", "smote, which is for table"), ("flop", "'flip'"), ("synonyms", "table of like words")]:
        with pytest.raises(UsageError, match=words_of_error):
            augment_of(wrong, [PIXELS, words] if wrong == "synonyms" else [PIXELS])
    with pytest.raises(UsageError, match="from 0 to 3"):
        Augment(("flip",), strength=9.0)


def test_variants_stand_beside_the_image_that_they_came_from():
    images = (load_digits().images[:5] * 15).astype(np.uint8)
    sheet = variants(Augment(("rotate", "mixup"), classes=10), images, copies=3, seed=2)
    assert sheet.shape == (5, 4, 8, 8) and np.array_equal(sheet[:, 0], images)
    assert all(np.corrcoef(sheet[i, 0].ravel(), sheet[i, k].ravel())[0, 1] > 0.5 for i in range(5) for k in range(1, 4))


def test_like_words_are_taken_out_of_a_fitted_network_and_used_by_the_next():
    from mlbench.data.parts import Part, record_of
    from mlbench.models.deep import DeepClassifier

    random = np.random.default_rng(0)
    y = np.arange(200) % 2
    words = np.where(np.arange(6) < random.integers(3, 7, 200)[:, None], 2 + 4 * y[:, None] + random.integers(0, 4, (200, 6)), 0)
    parts = (Part("tokens said", "tokens", "said", (6,), 10),)
    record = record_of(parts, [words])
    settings = {"network": "mean", "embedding": 8, "max_epochs": 15, "random_state": 0, "batch_size": 20, "learning_rate": 2e-2, "parts": parts}
    first = DeepClassifier(**settings, augment="none").fit(record, y)
    table = learned_synonyms(first, most=3)
    assert list(table) == ["tokens said"] and table["tokens said"].shape == (10, 3)
    alike = [int(other) for word in range(2, 6) for other in table["tokens said"][word] if other]
    assert alike and set(alike) <= {2, 3, 4, 5}, "words of one class are alike, and not like those of the other"
    again = DeepClassifier(**settings, augment=Augment(("synonyms",), synonyms=table)).fit(record, y)
    assert again.score(record, y) > 0.95 and not np.array_equal(again.model_, first.model_)
    with pytest.raises(UsageError, match="no embeddings"):
        learned_synonyms(DeepClassifier(max_epochs=1).fit(random.normal(size=(60, 2)), y[:60]))


def test_the_strong_bundle_suits_every_kind_of_rows():
    part = lambda kind, shape: Part(f"{kind} x", kind, "x", shape, 9)
    pixels, words, table = part("pixels", (32, 32, 3)), part("tokens", (6,)), part("table", (3,))
    assert augment_of("strong", [pixels, words, table]).names == ("flip", "crop", "cutout", "word_dropout", "randaugment", "swap")
    assert augment_of("strong", [table], classes=2).names == ("mixup",) and augment_of("strong", [words]).names == ("word_dropout", "swap")
