"""Check damaged run directories.

A command must end with a one-line error, or continue from the older checkpoint to the result of an undamaged run.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from automl_ext.tabular import fitted
from automl_ext.training.files import checkpoint
from fuzzing import runs
from fuzzing.case import Finding
from fuzzing.damage import change_json, damage, damage_json
from fuzzing.process import Done, fault, run
from fuzzing.runs import Base, Bases

FILES = ("config.json", "environment.json", "metrics.jsonl")
NAMES = ("step-²", "step-00000099", "step-99999999999999999999", "step-", "step-1", ".tmp-step-00000001", "step-٣")


def check(rng: random.Random, folder: Path, bases: Bases) -> Finding:
    """Damage a copy of a small run, then resume, evaluate, plot or export it."""
    kind = rng.choices(("a2c", "dqn", "gdas", "retrain", "renas", "fit"), (4, 4, 3, 3, 1, 4))[0]
    base = bases[kind]
    actions: list[Callable[[random.Random, Path, Base], Finding]] = [_resume, _resume, _plot]
    actions.append(_eval if kind in runs.RL else _resume)
    if kind in ("gdas", "retrain"):
        actions.append(_export)
    if kind == "fit":
        actions = [_predict]
    action = rng.choice(actions)
    try:
        finding = action(rng, folder, base)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    finding.what = f"{kind}, {action.__name__.strip('_')}: {finding.what}"
    return finding


def _resume(rng: random.Random, folder: Path, base: Base) -> Finding:
    path = runs.copy(base.parts, folder)
    newest = checkpoint.list_steps(path / "checkpoints")[-1]
    before = _contents(newest)
    what = _damage_run(rng, path)
    forged = "with correct hashes" in what or "with a correct hash" in what
    changed = not forged and newest.is_dir() and _contents(newest) != before
    done = runs.resume(base.kind, folder)
    violation = fault(done)
    if violation is None and done.code == 0:
        violation = runs.difference(base, path)
        if violation is None and changed and "skipping the damaged checkpoint" not in done.err:
            violation = "no warning that a damaged checkpoint is skipped"
    return _finding(what, done, violation)


def _eval(rng: random.Random, folder: Path, base: Base) -> Finding:
    """Check that a damaged run gives the returns of the undamaged run's policy, or of its older checkpoint's policy."""
    path = runs.copy(base.whole, folder)
    argv = ["eval", "run", "--episodes", "2", "--policy", rng.choice(("best", "last"))]
    expected = [run(argv, folder).out]
    if argv[-1] == "last":
        newest = checkpoint.list_steps(path / "checkpoints")[-1]
        newest.rename(folder / "kept")
        expected.append(run(argv, folder).out)
        (folder / "kept").rename(newest)
    what = _damage_run(rng, path)
    done = run(argv, folder)
    violation = fault(done)
    if violation is None and done.code == 0 and done.out not in expected:
        violation = "eval: the returns differ from those of the undamaged run"
    return _finding(f"{argv[-1]}, {what}", done, violation)


def _plot(rng: random.Random, folder: Path, base: Base) -> Finding:
    path = runs.copy(base.whole, folder)
    target = path / rng.choice((*FILES, "result.json"))
    what = damage(rng, target) if rng.random() < 0.5 else damage_json(rng, target)
    done = run(["plot", "run"], folder)
    return _finding(what, done, fault(done))


def _export(rng: random.Random, folder: Path, base: Base) -> Finding:
    path = runs.copy(base.whole, folder)
    what = damage_json(rng, path / "result.json") if rng.random() < 0.4 else _damage_run(rng, path)
    done = run(["export", "run", "--out", rng.choice(("net", "net.py"))], folder)
    return _finding(what, done, fault(done))


def _predict(rng: random.Random, folder: Path, base: Base) -> Finding:
    """Check that a damaged run of fit gives the predictions of the undamaged run."""
    path = runs.copy(base.whole, folder)
    shutil.copy(base.whole.with_name("table.csv"), folder)
    argv = ["predict", "run", "table.csv", "--out", "new.csv"]
    run(argv, folder)
    expected = (folder / "new.csv").read_bytes()
    model = path / fitted.MODEL
    target = rng.choice([model, model, model, path / "config.json", *sorted((path / fitted.FOLDER).iterdir())])
    forged = target == model and rng.random() < 0.7
    what = _forge_model(rng, target) if forged else damage(rng, target)
    done = run(argv, folder)
    violation = fault(done)
    if violation is None and done.code == 0 and not forged and (folder / "new.csv").read_bytes() != expected:
        violation = "predict: the predictions differ from those of the undamaged run"
    return _finding(what, done, violation)


def _finding(what: str, done: Done, violation: str | None) -> Finding:
    skipped = done.code == 0 and "skipping" in done.err
    outcome = "violation" if violation else "older checkpoint used" if skipped else f"exit {done.code}"
    return Finding(what, outcome, violation, done.err[-3000:] if violation else "")


def _contents(folder: Path) -> dict[str, bytes | None]:
    plain = {path.name: path for path in folder.iterdir() if path.name in ("state.pt", "manifest.json")}
    return {
        name: path.read_bytes() if path.is_file() and not path.is_symlink() else None for name, path in plain.items()
    }


def _damage_run(rng: random.Random, path: Path) -> str:
    newest = checkpoint.list_steps(path / "checkpoints")[-1]
    best = path / "best.pt"
    how = rng.randrange(12)
    if how < 3:
        return damage(rng, newest / rng.choice(("state.pt", "manifest.json")))
    if how < 5:
        return _forge_state(rng, newest)
    if how == 5:
        return _forge_manifest(rng, newest)
    if how == 6:
        return _odd_folder(rng, path / "checkpoints")
    if how == 7:
        a, b = rng.sample([p for p in path.rglob("*") if p.is_file()], 2)
        first, second = a.read_bytes(), b.read_bytes()
        a.write_bytes(second)
        b.write_bytes(first)
        return f"{a.relative_to(path)} and {b.relative_to(path)} swapped"
    if how == 8:
        return damage_json(rng, path / rng.choice(("config.json", "environment.json")))
    if how == 9:
        return damage_json(rng, newest / "manifest.json")
    if how == 10 and best.exists():
        return _forge_best(rng, best) if rng.random() < 0.5 else damage(rng, best)
    return damage(rng, path / rng.choice(FILES))


def _forge_state(rng: random.Random, newest: Path) -> str:
    """Change the state and write it with correct hashes. Return a description of the change."""
    facts = checkpoint.read_manifest(newest)
    state = torch.load(newest / "state.pt", weights_only=True, map_location="cpu")
    what = change_state(rng, state)
    step = facts["step"]
    for key in ("format", "step", "state_bytes", "state_sha256"):
        del facts[key]
    shutil.rmtree(newest)
    checkpoint.write(newest.parent, step, state, facts)
    return f"state.pt with correct hashes: {what}"


def change_state(rng: random.Random, value: Any) -> str:
    """Change a tensor's shape or dtype, or a value's type, or remove a key, somewhere inside. Return a description."""
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    keys = [key for key in keys if key not in runs.CLOCKS]
    key = rng.choice(keys)
    inner = value[key]
    if isinstance(inner, (dict, list)) and inner and rng.random() < 0.9:
        return f"[{key!r}]{change_state(rng, inner)}"
    if isinstance(value, dict) and rng.random() < 0.15:
        del value[key]
        return f"[{key!r}] removed"
    if isinstance(inner, torch.Tensor):
        others = (inner.reshape(-1)[:-1], torch.cat([inner.reshape(-1)] * 2), inner.new_zeros(0), inner.reshape(1, -1))
        value[key] = rng.choice((*others, inner.bool(), inner.to(torch.complex64), None, [1.0], "x"))
    else:
        value[key] = rng.choice((None, "x", [], {}, torch.zeros(2, 3), -1, 1e30))
    return f"[{key!r}] = {str(value[key])[:40]!r}"


def _forge_manifest(rng: random.Random, newest: Path) -> str:
    """Change the manifest and write it with a correct hash. Return a description of the change."""
    manifest = json.loads((newest / "manifest.json").read_bytes())["manifest"]
    what = change_json(rng, manifest)
    (newest / "manifest.json").write_bytes(checkpoint._render(manifest))
    return f"manifest.json with a correct hash: {what}"


def _forge_model(rng: random.Random, path: Path) -> str:
    """Change the content of a model of fit and write it with a correct hash. Return a description of the change."""
    content = json.loads(json.loads(path.read_bytes())["content"])
    what = change_json(rng, content)
    data = json.dumps(content)
    path.write_text(json.dumps({"content": data, "sha256": hashlib.sha256(data.encode()).hexdigest()}))
    return f"{path.name} with a correct hash: {what}"


def _forge_best(rng: random.Random, best: Path) -> str:
    value = torch.load(best, weights_only=True, map_location="cpu")
    what = change_state(rng, value)
    torch.save(rng.choice((value, value, value, [], {}, torch.zeros(3), None)), best)
    return f"best.pt: {what}"


def _odd_folder(rng: random.Random, checkpoints: Path) -> str:
    place = checkpoints / rng.choice(NAMES)
    how = rng.choice(("empty folder", "file", "copy"))
    if how == "empty folder":
        place.mkdir()
    elif how == "file":
        place.write_text("x")
    else:
        shutil.copytree(checkpoint.list_steps(checkpoints)[-1], place)
    return f"{how} {place.name}"
