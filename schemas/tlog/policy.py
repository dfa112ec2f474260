"""Who must have signed a checkpoint before anybody believes it (C2SP tlog-policy), and the checkpoint opened under that.

A policy file is written by people: comments, blank lines, spaces and tabs are read as the specification allows. What we
write ourselves has one spelling, `Policy.text`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.tlog import note
from schemas.tlog.note import COSIGNER, ED25519, Checkpoint, SignatureCheck, Untrusted, VerifierKey
from schemas.tlog.strict import Malformed, decode_decimal

NONE = "none"
"""The quorum that asks for no witness."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness's key, and where its `add-checkpoint` is reached."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses when at least `threshold` of its members, witnesses or groups, do."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """Log keys of which one must sign, witnesses and groups by petname in file order, and the name that must be satisfied.

    Petnames mean something in this file only.
    """

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[str, Witness]
    groups: Mapping[str, Group]
    quorum: str

    def text(self, *, urls: bool = False) -> str:
        """The canonical spelling: logs, witnesses, groups, quorum, thresholds as numbers; `parse_policy` reads it back."""
        lines = [f"log {key}" for key in self.logs]
        for name, witness in self.witnesses.items():
            url = f" {witness.url}" if urls and witness.url is not None else ""
            lines.append(f"witness {name} {witness.key}{url}")
        lines += [f"group {name} {group.threshold} {' '.join(group.members)}" for name, group in self.groups.items()]
        return "".join(f"{line}\n" for line in [*lines, f"quorum {self.quorum}"])

    def satisfied(self, petnames: Collection[str]) -> bool:
        """Whether these witnesses together are the quorum."""
        done = {name for name in petnames if name in self.witnesses}
        for name, group in self.groups.items():  # a group stands after its members
            if sum(member in done for member in group.members) >= group.threshold:
                done.add(name)
        return self.quorum == NONE or self.quorum in done

    def with_logs(self, vkeys: Sequence[str]) -> "Policy":
        """The same witnesses and quorum over other logs. Raises Malformed."""
        logs: list[VerifierKey] = []
        for vkey in vkeys:
            logs.append(_fresh(_key(vkey, ED25519), logs))
        return replace(self, logs=tuple(logs))


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint that the policy accepts."""

    checkpoint: Checkpoint
    text: str
    log_keys: tuple[VerifierKey, ...]
    witnessed: Mapping[str, int]
    """When each witness says that it signed, in seconds since the epoch, by petname."""


def parse_policy(text: str) -> Policy:
    """The policy of a file. Raises Malformed, naming the line."""
    reading = _Reading()
    lines = text.split("\n")
    if lines.pop():
        raise Malformed(f"policy line {len(lines) + 1} has no newline at its end: is the file whole?")
    for number, line in enumerate(lines, 1):
        if any((char < " " and char != "\t") or char == "\x7f" for char in line):
            raise Malformed(f"policy line {number} holds a control character; accepted: tabs and newlines only")
        items = [item for item in line.replace("\t", " ").split(" ") if item]
        if not items or items[0].startswith("#"):
            continue
        try:
            reading.take(items)
        except Malformed as exc:
            raise Malformed(f"policy line {number}: {exc}") from exc
    return reading.policy()


class _Reading:
    """The lines of a policy file so far."""

    def __init__(self) -> None:
        self._logs: list[VerifierKey] = []
        self._witnesses: dict[str, Witness] = {}
        self._groups: dict[str, Group] = {}
        self._members: set[str] = set()
        self._quorum: str | None = None

    def take(self, items: list[str]) -> None:
        match items:
            case ["log", vkey] | ["log", vkey, _]:
                self._logs.append(_fresh(_key(vkey, ED25519), self._logs))
            case ["witness", name, vkey] | ["witness", name, vkey, _]:
                known = [witness.key for witness in self._witnesses.values()]
                key = _fresh(_key(vkey, COSIGNER), known)
                self._witnesses[self._free(name)] = Witness(key, items[3] if len(items) == 4 else None)
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case ["quorum", name] if self._quorum is None:
                self._quorum = name if name == NONE else self._defined(name)
            case ["quorum", _]:
                raise Malformed("a second quorum; accepted: one")
            case _:
                raise Malformed(
                    f"{items[0]!r} with {len(items) - 1} items; accepted: log VKEY [URL], witness NAME VKEY [URL], "
                    "group NAME all|any|COUNT NAME…, quorum NAME, # and a comment"
                )

    def policy(self) -> Policy:
        if self._quorum is None:
            raise Malformed("the policy has no quorum; accepted: one line quorum NAME, or quorum none")
        return Policy(tuple(self._logs), self._witnesses, self._groups, self._quorum)

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        for member in members:
            if self._defined(member) in self._members:
                raise Malformed(f"{member!r} is listed a second time; accepted: each name in one group, once")
            self._members.add(member)
        counts = {"all": len(members), "any": 1}
        count = counts[threshold] if threshold in counts else decode_decimal(threshold, "the group's count")
        if not 1 <= count <= len(members):
            raise Malformed(f"{count} of {len(members)} members; accepted: all, any, 1 to {len(members)}")
        self._groups[self._free(name)] = Group(count, tuple(members))

    def _free(self, name: str) -> str:
        if name == NONE or name in self._witnesses or name in self._groups:
            raise Malformed(f"the name {name!r} is taken")
        return name

    def _defined(self, name: str) -> str:
        if name not in self._witnesses and name not in self._groups:
            raise Malformed(f"{name!r} is no witness or group of a line above")
        return name


def _key(vkey: str, kind: int) -> VerifierKey:
    key = note.parse_vkey(vkey)
    if key.kind != kind:
        raise Malformed(f"the key of {key.name} is of type 0x{key.kind:02x}; accepted here: 0x{kind:02x}")
    return key


def _fresh(key: VerifierKey, known: Sequence[VerifierKey]) -> VerifierKey:
    """Two lines with one public key would count one signer twice."""
    if any(key.public_key == other.public_key for other in known):
        raise Malformed(f"the key of {key.name} stands there already; accepted: each public key once")
    return key


def open_checkpoint(data: bytes, policy: Policy, check: SignatureCheck) -> Opened:
    """The checkpoint, if the policy accepts it. Raises Malformed or Untrusted.

    Every line counts: one of a key that the policy does not name is refused, else a changed line would look like a
    stranger's, unseen wherever the quorum can spare it.
    """
    text, signatures = note.parse_note(data)
    checkpoint = note.parse_checkpoint(text)
    logs = [key for key in policy.logs if key.name == checkpoint.origin]
    petnames = {witness.key: name for name, witness in policy.witnesses.items()}
    found = note.vouched(text, signatures, [*logs, *petnames], check)
    strangers = [line.name for line in signatures if all(line != one.line for one in found)]
    if strangers:
        raise Untrusted(f"the checkpoint has a signature of {strangers[0]!r} by a key that the policy does not name")
    log_keys = tuple(one.key for one in found if one.key.kind == ED25519)
    if not log_keys:
        raise Untrusted(f"no log key of the policy signed the checkpoint of {checkpoint.origin!r}")
    witnessed = {petnames[one.key]: one.timestamp for one in found if one.key.kind == COSIGNER}
    if not policy.satisfied(witnessed):
        raise Untrusted(f"the witnesses {sorted(witnessed)} are not the quorum {policy.quorum!r}")
    return Opened(checkpoint, text, log_keys, witnessed)
