"""The only place that knows Kafka: Transform, Fold, View and the broker port.

An agent is a class of the shapes in `streams.shapes`; it never sees a broker. Running two of them:

    from infra.clock import SystemClock
    from streams.admin import ensure_groups, ensure_topics
    from streams.kafka import KafkaBroker
    from streams.runner import Runner

    await ensure_topics("localhost:9092", partitions=4, replication=1)      # once, by `ratchet up`
    runner = Runner(KafkaBroker("localhost:9092"), SystemClock(), ordinal=0, state_dir=Path(".ratchet/runner"),
                    observe=lambda notice: ...)                            # `Notice`: telemetry as data
    policies = runner.view("policies")                                     # before the agents that read it
    runner.add_transform(Router(policies), workers=32)
    runner.add_fold(Cases())
    await ensure_groups("localhost:9092", runner.groups())                 # explicit offsets; existing never moved
    await runner.run()                                                     # until `await runner.stop()` or a crash

Agents are tested on the broker in memory, whole and in-process, with the same runtime:

    from streams.memory import MemoryBroker, run_until

    broker = MemoryBroker(partitions=4)                                    # topics and group offsets appear alone
    runner = Runner(broker, SystemClock())
    runner.add_fold(Cases())
    broker.publish(DecisionRouted(...), event_id="d-1")
    await run_until(runner, lambda: len(broker.events("ratchet.cases")) == 1)
    closed = broker.events("ratchet.cases")[0].data

Outside agents: `facts.Facts` (events without an input record), `admin` (topics, groups, lag), and for evidence
`reader.EveryOffset`, `fence.Fence`, `fence.Publisher`.
"""
