"""A tenant under EU residency and HIPAA, and what it asks: the gate's tests begin from these."""

from agents.rules.gate import Asked, Book, Place
from agents.rules.gate_standard import STANDARD
from schemas.findings import Finding, Kind
from schemas.gate import Baa, Exemption, Flow, GateTenant, Scan

NOW = 1_800_000_000_000
LATER = NOW + 1_000_000
BOOK = Book.of(STANDARD)

SHOP = GateTenant(
    tenant="shop",
    version=2,
    purposes={"service": ("contract",)},
    notices=("notice-1",),
    flows=(Flow(origin="eu", region="eu-west"),),
    purpose="service",
    basis="contract",
    notice="notice-1",
    origin="eu",
)
"""One that answers its customers, and names what they need not say."""
CLINIC = GateTenant(
    tenant="clinic",
    version=3,
    purposes={"care": ("consent", "contract"), "training": ("consent",)},
    notices=("notice-2",),
    flows=(
        Flow(origin="eu", region="eu-west"),
        Flow(origin="eu", region="us-east", tool="scc", until_ms=LATER),
    ),
    origin="eu",
    private_arms=("own",),
    hipaa=True,
    baa=Baa(id="baa-1", until_ms=LATER),
    exemptions=(
        Exemption(
            id="consent-health", rule="gdpr-9", then="confine", kinds=("health",), purposes=("care",), until_ms=LATER
        ),
    ),
)

OWN, OUTSIDE, FAR, ASIA = (
    Place("own", "eu-west"),
    Place("outside", "eu-west"),
    Place("far", "us-east"),
    Place("asia", "ap-south"),
)
CARE = Asked(
    where="request",
    tenant="clinic",
    purpose="care",
    basis="consent",
    notice="notice-2",
    places=(OWN, OUTSIDE, FAR),
)


def finding(kind: str, start: int = 0, end: int = 5, score: float = 1.0) -> Finding:
    return Finding(Kind(kind), start, end, "test", score)


def scan(*kinds: str, characters: int = 500, spent_us: int = 90, failed: bool = False, score: float = 1.0) -> Scan:
    """A scan that found one of each kind, apart from each other."""
    found = tuple(finding(kind, at * 10, at * 10 + 5, score) for at, kind in enumerate(kinds))
    return Scan((found,), characters, spent_us, failed)
