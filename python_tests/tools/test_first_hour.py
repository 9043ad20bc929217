"""tools/first_hour.py: what it reads from the pages, and what it does with it. CI runs the whole of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import first_hour
import pytest
from first_hour import Block
from paths import ROOT

PAGE = """# A page

```sh
make                      # left out
automl-ext doctor         # a comment
automl-ext search \\
    gdas
```

## Install

```sh
pip install torch
pip install -v --no-build-isolation ".[data,plot]"   # a comment. It is kept
automl-ext doctor
```

## More

```{code-cell} ipython3
:tags: [remove-cell]

hidden
```

```{code-cell} ipython3
:tags: [other]

a = 1
```

```{code-cell} ipython3
%%bash
for i in 1 2; do
  echo $i
done
```

```python
b = a + 1
```

```py
not_run
```
"""


def test_blocks_are_those_that_a_reader_types() -> None:
    assert first_hour.steps(PAGE) == [
        Block("cell", "automl-ext doctor         # a comment"),
        Block("cell", "automl-ext search     gdas"),
        Block("cell", "automl-ext doctor"),
        Block("python", "a = 1\n"),
        Block("cell", "for i in 1 2; do\n  echo $i\ndone\n"),
        Block("python", "b = a + 1\n"),
    ]


def test_a_wheel_replaces_the_sources_only() -> None:
    assert first_hour.install_commands(PAGE, None)[0] == "pip install torch"
    assert first_hour.install_commands(PAGE, Path("/a b/x.whl")) == [
        "pip install torch",
        "pip install -v --no-build-isolation '/a b/x.whl[data,plot]'   # a comment. It is kept",
    ]
    assert first_hour.SOURCES.sub("W", "pip install . ") == "pip install W "
    assert first_hour.SOURCES.sub("W", "pip install ./x a.b") == "pip install ./x a.b"


def test_the_install_lines_of_readme_name_the_extras_that_its_commands_need() -> None:
    lines = first_hour.install_commands(first_hour.README.read_text(), Path("/x.whl"))
    assert [line.partition("#")[0].strip() for line in lines][-1] == (
        "pip install -v --no-build-isolation '/x.whl[data,plot]'"
    )


def test_every_page_has_commands() -> None:
    for page in (first_hour.README, *first_hour.TUTORIALS):
        found = first_hour.steps(page.read_text())
        assert len(found) >= 4, page
        compile(first_hour.script(page.read_text()), page.name, "exec")
        assert not any("IPython" in block.code for block in found), f"{page}: README's install line has no IPython"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/python").symlink_to(sys.executable)
    return first_hour.environment(tmp_path / "venv")


def test_a_page_runs_in_order_and_shares_names(tmp_path: Path, environment: dict[str, str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\necho 5 > five  # a file\n```\n```python\nn = int(open('five').read())\n```\n"
        "```python\nimport time\nwhile time.process_time() < 0.3: assert n == 5\n```\n"
    )
    timed = list(first_hour.run_page(page, tmp_path / "page", environment))
    assert timed[0].cpu_seconds < 0.2 <= timed[-1].cpu_seconds
    assert [row.command for row in timed] == ["echo 5 > five  # a file", "Python block 2", "Python block 3"]
    assert all(0 <= row.seconds < 60 for row in timed)
    record = first_hour.record(timed, built=True)
    assert record["commands"][0] == ["page.md", timed[0].command, *(round(x, 1) for x in timed[0][2:])]


@pytest.mark.parametrize(
    "fault", ["```sh\necho the reason; false\necho more\n```\n", "```python\nraise OSError('the reason')\n```\n"]
)
def test_a_failing_command_ends_the_run(fault: str, tmp_path: Path, environment: dict[str, str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(fault)
    with pytest.raises(SystemExit, match="the reason") as stop:
        list(first_hour.run_page(page, tmp_path / "page", environment))
    assert "more" not in str(stop.value)


def test_the_environment_has_nothing_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("AUTOML_EXT_BACKEND", "reference")
    env = first_hour.environment(tmp_path)
    assert env["PATH"].split(os.pathsep)[0] == str(tmp_path / "bin")
    assert "PYTHONPATH" not in env
    assert not any(name.startswith("AUTOML_EXT_") for name in env)
