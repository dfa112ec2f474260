"""The stack's own witness: what it is given, what it and the log are told, and what is said when it does not do its work."""

import hashlib
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from witnessed import LOG, ORIGIN, WITNESSES, Signer, Tree

from infra.settings import Settings, load
from schemas.errors import Refused, Unavailable
from schemas.tlog.policy import Policy, Witness, parse_policy
from tools.stack import witness
from tools.stack.ports import free_ports
from tools.stack.roles import WITNESS_ROLE

OURS, OTHER = WITNESSES["w1"], WITNESSES["w2"]
HEAVY = {"aiokafka", "confluent_kafka", "ray", "redis", "torch", "transformers", "vllm", "agents.wiring", "streams"}


class Page:
    """A witness's read side: the notes that the test puts there."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}
        self.url = ""


@pytest.fixture
def page() -> Iterator[Page]:
    """The same, listening."""
    shown = Page()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shown.notes.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    shown.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield shown
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def state(tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder in which everything is well, on a disk; nothing is cosigned yet."""
    mounts(monkeypatch, ("/", "ext4"))
    witness.tell(tmp_path, [str(LOG.key)], witness.ask_of(tmp_path, str(OURS.key), page.url))
    return tmp_path


def mounts(monkeypatch: pytest.MonkeyPatch, *rows: tuple[str, str]) -> None:
    """The machine's table of mounts: where, of what kind."""
    found = [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in rows]

    def partitions(**_: bool) -> list[SimpleNamespace]:
        return found

    monkeypatch.setattr(psutil, "disk_partitions", partitions)


def publish(file: Path, *witnesses: Signer, logs: tuple[Signer, ...] = (LOG,)) -> None:
    """A policy that the log or its operator gives to auditors."""
    known = {f"n{number}": Witness(one.key) for number, one in enumerate(witnesses)}
    file.parent.mkdir(exist_ok=True)
    file.write_text(Policy(tuple(one.key for one in logs), known, {}, "n0").text())


def show(page: Page, *signers: Signer) -> None:
    """The checkpoint of 7 entries, as these have signed it."""
    page.notes[f"/{hashlib.sha256(ORIGIN.encode()).hexdigest()}/checkpoint"] = Tree.of(7).signed(7, *signers)


def test_the_process_is_given_nothing_of_the_logs(tmp_path: Path) -> None:
    """Its settings are its own folder, name and address; with a local key the name says that it is for a first look."""
    settings = Settings(
        state_dir=tmp_path, kafka_bootstrap="k:1", redis_url="redis://r:1/0", vault_token="secret", instance="shop"
    )
    child = witness.child_of(settings, 8410, {})
    found = load(child.env)
    assert (child.apart, child.role) == (True, None)
    assert found.model_fields_set == {
        "state_dir",
        "witness_dir",
        "witness_logs",
        "witness_listen",
        "witness_name",
        "log_level",
    }
    assert (found.state_dir, found.witness_dir) == (tmp_path / "witness", tmp_path / "witness")
    assert (found.witness_name, found.witness_listen) == ("dev.ratchet/shop/witness", "127.0.0.1:8410")


def test_with_the_stacks_own_vault_it_signs_by_a_role_of_its_own(tmp_path: Path) -> None:
    """The name no longer says that it is for a first look, and the role is no agent's."""
    settings = Settings(state_dir=tmp_path, vault_addr="http://v:1", secrets="vault", vault_role_id="the agents'")
    child = witness.child_of(settings, 8410, {WITNESS_ROLE: "its own", "ratchet": "the agents'"})
    found = load(child.env)
    assert (child.apart, child.role) == (True, WITNESS_ROLE)
    assert (found.secrets, found.vault_addr) == ("vault", "http://v:1")
    assert (found.vault_role, found.vault_role_id) == (WITNESS_ROLE, "its own")
    assert found.witness_name == "ratchet/local/witness"


def test_it_tells_its_key_and_keeps_it(tmp_path: Path) -> None:
    """Asked twice, the program of the process says the same verifier key; one that cannot says why."""
    child = witness.child_of(Settings(state_dir=tmp_path), 8410, {})
    first = witness.vkey_of(child, None)
    assert first == witness.vkey_of(child, None)
    asked = parse_policy(witness.ask_of(tmp_path, first, "http://127.0.0.1:8410").read_text())
    assert asked.witnesses["local"].key.name == "dev.ratchet/local/witness"
    assert (asked.quorum, asked.witnesses["local"].url) == ("local", "http://127.0.0.1:8410")
    foreign = child.model_copy(update={"env": child.env | {"RATCHET_WITNESS_NAME": "witness.example"}})
    with pytest.raises(Unavailable, match=r"does not tell its key.*dev\."):
        witness.vkey_of(foreign, None)


def test_it_is_light() -> None:
    """What the process loads has no Kafka, no Redis, no Ray, no model in it."""
    code = "import sys, agents.__main__, agents.witnessing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "infra.witness_server" in done.stdout.split()
    assert not HEAVY & set(done.stdout.split())


