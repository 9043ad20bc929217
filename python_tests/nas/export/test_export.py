"""Exported networks give the logits of the run, in an interpreter that has no automl_ext."""

from __future__ import annotations

import json
from pathlib import Path

import fresh_python
import pytest
import torch

from automl_ext.cli import main
from automl_ext.nas.export import export as export_module
from automl_ext.nas.export.export import export, read_result, read_weights
from automl_ext.nas.export.program import RawImages, sample_images, write_program
from automl_ext.nas.spaces.registry import SPACES, space
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.nas.supernets.search_supernet import search_supernet
from automl_ext.nas.training.compare import CompareConfig, compare
from automl_ext.nas.training.retrain import RetrainConfig, retrain
from automl_ext.training.errors import UserError

# Run both formats on 1 and on 5 images, in a process in which importing automl_ext is an error.
FRESH = """
import importlib.util, sys, torch
sys.modules["automl_ext"] = None
small, large = torch.load(f"{folder}/images.pt")
any_size = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)  # torch.export of 2.11 fixes the size
for name in names:
    spec = importlib.util.spec_from_file_location("exported", f"{folder}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["exported"] = module
    spec.loader.exec_module(module)
    program, network = torch.export.load(f"{folder}/{name}.pt2").module(), module.load()
    with torch.no_grad():
        for images, logits in zip((small, large), torch.load(f"{folder}/{name}.logits")):
            for n in (1, len(images)):
                results = [network(module.normalize(images[:n]))]
                results += [program(images[:n])] if any_size or images is small else []
                for found in results:
                    torch.testing.assert_close(found, logits[:n], rtol=1e-4, atol=1e-5)
    assert module.CLASSES == [str(k) for k in range(10)]
    raw = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    torch.testing.assert_close(module.normalize(raw), torch.full((2, 1, 8, 8), (1 - module.MEAN[0]) / module.STD[0]))
    for refusing, error in ((module.normalize, TypeError), (program, (RuntimeError, AssertionError))):
        try:
            refusing(raw / 255)
        except error:
            continue
        raise AssertionError(f"{refusing} takes floats as if they were pixels")
    try:
        module.normalize(raw.expand(2, 3, 8, 8))
        raise AssertionError("normalize takes color images for a network of gray ones")
    except ValueError as error:
        assert str(error) == "images: expected [N, 1, H, W], got [2, 3, 8, 8]"
assert not [name for name in sys.modules if name.startswith("automl_ext.")]
print("same logits:", *names)
"""


@pytest.mark.parametrize(  # the networks of darts-frc are those of darts with a given reduction cell
    "names",
    [["nb201"], pytest.param([n for n in SPACES if n not in ("nb201", "darts-frc")], marks=pytest.mark.slow)],
    ids=["nb201", "others"],
)
def test_exports_give_the_same_logits_in_a_new_interpreter(names: list[str], runs: Path, tmp_path: Path) -> None:
    images = [torch.randint(256, (5, 1, *size), dtype=torch.uint8) for size in ((8, 8), (13, 30))]
    torch.save(images, tmp_path / "images.pt")
    for name in names:
        written = export(runs / name, tmp_path / name)
        assert [path.name for path in written] == [f"{name}.pt2", f"{name}.py", f"{name}.pt"]
        result, facts = read_result(runs / name)
        network = space(name).build(space(name).parse(result["genotype"]), **facts["shape"])
        network.load_state_dict(read_weights(runs / name, network))
        with torch.no_grad():
            program = RawImages(network, facts["mean"], facts["std"]).eval()
            torch.save([program(part) for part in images], tmp_path / f"{name}.logits")
        text = (tmp_path / f"{name}.py").read_text()
        assert "automl_ext." not in text.partition('"""')[2].partition('"""')[2].replace(
            "automl_ext.nas.spaces.space.Space", ""
        )
        assert "def mutate" not in text
        assert "AuxiliaryHead" not in text
    code = f"folder, names = {str(tmp_path)!r}, {names!r}\n{FRESH}"
    status, printed, error = fresh_python.run(code, root=tmp_path)
    assert status == 0, error
    assert printed.split()[2:] == names


@pytest.mark.slow
def test_suffix_selects_the_format_and_the_command_exports(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(runs / "nb201", tmp_path / "a" / "net.pt2") == [tmp_path / "a" / "net.pt2"]
    assert main(["export", str(runs / "nb201"), "--out", str(tmp_path / "b.py")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "b.py"), str(tmp_path / "b.pt")]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["b.pt", "b.py", "net.pt2"]


def test_search_can_be_exported(tmp_path: Path) -> None:
    tiny = GDASConfig(subset=60, channels=2, epochs=1, batch_size=18, retrain_channels=3, retrain_epochs=1)
    found = search_supernet(tiny, tmp_path / "run")
    assert found is not None
    assert found["network"]["shape"]["channels"] == 3
    assert len(export(tmp_path / "run", tmp_path / "net.py")) == 2


def test_runs_without_a_trained_network_are_rejected(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ending in \.pt2, \.py or nothing"):
        export(runs / "nb201", tmp_path / "net.onnx")
    with pytest.raises(UserError, match="is not a finished run"):
        export(tmp_path / "nothing", tmp_path / "net")
    genotype = "|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"
    retrain(RetrainConfig(genotype=genotype, subset=60, epochs=2, channels=2), tmp_path / "stopped", stop_after=1)
    with pytest.raises(UserError, match="is not a finished run"):
        export(tmp_path / "stopped", tmp_path / "net")
    compare(CompareConfig(subset=60, epochs=1, channels=2, random_cells=1), tmp_path / "compare")
    with pytest.raises(UserError, match="expected a run with one network"):
        export(tmp_path / "compare", tmp_path / "net")
    facts = json.loads((tmp_path / "compare/environment.json").read_text())
    (tmp_path / "compare/environment.json").write_text(json.dumps(facts | {"algorithm": "ensemble"}))
    with pytest.raises(UserError, match=r"one network; load it by automl_ext\.nas\.ensembles\.network\.load_ensemble"):
        export(tmp_path / "compare", tmp_path / "net")
    with pytest.raises(UserError, match="expected a NAS-Bench-201 cell"):
        export(runs / "darts", tmp_path / "net", space=space("nb201"))
    state = max((runs / "renas" / "checkpoints").iterdir()) / "state.pt"
    intact = state.read_bytes()
    state.write_bytes(intact[:-1] + b"?")
    try:
        with pytest.raises(UserError, match="is damaged"):
            export(runs / "renas", tmp_path / "net")
    finally:
        state.write_bytes(intact)
    assert not list(tmp_path.glob("net*"))


def test_export_with_other_logits_is_detected(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = export_module.MODULE.replace("return network.eval()", "return network")  # batch statistics
    monkeypatch.setattr(export_module, "MODULE", template)
    with pytest.raises(RuntimeError, match="logits differ"):
        export(runs / "nb201", tmp_path / "net.py")


def test_network_of_a_fixed_size_takes_any_number_of_images(tmp_path: Path) -> None:
    program = RawImages(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)), [0.5], [0.5]).eval()
    facts = {"image_size": [8, 8], "shape": {"in_channels": 1}}
    samples = sample_images(program, facts)
    assert [list(sample.shape) for sample in samples] == [[3, 1, 8, 8]]
    write_program(program, samples, tmp_path / "net.pt2")
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    images = torch.randint(256, (7, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(loaded(images), program(images))
    with pytest.raises(RuntimeError, match="dtype"):
        loaded(images / 255)
