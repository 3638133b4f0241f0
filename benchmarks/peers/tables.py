"""The tables of `quality.py`: from ../shared/data, the same columns for every system, the same rows by seed.

Left out are only identifiers, columns that the data's README calls leaks, and what is known only after the fact. Nothing is filled,
converted or encoded: missing stays NaN, text and dates stay text.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

LARGEST = 20_000  # rows; of a larger table that many are drawn
TEST = 0.25  # share of the rows


@dataclass(frozen=True)
class Table:
    "A table, its target and what to leave out."

    name: str
    task: str  # binary, multiclass or regression
    target: str
    source: str | Callable[[Path], pd.DataFrame]  # file in the folder of the data, or what makes the frame
    drop: tuple[str, ...] = ()
    about: str = ""
    files: tuple[str, ...] = ()  # that such a function reads


FRAUD = ("credit_fraud_products.csv.gz", "credit_fraud_baskets.csv.gz")
FILMS = ("movielens_small_ratings.csv.gz", "movielens_small_movies.csv.gz")


def fraud(folder: Path) -> pd.DataFrame:
    "One row per basket: sums over its products, and their texts joined."
    products, baskets = (pd.read_csv(folder / name) for name in FRAUD)
    products = products.sort_values(["basket_ID", "cash_price"], ascending=[True, False], kind="stable")
    groups = products.groupby("basket_ID")
    made = groups.agg(products=("item", "size"), pieces=("Nbr_of_prod_purchas", "sum"), total=("cash_price", "sum"), dearest=("cash_price", "max"))
    first = groups[["item", "make", "model", "goods_code"]].first()
    made["items"] = groups["item"].agg("; ".join)
    return baskets.merge(made.join(first), left_on="ID", right_index=True)


def ratings(folder: Path) -> pd.DataFrame:
    "One row per rating, with title and genres of the film."
    given, films = (pd.read_csv(folder / name) for name in FILMS)
    return given.merge(films, on="movieId")


AFTER = ("is_recid", "violent_recid", "is_violent_recid", "event", "start", "end", "in_custody", "out_custody")  # the outcome, and what came after it
RECIDIVISM = ("r_case_number", "r_charge_degree", "r_days_from_arrest", "r_offense_date", "r_charge_desc", "r_jail_in", "r_jail_out")
VIOLENT = ("vr_case_number", "vr_charge_degree", "vr_offense_date", "vr_charge_desc")
SCORES = ("decile_score", "decile_score.1", "score_text", "v_decile_score", "v_score_text")
COMPAS = ("id", *AFTER, *RECIDIVISM, *VIOLENT, *SCORES)

TABLES = {t.name: t for t in [
    Table("titanic", "binary", "Survived", "titanic.csv", ("PassengerId",), "small; names, tickets, cabins"),
    Table("ames", "regression", "SalePrice", "ames_house_prices.csv", ("Id",), "79 columns, skewed target"),
    Table("wine", "multiclass", "quality", "wine_quality.csv.gz", (), "7 classes, two of them rare; duplicates"),
    Table("attrition", "binary", "Attrition", "hr_attrition.csv", ("EmployeeNumber",), "16% positive, constant columns"),
    Table("california", "regression", "MedHouseVal", "california_housing.csv.gz", (), "numbers and coordinates, cut"),
    Table("job_role", "multiclass", "JobRole", "hr_attrition.csv", ("EmployeeNumber",), "small, 9 classes"),
    Table("telco", "binary", "Churn", "telco_churn.csv", ("customerID",), "categories; a number that is text"),
    Table("bike", "regression", "cnt", "bike_sharing_hourly.csv.gz", ("instant", "casual", "registered"), "dates, weather"),
    Table("compas", "binary", "two_year_recid", "compas_two_years.csv.gz", COMPAS, "dates, names, charges of 437 kinds"),
    Table("neighborhood", "multiclass", "Neighborhood", "ames_house_prices.csv", ("Id",), "small, 25 classes, some of a few rows"),
    Table("mammography", "binary", "target", "mammography.csv.gz", (), "numbers, 2.3% positive"),
    Table("movielens", "regression", "rating", ratings, (), "categories of many values, titles, genres, cut", FILMS),
    Table("fraud", "binary", "fraud_flag", fraud, ("ID",), "1.4% positive, text of products, cut", FRAUD),
    Table("adult", "binary", "income", "adult.csv.gz", (), "categories and numbers, cut"),
    Table("transformer", "regression", "OT", "ETTh1.csv.gz", (), "dates and loads"),
    Table("reviews", "binary", "label", "sst2_train.csv.gz", (), "one column of text"),
]}  # fmt: skip


def data_folder(given: str | None = None) -> Path:
    "The folder of the data; ends the program where there is none."
    named = given or os.environ.get("MLBENCH_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there: keep the data in ../shared/data beside the checkout, or name the folder with --data.")
    return folder


def missing_files(table: Table, folder: Path) -> list[str]:
    "Files of a table that are not in the folder of the data."
    return [name for name in table.files or (str(table.source),) if not (folder / name).is_file()]


def frame_of(table: Table, folder: Path) -> pd.DataFrame:
    "The rows that have a target, without what is left out."
    frame = pd.read_csv(folder / table.source) if isinstance(table.source, str) else table.source(folder)
    return frame.drop(columns=list(table.drop)).dropna(subset=[table.target]).reset_index(drop=True)


def _drawn(y: pd.Series, share: float, rng: np.random.Generator, stratified: bool) -> np.ndarray:
    "Positions of a share of the rows; of every class the same share, rounded, and never all of it."
    groups = [np.flatnonzero(y.to_numpy() == c) for c in sorted(y.unique())] if stratified else [np.arange(len(y))]
    taken = [rng.permutation(g)[: min(round(share * len(g)), len(g) - 1)] for g in groups]
    return np.sort(np.concatenate(taken))


def split(table: Table, frame: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Train and test rows: cut to the largest size, then three to one; stratified for classes, the same for the same seed."
    rng, classes = np.random.default_rng(seed), table.task != "regression"
    if len(frame) > LARGEST:
        frame = frame.iloc[_drawn(frame[table.target], LARGEST / len(frame), rng, classes)].reset_index(drop=True)
    held = np.zeros(len(frame), dtype=bool)
    held[_drawn(frame[table.target], TEST, rng, classes)] = True
    order = rng.permutation(len(frame))
    train, test = (frame.iloc[[i for i in order if held[i] == out]].reset_index(drop=True) for out in (False, True))
    return train, test
