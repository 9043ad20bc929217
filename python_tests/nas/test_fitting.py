"""``fit``: from images to a network that predicts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import ROOT
from torch.utils.data import DataLoader, TensorDataset

from automl_ext.nas import fit, fitting
from automl_ext.nas.fitting import FittedNetwork
from automl_ext.nas.supernets.gdas import GDASConfig
from automl_ext.training.errors import UserError

LABELS = torch.arange(90) % 3
# Three levels of brightness with noise: any cell can learn them in a few epochs.
IMAGES = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 4 + LABELS.view(-1, 1, 1, 1) / 3
SHORT = {
    "search": "entmax-gdas",
    "epochs": 1,
    "channels": 2,
    "retrain_epochs": 2,
    "retrain_channels": 8,
    "batch_size": 16,
}


@pytest.mark.slow
def test_fit_predicts_saves_and_cleans_up(tmp_path: Path) -> None:
    result = fit(IMAGES, LABELS, **{**SHORT, "retrain_epochs": 20})
    assert result.accuracy == result.result["test_accuracy"]
    assert result.accuracy > 0.8
    assert (result.predict(IMAGES) == LABELS).double().mean() > 0.8
    probabilities = result.predict_proba([image.numpy() for image in IMAGES[:4]])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4))
    assert torch.equal(probabilities, result.predict_proba(IMAGES[:4]))
    assert result.classes == ("0", "1", "2")
    assert result.genotype.startswith("|")
    assert [path.name for path in result.save(tmp_path / "network.pt2")] == ["network.pt2"]
    program = torch.export.load(tmp_path / "network.pt2").module()
    raw = (IMAGES * 255).round().to(torch.uint8)
    assert torch.equal(program(raw).argmax(-1), result.predict(raw))
    run = result.run
    assert run.exists()
    del result
    assert not run.parent.exists()


@pytest.mark.slow
def test_fit_within_a_budget_predicts_with_the_network_that_the_result_names() -> None:
    result = fit(IMAGES, LABELS, minutes=0.02, candidates=4, batch_size=16)
    rows = {row["name"]: row for row in result.result["rows"]}
    assert rows.keys() == {"found"}
    assert result.genotype == rows["found"]["genotype"]
    test = IMAGES[54:]  # more than the test images, whose accuracy the result states
    assert (result.predict(test) == LABELS[54:]).double().mean() > 0.5


def test_fit_takes_a_dataset_and_a_folder_and_keeps_the_run(tmp_path: Path) -> None:
    from PIL import Image

    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=7, shuffle=True)
    first = fit(loader, out=tmp_path / "run", **{**SHORT, "search": "gdas"})
    again = fit(TensorDataset(IMAGES, LABELS), out=tmp_path / "run", resume="auto", **{**SHORT, "search": "gdas"})
    assert first.genotype == again.genotype
    assert torch.equal(first.predict(IMAGES), again.predict(IMAGES))
    for i, (image, label) in enumerate(zip(IMAGES, LABELS.tolist(), strict=True)):
        path = tmp_path / f"images/class {label}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((image[0] * 255).to(torch.uint8).numpy())
        picture.resize((8 + i % 3, 8)).save(path)
    found = fit(tmp_path / "images", image_size=8, out=tmp_path / "folder", **SHORT)
    assert found.classes == ("class 0", "class 1", "class 2")
    pictures = [Image.open(tmp_path / f"images/class {label}/{i}.png") for i, label in enumerate(LABELS.tolist())]
    resized = torch.stack([torch.from_numpy(np.array(picture.resize((8, 8), Image.BILINEAR))) for picture in pictures])
    assert torch.equal(found.predict(pictures), found.predict(resized))


@pytest.mark.parametrize(("shape", "channels"), [((3, 8, 8), 3), ((8, 8, 3), 3), ((8, 8, 3), 1), ((8, 8, 1), 3)])
def test_a_single_image_is_no_batch_of_gray_ones(shape: tuple[int, ...], channels: int) -> None:
    fitted = object.__new__(FittedNetwork)
    fitted._facts = {"shape": {"in_channels": channels}, "image_size": (8, 8)}
    with pytest.raises(
        UserError, match=r"images: expected several images, got shape .*; for one image, pass images\[None\]"
    ):
        fitted.predict(torch.rand(shape))


def test_a_zip_file_may_have_the_prefix_of_the_option_data(tmp_path: Path) -> None:
    file = tmp_path / "images.zip"
    file.write_bytes(b"no archive")
    for name in (file, f"folder:{file}"):
        with pytest.raises(UserError, match=rf"^{file} is neither a folder nor a readable zip file"):
            fit(name)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="search: expected one of auto, entmax-gdas, gdas, darts, got 'x'"):
        fit(IMAGES, LABELS, search="x")
    with pytest.raises(UserError, match=r"fit: unknown key 'epoch'; valid ones are .* minutes,"):
        fit(IMAGES, LABELS, epoch=3)
    with pytest.raises(UserError, match="fit: minutes: expected above 0, got 0"):
        fit(IMAGES, LABELS, minutes=0)
    with pytest.raises(UserError, match="data: expected images, a dataset or a path, got None"):
        fit(None, LABELS)
    with pytest.raises(UserError, match="labels: expected none beside a path"):
        fit("digits", LABELS)
    with pytest.raises(UserError, match="resume: needs out"):
        fit(IMAGES, LABELS, resume="auto")
    with pytest.raises(UserError, match="labels: expected one per image, got 3 for 90 images"):
        fit(IMAGES, LABELS[:3], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        ("gdas", {"epochs": 1.5}, r"epochs must be int, got 1\.5"),
        ("gdas", {"flip": "no"}, "flip must be bool, got 'no'"),
        ("gdas", {"form": "foo"}, "form must be .*nb201.*, got 'foo'"),
        ("auto", {"batch_size": 8.5}, r"batch_size must be int \| None, got 8\.5"),
        ("auto", {"device": 3}, "device must be str, got 3"),
        ("auto", {"minutes": None}, "minutes must be float, got None"),
        ("auto", {"class_weights": (1.0, "2")}, r"class_weights must be .*, got \[1\.0, '2'\]"),
    ],
)
def test_options_of_a_wrong_type_are_refused_by_name(search: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^fit: {message}$"):
        fit(IMAGES, LABELS, search=search, **options)


def test_options_may_be_numpy_scalars_and_tuples(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(fitting, "SEARCHES", {"gdas": (GDASConfig, lambda config, *_, **__: given.append(config))})
    options = {"epochs": np.int64(3), "lr": np.float32(0.5), "class_weights": (1, np.float64(2), 3.0), "image_size": 8}
    with pytest.raises(UserError):  # nothing is searched
        fit(IMAGES, LABELS, search="gdas", **options)
    assert given == [GDASConfig(epochs=3, lr=0.5, class_weights=(1.0, 2.0, 3.0), image_size="8")]


@pytest.mark.slow
def test_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs/how-to/images.md"
    if not page.exists():
        pytest.skip("the package is tested without its documents")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    assert code.count("epochs=") == 1
    monkeypatch.chdir(tmp_path)
    values: dict[str, object] = {}
    exec(re.sub(r"epochs=\d+", "epochs=1", code), values)
    assert values["result"].predict(values["images"]).shape == (120,)  # type: ignore[attr-defined]
    assert (tmp_path / "runs/network.pt2").exists()
