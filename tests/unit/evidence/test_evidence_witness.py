"""A witness: it signs one history of a log, keeps what it signs before it does, and never goes back."""

import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from witnessed import LOG, ORIGIN, TIME, Signer, Tree

from agents.evidence.witness import Store, Witness
from infra.notary import verify
from infra.witness_store import KnownLogs, WitnessDirectory
from schemas.errors import Refused, Unavailable
from schemas.tlog.note import COSIGNER, Checkpoint, VerifierKey
from schemas.tlog.policy import Policy, open_checkpoint
from schemas.tlog.policy import Witness as Named
from schemas.tlog.strict import Malformed
from schemas.tlog.witnessing import SIZE_TYPE, AddCheckpoint, Answer, Seen, open_cosignature, parse_seen

TREE = Tree.of(40)
FORK = Tree(TREE.entries[:5] + Tree.of(35, "fork").entries)
OWN = Signer("dev.witness/1", 11, COSIGNER)
HASH = hashlib.sha256(ORIGIN.encode()).hexdigest()


class Bench:
    """A witness over a real directory, whose clock, key and log keys the test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = WitnessDirectory(folder)
        self.now_s = TIME
        self.logs: list[VerifierKey] = [LOG.key]
        self.signed: list[bytes] = []
        self.accused: list[tuple[str, bytes]] = []
        self.key_away = False
        self.witness = self.over(self.store)

    def over(self, store: Store) -> Witness:
        return Witness(OWN.key, self.sign, store, lambda: self.now_s, verify, lambda *said: self.accused.append(said))

    def sign(self, message: bytes) -> bytes:
        if self.key_away:
            raise Unavailable("sealed")
        seen = parse_seen(message)
        kept = self.store.read(seen.checkpoint.origin)
        assert kept is not None, "signed before it was kept"
        assert kept.checkpoint.size >= seen.checkpoint.size, "signed before it was kept"
        self.signed.append(message)
        return OWN._private.sign(message)

    def ask(self, old: int, size: int, tree: Tree = TREE, *, proof: list[bytes] | None = None) -> Answer:
        path = tree.prove(size)(old) if proof is None and 0 < old <= size else proof or []
        body = AddCheckpoint(old, tuple(path), tree.signed(size)).encode()
        return self.witness.add_checkpoint(body, self.logs)

    def kept(self) -> Seen | None:
        return self.store.read(ORIGIN)

    def restart(self) -> None:
        self.store.close()
        self.store = WitnessDirectory(self.folder)
        self.witness = self.over(self.store)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "witness")


def timestamp(answer: Answer, size: int) -> int:
    """The time of a good answer to `size` entries."""
    assert (answer.status, answer.content_type) == (200, "text/plain"), answer
    return open_cosignature(TREE.checkpoint(size).text, answer.body, OWN.key, verify).timestamp


def test_a_log_grows_and_each_step_is_cosigned(bench: Bench) -> None:
    """First sight, growth, and the same size again: cosigned; the newest is kept."""
    for old, size in ((0, 1), (1, 2), (2, 7), (7, 8), (8, 40), (40, 40)):
        assert timestamp(bench.ask(old, size), size) == TIME
        assert bench.kept() == Seen(TREE.checkpoint(size), TIME)


def test_the_empty_log(bench: Bench) -> None:
    """Size 0 has the empty tree's root and no other; every log extends it."""
    assert bench.ask(0, 0).status == 200
    assert bench.ask(0, 3).status == 200
    text = Checkpoint("dev.ratchet/other", 0, bytes(32)).text
    other = Signer("dev.ratchet/other", 5)
    body = AddCheckpoint(0, (), f"{text}\n{other.line(text)}".encode()).encode()
    assert bench.witness.add_checkpoint(body, [other.key]).status == 422
    assert bench.store.read("dev.ratchet/other") is None


def refusals() -> list[tuple[str, int, bytes]]:
    stranger = Signer("dev.ratchet/stranger", 6)
    impostor = Signer(ORIGIN, 7)
    good = TREE.signed(9)
    bad = good[:-6] + (b"AAAA" if good[-6:-2] != b"AAAA" else b"BBBB") + good[-2:]
    proof = tuple(TREE.prove(9)(5))

    def body(old: int, path: tuple[bytes, ...], note: bytes) -> bytes:
        return AddCheckpoint(old, path, note).encode()

    return [
        ("not a request", 400, b"hello\n\n"),
        ("not a note", 400, body(5, proof, b"hello\n")),
        ("not a checkpoint", 400, body(5, proof, b"o\n1\n\n" + LOG.line("o\n1\n").encode())),
        ("64 hashes", 400, body(5, (bytes(32),) * 64, good)),
        ("too long", 400, body(5, proof, good + b"x" * 65_536)),
        ("unknown origin", 404, body(5, proof, TREE.signed(9, stranger, origin="dev.ratchet/stranger"))),
        ("unknown key", 403, body(5, proof, TREE.signed(9, impostor))),
        ("another log's key", 403, body(5, proof, TREE.signed(9, stranger))),
        ("bad signature", 403, body(5, proof, bad)),
        ("signed twice", 403, body(5, proof, TREE.signed(9, LOG, LOG))),
        ("old above size", 400, body(10, (), good)),
        ("old below kept", 409, body(0, (), good)),
        ("old above kept", 409, body(6, tuple(TREE.prove(9)(6)), good)),
        ("smaller than kept", 409, body(3, (), TREE.signed(3))),
        ("same size, other root", 409, body(5, (), FORK2.signed(5))),
        ("no proof", 422, body(5, (), good)),
        ("wrong proof", 422, body(5, tuple(TREE.prove(9)(4)), good)),
        ("proof of another size", 422, body(5, proof, TREE.signed(10))),
        ("proof for the same size", 422, body(5, proof, TREE.signed(5))),
        ("another history", 422, body(5, tuple(FORK2.prove(9)(5)), FORK2.signed(9))),
    ]


