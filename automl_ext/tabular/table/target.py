"""The target's values: numbers, or the texts of classes."""

from __future__ import annotations

from typing import Any

from automl_ext.tabular.extra import library
from automl_ext.tabular.table.columns import number_words
from automl_ext.tabular.table.task import FEW_INTEGERS


def as_target(values: Any, task: str | None) -> tuple[Any, tuple[str, ...]]:
    """Return the target's values, and the words that count as missing among numbers.

    Text becomes numbers by the same rule as in features. Two kinds of numbers stay text, because they are classes:
    codes with leading zeros, and at most ``FEW_INTEGERS`` different texts without other words.

    Args:
        values: a ``pandas.Series``.
        task: "classification" keeps all texts, "regression" converts all numbers.
    """
    pandas = library("pandas")
    if task == "classification" or not pandas.api.types.is_string_dtype(values.dtype):
        return values, ()
    words = number_words(values)
    if words is None:
        return values, ()
    values = values.where(~values.isin(words))
    if task != "regression" and (has_codes(values) or (not words and values.nunique() <= FEW_INTEGERS)):
        return values, words
    return pandas.to_numeric(values, errors="coerce"), words


def as_written(inferred: Any, written: Any) -> Any:
    """Return the target of a CSV file: as pandas infers it, or as it is written if pandas would change classes.

    pandas drops the zeros of codes such as 007, and takes classes such as None, NA and null for missing values. Among
    numbers, these words do count as missing.

    Args:
        inferred: a ``pandas.Series`` as pandas reads it.
        written: the same cells as texts; only empty cells are missing.
    """
    if inferred.notna().any() and library("pandas").api.types.is_numeric_dtype(inferred.dtype):
        codes = written.where(inferred.notna())
        return codes if has_codes(codes) else inferred
    lost = bool((written.notna() & inferred.isna()).any())
    return written if lost and number_words(inferred) is None else inferred


def has_codes(values: Any) -> bool:
    """Return whether texts are codes: all have digits only, and some start with a needless zero."""
    texts = values.dropna().astype(str).str.strip()
    return bool(texts.str.fullmatch(r"\d+").all() and texts.str.match(r"0\d").any())
