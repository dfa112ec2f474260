"""What one pair says of each metric: D in [-1, 1], + good for the challenger. Inputs are integers, divided once.

F-numbers as in the table of docs/statistics.md. `margin_of` and `gain_of` turn what a route sets ("+5 %", "0.9 times") into D's scale.
"""


def contrast(champion: int, challenger: int) -> float:
    """F4 (latency, µs), F8 (cost, nano-USD): (cp - ch)/(cp + ch), 0 where both are 0. A ratio r gives (1-r)/(1+r).

    As fast as a clipped log-ratio without logarithms; it certifies the typical ratio, not the total's. Raises ValueError below 0.
    """
    if champion < 0 or challenger < 0:
        raise ValueError(f"champion {champion!r}, challenger {challenger!r}; accepted: 0 or more")
    both = champion + challenger
    return (champion - challenger) / both if both else 0.0


def exceedance(latency_us: int, x0_us: int) -> float:
    """F5's ramp s(l) = clip((l/x0 - 2/3)·6/5, 0, 1): 0 up to two thirds of the objective x0, 1 from one and a half.

    D = s(champion) - s(challenger). Raises ValueError of a latency below 0 or an objective that is not above it.
    """
    if latency_us < 0 or x0_us <= 0:
        raise ValueError(f"latency {latency_us!r} µs at the objective {x0_us!r} µs; accepted: 0 or more, above 0")
    return min(1.0, max(0.0, (6 * latency_us - 4 * x0_us) / (5 * x0_us)))


def margin_of(share: float) -> float:
    """ "At most `share` dearer" (0.05: 5 %) as a margin of F8: d = share/(2 + share)."""
    return share / (2.0 + share)


def gain_of(ratio: float) -> float:
    """The mean of F4 at a ratio: 0.9 gives 1/19."""
    return (1.0 - ratio) / (1.0 + ratio)


def routed(outcome: float, propensity: float, *, challenger: bool) -> float:
    """F9, no pairs: A·Y/π - (1-A)·Y/(1-π), times min(π, 1-π), for an outcome Y in [0, 1] (Horvitz & Thompson 1952).

    Assumed: the router drew the challenger with the logged probability π, 0 < π < 1, blind to what follows. Against "worse by d"
    the margin is d·min(π, 1-π); where π varies, by the least that occurs. Raises ValueError outside.
    """
    if not 0.0 < propensity < 1.0 or not 0.0 <= outcome <= 1.0:
        raise ValueError(f"Y {outcome!r} at π {propensity!r}; accepted: 0 <= Y <= 1, 0 < π < 1")
    least = min(propensity, 1.0 - propensity)
    return outcome / propensity * least if challenger else -outcome / (1.0 - propensity) * least


def overlaid(model: float, person: float | None, share: float) -> float:
    """F10: D^ + (ξ/r)(D - D^), over 1 + 2/r (prediction-powered, Angelopoulos et al. 2023). In [-1, 1].

    `model`: D^ by the judge model; `person`: D by a person where the coin of share r asked one, else None. Unbiased however bad the
    model is, if the coin is random and blind. Margins go over 1 + 2/r as well (`overlay_scale`). Raises ValueError outside [-1, 1].
    """
    if not -1.0 <= model <= 1.0 or (person is not None and not -1.0 <= person <= 1.0):
        raise ValueError(f"D is {model!r} by the model, {person!r} by a person; accepted: -1 to 1")
    scale = overlay_scale(share)
    return (model if person is None else model + (person - model) / share) / scale


def overlay_scale(share: float) -> float:
    """1 + 2/r, by which F10 and its margins are divided. Raises ValueError unless 0 < r ≤ 1."""
    if not 0.0 < share <= 1.0:
        raise ValueError(f"the share is {share!r}; accepted: above 0, at most 1")
    return 1.0 + 2.0 / share
