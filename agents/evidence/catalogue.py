"""The controls: what each asks for, in our own words, which check of the log answers it, what it corresponds to elsewhere. Pure data.

Identifiers are those of the standards; their texts are not ours to copy. The lines here are engineering input, not legal advice.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time that a control reads, as configuration: valid `from` … `until` (ISO dates, "" for no bound), by its source.

    `value` counts `unit`s; 0 where only the day matters from which the duty applies.
    """

    id: str
    begins: str
    until: str
    value: int
    unit: str
    source: str

    def as_json(self) -> dict[str, object]:
        return {
            "id": self.id, "from": self.begins, "until": self.until, "value": self.value, "unit": self.unit,
            "source": self.source,
        }  # fmt: skip


_AI_ACT = "Regulation (EU) 2024/1689, as amended: "
DEADLINES = (
    Deadline("gdpr-33-notify", "2018-05-25", "", 72, "hours", "Regulation (EU) 2016/679, Article 33(1)"),
    Deadline("hipaa-retention", "", "", 6 * 365 + 2, "days", "45 CFR 164.316(b)(2)(i): six years"),
    Deadline("aiact-logs", "2027-12-02", "", 183, "days", _AI_ACT + "Articles 19(1) and 26(6): six months"),
    Deadline("aiact-50-new", "2026-08-02", "", 0, "", _AI_ACT + "Article 50, systems placed on the market since"),
    Deadline("aiact-50-older", "2026-12-02", "", 0, "", _AI_ACT + "Article 50, systems from before"),
    Deadline("aiact-annex-iii", "2027-12-02", "", 0, "", _AI_ACT + "high-risk systems of Annex III"),
    Deadline("aiact-annex-i", "2028-08-02", "", 0, "", _AI_ACT + "high-risk systems of Annex I"),
    Deadline("review-least", "", "", 2, "seconds", "our own: a shorter look at an answer is no look"),
    Deadline("review-quick-share", "", "", 20, "percent", "our own: so many short looks are rubber stamps"),
    Deadline("answer-grace", "", "", 3_600, "seconds", "our own: how long after its window a request may be open"),
)

CROSSWALK = {
    "nist-ai-rmf-govern-1.5": "monitoring and review of risks are planned, and whose task they are",
    "nist-ai-rmf-govern-6.1": "risks that come from third parties are ruled",
    "nist-ai-rmf-map-3.5": "how people oversee the system is defined",
    "nist-ai-rmf-measure-2.4": "what the system does is watched in production",
    "nist-ai-rmf-measure-2.6": "the system is evaluated for safety, and fails safely",
    "nist-ai-rmf-measure-2.7": "security and resilience are evaluated",
    "nist-ai-rmf-measure-2.8": "transparency and accountability are examined",
    "nist-ai-rmf-measure-2.10": "risks to privacy are examined",
    "iso-42001-a.6.2.4": "the system is verified and validated",
    "iso-42001-a.6.2.5": "deployment is planned and its conditions are met",
    "iso-42001-a.6.2.6": "operation is monitored",
    "iso-42001-a.6.2.8": "events are logged",
    "iso-42001-a.7.5": "where data come from is recorded",
    "iso-42001-a.8.4": "incidents are communicated",
    "iso-42001-a.9": "the system is used as intended, responsibly",
    "iso-42001-a.10.3": "suppliers are held to the same",
}
"""Identifiers of the NIST AI RMF and of ISO/IEC 42001, Annex A, with what they are about in our words."""


@dataclass(frozen=True, slots=True)
class Wording:
    """A check in words: which entries prove it, what a case is, when it holds; and what is said where one does not."""

    proof: tuple[str, ...]
    case: str
    holds: str
    fails: str


INCIDENT = ("detected", "assessed", "notified", "not_notifiable", "contained", "closed")
_INCIDENTS = tuple(f"incident.{state}" for state in INCIDENT)
_GATED = ("decision.routed", "answer.refused")

