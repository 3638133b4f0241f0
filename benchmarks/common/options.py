"Values of the benchmarks' options: each function gives a type for argparse, which refuses anything else in words."

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

LARGEST_SEED = 2**31 - 1  # LightGBM and CatBoost take no larger one


def seconds(text: str) -> float:
    "A time above zero."
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0, such as 60")
    return value


def whole(what: str, least: int, example: int, most: int | None = None) -> Callable[[str], int]:
    "A whole number within bounds, both included."

    def read(text: str) -> int:
        digits = text.removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdigit() else None
        if value is None or value < least or (most is not None and value > most):
            bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
            raise argparse.ArgumentTypeError(f"{text!r} must be {what}: a whole number {bounds}, such as {example}")
        return value

    return read


def wholes(what: str, least: int, example: str) -> Callable[[str], list[int]]:
    "Whole numbers between commas."
    one = whole(what, least, 0)

    def read(text: str) -> list[int]:
        try:
            return [one(part.strip()) for part in text.split(",")]
        except argparse.ArgumentTypeError:
            raise argparse.ArgumentTypeError(f"{text!r} must be {what}: whole numbers of at least {least:,} between commas, such as {example}") from None

    return read


def names(what: str, known: Sequence[str]) -> Callable[[str], list[str]]:
    "Names between commas, given in the order of those that there are."

    def read(text: str) -> list[str]:
        given = [n.strip() for n in text.split(",") if n.strip()]
        unknown = [n for n in given if n not in known]
        if unknown or not given:
            wrong = f"no {what} {', '.join(unknown)}" if unknown else f"{text!r} names no {what}"
            raise argparse.ArgumentTypeError(f"{wrong}: there are {', '.join(known)}")
        return [n for n in known if n in given]

    return read
