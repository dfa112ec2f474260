"""What the learner published, made ready to predict with: read once a version, off the event loop."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from agents.router import model
from agents.router.basis import Basis
from agents.router.observed import Policies
from agents.router.weigh import weighs_any
from schemas.errors import Refused, Unavailable

log = logging.getLogger("ratchet")


class Models:
    """Bases and models by what they were made of; the newest of each route is held."""

    def __init__(self, artifact: Callable[[str], bytes] | None) -> None:
        self._artifact = artifact
        self._bases: dict[str, Basis] = {}
        self._held: dict[str, tuple[str, model.Model]] = {}
        self._making: dict[str, asyncio.Lock] = {}

    async def unfolded(self, policies: Policies) -> Policies:
        """The policies with their model, where the route weighs anything. What cannot be read is said once, and leaves arms unlearnt."""
        if policies.route is None or not weighs_any(policies.route.data.settings):
            return policies
        name, digest = policies.route.data.route, policies.route.data.settings.routing.basis
        version = f"{digest}/{'' if policies.router is None else policies.router.id}"
        held = self._held.get(name)
        if held is None or held[0] != version:
            async with self._making.setdefault(name, asyncio.Lock()):  # one unfolds it, the others wait for that one
                held = self._held.get(name)
                if held is None or held[0] != version:
                    held = version, await asyncio.to_thread(self._made, policies, digest)
                    self._held[name] = held
        return replace(policies, model=held[1])

    def _made(self, policies: Policies, digest: str) -> model.Model:
        router = None if policies.router is None else policies.router.data
        basis = self._bases.get(digest)
        if basis is None:
            basis = self._bases[digest] = self._basis(digest)
        try:
            return model.unfolded(router, digest, basis, self._bytes)
        except Refused as fault:
            name = "" if router is None else router.route
            log.warning("route %s: what the learner published cannot be used: %s", name, fault)
            return model.Model(basis, {}, None, refused=str(fault))

    def _basis(self, digest: str) -> Basis:
        if not digest:
            return model.basis_of(None)
        try:
            return model.basis_of(self._bytes(digest))
        except Refused as fault:
            raise Unavailable(f"the text basis {digest} cannot be read: {fault}", retry_after_s=5.0) from fault

    def _bytes(self, digest: str) -> bytes:
        if self._artifact is None:
            raise Refused(f"{digest}: no artifact store is at hand", kind="artifact")
        return self._artifact(digest)
