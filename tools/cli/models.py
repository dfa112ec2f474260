"""`ratchet model`: a base model into the artifact store, by content."""

from pathlib import Path

from infra.artifacts import DirectoryStore
from schemas.errors import Refused
from tools.cli.place import settings
from tools.cli.screen import Exit, Screen, clean


def add(screen: Screen, folder: Path) -> int:
    """Store the folder's files; the same files give the same digest, and are stored once."""
    if not (folder / "config.json").is_file():
        raise Refused(
            f"{folder} is not a model: accepted is a folder with a config.json, as transformers saves it", kind="usage"
        )
    with screen.progress(f"storing {folder}"):
        digest = DirectoryStore(settings().state_dir / "artifacts").put_tree(folder)
    screen.line({"base": digest}, f'[green]stored[/] {clean(str(folder))}\nbase = "{digest}"')
    return Exit.DONE
