"""What the learner published, unfolded once for each version: basis, means and factors, ready to predict.

A model is made of a policy and of the bytes that it names by digest, and of nothing else: the same policy gives the same predictions
in any process.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from agents.router import snapshot
from agents.router.basis import Basis
from schemas.errors import Refused
from schemas.events import Message
from schemas.policies import PolicyRouter, RouterArm

RANDOM_SEED = 1
CODE = "learner/1"  # whose policies can be read


@dataclass(frozen=True, slots=True)
class Estimate:
    """Quality and its deviation, millionths."""

    quality: int
    deviation: int


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """`places`: arm -> its row of the stack; an arm without a row has not been learnt. `refused`: why the policy is not used."""

    basis: Basis
    places: Mapping[str, int]
    stack: snapshot.Stack | None
    refused: str = ""

    def predict(self, x: NDArray[np.int16]) -> dict[str, Estimate]:
        """Arm -> what it is worth for these features."""
        if self.stack is None:
            return {}
        qualities, deviations = snapshot.predict_all(self.stack, x)
        return {arm: Estimate(qualities[at], deviations[at]) for arm, at in self.places.items()}


def text_of(messages: Sequence[Message]) -> str:
    """What features are read from: all but what the system says, which is the same for every request of a route."""
    told = [message.content for message in messages if message.role != "system"]
    return "\n".join(told or [message.content for message in messages])


def basis_of(data: bytes | None) -> Basis:
    """The basis in these bytes; without any the random one of a route without history."""
    return Basis.random(RANDOM_SEED) if data is None else Basis.from_bytes(data)


def model_of(policy: PolicyRouter | None, basis: Basis, factors: bytes | None) -> Model:
    """Raises `Refused` where the policy is of a later learner, or means or factors are damaged or belong to another basis."""
    if policy is not None and policy.code != CODE:
        raise Refused(f"policy.router of {policy.code!r}; accepted: {CODE}", kind="from-the-future", field="code")
    if policy is None or factors is None:
        return Model(basis, {}, None)
    held = _factors(factors)
    rows = [row for row in sorted(policy.arms, key=lambda row: row.arm) if row.mean and row.arm in held]
    if not rows:
        return Model(basis, {}, None)
    stack = snapshot.stacked(
        [
            snapshot.Snapshot(
                snapshot.Mean.from_bytes(_bytes(row.mean), basis.size),
                snapshot.Factor.from_bytes(held[row.arm], basis.size),
            )
            for row in rows
        ]
    )
    return Model(basis, {row.arm: at for at, row in enumerate(rows)}, stack)


def unfolded(policy: PolicyRouter | None, digest: str, basis: Basis, artifact: Callable[[str], bytes]) -> Model:
    """The policy as it predicts with the route's basis, whose digest is given; nothing is learnt where it belongs to another one.

    `artifact` gives the bytes of a digest. Raises `Refused` as `model_of`.
    """
    if policy is None or not policy.factors or policy.basis != digest:
        return Model(basis, {}, None)
    return model_of(policy, basis, artifact(policy.factors))


def factors_of(factors: Mapping[str, bytes]) -> bytes:
    """The blob that holds the arms' factors; equal factors give equal bytes."""
    told = {arm: base64.b64encode(factors[arm]).decode("ascii") for arm in sorted(factors)}
    return json.dumps({"factors": 1, "arms": told}, separators=(",", ":")).encode()


def row_of(policy: PolicyRouter | None, arm: str, adapter: str | None) -> RouterArm | None:
    """What the learner knows of the arm with this very adapter."""
    rows = () if policy is None else policy.arms
    return next((row for row in rows if row.arm == arm and row.adapter == adapter), None)


def encoded(x: NDArray[np.int16]) -> str:
    """Features as a decision carries them."""
    return base64.b64encode(x.astype("<i2").tobytes()).decode("ascii")


def decoded(features: str) -> NDArray[np.int16] | None:
    """Features of a decision; None where there are none or they are no features."""
    try:
        data = base64.b64decode(features, validate=True)
    except (binascii.Error, ValueError):
        return None
    return np.frombuffer(data, "<i2").astype(np.int16) if data and len(data) % 2 == 0 else None


def _factors(data: bytes) -> dict[str, bytes]:
    try:
        said = cast("dict[str, Any]", json.loads(data))
        if said["factors"] != 1:
            raise Refused(f"factors of version {said['factors']!r}; accepted: 1", kind="version")
        return {str(arm): base64.b64decode(text, validate=True) for arm, text in said["arms"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise Refused(f"factors: damaged: {type(fault).__name__}", kind="damaged") from fault


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as fault:
        raise Refused("mean: not base64", kind="damaged", field="mean") from fault
