"""What the trainer does when a subject is erased: rows go, what used them is marked, what uses them now begins again. Pure.

1. A row that an erasure covers leaves the index, and none that comes later enters it: the index names rows by a digest of their text,
   which beside a pseudonym would confirm a guess of it. That no later data set holds it sees the job to, by the keyring.
2. Who used such rows is what jobs said, row by row, before they trained. So what is marked is what was used.
3. Each adapter is marked once for each erasure whose rows it used, also one whose order had been cancelled and whose job was quicker.
4. An adapter at work that is marked is trained again without these rows, in the way of an operator's command: it waits for an open order
   and an open arena. An order under way that uses such rows is cancelled, and ordered again.
5. The rows' names go as they are counted: the same erasure told again finds none.
"""

from collections.abc import Iterable, Sequence

from agents.trainer.state import ERASED, KEPT_ADAPTERS, KEPT_OTHERS, USED, Forgotten, Gone, Made, Slot, Step
from schemas.compliance import AdapterMarked, CommandForget
from schemas.events import CaseClosed, TrainingCancelled, TrainingCompleted, TrainingProgressed, UsedRow
from schemas.topics import LONGEST_OUTAGE_MS

MOST_ERASURES = 256  # since an order without an adapter was given; past that nobody can say what its job uses
CANCELLED = "it uses rows of an erased subject"


def forget(step: Step, command: CommandForget) -> list[str]:
    """Mark what used the subject's rows, and order again what must be. The names of the rows in the index that have to go."""
    erasure = Forgotten(
        subject=command.subject,
        erasure=command.erasure,
        cut={cut.partition: cut.offset for cut in command.cut},
    )
    _remember(step, command)
    for order_id, made in step.orders():
        hit = _counted(step, order_id, [erasure])
        if made.adapter:
            _mark(step, order_id, made, hit)
            continue
        known = (*made.erasures, erasure)
        step.keep(order_id, made.model_copy(update={"erasures": known[-MOST_ERASURES:], "hits": _joined(made, hit)}))
        if hit or len(known) > MOST_ERASURES:
            _begin_again(step, order_id)
    return sorted(
        name for name, slot in step.rows() if slot.subject is not None and erasure.covers(slot.subject, *slot.request)
    )


def is_gone(step: Step, case: CaseClosed) -> bool:
    """Whether a case that comes now is of a request that is erased."""
    slot = step.state.entries.get(f"{ERASED}{case.subject}")
    cut = slot.gone.cut if slot is not None and slot.gone is not None else {}
    return case.request_offset < cut.get(case.request_partition, 0)


def _remember(step: Step, command: CommandForget) -> None:
    """For as long as cases from before may come: a case repeats until twice its window, and whoever was away for longer than the
    longest outage has lost it."""
    kept_ms = int(2000 * step.record.settings.window_s) + LONGEST_OUTAGE_MS
    known = {name: slot.gone for name, slot in step.state.entries.items() if slot.gone is not None}
    step.drop += [name for name, gone in known.items() if gone.at_ms < step.now_ms - kept_ms]
    name = ERASED + command.subject
    cut = dict(known[name].cut) if name in known else {}
    for row in command.cut:
        cut[row.partition] = max(row.offset, cut.get(row.partition, 0))
    step.drop = [one for one in step.drop if one != name]
    step.put[name] = Slot(gone=Gone(at_ms=step.now_ms, cut=cut))


def ordered(step: Step, order_id: str) -> None:
    """Remember a new order, and let go of the oldest that nobody needs."""
    spare = [(name, made) for name, made in step.orders() if not step.record.at_work(made.arm)]
    for some, most in (
        ([name for name, made in spare if made.adapter], KEPT_ADAPTERS),
        ([name for name, made in spare if not made.adapter], KEPT_OTHERS),
    ):
        for name in some[: max(0, len(some) - most)]:
            step.let_go(name)
    step.keep(order_id, Made(at_ms=step.now_ms))


def named(step: Step, told: TrainingProgressed) -> None:
    """A job says whose rows it uses, while or after an erasure was on its way."""
    made = step.made(told.order_id)
    if not told.used or made is None or made.adapter:
        return
    name = f"{USED}{told.order_id} {told.step}"
    step.put[name] = Slot(used="\n".join(_line(row) for row in told.used))
    hit = _counted(step, told.order_id, made.erasures)
    if hit:
        step.keep(told.order_id, made.model_copy(update={"hits": _joined(made, hit)}))
        _begin_again(step, told.order_id)


def completed(step: Step, told: TrainingCompleted, arm: str) -> None:
    """An adapter came out of an order, maybe of one that was cancelled meanwhile."""
    made = step.made(told.order_id)
    if made is None or made.adapter:
        return
    done = made.model_copy(
        update={"adapter": told.adapter, "dataset": told.dataset, "arm": arm, "erasures": (), "hits": ()}
    )
    step.keep(told.order_id, done)
    _mark(step, told.order_id, done, made.hits)


def _mark(step: Step, order_id: str, made: Made, hits: Iterable[Forgotten]) -> None:
    again = step.record.at_work(made.arm)
    for hit in hits:
        marked = AdapterMarked(
            tenant=step.record.settings.tenant,
            at_ms=step.now_ms,
            route=step.record.settings.route,
            adapter=made.adapter,
            dataset=made.dataset,
            order_id=order_id,
            subject=hit.subject,
            erasure=hit.erasure,
            rows=len(hit.rows),
            ordered=again,
        )
        step.emit(marked, f"marked/{order_id}/{hit.erasure}/{hit.subject}")
        if again:
            step.change(retrain=True)


def _begin_again(step: Step, order_id: str) -> None:
    order = step.record.order
    if order is None or order.order_id != order_id:
        return
    step.emit(TrainingCancelled(**step.common(order), reason=CANCELLED), "cancelled")
    step.change(order=None, retrain=True)


def _counted(step: Step, order_id: str, erasures: Sequence[Forgotten]) -> list[Forgotten]:
    """Which rows of an order each erasure covers; those without any are left out. They go out of what the order uses."""
    found: dict[int, set[tuple[int, int]]] = {}
    if not erasures:
        return []
    for name, slot in step.used(order_id):
        if not any(one.subject in slot.used for one in erasures):
            continue
        left: list[str] = []
        for line in slot.used.splitlines():
            subject, partition, offset = line.rsplit(" ", 2)
            place = int(partition), int(offset)
            hit = next((n for n, one in enumerate(erasures) if one.covers(subject, *place)), None)
            if hit is None:
                left.append(line)
            else:
                found.setdefault(hit, set()).add(place)
        step.put[name] = Slot(used="\n".join(left))
    return [erasures[number].model_copy(update={"rows": tuple(sorted(rows))}) for number, rows in sorted(found.items())]


def _joined(made: Made, hits: Iterable[Forgotten]) -> tuple[Forgotten, ...]:
    """With hits from before: what jobs say comes in pieces, and may come twice."""
    found = {(hit.subject, hit.erasure): hit for hit in made.hits}
    for hit in hits:
        name = hit.subject, hit.erasure
        before = found[name].rows if name in found else ()
        found[name] = hit.model_copy(update={"rows": tuple(sorted({*before, *hit.rows}))})
    return tuple(found[name] for name in sorted(found))


def _line(row: UsedRow) -> str:
    return f"{row.subject} {row.partition} {row.offset}"