FORK2 = Tree.of(9, "fork")


@pytest.mark.parametrize(("status", "body"), [row[1:] for row in refusals()], ids=[row[0] for row in refusals()])
def test_refusals(bench: Bench, status: int, body: bytes) -> None:
    """Each has its status; nothing is signed, nothing kept changes; a conflict names the size that is kept."""
    assert bench.ask(0, 5).status == 200
    before, published = bench.kept(), bench.witness.checkpoint(HASH)
    bench.signed.clear()
    answer = bench.witness.add_checkpoint(body, bench.logs)
    assert (answer.status, bench.signed) == (status, [])
    assert (bench.kept(), bench.witness.checkpoint(HASH)) == (before, published)
    if status == 409:
        assert (answer.body, answer.content_type) == (b"5\n", SIZE_TYPE)
    else:
        assert answer.body.endswith(b"\n")


def test_a_log_never_seen_has_size_zero(bench: Bench) -> None:
    """Asking with an old size that was never cosigned is answered by 0; a proof from 0 is refused."""
    assert bench.ask(5, 9) == Answer(409, b"0\n", SIZE_TYPE)
    assert bench.ask(0, 9, proof=[bytes(32)]).status == 422
    assert bench.kept() is None


def test_another_history_is_held_against_the_log(bench: Bench) -> None:
    """A log that knows what is kept and signs another history is accused with its own note; an old size is no crime."""
    assert bench.ask(0, 6).status == 200
    assert bench.ask(3, 9).status == 409
    assert bench.ask(6, 6, FORK).status == 409
    assert bench.ask(6, 9, FORK).status == 422
    assert [proof for _, proof in bench.accused] == [FORK.signed(6), FORK.signed(9)]


def test_both_keys_of_a_rotation(bench: Bench) -> None:
    """A log's new key is taken beside the old one; a note signed by both is one note."""
    new = Signer(ORIGIN, 8)
    bench.logs = [LOG.key, new.key]
    for old, size, signers in ((0, 3, (LOG,)), (3, 5, (LOG, new)), (5, 7, (new,))):
        body = AddCheckpoint(old, tuple(TREE.prove(size)(old)), TREE.signed(size, *signers)).encode()
        assert bench.witness.add_checkpoint(body, bench.logs).status == 200


def test_time_never_goes_back(bench: Bench) -> None:
    """A clock that is set back does not take the signed time with it, nor after a restart."""
    bench.now_s = TIME + 100
    assert timestamp(bench.ask(0, 3), 3) == TIME + 100
    bench.now_s = TIME
    assert timestamp(bench.ask(3, 4), 4) == TIME + 100
    bench.restart()
    assert timestamp(bench.ask(4, 5), 5) == TIME + 100
    bench.now_s = TIME + 101
    assert timestamp(bench.ask(5, 5), 5) == TIME + 101


def test_a_restart_keeps_what_was_signed(bench: Bench) -> None:
    """After a restart the answers are the same: a rolled-back log and another history find no gap."""
    first = bench.ask(0, 9)
    bench.restart()
    assert bench.ask(0, 5) == Answer(409, b"9\n", SIZE_TYPE)
    assert bench.ask(9, 9, FORK).status == 409
    assert bench.ask(9, 9) == first
    assert bench.ask(9, 12).status == 200


def test_a_key_that_is_away_loses_nothing(bench: Bench) -> None:
    """What was kept but not signed is signed when asked again from there."""
    bench.key_away = True
    assert bench.ask(0, 5).status == 503
    assert bench.witness.checkpoint(HASH).status == 404
    bench.key_away = False
    assert bench.ask(0, 5) == Answer(409, b"5\n", SIZE_TYPE)
    assert bench.ask(5, 5).status == 200


def test_a_store_that_cannot_keep_does_not_sign(bench: Bench) -> None:
    """A full or read-only disk: 503, no signature, and what was kept stands; later it goes on."""
    assert bench.ask(0, 5).status == 200
    before = bench.kept()
    bench.signed.clear()
    temp = bench.folder / "temp"
    temp.mkdir()  # nothing can be written any more
    assert bench.ask(5, 9).status == 503
    assert (bench.signed, bench.kept()) == ([], before)
    temp.rmdir()
    assert bench.ask(5, 9).status == 200


