"""`python -m agents router trust …`: run any set of agents in this process. `python -m agents train DIGEST`: one training job.

`python -m agents witness`: a witness of logs, which is no agent: it has nothing of what agents have. `… witness --vkey`: its key.
"""

import asyncio
import logging
import sys

from infra.settings import load
from schemas.errors import Refused, Unavailable

USED_WRONGLY, AWAY = 2, 3


def main(argv: list[str]) -> int:
    """Exit codes: 0 stopped on request, 2 used wrongly, 3 something is away; a crash of ours is a traceback and 1."""
    try:
        settings = load().resolved()
        if argv[:1] == ["observer"] and len(argv) == 1:
            from agents.observer import app
            from agents.transport import open_transport

            return app.main(settings, asyncio.run(open_transport(settings, "observer")))
        if argv[:1] == ["train"] and len(argv) == 2:
            from agents.training import train

            return asyncio.run(train(argv[1], settings))
        if argv[:1] == ["witness"] and argv[1:] in ([], ["--vkey"]):
            from agents import witnessing

            if argv[1:]:
                sys.stdout.write(f"{asyncio.run(witnessing.vkey(settings))}\n")
            else:
                asyncio.run(witnessing.serve(settings))
            return 0
        from agents.wiring import serve

        asyncio.run(serve(argv, settings))
    except Refused as error:
        sys.stderr.write(f"{error}\n")
        return USED_WRONGLY
    except Unavailable as error:
        logging.getLogger("ratchet").exception("something is away")
        sys.stderr.write(f"{error}\n")
        return AWAY
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
