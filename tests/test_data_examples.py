"Bundled examples: complete, honest about what is generated, and fit for the chain."

import numpy as np
import pandas as pd
import pytest

from mlbench.core.errors import DataError
from mlbench.data.examples import list_examples, load_example
from mlbench.data.schema import infer_schema
from mlbench.problem.problem import Problem
from mlbench.problem.proposal import propose

NAMES = [e.name for e in list_examples()]


@pytest.mark.parametrize("name", NAMES)
def test_every_example_can_be_proposed_as_it_is(name):
    example = load_example(name)
    frame = example.frame
    assert example.target in frame.columns and example.question and example.source
    assert not frame.columns.duplicated().any() and all(isinstance(c, str) for c in frame.columns)
    known = {"question": example.question, "task": example.task, "positive": example.positive, "columns": example.roles}
    proposal = propose(frame, infer_schema(frame), example.target, name, f"example:{name}", known)
    problem = Problem.from_dict(proposal.problem)
    problem.check_frame(frame)
    assert problem.task == example.task and problem.question == example.question
    assert propose(frame, infer_schema(frame), example.target).problem["task"] == example.task, "and it would be found without being told"


def test_generated_ones_are_named_so_and_know_their_truth():
    for example in list_examples():
        assert example.generated == example.name.startswith("generated_") == (example.truth is not None)


def test_the_truth_of_generated_tables_is_true():
    churn = load_example("generated_churn")
    p, left = churn.truth["probability"], (churn.frame["left"] == "yes").to_numpy()
    for low, high in [(0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1)]:
        part = (p >= low) & (p < high)
        if part.sum() > 100:
            assert abs(left[part].mean() - p[part].mean()) < 4 * np.sqrt(0.25 / part.sum())
    prices = load_example("generated_prices")
    error = np.log(prices.frame["price"] / prices.truth["expected"])
    assert abs(error.mean()) < 0.02 and 0.05 < error.std() < 0.2
    kinds = {c.kind for c in infer_schema(churn.frame).columns}
    assert {"identifier", "date", "categorical", "numeric", "boolean"} <= kinds and churn.frame.isna().any().any()


def test_examples_are_the_same_every_time():
    for name in ("generated_churn", "generated_segments", "generated_prices", "breast_cancer"):
        pd.testing.assert_frame_equal(load_example(name).frame, load_example(name).frame)


def test_the_demo_is_readable():
    demo = load_example("breast_cancer")
    assert demo.target == "diagnosis" and set(demo.frame["diagnosis"]) == {"malignant", "benign"} and demo.positive == "malignant"
    assert "mean_radius" in demo.frame.columns and len(demo.frame) == 569


def test_an_unknown_example_names_the_likely_ones():
    with pytest.raises(DataError, match="breast_cancer"):
        load_example("breast_cancr")
    assert load_example("example:iris").name == "iris"
