"""`ratchet evidence check`: tries what must not be possible, reads settings where they count, and has the log record what was seen.

Each trial becomes an event of the operator's (`access.checked`, `config.observed`), and so an entry that controls count. What could
not be tried is said and not published: it proves nothing, and is no pass.
"""

import secrets
from collections.abc import Sequence

from streams.facts import Facts
from tools.cli.bus import now_ms
from tools.cli.place import open_broker, settings, voice
from tools.cli.screen import Exit, Screen, clean
from tools.cli.trials import Trial, observation
from tools.cli.trials_run import Trials


async def run(screen: Screen, by: str | None, most_days: int) -> int:
    """The command. Exit 1 where one did not pass, or could not be tried."""
    said = await voice("operator", by)
    with screen.progress("trying what must not be possible") as progress:
        trials = await Trials(settings(), most_days).all(progress.say)
        progress.say("telling the log")
        await publish(trials, said.name)
    failed = [trial for trial in trials if not trial.passed]
    code = Exit.NO if failed else Exit.DONE
    if screen.as_json:
        rows = [trial.as_json() for trial in trials]
        screen.json({"by": said.name, "passed": len(trials) - len(failed), "failed": len(failed), "checks": rows})
        return code
    screen.table("", ("passed", "", "seen"), [(one.kind, one.what, one.detail) for one in trials if one.passed])
    for trial in failed:
        word = "[yellow]not tried[/]" if trial.passed is None else "[red]not passed[/]"
        screen.say(f"{word}  {trial.kind} {trial.what}: {clean(trial.detail)}")
    for fix in dict.fromkeys(trial.fix for trial in failed if trial.fix):
        screen.say(f"[bold]do[/]  {clean(fix)}")
    screen.say(f"{len(trials) - len(failed)} of {len(trials)} passed; recorded as what {clean(said.name)} observed")
    return code


async def publish(trials: Sequence[Trial], by: str) -> None:
    """As many events as there were trials that said something. Raises `Unavailable` where the broker takes none."""
    facts, at_ms, nonce = Facts(await open_broker(), "cli"), now_ms(), secrets.token_hex(8)
    try:
        for trial in trials:
            if (event := observation(trial, at_ms=at_ms, by=by)) is not None:
                await facts.send(event, f"{nonce}/{trial.kind}/{trial.what}")
    finally:
        await facts.stop()
