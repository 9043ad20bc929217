"""Make hostile TOML files, genotypes, tables and results.

Each function returns the same as in ``hostile_data``.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzzing import damage, runs
from fuzzing.command_tables import GENOTYPE, IMAGES, SEARCH, STEPS
from fuzzing.runs import Bases

Made = tuple[str, list[str], "list[str] | None"]
Maker = Callable[[random.Random, Path, Bases], Made]
DEEP = 20_000
TOMLS = """lr = 1e999; lr = nan; seed = 1979-05-27T07:32:00Z; seed = "1"; seed = [1]; seed = true; env = 1;
hidden = [0]; hidden = [1.5, 'x']; hidden = ["16"]; __class__ = "x"; "" = 1; "a\\nb" = 1; device = "a\\nb";
total_steps = 9223372036854775808; n_envs = -9223372036854775808"""
COLUMNS = ["cifar10_val_12ep", "cifar10_val_200ep", "cifar10_test_200ep", "params", "macs", "train_seconds_12ep"]


def _toml(rng: random.Random, folder: Path, _: Bases) -> Made:
    path = folder / "c.toml"
    texts: list[str | bytes] = [*TOMLS.split(";")]
    texts += ["seed = " + "[" * DEEP + "]" * DEEP, "seed = " + "{a=" * DEEP + "1" + "}" * DEEP, "[seed]\nx = 1"]
    texts += [".".join(["a"] * DEEP) + " = 1", "[" + ".".join(["a"] * DEEP) + "]", "seed = " + "1" * 10_000]
    texts += ["seed = 1\nseed = 2", "lr = 1" + "0" * 400, "[env]\nframe_stack = -1", "env_id = '\0'", b"\xff\xfe"]
    texts += [bytes(100), "x" * 5_000_000, "# " + "x" * 50_000_000, "seed = '''" + "a\n" * 1000 + "'''"]
    if rng.random() < 0.2:
        how = rng.choice(damage.PLACES)
        how(rng, path)
        what = how.__name__
    else:
        text = rng.choice(texts)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        what = repr(text[:40])
    command = rng.choice((f"train a2c {STEPS}", f"search random {SEARCH}", f"tune train a2c {STEPS} --trials 1"))
    return what, [*command.split(), "--config", str(path.name), "--out", "out"], None


def _genotype(rng: random.Random, folder: Path, _: Bases) -> Made:
    space = rng.choice(("nb201", "darts", "renas"))
    code = f"__import__('os').system('touch {folder / 'canary'}')"
    text = list(GENOTYPE)
    for _unused in range(rng.choice((1, 1, 2, 5))):
        i = rng.randrange(len(text))
        text[i] = rng.choice(("", "²", "٣", "|", "~", "9", "-1", " ", "\n", text[i] * 2, "(", "\x00"[:0]))
    odd = ["".join(text), code, f"Genotype(normal={code})", "(" * DEEP, "[" * DEEP, "-" * DEEP + "1", "9" * 10_000]
    odd += ["{}", GENOTYPE * 200, "", " ", f"[('skip_connect', 0)] * {10**9}", "lambda: 0", "normal=[]", "1e999"]
    given = rng.choice(odd[:1] * 8 + odd[1:])
    argv = ["retrain", *IMAGES.split(), "--space", space, f"--genotype={given}", "--out", "out"]
    if rng.random() < 0.4:
        argv = ["plot", f"--genotype={given}", "--space", space, "--out", "out"]
    return repr(given[:80]), argv, None


def _table(rng: random.Random, folder: Path, _: Bases) -> Made:
    columns = dict.fromkeys(COLUMNS, np.random.default_rng(0).uniform(10, 90, 15_625))
    np.savez(folder / "good.npz", **columns)
    search = ["search", "random", "--evaluator", "table", "--evaluations", "5", "--table"]
    path = folder / "bad.npz"
    if rng.random() < 0.5:
        path.write_bytes((folder / "good.npz").read_bytes())
        like = [*search, "good.npz", "--out", "expected"]
        return damage.damage(rng, path), [*search, "bad.npz", "--out", "out"], like
    name = rng.choice(COLUMNS)
    odd = (math.nan, math.inf, -1, 101, 0, 1e-320, 1 << 63, "5", None, True, 1j, b"5")
    value = rng.choice(odd)
    columns[name] = np.full(rng.choice(((15_625,), (15_625, 1), (15_624,), (0,), ())), value)
    np.savez(path, **columns)
    return f"{name}: {columns[name].shape} {value!r}", [*search, "bad.npz", "--out", "out"], None


def _result(rng: random.Random, folder: Path, bases: Bases) -> Made:
    """Put code into values of result.json, which are written into an exported module."""
    kind = rng.choice(("retrain", "gdas"))
    path = runs.copy(bases[kind].whole, folder) / "result.json"
    result = json.loads(path.read_bytes())
    call = f"open({str(folder / 'canary')!r}, 'w')"
    texts = [call, f"0\n{call}\n", f"'''\n{call}\n'''", f'"""\n{call}\n"""', f"{GENOTYPE}\n{call}", f"x\\\n{call}"]
    texts += [f"{{{call}}}", f"1)\n{call}\n(", f"0]\n{call}\n[", f"0, x={call}"]
    text = rng.choice(texts)
    network = result["network"]
    key = rng.choice(["genotype", *network, "shape.channels", "shape key", "mean[0]", "classes[0]", "image_size[0]"])
    if key == "genotype":
        result["genotype"] = text
    elif key == "shape key":
        network["shape"] = {**network["shape"], rng.choice((f"x={call}, y", "x", text)): 1}
    elif key.endswith("[0]"):
        network[key[:-3]][0] = text
    elif "." in key:
        network["shape"]["channels"] = text
    else:
        network[key] = rng.choice((text, [text], {"x": text}))
    path.write_text(json.dumps(result))
    argv = rng.choice((["export", "run", "--out", "net.py"], ["export", "run", "--out", "net"], ["plot", "run"]))
    return f"{kind}, {key} = {text!r}", argv, None


def _export_name(rng: random.Random, folder: Path, bases: Bases) -> Made:
    """Put code into the name of the exported file, which is written into the module's docstring."""
    runs.copy(bases["retrain"].whole, folder)
    call = f"open('{'canary'}', 'w')"
    name = rng.choice(
        (f'"""+str({call})+"""', f'x""";{call};"""', "a\nb", "'''", "{x}", "a b", "é", "\\", "class", "x" * 300)
    )
    return repr(name), ["export", "run", "--out", f"{name}.py"], None


MAKERS: dict[str, tuple[int, Maker]] = {
    "toml": (6, _toml),
    "genotype": (5, _genotype),
    "table": (4, _table),
    "result.json": (6, _result),
    "export name": (2, _export_name),
}
