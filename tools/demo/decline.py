"""The damage: somebody changes a serving arm's sampling on the engines by hand, past every record.

A process of its own, as anyone with access to the cluster might start it: it joins the stack's Ray, finds the engines by name and
gives them the arms they have, one of them changed. Adapter, digest and version stay what every record says.
"""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from agents.inference.decide import wanted
from infra.engine import ArmSpec
from infra.settings import load, prepare_ray
from schemas.errors import Unavailable
from schemas.policies import PolicyFleet

TEMPERATURE = 2.0
PATIENCE_S = 180
SPECS = TypeAdapter(list[ArmSpec])


def damaged(fleet: PolicyFleet) -> list[ArmSpec]:
    """What inference has loaded for this fleet, its champion sampled at `TEMPERATURE`."""
    served = f"{fleet.route}/{fleet.champion}"
    specs = [
        ArmSpec(name, arm.base, arm.adapter, arm.temperature, arm.max_tokens, arm.stop, arm.template)
        for name, arm in wanted([fleet]).items()
    ]
    return [replace(spec, temperature=TEMPERATURE) if spec.arm == served else spec for spec in specs]


def degrade(environment: Path, fleet: PolicyFleet) -> list[str]:
    """Do it from a process of its own. Returns the arms that the engines then have; raises `Unavailable` where it did not happen."""
    command = [sys.executable, "-m", "tools.demo.decline", str(environment)]
    told = SPECS.dump_json(damaged(fleet)).decode()
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    if done.returncode != 0:
        raise Unavailable(f"the engine could not be changed by hand: {done.stderr[-500:]}")
    return [str(row) for row in json.loads(done.stdout.splitlines()[-1])]


async def _change(environment: Path, specs: list[ArmSpec]) -> list[str]:
    settings = load({}, environment)
    prepare_ray(settings)  # before Ray is loaded
    from infra.cluster import EngineSettings, RayEngines, connect, disconnect

    connect(settings.ray_address or "local")
    engines = RayEngines(EngineSettings("vllm", settings.state_dir / "artifacts", {}))
    try:
        outcomes = await engines.ensure(specs)
    finally:
        await engines.close()
        disconnect()
    refused = [f"{row.arm}: {row.reason}" for row in outcomes if not row.live]
    if refused:
        raise Unavailable("; ".join(refused))
    return [row.arm for row in outcomes]


def main() -> None:
    """`python -m tools.demo.decline ENVIRONMENT < SPECS`: prints the arms as JSON."""
    changed = asyncio.run(_change(Path(sys.argv[1]), SPECS.validate_json(sys.stdin.read())))
    sys.stdout.write(json.dumps(changed) + "\n")


if __name__ == "__main__":
    main()
