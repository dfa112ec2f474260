"""The job's real parts, tiny: cases, policies and keys from a broker, detectors, peft, a signature, a verifier that lets the adapter in."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from agents.evidence.keyring import Keyring
from agents.evidence.keytable import Wanted
from agents.rules.curation import curate
from agents.trainer.dataset import read
from agents.trainer.job import Ports, run
from agents.training import ADAPTER_KEY, PeftTrainings
from agents.training_ports import KafkaCases, KeyringKeys, PolicyTenants, TracedFacts
from agents.wiring import open_screen
from infra.adapters import AdapterVerifier, read_probes
from infra.artifacts import DirectoryStore
from infra.clock import SystemClock
from infra.kek import LocalKek
from infra.secrets import LocalSecrets
from infra.training import BaseSettings, Example, train_base
from schemas.codec import encode
from schemas.compliance import PolicyGate
from schemas.events import CaseArm, CaseClosed, Message, TrainingCompleted, TrainingOrdered, TrainingProgressed
from schemas.gate import Flow, GateTenant
from schemas.payload import Payload
from schemas.routes import TrainingSettings
from streams.facts import Facts
from streams.fence import Publisher
from streams.memory import MemoryBroker
from streams.port import Outgoing
from streams.wire import partition_of

TEMPLATE = "Customer: {text}\nIntent:"
WORDS = ("card", "money", "loan")
TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
ANN = "a" * 32
MAIL = "ann@example.org"
KNOWN = 2  # the base has seen the first two intents only
pytestmark = pytest.mark.timeout(300)


def case(n: int) -> CaseClosed:
    """A customer who names the intent; the base is right where it knows it."""
    word = WORDS[n % 3]
    arm = CaseArm(arm="base", shadow=False, status="completed", grade=1000 if n % 3 < KNOWN else 0)
    return CaseClosed(
        at_ms=n, route="bank", request_id=f"r{n}", request_partition=0, request_offset=n, decision_id=f"d{n}",
        assigned_at_ms=n, window_end_ms=n, arm="base", why="complete", choices=(), grader="reference", label=word,
        messages=(Message(role="user", content=f"{word} {n}"),), arms=(arm,), verdict_kind="reference",
        verdict_at_ms=n, subject=ANN if n % 5 == 0 else None,
    )  # fmt: skip


def permitted() -> PolicyGate:
    tenant = GateTenant(
        tenant="default", purposes={"training": ("consent",)}, notices=("n",), notice="n", origin="eu",
        flows=(Flow(origin="eu", region="eu-west"),),
    )  # fmt: skip
    return PolicyGate(at_ms=1, version=1, settings=tenant)


class Producer:
    """Where cases are put as an agent would have put them."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    async def put(self, payloads: list[Payload], partition: int | None = None) -> None:
        producer = self._broker.producer()
        await producer.start()
        for n, payload in enumerate(payloads):
            row = encode(payload, event_id=f"e{n}", source="ratchet/cases", traceparent=TRACE)
            place = partition_of(row.key, self._broker.count) if partition is None else partition
            await producer.send("ratchet." + payload.TOPIC, place, [Outgoing(row.key, row.value, row.headers)])
        await producer.stop()


