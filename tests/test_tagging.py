"Tags of words: the chain against all ways written out, and the tagger on a language that is made here."

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from mlbench.models.layers import made
from mlbench.models.tagging import Chain, SequenceTagger, best_tags, chain_loss, learn_looks, never_made, numbers_of, shape_of, tag_shares
from mlbench.problem.spans import spans_of

QUICK = {"width": 32, "embedding": 16, "max_epochs": 8, "learning_rate": 0.02, "random_state": 0}


def spoken(rows: int, seed: int, first: tuple[str, ...] = ("Ann", "Bob", "Cleo"), places: tuple[str, ...] = ("Rome", "Oslo", "Bonn")):
    "Sentences such as 'Ann Smith lives in Rome .' with their tags."
    draw = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(rows):
        name = [str(draw.choice(first)), str(draw.choice(["Smith", "Jones"]))][: int(draw.integers(1, 3))]
        lives = draw.random() < 0.7
        words.append([*name, *(["lives", "in", str(draw.choice(places))] if lives else ["sleeps", "well"]), "."])
        tags.append([*["B-PER", "I-PER"][: len(name)], *(["O", "O", "B-LOC"] if lives else ["O", "O"]), "O"])
    return words, tags


@pytest.fixture(scope="module")
def tagger() -> SequenceTagger:
    return SequenceTagger(**QUICK).fit(*spoken(120, 0))


@pytest.mark.parametrize("seed", range(5))
def test_the_chain_agrees_with_all_ways_written_out(seed):
    tags, lengths = 3, [4, 1, 2]
    chain = made(lambda: Chain(tags), seed)
    with torch.no_grad():
        chain.never[2, 0] = 1.0
    emissions = torch.randn(3, 4, tags, generator=torch.Generator().manual_seed(seed))
    there = torch.tensor([[float(place < n) for place in range(4)] for n in lengths])
    totals, best, shares = chain.total(emissions, there), best_tags(chain, emissions, there), tag_shares(chain, emissions, there)
    for row, n in enumerate(lengths):
        ways = list(product(range(tags), repeat=n))
        scores = torch.stack([chain.score(emissions[row : row + 1, :n], torch.tensor([way]), there[row : row + 1, :n])[0] for way in ways])
        assert totals[row].item() == pytest.approx(torch.logsumexp(scores, 0).item(), abs=1e-4)
        assert tuple(best[row, :n].tolist()) == ways[int(scores.argmax())]
        weights = torch.softmax(scores, 0)
        by_hand = [[weights[[way[place] == tag for way in ways]].sum().item() for tag in range(tags)] for place in range(n)]
        assert np.allclose(shares[row, :n].detach().numpy(), by_hand, atol=1e-4)


def test_what_stands_behind_the_end_changes_nothing():
    chain = made(lambda: Chain(4), 0)
    emissions, target = torch.randn(2, 3, 4), torch.tensor([[0, 1, 2], [3, 2, -1]])
    longer = torch.cat([emissions, torch.full((2, 2, 4), 50.0)], 1)
    same = torch.cat([target, torch.full((2, 2), -1)], 1)
    assert torch.allclose(chain_loss(chain, emissions, target), chain_loss(chain, longer, same))


@pytest.mark.parametrize("encoder", ["lstm", "transformer"])
def test_names_that_were_never_seen_are_found(encoder):
    tagger = SequenceTagger(**QUICK, encoder=encoder).fit(*spoken(120, 0))
    assert tagger.score(*spoken(40, 1, first=("Dora", "Ann"), places=("Lima", "Rome"))) > 0.9
    assert tagger.history_[-1]["validation_loss"] < tagger.history_[0]["validation_loss"]


def test_a_sentence_has_the_same_answer_alone_and_in_a_batch(tagger):
    words = [*spoken(30, 5)[0], ["Ann"], [], ["Bob", "lives", "in", "Rome", "."] * 30]
    together = tagger.predict_proba(words)
    for sentence, shares in zip(words, together):
        assert shares.shape == (len(sentence), 4) and np.allclose(shares, tagger.predict_proba([sentence])[0], atol=1e-4)
        assert np.allclose(shares.sum(axis=1), 1.0)
    assert tagger.predict([]) == [] and tagger.predict([[]]) == [[]]


