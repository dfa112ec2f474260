"""Options of every suite: `--no-skips` turns a skip or an expected failure into a failure, as `make test` wants it."""

from collections.abc import Generator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="a skipped test or module is a failure")


def _said(report: pytest.TestReport | pytest.CollectReport) -> str:
    return f"a skip is a failure here (--no-skips): {report.nodeid}: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("no_skips"):
        report.longrepr, report.outcome = _said(report), "failed"
        vars(report).pop("wasxfail", None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.outcome == "skipped" and collector.config.getoption("no_skips"):
        report.longrepr, report.outcome = _said(report), "failed"
    return report
