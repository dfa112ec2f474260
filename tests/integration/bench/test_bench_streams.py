"""The benchmark of the lanes on a real broker, small: every part measures, nothing is lost or twice, nothing is left."""

import json

import psutil
import pytest

from tools.bench import main
from tools.bench.streams import PARTS


@pytest.mark.timeout(300)
def test_a_quick_run_measures_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    """Each part has its figures, lost and twice are 0 in every row, and no process of it is left. Speeds are not judged."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    main("streams", ["--quick"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert set(PARTS) <= found.keys()
    assert found["kafka"]
    summary = found["summary"]
    assert (summary["lost"]["value"], summary["duplicated"]["value"], summary["state wrong"]["value"]) == (0, 0, 0)
    for row in found["throughput"]:
        assert row["events_per_s"] > 0
        assert row["cpu_us_per_event"] > 0
        assert len(row["rounds_events_per_s"]) == 1
    assert {row["codec"] for row in found["ratios"]} == {"neither", "both", "ours alone"}
    assert all(0 < row["ratio"] <= 1 for row in found["work"])
    assert 0 < found["latency"]["p50_ms"] <= found["latency"]["p99_ms"]
    assert [row["partitions"] for row in found["scale"]] == [4, 4, 16, 16]
    assert 0 < found["memory"]["bytes_waiting"] < found["memory"]["bytes_in_work"]
    assert all(row["seconds"] > 0 for row in found["restore"])
    assert all(row["kills"] == 2 and 0 < row["p50_s"] <= row["worst_s"] for row in found["recovery"].values())
    assert found["partitions"]["memory"]["restored"]["opened_s"] > 0
    assert found["partitions"]["kafka"]["fit"] > 0
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
