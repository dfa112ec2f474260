"""The log's side of witnessing: who answers is verified, who is away is missing, who has seen something else is heard."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from witnessed import LOG, TIME, WITNESSES, Signer, Tree, policy

from agents.evidence.witness import Witness
from infra.notary import verify
from infra.witness_client import Cosigned, HttpWitnesses, RolledBack, SplitView
from infra.witness_store import WitnessDirectory
from schemas.errors import Refused
from schemas.tlog.note import COSIGNER
from schemas.tlog.policy import Policy, open_checkpoint
from schemas.tlog.policy import Witness as Named
from schemas.tlog.witnessing import SIZE_TYPE, parse_add_checkpoint

TREE = Tree.of(20)
FORK = Tree(TREE.entries[:3] + Tree.of(17, "fork").entries)
Speak = Callable[[bytes], httpx.Response | Awaitable[httpx.Response]]


class Wire(httpx.AsyncBaseTransport):
    """Real witnesses behind the hosts w1 and w2; a test may put words into one's mouth."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, int]] = []
        self.words: dict[str, Speak] = {}
        self.real = {
            name: Witness(
                signer.key, signer._private.sign, WitnessDirectory(folder / name), lambda: TIME, verify, lambda *_: None
            )
            for name, signer in WITNESSES.items()
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        assert (request.method, request.url.path) == ("POST", "/add-checkpoint")
        host = request.url.host
        self.asked.append((host, parse_add_checkpoint(body).old))
        if host in self.words:
            said = self.words[host](body)
            return said if isinstance(said, httpx.Response) else await said
        answer = self.real[host].add_checkpoint(body, [LOG.key])
        return httpx.Response(answer.status, content=answer.body, headers={"content-type": answer.content_type})


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    return Wire(tmp_path)


def client(wire: Wire, timeout_s: float = 5.0, of: Policy | None = None) -> HttpWitnesses:
    return HttpWitnesses(of or policy(), verify, timeout_s=timeout_s, transport=wire)


async def cosign(witnesses: HttpWitnesses, size: int, tree: Tree = TREE) -> Cosigned:
    return await witnesses.cosign(tree.checkpoint(size), tree.signed(size), tree.prove(size))


def says(status: int, body: bytes = b"", content_type: str = "text/plain") -> Speak:
    return lambda _: httpx.Response(status, content=body, headers={"content-type": content_type})


async def test_every_witness_signs(wire: Wire) -> None:
    """Their lines, in the policy's order, make a note that the policy accepts."""
    witnesses = client(wire)
    for size in (1, 2, 7, 7, 16, 20):
        said = await cosign(witnesses, size)
        assert said.missing == {}
        note = TREE.signed(size) + "".join(said.lines).encode()
        assert list(open_checkpoint(note, policy(2), verify).witnessed) == ["w1", "w2"]
    assert len(wire.asked) == 12  # what each has seen is remembered: no second questions


async def test_a_restarted_log_asks_twice_once(wire: Wire) -> None:
    """A client that knows nothing is told the size, proves from there, and remembers it."""
    await cosign(client(wire), 7)
    wire.asked.clear()
    again = client(wire)
    assert len((await cosign(again, 12)).lines) == 2
    assert len((await cosign(again, 13)).lines) == 2
    assert sorted(wire.asked) == sorted([(w, old) for w in ("w1", "w2") for old in (0, 7, 12)])


async def test_a_witness_that_lost_its_store_starts_again(wire: Wire, tmp_path: Path) -> None:
    """It says 0, gets the checkpoint without a proof, and signs: the log has nothing to hide."""
    witnesses = client(wire)
    await cosign(witnesses, 7)
    wire.real = Wire(tmp_path / "new").real
    assert len((await cosign(witnesses, 9)).lines) == 2


async def test_an_old_log_is_rolled_back(wire: Wire) -> None:
    """A log that comes back smaller than a witness has seen it hears of it before anything else."""
    await cosign(client(wire), 9)
    with pytest.raises(RolledBack, match="9 entries, we have 8"):
        await cosign(client(wire), 8)


@pytest.mark.parametrize("size", [9, 12])
async def test_another_history_is_a_split_view(wire: Wire, size: int) -> None:
    """The same size with another root, and a larger tree that does not extend what a witness has seen."""
    await cosign(client(wire), 9)
    with pytest.raises(SplitView):
        await cosign(client(wire), size, FORK)


async def test_a_split_view_outweighs(wire: Wire) -> None:
    """When one says rolled back and another split view, the second is raised, and all were asked."""
    await cosign(client(wire), 9)
    wire.words["w1"] = says(409, b"99\n", SIZE_TYPE)
    with pytest.raises(SplitView):
        await cosign(client(wire), 9, FORK)
    assert {name for name, _ in wire.asked[-3:]} == {"w1", "w2"}


def bad_answers() -> dict[str, tuple[Speak, str]]:
    text = TREE.checkpoint(5).text
    stranger = Signer("dev.witness/9", 9, COSIGNER)
    impostor = Signer("dev.witness/1", 9, COSIGNER)
    other = WITNESSES["w1"].line(TREE.checkpoint(4).text)
    return {
        "not found": (says(404, b"unknown\n"), "404"),
        "forbidden": (says(403), "403"),
        "broken": (says(500), "500"),
        "redirect": (lambda _: httpx.Response(307, headers={"location": "http://w2/add-checkpoint"}), "307"),
        "422 from nothing": (says(422), "422"),
        "409 without size": (says(409, b"many\n"), "without a size"),
        "409 with the size asked": (says(409, b"0\n", SIZE_TYPE), "409"),
        "409 for ever": (says(409, b"3\n", SIZE_TYPE), "409"),
        "empty": (says(200), "not a cosignature"),
        "a stranger's line only": (says(200, stranger.line(text).encode()), "not a cosignature"),
        "its name, another key": (says(200, impostor.line(text).encode()), "not a cosignature"),
        "its line of another checkpoint": (says(200, other.encode()), "does not verify"),
        "too long": (says(200, b"x" * 70_000), "longer"),
    }


@pytest.mark.parametrize("case", list(bad_answers()))
async def test_a_bad_answer_is_missing(wire: Wire, case: str) -> None:
    """Nothing that does not verify is taken, the reason is said, and the other witness's line is there."""
    wire.words["w1"], why = bad_answers()[case]
    said = await cosign(client(wire), 5)
    assert list(said.missing) == ["w1"]
    assert why in said.missing["w1"]
    assert said.lines == (WITNESSES["w2"].line(TREE.checkpoint(5).text),)


async def test_strangers_lines_are_left_out(wire: Wire) -> None:
    """A witness may send other signatures beside its own; only its own is taken."""
    text = TREE.checkpoint(5).text
    line = WITNESSES["w1"].line(text)
    wire.words["w1"] = says(200, (Signer("dev.witness/9", 9, COSIGNER).line(text) + line).encode())
    assert (await cosign(client(wire), 5)).lines == (line, WITNESSES["w2"].line(text))


async def test_who_hangs_or_is_away_is_missing_in_time(wire: Wire) -> None:
    """One that never answers costs the bound and no more, together with one that refuses the connection."""

    async def hang(_: bytes) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    def away(_: bytes) -> httpx.Response:
        raise httpx.ConnectError("refused")

    wire.words = {"w1": hang, "w2": away}
    started = asyncio.get_running_loop().time()
    said = await cosign(client(wire, timeout_s=0.2), 5)
    assert asyncio.get_running_loop().time() - started < 2
    assert said.lines == ()
    assert "0.2 s" in said.missing["w1"]
    assert "ConnectError" in said.missing["w2"]
    wire.words.clear()
    assert len((await cosign(client(wire), 5)).lines) == 2


async def test_a_failing_proof_is_ours(wire: Wire) -> None:
    """When our own tree cannot be read that is no witness's fault: it is raised as it is."""
    witnesses = client(wire)
    await cosign(witnesses, 5)

    def broken(_: int) -> list[bytes]:
        raise RuntimeError("damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        await witnesses.cosign(TREE.checkpoint(6), TREE.signed(6), broken)


async def test_policies_without_witnesses_or_urls(wire: Wire) -> None:
    """No witness: nothing asked. A witness without URL is missing. A URL that is none is refused by name."""
    none = Policy((LOG.key,), {}, {}, "none")
    assert await cosign(client(wire, of=none), 5) == Cosigned((), {})
    mute = Policy((LOG.key,), {"w1": Named(WITNESSES["w1"].key)}, {}, "w1")
    assert list((await cosign(client(wire, of=mute), 5)).missing) == ["w1"]
    assert wire.asked == []
    for url in ("ftp://w1", "w1:80", "http://", "http://u:p@w1", "http://w1/?q"):
        with pytest.raises(Refused, match="witness w1"):
            client(wire, of=Policy((), {"w1": Named(WITNESSES["w1"].key, url)}, {}, "w1"))