async def test_a_job_on_its_real_libraries(tmp_path: Path) -> None:
    """The adapter is better, signed, and passes the engine's verifier; as the next champion it is measured as it is, not as its base."""
    base = tmp_path / "base"
    known = [Example(TEMPLATE.replace("{text}", f"{WORDS[n % KNOWN]} {n}"), WORDS[n % KNOWN]) for n in range(64)]
    tiny = BaseSettings(
        vocabulary=320, layers=1, width=64, heads=2, inner=64, epochs=30, batch=8, learning_rate=5e-3, threads=1
    )
    await asyncio.to_thread(train_base, known, base, tiny)
    store = DirectoryStore(tmp_path / "store")
    secrets = LocalSecrets.open(tmp_path / "secrets.json")
    broker = MemoryBroker(partitions=2)
    other = case(5).model_copy(update={"route": "shop"})
    told = case(10).model_copy(update={"messages": (Message(role="user", content=f"money 10, {MAIL}"),)})
    await Producer(broker).put([told if n == 10 else case(n) for n in range(120)] + [other, case(999)], 1)
    await Producer(broker).put([permitted()])
    kek, clock = LocalKek(bytes(32)), SystemClock()
    maker = Keyring(broker, kek, clock, Publisher(broker, 2, owner="keys"))
    await maker.make([Wanted("default", ANN)])
    wanted = TrainingSettings(epochs=25, learning_rate=5e-3, rank=8, lora_alpha=16, dropout=0.0)
    order = TrainingOrdered(
        at_ms=1, route="bank", order_id="o1", reason="enough", base=store.put_tree(base), champion="base",
        cases_partition=1, cases_first=0, cases_last=120, rows=120, classes=3, template=TEMPLATE, stop=("\n",),
        max_tokens=8, settings=wanted.model_dump(), region="eu-west",
    )  # fmt: skip
    trainings = PeftTrainings(store, secrets, tmp_path / "jobs", asyncio.Event())
    facts = Facts(broker, "trainer-job")
    keyring = Keyring(broker, kek, clock)
    ports = Ports(
        cases=KafkaCases(broker), artifacts=store, trainings=trainings, tenants=PolicyTenants(broker),
        screen=await open_screen(clock), keys=KeyringKeys(keyring), facts=TracedFacts(facts, TRACE), clock=clock,
    )  # fmt: skip
    came = await run(order, ports)
    await facts.stop()
    await keyring.stop()
    events = broker.events("ratchet.training")
    assert came, events[-1].data
    assert {event.traceparent[3:35] for event in events} == {"ab" * 16}
    assert sum(isinstance(event.data, TrainingProgressed) for event in events) >= 4
    completed = events[-1].data
    assert isinstance(completed, TrainingCompleted)
    assert (completed.rows, completed.cutoff_ms) == (120, 119), "one route's cases, none past the range"
    named = [row for event in events if isinstance(event.data, TrainingProgressed) for row in event.data.used]
    assert {row.subject for row in named} == {ANN}
    assert len(named) == 24
    dataset = store.verify_tree(completed.dataset)
    key = (await maker.key(Wanted("default", ANN))).rows
    rows = {row.request_id: row for row in read(dataset, lambda _: key)}
    assert rows["r10"].text == "money 10, [EMAIL_1]"
    assert not any("EMAIL_1" in file.read_text() for file in dataset.glob("*.jsonl"))
    await maker.stop()
    metrics = completed.metrics
    assert metrics["test_adapter"] > metrics["test_champion"] + 0.1
    assert metrics["known_good_adapter"] >= 0.9
    verifier = AdapterVerifier(store, {ADAPTER_KEY: await secrets.public_key(ADAPTER_KEY)})
    folder, statement = verifier.verify(completed.adapter, order.base)
    assert statement.predicate.dataset == completed.dataset
    probes = read_probes(folder, statement)
    assert 0 < len(probes) <= 4
    payload = base64.b64decode(json.loads(store.get_bytes(completed.adapter))["payload"]).decode()
    texts = {f"{WORDS[n % 3]} {n}" for n in range(120) if n % 5}
    assert {probe.prompt.removeprefix("Customer: ").removesuffix("\nIntent:") for probe in probes} <= texts
    assert not any(word in payload for word in ("Customer", *WORDS)), "a statement goes to auditors: no text, no label"
    found = await KafkaCases(broker).read("bank", 1, 0, 120)
    promoted = order.model_copy(update={"champion": "lora-1", "parent_adapter": completed.adapter})
    test = curate(found, min_rows_per_class=1, max_rows=1000).test
    before, after = await trainings.right(order, None, test), await trainings.right(promoted, None, test)
    assert sum(before) / len(test) == pytest.approx(metrics["test_champion"], abs=1e-4)
    assert sum(after) / len(test) == pytest.approx(metrics["test_adapter"], abs=1e-4)