CHECKS: dict[str, Wording] = {
    "person": Wording(
        (), "a person's signed review", "it has not expired", "The last signed review has expired."
    ),
    "unbroken": Wording(
        ("coverage",), "a span of offsets in a coverage entry",
        "it continues the span before it and skips nothing that needs a finding",
        "Coverage has a gap, or names offsets that were lost or could not be explained.",
    ),
    "unaltered": Wording(
        ("checkpoint", "finding"), "an entry", "the entries have the signed root, and no source was reset",
        "The tiles do not have the signed root, or a source was reset.",
    ),
    "kept": Wording(
        ("checkpoint", "finding"), "an entry", "it is in the log that is signed, and no record was lost before it was read",
        "Entries are gone before their time, or records were lost before they were read.",
    ),
    "watched": Wording(
        ("coverage", "finding", "violation", "incident.detected", "incident.assessed"), "a coverage entry",
        "no finding is recorded, or a person has assessed an incident of its kind since",
        "Findings are recorded, and no person has assessed an incident of them since.",
    ),
    "grounded": Wording(
        ("promotion.evaluated", "command.promote", "model.promoted"), "a promotion",
        "an evaluation or a command in the log is what it names as its ground",
        "A promotion names a ground that the log does not hold.",
    ),
    "rebuilt": Wording(
        ("request.submitted", "decision.routed", "answer.released", "answer.withheld", "answer.refused"),
        "an answered request", "its request and, unless it was refused before, its decision are in the log",
        "Of an answered request the request itself or its decision is not in the log.",
    ),
    "accounted": Wording(
        ("request.submitted", "decision.routed", "answer.released", "answer.withheld", "answer.refused", "dead-letter"),
        "a request or an answer",
        "each request is answered, withheld or refused, once, or is open and not overdue; each answer has its request",
        "A request was answered twice or is overdue, or an answer has no request.",
    ),
    "signed": Wording(
        ("training.completed", "adapter.registered", "adapter.live", "adapter.refused"), "an adapter on an engine",
        "its signed statement was registered, or it was refused",
        "An adapter was served whose signed statement is not registered in the log.",
    ),
    "confined": Wording(
        ("decision.routed", "answer.released"), "a decision about personal or secret data, or an answer in which the gate found some",
        "no arm that may not see the data, or computes where it must not, was chosen for anything, and nothing that was denied went on",
        "Personal or secret data went to an arm that is masked for it, or although the gate denied it.",
    ),
    "purposed": Wording(
        _GATED, "a request that the gate has seen", "purpose and legal basis are named, or it was denied",
        "A request went on without purpose or legal basis.",
    ),
    "registered": Wording(
        _GATED, "a request that the gate has seen", "the register of processing names its flow, or it was denied",
        "Data flowed in a way that the register of processing does not name.",
    ),
    "special": Wording(
        _GATED, "a request for which a rule on special categories fired",
        "it was denied, confined or masked, or an exemption of the tenant's is named; no arm that the gate left out was chosen",
        "Data of a special category went on although a rule forbade it.",
    ),
    "transfer": Wording(
        _GATED, "a request for which a rule on transfers or residency fired", "it was denied, or no arm that the rule left out was chosen",
        "Data left its region although a rule forbade it.",
    ),
    "overseen": Wording(
        ("score.assigned", "answer.released", "answer.withheld"), "an answer",
        "it was withheld, or reviewed, or its score did not ask for a person",
        "An answer that a person should have seen went out without one.",
    ),
    "attentive": Wording(
        ("score.assigned", "answer.released", "answer.withheld", "verdict.given"), "an answer or a person's verdict",
        "what asks for a person is reviewed or withheld, and few verdicts are too quick to be a look",
        "An answer went out unseen, or too many verdicts were given too quickly to be a look.",
    ),
    "accurate": Wording(
        ("case.closed", "case.amended", "trust.changed", "model.rolled_back", "command.*"), "a graded case or an alarm",
        "each alarm of the detector was followed by a person's command or a rollback of that route",
        "The detector raised an alarm, and nobody has acted on it.",
    ),
    "marked": Wording(
        ("answer.released",), "a released answer, once answers are marked", "it is marked as made by a model",
        "Answers were released without the mark.",
    ),
    "roles": Wording(
        ("access.checked",), "a check of roles", "the wrong role was refused", "A wrong role was let in.",
    ),
    "transport": Wording(
        ("access.checked",), "a check of connections", "plaintext and unknown authorities were refused",
        "A connection in plaintext or under an unknown authority was let in.",
    ),
    "principals": Wording(
        ("access.checked",), "a check of principals", "each stands for one person or process",
        "A principal is shared, or somebody without one was let in.",
    ),
    "configured": Wording(
        ("config.observed",), "an observed setting", "it is as it must be: TLS only, keys young, safe defaults",
        "A setting was not as it must be.",
    ),
    "restored": Wording(
        ("drill.completed",), "a drill", "what was restored has the same root", "A restore did not give the same root.",
    ),
    "handled": Wording(
        _INCIDENTS, "an incident", "its states follow each other, and none was skipped",
        "An incident skipped a state.",
    ),
    "notified": Wording(
        _INCIDENTS, "an incident, unless a person said that it need not be notified",
        "its notice was given in time and says all that it must, or is not due yet",
        "A notice was late, lacks what it must say, or has not been given though it is due.",
    ),
    "told": Wording(
        (*_INCIDENTS, "incident.told"), "an incident of high risk to people", "they were told before it was closed",
        "An incident of high risk was closed without telling the people concerned.",
    ),
    "erased": Wording(
        ("subject.erased", "subject.kept"), "an erasure that no legal hold stands against",
        "legal hold was checked, keys were destroyed, and the day is named from which it holds",
        "An erasure lacks its hold check, its keys, or the day from which it holds, or was not done because settings forbid it.",
    ),
    "accessed": Wording(
        ("export.made",), "an export for a data subject", "it holds as many entries as the log had of the subject",
        "An export for a data subject does not hold all of the log's entries about it.",
    ),
    "deidentified": Wording(
        ("deid.applied",), "a de-identification", "each of the 18 classes is removed, or named as unsupported",
        "A de-identification does not account for all 18 classes.",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Control:
    """One control: id, title in our words, its check, which deadlines it has and what it corresponds to."""

    id: str
    title: str
    check: str
    deadlines: tuple[str, ...] = ()
    crosswalk: tuple[str, ...] = ()

    @property
    def wording(self) -> Wording:
        return CHECKS[self.check]


def _rows() -> Iterator[Control]:
    nist, iso = "nist-ai-rmf-", "iso-42001-a."
    for control, title in (
        ("soc2-cc1", "The organisation stands for integrity"),
        ("soc2-cc2", "What must be known is communicated"),
        ("soc2-cc3", "Risks are assessed"),
        ("soc2-cc4", "Controls are monitored"),
        ("soc2-cc5", "Controls are chosen and put to work"),
    ):
        yield Control(control, title, "person", (), (f"{nist}govern-1.5",))
    yield Control("soc2-cc6.1", "Access is restricted by role", "roles", (), (f"{nist}measure-2.7",))
    yield Control("soc2-cc6.3", "Roles get what they need and no more", "roles", (), (f"{nist}measure-2.7",))
    yield Control("soc2-cc6.6", "Nobody gets in from outside unknown", "transport", (), (f"{nist}measure-2.7",))
    private = (f"{nist}measure-2.10", f"{nist}govern-6.1", f"{iso}10.3")
    yield Control("soc2-cc6.7", "Data goes only where it may", "confined", (), private)
    yield Control("soc2-cc6.8", "Only signed models are loaded", "signed", (), (f"{iso}7.5",))
    yield Control("soc2-cc7.1", "Changes of what runs are found", "signed", (), (f"{iso}6.2.6",))
    yield Control("soc2-cc7.2", "Anomalies are found", "watched", (), (f"{nist}measure-2.4", f"{iso}6.2.6"))
    yield Control("soc2-cc7.3", "Anomalies are assessed", "handled", (), (f"{iso}8.4",))
    yield Control("soc2-cc7.4", "Incidents are answered", "handled", (), (f"{iso}8.4",))
    yield Control(
        "soc2-cc8.1", "Models change by evaluation and approval", "grounded", (),
        (f"{nist}measure-2.6", f"{iso}6.2.4", f"{iso}6.2.5"),
    )  # fmt: skip
    yield Control("soc2-a1.2", "What is lost can be restored", "restored", (), (f"{nist}measure-2.7",))
    yield Control("soc2-a1.3", "Restoring is drilled", "restored", (), (f"{nist}measure-2.7",))
    for control, title in (
        ("soc2-pi1.1", "What is processed is defined and accounted for"),
        ("soc2-pi1.2", "Inputs are complete"),
        ("soc2-pi1.3", "Processing is complete"),
        ("soc2-pi1.4", "Outputs are complete"),
        ("soc2-pi1.5", "What is stored is complete"),
    ):
        yield Control(control, title, "accounted", (), (f"{iso}6.2.6",))
    yield Control("soc2-c1.1", "Confidential data is known and confined", "confined", (), private)
    yield Control("soc2-c1.2", "Confidential data is disposed of", "erased", (), (f"{nist}measure-2.10",))
    for control, title in (
        ("soc2-p1", "People are given notice"),
        ("soc2-p2", "People have a choice, and consent"),
        ("soc2-p3", "Personal data is collected for a purpose"),
        ("soc2-p4", "Personal data is used for its purpose alone"),
        ("soc2-p5", "People have access to their data"),
        ("soc2-p6", "Personal data is disclosed as agreed"),
        ("soc2-p7", "Personal data is right and complete"),
        ("soc2-p8", "Complaints and compliance are watched"),
    ):
        yield Control(control, title, "purposed", (), (f"{nist}measure-2.10", f"{iso}9"))
    yield Control("soc2-p4.3", "Personal data is disposed of", "erased", (), (f"{nist}measure-2.10",))
    yield Control("soc2-p6.1", "Personal data reaches third parties only where it may", "confined", (), private)
    yield Control("gdpr-5", "Personal data is processed by the principles", "purposed", (), (f"{nist}measure-2.10",))
    yield Control("gdpr-6", "Processing has a legal basis", "purposed", (), (f"{nist}measure-2.10",))
    yield Control("gdpr-9", "Special categories need an exception", "special", (), (f"{nist}measure-2.10",))
    yield Control("gdpr-15", "A person gets what is held about them", "accessed", (), (f"{nist}measure-2.8",))
    yield Control("gdpr-17", "A person's data is erased on demand", "erased", (), (f"{nist}measure-2.10",))
    overseen = (f"{nist}map-3.5", f"{iso}9")
    yield Control("gdpr-22", "Decisions alone by machine have a way to a person", "overseen", (), overseen)
    yield Control("gdpr-25", "Safe settings are the default", "configured", (), (f"{nist}measure-2.10",))
    yield Control("gdpr-30", "Processing is on the register", "registered", (), (f"{iso}7.5",))
    yield Control("gdpr-32", "Processing is secured", "configured", (), (f"{nist}measure-2.7",))
    yield Control("gdpr-33", "The authority is told in time", "notified", ("gdpr-33-notify",), (f"{iso}8.4",))
    yield Control("gdpr-34", "People are told of high risks", "told", (), (f"{iso}8.4",))
    for article, title in (
        ("44", "Data leaves the region by rule only"),
        ("45", "Data goes to adequate countries freely"),
        ("46", "Elsewhere safeguards are in place"),
    ):
        yield Control(f"gdpr-{article}", title, "transfer", (), (f"{nist}govern-6.1", f"{iso}10.3"))
    yield Control(
        "hipaa-164.308.a.1.ii.D", "A person reviews the records of activity", "person", (), (f"{nist}govern-1.5",)
    )
    yield Control("hipaa-164.312.a", "Each user is known apart", "principals", (), (f"{nist}measure-2.7",))
    yield Control("hipaa-164.312.b", "Activity is recorded without a gap", "unbroken", (), (f"{iso}6.2.8",))
    yield Control("hipaa-164.312.c", "Records are not altered", "unaltered", (), (f"{iso}6.2.8",))
    yield Control("hipaa-164.312.d", "Who asks proves who they are", "principals", (), (f"{nist}measure-2.7",))
    yield Control("hipaa-164.312.e", "Transmission is secured", "configured", (), (f"{nist}measure-2.7",))
    yield Control(
        "hipaa-164.316.b.2", "Records are kept for their time", "kept", ("hipaa-retention",), (f"{iso}6.2.8",)
    )
    yield Control("hipaa-164.514.b.2", "Identifiers are removed", "deidentified", (), (f"{nist}measure-2.10",))
    high = ("aiact-annex-iii", "aiact-annex-i")
    rebuilt = (f"{nist}measure-2.8", f"{iso}6.2.8")
    yield Control("aiact-12", "Any answered request can be rebuilt", "rebuilt", high, rebuilt)
    yield Control(
        "aiact-14",
        "People oversee the system, and look",
        "attentive",
        (*high, "review-least", "review-quick-share"),
        overseen,
    )
    yield Control(
        "aiact-15", "The system stays as accurate as certified", "accurate", high, (f"{nist}measure-2.4", f"{iso}6.2.4")
    )
    yield Control("aiact-19", "The provider keeps the records", "kept", ("aiact-logs",), rebuilt)
    yield Control("aiact-26.6", "The deployer keeps the records", "kept", ("aiact-logs",), rebuilt)
    yield Control(
        "aiact-50",
        "Answers are marked as a model's",
        "marked",
        ("aiact-50-new", "aiact-50-older"),
        (f"{nist}measure-2.8",),
    )
    yield Control(
        "aiact-72", "The system is monitored once it is in use", "accurate", high, (f"{nist}measure-2.4", f"{iso}6.2.6")
    )


CATALOGUE: tuple[Control, ...] = tuple(_rows())
BY_ID = {control.id: control for control in CATALOGUE}
DEADLINE = {row.id: row for row in DEADLINES}
