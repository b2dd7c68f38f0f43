"""The benchmarks say what they measure before they do."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
MODULES = sorted(
    path.stem
    for path in BENCHMARKS.glob("*.py")
    if '__name__ == "__main__"' in path.read_text("utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_help_is_told_and_nothing_is_run(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [f"{module}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"tests.benchmarks.{module}").main()
    assert ended.value.code == 0
    usage, _, told = capsys.readouterr().out.partition("\n\n")
    assert usage.startswith("usage: ")
    assert not told.startswith("options:")
