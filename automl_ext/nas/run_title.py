"""The title of a run's pictures: algorithm, data set, result and size."""

from __future__ import annotations

from typing import Any

from automl_ext.training.pictures.titles import algorithm_name, count, data_name, is_number, percent


def run_title(algorithm: str | None, config: dict[str, Any], result: dict[str, Any]) -> str:
    """Return the title of a run's pictures, such as "GDAS on digits: 97.8 % test accuracy, 0.3 M parameters"."""
    if algorithm == "tune":
        return f"Tuning of {config.get('about', {}).get('command', 'a function')}"
    on_table = config.get("evaluator") == "table" or algorithm == "nas-bench"
    data = "the table of NAS-Bench-201 (CIFAR-10)" if on_table else data_name(config.get("data", "unknown data"))
    name = algorithm_name(algorithm)
    facts = []
    if is_number(result.get("test_accuracy")):
        facts.append(f"{percent(result['test_accuracy'])} test accuracy")
    elif is_number(result.get("score")):
        facts.append(f"{percent(result['score'])} validation accuracy")
    if is_number(result.get("parameters")):
        facts.append(f"{count(result['parameters'])} parameters")
    if is_number(result.get("evaluations")):
        facts.append(f"{result['evaluations']} evaluations")
    found, median = result.get("found"), result.get("random_median")
    if isinstance(found, dict) and is_number(found.get("test_accuracy")):
        facts.append(f"given cell {percent(found['test_accuracy'])} test accuracy")
    if is_number(median) and isinstance(result.get("random"), list):
        facts.append(f"median of {len(result['random'])} random cells {percent(median)}")
    greedy = result.get("greedy")
    if isinstance(greedy, dict) and is_number(greedy.get("test_accuracy")):
        facts.append(f"{percent(greedy['test_accuracy'])} test accuracy")
    if not result:
        facts.append("not finished")
    text = f"{name} on {data}" + (f": {', '.join(facts)}" if facts else "")
    return text[0].upper() + text[1:] if algorithm != "entmax-gdas" else text
