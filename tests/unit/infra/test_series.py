"""Prometheus's formats come out as the same points; what is none is refused by name."""

import json
from pathlib import Path

import pytest

from infra.series import read
from schemas.errors import Refused

TEXT = """# TYPE vllm:request_success counter
vllm:request_success_total{model_name="base"} 10 1700000000000
vllm:num_requests_waiting{model_name="base"} NaN 1700000000000
# TYPE vllm:request_success counter
vllm:request_success_total{model_name="base"} 25.0 1700000010000
"""
POINTS = [
    ("vllm:request_success_total", {"model_name": "base"}, 1_700_000_000_000, 10.0),
    ("vllm:request_success_total", {"model_name": "base"}, 1_700_000_010_000, 25.0),
]


def answer() -> dict[str, object]:
    """What /api/v1/query_range says."""
    metric = {"__name__": "vllm:request_success_total", "model_name": "base"}
    values = [[1_700_000_000, "10"], [1_700_000_010.0, "25"], [1_700_000_020, "NaN"]]
    return {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": metric, "values": values}]}}


def open_metrics() -> str:
    rows = [f'vllm:request_success_total{{model_name="base"}} {value} {ts // 1000}' for _, _, ts, value in POINTS]
    return "\n".join(["# TYPE vllm:request_success counter", *rows, "# EOF", ""])


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        open_metrics(),
        json.dumps(answer()),
        json.dumps([answer()], indent=1),
        json.dumps(answer()) + "\n",
        json.dumps(answer()["data"]),
    ],
    ids=["exposition", "OpenMetrics", "query_range", "a list", "lines", "its data"],
)
def test_every_format_gives_the_same_points(tmp_path: Path, text: str) -> None:
    """Times in milliseconds; what is not a number is left out."""
    file = tmp_path / "series"
    file.write_text(text)
    assert read(file) == POINTS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("up 1\n", "up has no timestamp"),
        ("no metrics here\n", "is not understood"),
        ('{"data": {"resultType": "vector", "result": []}}', "is not understood"),
        ('{"a": 1}', "is not understood"),
        ("[1, 2]", "is not understood"),
        ("{", "is not understood"),
    ],
)
def test_what_is_no_series_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """With the file and what is accepted, without what stands in it."""
    file = tmp_path / "series"
    file.write_text(text)
    with pytest.raises(Refused, match=why) as refused:
        read(file)
    assert str(file) in str(refused.value)
    assert "query_range" in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(Refused, match=r"nowhere: cannot be read"):
        read(tmp_path / "nowhere")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match="is not UTF-8"):
        read(tmp_path / "bytes")
