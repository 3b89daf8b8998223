"""Every benchmark runs on a few clips and says what it promises. Nothing here asserts on speed."""

import json
import math

import pytest

from benchmarks import __main__ as command
from benchmarks.figures import Figure, alternate, ratio

#: Targets every benchmark must put beside a figure.
TARGETS = {
    "manifest": 4,
    "store": 2,
    "cache": 4,
    "efficiency": 0,
    "readouts": 1,
    "naive": 1,
    "invariance": 1,
    "epoch": 4,
    "contrast": 2,
    "members": 0,
    "language": 8,
    "peak": 2,
    "dag": 2,
    "predict": 2,
}


@pytest.mark.parametrize("name", command.BENCHMARKS)
def test_runs(name):
    figures = command.run(name, tiny=True)
    assert len({figure.name for figure in figures}) == len(figures)
    assert sum(bool(figure.target) for figure in figures) == TARGETS[name]
    for figure in figures:
        if name in ("dag", "predict"):  # there is no finished workspace
            assert figure.value is None and "make repro" in figure.note
        else:
            assert math.isfinite(figure.value) and figure.value >= 0, figure
    if name == "members":
        assert all(figure.value < 1e-4 for figure in figures if "difference" in figure.name)
    if name == "naive":
        assert next(figure for figure in figures if "difference" in figure.name).met


def test_file_keeps_other_benchmarks(tmp_path):
    out = tmp_path / "results.json"
    assert command.main(["dag", "--tiny", "--out", str(out)]) == 0
    command.save(out, {"store": [Figure("read", 0.123456, "ratio", ">= 0.9")]}, {"cores": 2})
    found = json.loads(out.read_text())
    assert set(found) == {"dag", "store"}
    assert found["store"]["figures"][0]["value"] == 0.1235 and found["store"]["figures"][0]["met"] is False
    assert found["dag"]["figures"][0]["met"] is None
    assert {"cores", "memory_gib", "torch"} <= set(found["dag"]["machine"])


def test_unknown_name_is_a_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["speed"])
    assert "no benchmark 'speed'" in capsys.readouterr().err


def test_targets():
    assert Figure("", 20.0, "s", "<= 20").met and not Figure("", 0.84, "ratio", ">= 0.85").met
    assert Figure("", 1.0, "s").met is None and Figure("", None, "s", "<= 3").met is None


def test_functions_take_turns():
    order = []
    taken = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3 and len(taken["a"]) == 3
    assert ratio([1.0, 9.0, 4.0], [1.0, 3.0, 2.0]) == 2.0