def test_answers_keep_to_what_the_tags_allow(tagger):
    draw = np.random.default_rng(0)
    letters = np.array(list("abcdeXYZ0123.-"))
    nonsense = [["".join(draw.choice(letters, 4)) for _ in range(draw.integers(1, 12))] for _ in range(60)]
    for tags in tagger.predict(nonsense):
        assert all(before in ("B-PER", "I-PER") for before, tag in zip(["O", *tags], tags) if tag == "I-PER")


def test_where_training_breaks_the_rule_nothing_is_forbidden():
    assert never_made(["B-A", "I-A", "O"], [["B-A", "I-A"]]).sum() == 2  # after O, and first
    assert not never_made(["I-A", "O"], [["O", "I-A"]]).any()


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tagger):
    again = clone(tagger).fit(*spoken(120, 0))
    assert again.model_.tobytes() == tagger.model_.tobytes()
    assert clone(tagger).set_params(random_state=1).fit(*spoken(120, 0)).model_.tobytes() != tagger.model_.tobytes()


def test_it_is_an_estimator_of_scikit_learn():
    words, tags = spoken(60, 0)
    assert cross_val_score(SequenceTagger(**QUICK | {"max_epochs": 12}), words, tags, cv=2).min() > 0.5
    with pytest.raises(NotFittedError):
        SequenceTagger().predict(words)


def test_long_sentences_are_learned_in_pieces_and_tagged_whole():
    words, tags = spoken(60, 0)
    long = [sum(words, []), sum(words, [])[::1]], [sum(tags, []), sum(tags, [])]
    tagger = SequenceTagger(**QUICK | {"max_words": 20, "max_epochs": 30, "batch_size": 4}).fit(*long)
    assert len(tagger.predict([long[0][0]])[0]) == len(long[0][0]) and tagger.score(*long) > 0.8


def test_held_out_sentences_may_have_tags_that_training_does_not_know():
    words, tags = spoken(60, 0)
    tagger = SequenceTagger(**QUICK).fit(words, tags, [["Ann"], ["Rome"]], [["B-PER"], ["B-ORG"]])
    assert "validation_loss" in tagger.history_[0] and "B-ORG" not in tagger.classes_


def test_time_ends_the_training():
    tagger = SequenceTagger(**QUICK | {"max_epochs": 100_000}).fit(*spoken(120, 0), seconds=2.0)
    assert 1 <= tagger.n_iter_ < 100_000


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (["Ann lives"], [["O", "O"]], "each a list of words, and entry 0 is 'Ann lives'"),
        ([["Ann", None]], [["B-PER", "O"]], "sentence 0 has None"),
        ([["Ann"], ["in", 3]], [["B-PER"], ["O", "O"]], "sentence 1 has 3"),
        ([["Ann", "lives"]], [["B-PER"]], "sentence 0 has 2 words and 1 tags"),
        ([["Ann"], ["Bob"]], [["B-PER"]], "2 sentences and 1 lists of tags"),
        ([["Ann"], ["Bob"]], [["O"], ["O"]], "two tags to tell apart"),
        ([["Ann"], ["Bob"]], [["PER"], ["O"]], "is no tag of a piece"),
        ([], [], "two tags to tell apart"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_words(X, y, words):
    with pytest.raises(Exception, match=words):
        SequenceTagger().fit(X, y)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="expected 'lstm' or 'transformer', and a width"):
        SequenceTagger(encoder="gru").fit(*spoken(5, 0))
    with pytest.raises(ValueError, match="a multiple of 32"):
        SequenceTagger(width=50).fit(*spoken(5, 0))


def test_looks_know_all_scripts():
    assert shape_of("Ünal") == "Xx" and shape_of("3,5%") == "d,d%" and shape_of("東京") == "x" and shape_of("🙂") == "🙂"
    looks = learn_looks([["東京", "東京", "🙂"]])
    assert numbers_of([["東京", "nie", ""]], looks)["word"].tolist() == [[2, 1, 1]]


def test_spans_of_answers_can_be_read(tagger):
    words, _ = spoken(20, 3)
    assert all(spans_of(tags) or "B-LOC" not in tags for tags in tagger.predict(words))
