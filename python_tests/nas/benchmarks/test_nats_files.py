"""The conversion of the official files of NATS-Bench to a table, and the safe reader of their pickles."""

from __future__ import annotations

import bz2
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fresh_python
import nas_search_world as world
import numpy as np
import pytest

from automl_ext.nas.benchmarks.nats_files import convert
from automl_ext.nas.estimators.benchmark_table import Table, columns, place
from automl_ext.training.errors import UserError
from automl_ext.training.files.data_pickle import Array, load_data

SPACE = world.SPACE
CELLS = ["|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"]


def trial(epochs: int, valid: float, test: float, seconds: float) -> dict[str, Any]:
    """One training in the format of the benchmark, without its other measurements."""
    last = epochs - 1
    accuracies = {"x-valid@0": 10.0, f"x-valid@{last}": valid, f"ori-test@{last}": test, f"x-test@{last}": test + 1}
    return {
        "train_times": OrderedDict((epoch, seconds) for epoch in range(epochs)),
        "eval_acc1es": accuracies,
        "params": np.float64(0.073306),
        "flop": 7.78305,
        "epochs": epochs,
        "net_state_dict": None,
    }


def cell(index: int) -> OrderedDict[str, Any]:
    def trials(epochs: int, dataset: str, seeds: list[int]) -> dict[Any, Any]:
        return {(dataset, s): trial(epochs, 60 + s / 1000 + index, 70 + s / 1000, 5 + s / 1000) for s in seeds}

    def results(epochs: int, seeds: dict[str, list[int]]) -> dict[str, Any]:
        found = [trials(epochs, dataset, chosen) for dataset, chosen in seeds.items()]
        return {"dataset_seed": seeds, "all_results": {key: trial for part in found for key, trial in part.items()}}

    short = results(12, {"cifar10-valid": [111, 777], "cifar100": [111], "ImageNet16-120": [111]})
    seeds = [777, 888, 999]
    long = results(200, {"cifar10-valid": seeds, "cifar10": [888], "cifar100": seeds, "ImageNet16-120": seeds[:2]})
    return OrderedDict({"12": short, "200": long})


def save(path: Path, content: Any) -> Path:
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))
    return path


def simple_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "NATS-tss-v1_0-abcde-simple"
    folder.mkdir()
    save(folder / "meta.pickle.pbz2", {"meta_archs": CELLS, "arch2infos": None, "evaluated_indexes": set()})
    for index in range(2):
        save(folder / f"{index:06d}.pickle.pbz2", cell(index))
    return folder


def whole_file(tmp_path: Path) -> Path:
    content = {"meta_archs": CELLS, "arch2infos": {i: cell(i) for i in range(2)}, "evaluated_indexes": {0, 1}}
    return save(tmp_path / "NATS-tss-v1_0-abcde.pickle.pbz2", content)


