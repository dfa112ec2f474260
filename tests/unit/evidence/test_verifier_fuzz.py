"""Whatever an export holds, the answer is a reason, never a traceback, and never "valid" for changed bytes."""

import contextlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import evidence_bundle as made
import evidence_mutants as mutants
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools import verify_evidence as verifier

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def explained(report: verifier.Report) -> bool:
    """Whether each problem has words of its own, and the whole can be shown."""
    assert json.dumps(report.as_json())
    assert all(verifier.printable(line).isascii() for line in verifier.lines_of(report))
    return all(not problem.startswith("cannot be read") for problem in report.problems)


def test_changed_bytes_of_any_file(tmp_path: Path) -> None:
    """Files of whole and tenants' bundles, changed at random: refused, with a reason."""
    draws = mutants.Draws(7)
    for tenant in (None, "acme"):
        folder = tmp_path / str(tenant)
        files = made.Export(count=20, tenant=tenant).files()
        made.write(folder, files)
        assert verifier.verify(folder).valid
        for _ in range(300):
            name = draws.of(sorted(files))
            (folder / name).write_bytes(changed := mutants.changed_bytes(files[name], draws))
            report = verifier.verify(folder)
            assert not report.valid, (name, changed)
            assert explained(report), report.problems
            (folder / name).write_bytes(files[name])


def test_changed_values_properly_signed(tmp_path: Path) -> None:
    """A log that signs any values whatever: never a traceback, and each refusal has its reason."""
    entries = mutants.small_log()
    assert verifier.verify(made.write(tmp_path / "sound", made.Log(entries).files())).problems == []
    refused = 0
    for number, mutant in enumerate(mutants.signed_mutants(entries, 11, 300)):
        folder = tmp_path / str(number)
        report = verifier.verify(made.write(folder, made.Log(mutant).files()))
        assert explained(report), (report.problems, mutant)
        refused += not report.valid
    assert refused > 200  # the rest are facts and words that the log is free to choose


def test_changed_values_beside_the_log(tmp_path: Path) -> None:
    """Manifests, statements and results of any values, listed and announced: refused with a reason, or harmless."""
    export = made.Export(count=6)
    draws = mutants.Draws(13)
    names = [*sorted(name for name in export.attached if name != "policy.txt"), "manifest.json"]
    for number in range(150):
        name = draws.of(names)
        attached = dict(export.attached)
        manifest = made.manifest(attached)
        if name == "manifest.json":
            manifest = mutants.encoded(mutants.changed_value(json.loads(manifest), draws))
        else:
            envelope = json.loads(attached[name])
            if "payload" in envelope and draws.below(3):
                payload = json.loads(verifier.from_base64(envelope["payload"], ""))
                attached[name] = made.envelope(_encodable(mutants.changed_value(payload, draws)))
            else:
                attached[name] = mutants.encoded(mutants.changed_value(envelope, draws))
            manifest = made.manifest(attached)
        log = made.Log(made.announced(export.log.entries[:-2], manifest))
        folder = tmp_path / str(number)
        report = verifier.verify(made.write(folder, log.files() | attached | {"manifest.json": manifest}))
        assert explained(report), (name, report.problems)


def _encodable(value: Any) -> dict[str, Any]:
    """As much of a mutated statement as an envelope can hold."""
    try:
        made.jcs(value)
    except UnicodeEncodeError:
        return {}
    return value if isinstance(value, dict) else {"subject": value}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@quick
@given(data=st.binary(max_size=400) | st.builds(lambda value: json.dumps(value).encode(), json_values))
def test_any_bytes_anywhere(data: bytes) -> None:
    """Each parser takes any bytes, and refuses with Invalid alone."""
    for parse in (
        verifier.canonical,
        lambda data: verifier.any_json(data, "x"),
        lambda data: verifier.parse_policy(data, strict=True),
        lambda data: verifier.parse_policy(data, strict=False),
        lambda data: verifier.open_checkpoint(data, verifier.Policy()),
        lambda data: verifier.parse_proof(data, "x"),
        lambda data: verifier.parse_statement("attestations/1-training.dsse.json", data, made.ORIGIN),
        lambda data: verifier.parse_manifest(data, made.ORIGIN),
        verifier.check_oscal,
        lambda data: verifier.split_bundle(data, 3, "x"),
    ):
        with contextlib.suppress(verifier.Invalid):
            parse(data)  # type: ignore[operator]


@quick
@given(value=st.dictionaries(st.sampled_from(["a", "b", "src", "tenant", "type", "v"]), json_values, max_size=6))
def test_canonical_is_what_encoding_again_gives(value: dict[str, Any]) -> None:
    """Accepted are exactly the bytes of JCS, for values without floats and large numbers."""
    data = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    try:
        assert verifier.canonical(data) == value
    except verifier.Invalid:
        floats = [item for item in verifier.within(value) if isinstance(item, float)]
        large = [item for item in verifier.within(value) if type(item) is int and abs(item) >= 2**53]
        keys = [key for item in verifier.within(value) if isinstance(item, dict) for key in item if not key.isascii()]
        lone = any("\ud800" <= char <= "\udfff" for char in data.decode("utf-8", "surrogatepass"))
        assert floats or large or keys or lone


@quick
@given(st.data())
def test_a_learned_pattern_accepts_only_canonical_entries(data: st.DataObject) -> None:
    """What fits the pattern of one canonical entry is canonical, too, and has the same keys."""
    plain = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
    facts = st.recursive(
        plain | st.integers(1 - 10**15, 10**15 - 1) | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
        max_leaves=6,
    )
    entry = made.record(data.draw(st.integers(0, 10**9)), facts={"x": data.draw(facts)})
    pattern = verifier.pattern_of(entry)
    if pattern is None:  # a string with an escape in it
        assert b"\\" in entry
        return
    draws = mutants.Draws(data.draw(st.integers(0, 2**32)))
    fits = re.compile(pattern).fullmatch
    assert fits(entry)
    for _ in range(20):
        changed = mutants.changed_bytes(entry, draws)
        if fits(changed):
            assert list(verifier.canonical(changed)) == list(verifier.canonical(entry))


@pytest.mark.parametrize("size", range(9))
def test_bundles_cut_anywhere(size: int) -> None:
    """A bundle that ends early, or late, is refused at any place."""
    data = b"".join(len(entry).to_bytes(2, "big") + entry for entry in itertools.repeat(b"x" * size, 3))
    assert verifier.split_bundle(data, 3, "x") == [b"x" * size] * 3
    for at in range(len(data)):
        with pytest.raises(verifier.Invalid):
            verifier.split_bundle(data[:at], 3, "x")
    with pytest.raises(verifier.Invalid):
        verifier.split_bundle(data + b"\0", 3, "x")