class FullDisk:
    """A store whose disk is full."""

    def __init__(self, store: WitnessDirectory) -> None:
        self._store = store
        self.read, self.publish, self.published = store.read, store.publish, store.published

    def advance(self, origin: str, before: Seen | None, after: Seen) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_said(bench: Bench) -> None:
    """The log is told why, and nothing is signed."""
    bench.witness = bench.over(FullDisk(bench.store))
    answer = bench.ask(0, 5)
    assert (answer.status, bench.signed) == (503, [])
    assert b"No space left on device" in answer.body


def test_a_damaged_store_is_not_signed_over(bench: Bench) -> None:
    """What is kept in another spelling is a person's to look at: the request fails, the file stays."""
    assert bench.ask(0, 5).status == 200
    file = bench.folder / "logs" / HASH / "seen"
    damaged = file.read_bytes().replace(b"\n5\n", b"\n05\n")
    file.write_bytes(damaged)
    with pytest.raises(Malformed):
        bench.ask(0, 9)
    assert file.read_bytes() == damaged


class Overtaken:
    """A store that lets another request through between the first read and what follows it."""

    def __init__(self, bench: Bench, old: int, size: int) -> None:
        self._store = bench.store
        self._meanwhile = [lambda: bench.ask(old, size)]
        self.advance, self.publish, self.published = self._store.advance, self._store.publish, self._store.published
        self.between: list[Answer] = []

    def read(self, origin: str) -> Seen | None:
        seen = self._store.read(origin)
        if self._meanwhile:
            self.between.append(self._meanwhile.pop()())
        return seen


def test_the_specifications_race(bench: Bench) -> None:
    """Request A (N) is checked, B (N+K) is checked, kept and answered, A goes on: A is refused, nothing is rolled back."""
    assert bench.ask(0, 4).status == 200
    store = Overtaken(bench, 4, 9)
    body = AddCheckpoint(4, tuple(TREE.prove(7)(4)), TREE.signed(7)).encode()
    answer = bench.over(store).add_checkpoint(body, bench.logs)
    assert [one.status for one in store.between] == [200]
    assert answer == Answer(409, b"9\n", SIZE_TYPE)
    kept = bench.kept()
    assert kept is not None
    assert kept.checkpoint.size == 9


def test_many_at_once(bench: Bench) -> None:
    """Of two histories told from many threads one is cosigned, in growing sizes, and the largest signed is what is kept."""

    def tell(tree: Tree) -> list[bytes]:
        told: list[bytes] = []
        old = 0
        for size in range(1, 40):
            answer = bench.ask(old, size, tree)
            if answer.status == 409:
                old = int(answer.body)
            elif answer.status == 200:
                old = size
                told.append(tree.checkpoint(size).root)
        return told

    forked = Tree.of(40, "fork")
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(tell, [TREE, forked] * 4))
    ours = {root for one in told[::2] for root in one}
    theirs = {root for one in told[1::2] for root in one}
    assert bool(ours) != bool(theirs)
    largest = max(parse_seen(message).checkpoint.size for message in bench.signed)
    kept = bench.kept()
    assert kept is not None
    assert kept.checkpoint.size == largest


def test_monitors_see_the_newest(bench: Bench) -> None:
    """The published note has the log's signature and ours, and no stranger's line."""
    assert bench.witness.checkpoint(HASH).status == 404
    stranger = Signer("dev.witness/9", 9, COSIGNER)
    body = AddCheckpoint(0, (), TREE.signed(5, LOG, stranger)).encode()
    assert bench.witness.add_checkpoint(body, bench.logs).status == 200
    answer = bench.witness.checkpoint(HASH)
    opened = open_checkpoint(answer.body, Policy((LOG.key,), {"w": Named(OWN.key)}, {}, "w"), verify)
    assert (opened.checkpoint, opened.witnessed) == (TREE.checkpoint(5), {"w": TIME})
    older = Seen(TREE.checkpoint(3), TIME)
    bench.store.publish(older, b"late")
    assert bench.witness.checkpoint(HASH) == answer


def test_one_process_holds_the_store(bench: Bench) -> None:
    """A second witness over the same folder does not start."""
    with pytest.raises(Refused, match="another witness"):
        WitnessDirectory(bench.folder)


def test_known_logs_follow_their_file(tmp_path: Path) -> None:
    """A changed file is read; a broken one is said and changes nothing; a missing one at the start is refused."""
    file, said = tmp_path / "logs", []
    with pytest.raises(Refused, match="RATCHET_WITNESS_LOGS"):
        KnownLogs(file, said.append)
    file.write_text(f"# ours\nlog {LOG.key}\nquorum none\n")
    logs = KnownLogs(file, said.append)
    assert logs.keys() == (LOG.key,)
    new = Signer(ORIGIN, 8)
    file.write_text(f"log {LOG.key}\nlog {new.key}\nquorum none\n")
    assert logs.keys() == (LOG.key, new.key)
    file.write_text("log nonsense\n")
    assert logs.keys() == logs.keys() == (LOG.key, new.key)
    assert len(said) == 1
    assert "line 1" in said[0]
    file.unlink()
    assert logs.keys() == (LOG.key, new.key)