@pytest.mark.parametrize("layout", [simple_folder, whole_file])
@pytest.mark.parametrize(
    ("dataset", "rows"),
    [
        # Means over the seeds 111 and 777, the seeds 777, 888 and 999, and the seed 888; 12 · 5.444 s.
        ("cifar10", ([60.444, 60.888, 70.888], [61.444, 61.888, 70.888], 65.328)),
        # The validation and test images are the halves x-valid and x-test of the official test images.
        # Means over the seed 111, and the seeds 777, 888 and 999; 12 · 5.111 s.
        ("cifar100", ([60.111, 60.888, 71.888], [61.111, 61.888, 71.888], 61.332)),
        ("imagenet16_120", ([60.111, 60.832, 71.833], [61.111, 61.832, 71.833], 61.332)),
    ],
)
def test_convert_writes_the_table(tmp_path: Path, layout: Callable[[Path], Path], dataset: str, rows: Any) -> None:
    *accuracies, seconds = rows
    convert(layout(tmp_path), tmp_path / "table.npz", dataset)
    places = [place(SPACE.parse(cell)) for cell in CELLS]
    with np.load(tmp_path / "table.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(columns(dataset))
        for i, numbers in zip(places, accuracies, strict=True):
            assert [arrays[name][i] for name in columns(dataset)] == [*numbers, 73306, 7783050, seconds]
        assert np.isnan(np.delete(arrays["macs"], places)).all()
    with pytest.raises(UserError, match=f"{dataset}_val_12ep: expected a percentage, got nan"):  # the other cells
        Table.load(tmp_path / "table.npz")


# Pickles written opcode by opcode. NumPy's unpickling crashes on several of them, so they are read in a new process.
CRAFTED = """
import bz2, io, json, struct, sys
from pathlib import Path
from automl_ext.training.files.data_pickle import Array, load_data
from automl_ext.nas.benchmarks.nats_files import convert
from automl_ext.training.errors import UserError

def text(s): return b"X" + struct.pack("<I", len(s.encode())) + s.encode()
def data(b): return b"B" + struct.pack("<I", len(b)) + b
def number(n): return b"\\x8a\\x08" + struct.pack("<q", n)
def glob(module, name): return f"c{module}\\n{name}\\n".encode()
def tuple_(*items): return b"(" + b"".join(items) + b"t"
NONE, FALSE, TRUE = b"N", b"\\x89", b"\\x88"
MULTI = "numpy._core.multiarray"
def dtype(name, *state):
    made = glob("numpy", "dtype") + tuple_(text(name), FALSE, TRUE) + b"R"
    return made + (tuple_(*state) + b"b" if state else b"")
F8 = dtype("f8", number(3), text("<"), NONE, NONE, NONE, number(-1), number(-1), number(0))
def scalar(kind, *rest): return glob(MULTI, "scalar") + tuple_(kind, *rest) + b"R"
def reconstruct(kind, shape, code): return glob(MULTI, "_reconstruct") + tuple_(kind, shape, code) + b"R"
ND = glob("numpy", "ndarray")
EMPTY = reconstruct(ND, tuple_(number(0)), data(b"b"))
def array(shape, kind, content, fortran=FALSE):
    return EMPTY + tuple_(number(1), shape, kind, fortran, content) + b"b"

def forged(name, order, *state): return scalar(dtype(name, number(3), text(order), *state), data(b"12345678"))
FIELDS = b"}" + text("a") + tuple_(dtype("O"), number(1 << 40)) + b"s"
SUBARRAY = tuple_(dtype("f8"), tuple_(number(1 << 40)))

crafted = {
    "itemsize 2^30": forged("f8", "<", NONE, NONE, NONE, number(1 << 30), number(-1), number(0)),
    "itemsize -1 of V": forged("V8", "|", NONE, NONE, NONE, number(1 << 40), number(1), number(0)),
    "forged fields": forged("V8", "|", NONE, tuple_(text("a")), FIELDS, number(8), number(1), number(0)),
    "object flags": forged("V8", "|", NONE, NONE, NONE, number(8), number(1), number(63)),
    "subarray": forged("V8", "|", SUBARRAY, NONE, NONE, number(8), number(1), number(0)),
    "object scalar": scalar(dtype("O"), data(b"12345678")),
    "string dtype": scalar(dtype("S8"), data(b"12345678")),
    "dtype of a list": glob("numpy", "dtype") + tuple_(b"]" + tuple_(text("a"), text("O")) + b"a", FALSE, TRUE) + b"R",
    "few bytes": scalar(F8, data(b"1234")),
    "many bytes": scalar(F8, data(b"123456789")),
    "no bytes": scalar(F8),
    "scalar of a string": scalar(text("f8"), data(b"12345678")),
    "state of a string": dtype("f8") + text("abc") + b"b",
    "huge reconstruct": reconstruct(ND, tuple_(number(1 << 60)), data(b"b")),
    "reconstruct of list": reconstruct(text("x"), tuple_(number(0)), data(b"b")),
    "reconstruct an object array": reconstruct(ND, tuple_(number(8)), data(b"O")),
    "huge array": array(tuple_(number(1 << 60)), F8, data(b"12345678")),
    "negative array": array(tuple_(number(-1)), F8, data(b"12345678")),
    "product overflows": array(tuple_(number(1 << 32), number(1 << 32)), F8, data(b"")),
    "object array": array(tuple_(number(1)), dtype("O"), b"]N" + b"a"),
    "array of bools as bytes": array(tuple_(number(8)), F8, number(7)),
    "array state twice": array(tuple_(number(1)), F8, data(b"12345678")) + tuple_(NONE) + b"b",
    "system": glob("posix", "system") + tuple_(text("touch executed")) + b"R",
    "eval": glob("builtins", "eval") + tuple_(text("1")) + b"R",
    "frombuffer": glob("numpy", "frombuffer") + tuple_(data(b"12345678")) + b"R",
    "call ndarray": ND + tuple_(tuple_(number(1 << 40))) + b"R",
    "patch the reader": glob(MULTI, "scalar") + tuple_(NONE, b"}" + text("__call__") + NONE + b"s") + b"b",
    "new of a dtype": glob("numpy", "dtype") + tuple_(text("O")) + b"\\x81",
    "persistent id": text("x") + b"Q",
    "extension": b"\\x82\\x01",
    "declared bytes": b"\\x8e" + struct.pack("<Q", 1 << 45),
    "declared frame": b"\\x95" + struct.pack("<Q", 1 << 45),
    "stack underflow": b"tttR",
    "nothing": b"N",
    "unhashable": b"}" + b"]" + b"N" + b"s",
    "truncated": text("abc")[:-1],
    "bomb": data(bytes(17 << 20)),
}
path = Path(FOLDER) / "crafted.pickle.pbz2"
found = {}
for name, body in crafted.items():
    path.write_bytes(bz2.compress(b"\\x80\\x02" + body + b"."))
    print(name, file=sys.stderr, flush=True)  # if this process dies, the last line names the pickle
    try:
        convert(path, path.with_name("out.npz"))
        found[name] = "accepted"
    except UserError as error:
        found[name] = str(error)
good = array(tuple_(number(2), number(1)), F8, data(struct.pack("<2d", 1, 2)))
read = lambda body: load_data(io.BufferedReader(io.BytesIO(b"\\x80\\x02" + body + b".")), 1 << 20)
found["values"] = [read(good).values.tolist(), read(scalar(F8, data(struct.pack("<d", 0.5))))]
print(json.dumps(found))
"""


def test_crafted_pickles_are_refused(tmp_path: Path) -> None:
    """Forged dtypes, scalars and arrays, other callables and declared sizes give a one-line error and no crash."""
    found = fresh_python.facts(CRAFTED.replace("FOLDER", repr(str(tmp_path))))
    assert found.pop("values") == [[[1.0], [2.0]], 0.5]
    assert len(found) == 37
    assert {name: error for name, error in found.items() if "expected a" not in error or "\n" in error} == {}
    assert {p.name for p in tmp_path.iterdir()} == {"crafted.pickle.pbz2"}


def numpy_values() -> list[Any]:
    return [
        *(np.dtype(code).type(1) for code in "efdbhilBHIL?"),
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros(0),
    ]


@pytest.mark.parametrize("protocol", [3, 4])
def test_numpy_values_become_python_values(protocol: int) -> None:
    values = numpy_values()
    read = load_data(io.BufferedReader(io.BytesIO(pickle.dumps(values, protocol))), 1 << 16)  # type: ignore[arg-type]
    assert [x.values.tolist() if isinstance(x, Array) else x for x in read] == [value.tolist() for value in values]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch it-was-executed",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"contains posix\.system, which is not data"):
        convert(save(tmp_path / "evil.pickle.pbz2", Evil()), tmp_path / "out.npz")
    assert not (tmp_path / "it-was-executed").exists()
    assert not (tmp_path / "out.npz").exists()


def test_invalid_official_files_raise_one_line(tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    with pytest.raises(UserError, match=r"--out: expected a name that ends in \.npz, got"):
        convert(whole_file(tmp_path), tmp_path / "table.csv")
    broken = cell(0)
    del broken["200"]
    for content, message in [
        ([1, 2], "expected a file of NATS-Bench's topology space that contains 'arch2infos', a dict"),
        ({"meta_archs": [b"bytes"], "arch2infos": {}}, "meta_archs: a bytes-like object is required"),
        ({"meta_archs": CELLS, "arch2infos": {0: cell(0)}}, "no results for cell 1"),
        ({"meta_archs": CELLS, "arch2infos": {0: broken, 1: cell(1)}}, "a result is missing in the files: '200'"),
    ]:
        with pytest.raises(UserError, match=message):
            convert(save(tmp_path / "file.pickle.pbz2", content), out)
    (tmp_path / "file.pickle.pbz2").write_bytes(b"no bz2")
    with pytest.raises(UserError, match="cannot read"):
        convert(tmp_path / "file.pickle.pbz2", out)
    with pytest.raises(UserError, match=r"cannot read .*meta"):
        convert(tmp_path, out)
