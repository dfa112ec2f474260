"""A tenant under EU residency and HIPAA, and what it asks: the gate's tests begin from these."""

from agents.rules.gate import Asked, Book, Place
from agents.rules.gate_standard import STANDARD
from schemas.gate import Baa, Exemption, Finding, Flow, GateTenant, Scan

NOW = 1_800_000_000_000
LATER = NOW + 1_000_000
BOOK = Book.of(STANDARD)

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


def scan(*kinds: str, characters: int = 500, spent_us: int = 90, failed: bool = False, sure_milli: int = 1000) -> Scan:
    """A scan that found one of each kind, apart from each other."""
    found = tuple(Finding(kind, 0, at * 10, at * 10 + 5, sure_milli) for at, kind in enumerate(kinds))
    return Scan(found, characters, spent_us, failed)
