"""What of a tenant's configuration has no effect under a set of rules: said when it is written, not when a request is denied. Pure."""

from collections.abc import Iterator

from schemas.gate import BasisRule, Exemption, Flow, GateTenant, KindRule, RuleSet, TransferRule, severity


def without_effect(tenant: GateTenant, rules: RuleSet) -> tuple[str, ...]:
    """Each permission that permits nothing, whatever the time: the field, why, and what would be accepted; () when all do."""
    kind_rules = [rule for rule in rules.rules if isinstance(rule, KindRule)]
    transfers = [rule for rule in rules.rules if isinstance(rule, TransferRule)]
    matrices = [rule.matrix for rule in rules.rules if isinstance(rule, BasisRule)]
    known = {kind for rule in kind_rules for kind in rule.kinds}
    found: list[str] = []
    for purpose, bases in tenant.purposes.items():
        fitting = sorted({basis for matrix in matrices for basis in matrix.get(purpose, ())})
        if not {*bases} & {*fitting}:
            found.append(f"purposes.{purpose}: none of {list(bases)} fits it; accepted: {fitting}")
    found += _unsaid(tenant)
    for number, flow in enumerate(tenant.flows):
        if not any(_carries(rule, flow) for rule in transfers):
            tools = sorted({tool for rule in transfers for tool in rule.tools})
            found.append(f"flows[{number}]: {flow.origin} to {flow.region} leaves its area; accepted tools: {tools}")
    found += (
        f"thresholds.{kind}: no rule knows the kind; accepted: {sorted(known)}"
        for kind in sorted(tenant.thresholds.keys() - known)
    )
    for exemption in tenant.exemptions:
        found += (f"exemptions.{exemption.id}: {why}" for why in _idle(exemption, kind_rules, tenant))
    return tuple(found)


def _unsaid(tenant: GateTenant) -> Iterator[str]:
    """What counts for requests that do not say, and would deny them all."""
    bases = sorted({basis for of in tenant.purposes.values() for basis in of})
    origins = sorted({flow.origin for flow in tenant.flows})
    for field, value, accepted in (
        ("purpose", tenant.purpose, sorted(tenant.purposes)),
        ("basis", tenant.basis, bases if tenant.purpose is None else list(tenant.purposes.get(tenant.purpose, ()))),
        ("notice", tenant.notice, list(tenant.notices)),
        ("origin", tenant.origin, origins),
    ):
        if value is not None and value not in accepted:
            yield f"{field}: {value!r} is not the tenant's; accepted: {accepted}"


def _carries(rule: TransferRule, flow: Flow) -> bool:
    return not rule.needs_tool(flow.origin, flow.region) or flow.tool in rule.tools


def _idle(exemption: Exemption, rules: list[KindRule], tenant: GateTenant) -> Iterator[str]:
    versions = [rule for rule in rules if rule.id == exemption.rule and rule.exemptible]
    if not versions:
        accepted = sorted({rule.id for rule in rules if rule.exemptible})
        yield f"rule {exemption.rule} has no exemptions; accepted: {accepted}"
        return
    if not any(
        severity(exemption.then) < severity(action)
        for rule in versions
        for where, action in rule.at.items()
        if not exemption.where or where in exemption.where
    ):
        yield f"{exemption.then!r} is no weaker than what {exemption.rule} says itself"
    kinds = {kind for rule in versions for kind in rule.kinds}
    if {*exemption.kinds} - kinds:
        yield f"{sorted({*exemption.kinds} - kinds)} are not of {exemption.rule}; accepted: {sorted(kinds)}"
    if {*exemption.purposes} - tenant.purposes.keys():
        named = sorted({*exemption.purposes} - tenant.purposes.keys())
        yield f"{named} are no purposes of the tenant; accepted: {sorted(tenant.purposes)}"
