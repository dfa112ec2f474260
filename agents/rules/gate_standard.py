"""The rules that we ship. Engineering input, no legal advice: a tenant's lawyers decide what its configuration permits."""

from typing import Final

from agents.rules.gate import Book
from schemas.findings import Kind
from schemas.gate import (
    BasisRule,
    KindRule,
    PurposeRule,
    ResidencyRule,
    RuleSet,
    SizeRule,
    TransferRule,
)

HEALTH: Final = (Kind.HEALTH, Kind.ICD10)
NAMED_SPECIAL: Final = ("biometric", "ethnicity", "genetic", "politics", "religion", "sex_life", "union")
"""Nothing detects these: they count where the sender names them as data classes."""
ACCOUNTS: Final = (Kind.CARD, Kind.IBAN, Kind.SSN)
PERSONS: Final = (Kind.DEA, Kind.EMAIL, Kind.IP, Kind.MBI, Kind.NPI, Kind.PHONE, Kind.RECORD)
BARE: Final = (Kind.DATE, Kind.DOMAIN)
PATIENT: Final = (*ACCOUNTS, *PERSONS, *BARE)

STANDARD: Final = RuleSet(
    rules=(
        PurposeRule(id="gdpr-5", words="Data is used for a purpose that the tenant has named, under a notice in use."),
        BasisRule(
            id="gdpr-6",
            words="The purpose rests on a legal basis that fits it and that the tenant relies on.",
            matrix={
                "service": ("consent", "contract", "legitimate_interest"),
                "support": ("consent", "contract", "legitimate_interest"),
                "fraud": ("legal_obligation", "legitimate_interest"),
                "care": ("consent", "contract", "vital_interest", "legal_obligation"),
                "public": ("legal_obligation", "public_task"),
                "training": ("consent", "legitimate_interest"),
                "marketing": ("consent",),
            },
        ),
        KindRule(
            id="gdpr-9",
            family="special",
            words="Special categories of data are processed under an exemption only.",
            kinds=(*HEALTH, *NAMED_SPECIAL),
            at={"request": "deny", "curation": "deny"},
        ),
        ResidencyRule(id="gdpr-44", words="Data is computed only in regions that the tenant allows for its origin."),
        TransferRule(
            id="gdpr-46",
            words="Data leaves its area only under a transfer tool that is in force.",
            tools=("adequacy", "bcr", "derogation", "scc"),
            areas={"eea": ("eu", "eu-central", "eu-north", "eu-south", "eu-west")},
        ),
        KindRule(
            id="soc2-cc6.7",
            family="secret",
            words="Credentials go to no model, no answer and no data set.",
            kinds=(Kind.SECRET,),
            at={"request": "deny", "answer": "deny", "curation": "deny"},
            exemptible=False,
        ),
        KindRule(
            id="soc2-c1.1",
            family="identifier",
            words="Account and card numbers are replaced, and kept out of data sets.",
            kinds=ACCOUNTS,
            at={"request": "mask", "answer": "mask", "curation": "deny"},
        ),
        KindRule(
            id="soc2-p6.1",
            family="identifier",
            words="What names a person or a way to reach one is replaced.",
            kinds=PERSONS,
            at={"request": "mask", "answer": "mask", "curation": "mask"},
        ),
        KindRule(
            id="gdpr-25",
            family="identifier",
            words="Dates and domains name nobody by themselves.",
            kinds=BARE,
            at={"request": "allow", "answer": "allow", "curation": "allow"},
        ),
        KindRule(
            id="hipaa-164.312.e",
            family="special",
            words="Data on a patient's health goes out under a business associate agreement only, and to private arms.",
            kinds=(*HEALTH, Kind.MBI, Kind.RECORD),
            at={"request": "deny", "curation": "deny"},
            under_baa={"request": "confine", "curation": "confine"},
            only_hipaa=True,
            exemptible=False,
        ),
        KindRule(
            id="hipaa-164.514.b.2",
            family="identifier",
            words="What can identify a patient is replaced.",
            kinds=PATIENT,
            at={"request": "mask", "answer": "mask", "curation": "mask"},
            only_hipaa=True,
        ),
        SizeRule(id="soc2-pi1.2", words="A text is not longer than what is scanned whole, in time.", characters=50_000),
    )
)

BOOK: Final = Book.of(STANDARD)
"""The same, made ready: what router, trust and training jobs decide by."""