def test_a_new_key_is_told_once(tmp_path: Path) -> None:
    """Changed keys are news for the witness and for auditors; the same ones are none, and leave the files alone."""
    asked = witness.ask_of(tmp_path, str(OURS.key), "http://127.0.0.1:1")
    assert witness.tell(tmp_path, [str(LOG.key)], asked)
    files = [tmp_path / "witness" / "logs.policy", tmp_path / "evidence.policy"]
    before = [file.stat().st_mtime_ns for file in files]
    assert not witness.tell(tmp_path, [str(LOG.key)], asked)
    assert [file.stat().st_mtime_ns for file in files] == before
    newer = Signer(ORIGIN, 2)
    assert witness.tell(tmp_path, [str(LOG.key), str(newer.key)], asked)
    known, published = (parse_policy(file.read_text()) for file in files)
    assert known == Policy((LOG.key, newer.key), {}, {}, "none")
    assert published == Policy((LOG.key, newer.key), {"local": Witness(OURS.key)}, {}, "local")


def test_witnesses_of_others_that_are_no_policy_are_refused(tmp_path: Path) -> None:
    """By the setting's name, before anything is told to anybody."""
    file = tmp_path / "theirs.policy"
    for text, said in ((None, "No such file"), ("quorum\n", "policy line 1")):
        if text is not None:
            file.write_text(text)
        with pytest.raises(Refused, match=f"RATCHET_WITNESSES={file} cannot be used: .*{said}"):
            witness.tell(tmp_path, [str(LOG.key)], file)
    assert not (tmp_path / "evidence.policy").exists()


def test_all_is_well(state: Path, page: Page) -> None:
    """Nothing cosigned yet is no problem; then the size that it cosigned is said."""
    assert witness.answers(page.url)
    assert witness.problems_of(state) == ([], "has cosigned nothing yet")
    show(page, LOG, OURS)
    assert witness.problems_of(state) == ([], "has cosigned 7 entries")


def test_who_is_away_is_named(state: Path) -> None:
    """With the address where nobody answers."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    witness.ask_of(state, str(OURS.key), url)
    assert not witness.answers(url)
    assert witness.problems_of(state)[0] == [f"it does not answer at {url}: see logs/witness.log"]


@pytest.mark.parametrize("signers", [(LOG, OTHER), (LOG,), (OURS,)], ids=["another's key", "no witness", "no log"])
def test_a_cosignature_of_another_key_is_found(state: Path, page: Page, signers: tuple[Signer, ...]) -> None:
    """What it shows must carry the log's signature and its own, under the keys that the log and it were told of."""
    show(page, *signers)
    problems, _ = witness.problems_of(state)
    assert len(problems) == 1
    assert "does not verify under dev.witness/1" in problems[0]


def test_policies_that_do_not_agree_are_found(state: Path) -> None:
    """Auditors must hear of the witness, and the witness of each of the log's keys."""
    publish(state / "evidence" / "policy.txt", OURS, logs=(LOG, Signer(ORIGIN, 2)))
    assert witness.problems_of(state)[0] == [f"it does not know a key of {ORIGIN}: `ratchet up` tells it"]
    publish(state / "evidence" / "policy.txt", OURS)
    publish(state / "evidence.policy", OTHER)
    assert witness.problems_of(state)[0] == [
        "evidence.policy does not list dev.witness/1: `ratchet down` and `up` write it anew"
    ]


@pytest.mark.parametrize("file", ["evidence.policy", "witnesses.policy", "witness/logs.policy"])
@pytest.mark.parametrize("text", [None, "quorum\n", "quorum none"])
def test_a_policy_that_cannot_be_used_is_said(state: Path, file: str, text: str | None) -> None:
    """One that is away, or is no policy: with what to do."""
    (state / file).unlink()
    if text is not None:
        (state / file).write_text(text)
    problems, _ = witness.problems_of(state)
    assert len(problems) == 1
    assert "`ratchet down` and `up`" in problems[0]


def test_a_folder_that_forgets_is_found(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The innermost mount counts."""
    mounts(monkeypatch, (str(state), "tmpfs"), ("/", "ext4"))
    assert witness.problems_of(state)[0] == [f"{state / 'witness'} is lost at a restart of this machine (tmpfs)"]


def test_witnesses_of_others_must_answer(tmp_path: Path, page: Page) -> None:
    """Each that does not is named; so is a file that is no policy."""
    file = tmp_path / "theirs.policy"
    (port,) = free_ports(1)
    away = f"http://127.0.0.1:{port}/log"
    file.write_text(f"witness a {OURS.key} {page.url}\nwitness b {OTHER.key} {away}\nquorum a\n")
    assert witness.unreachable(file) == [f"witness b does not answer at {away}"]
    file.write_text(f"witness a {OURS.key}\nquorum a\n")
    assert witness.unreachable(file) == ["witness a has no URL there"]
    file.write_text("witness a\n")
    assert witness.unreachable(file)[0].startswith(f"RATCHET_WITNESSES={file} cannot be used: policy line 1")
