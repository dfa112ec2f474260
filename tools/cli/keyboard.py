"""What a person types: single keys where standard input is a terminal, else lines. Nobody waits on it but whoever asked."""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

END = ""  # what is typed once nothing more will come
AT_MOST = 4096


class Keyboard(Protocol):
    """`END` from both once the input has ended."""

    alive: bool
    """Whether a person sits there, who sees each key's effect at once."""

    async def key(self) -> str:
        """The next key; of a line-wise input the next line, without its end."""
        ...

    async def line(self) -> str:
        """The next whole line, without its end."""
        ...


class Terminal:
    """A terminal, key by key, within `open_terminal`. Ctrl-C interrupts as ever; what has several bytes (an arrow) is one key."""

    alive = True

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._typed = b""
        self._cooked: list[Any] = termios.tcgetattr(fd)

    async def key(self) -> str:
        await self._more(b"")
        if self._typed.startswith(b"\x1b"):
            typed, self._typed = self._typed, b""
            return typed.decode("utf-8", "replace")
        for length in (1, 2, 3, 4):  # one character of UTF-8
            try:
                found = self._typed[:length].decode()
            except UnicodeDecodeError:
                continue
            self._typed = self._typed[length:]
            return END if found == "\x04" else found
        self._typed = b""
        return "\ufffd"

    async def line(self) -> str:
        """Typed as lines are, with the terminal's own editing."""
        self.restore()
        try:
            await self._more(b"\n")
        finally:
            self.single()
        text, _, self._typed = self._typed.partition(b"\n")
        return text.decode("utf-8", "replace").strip()

    async def _more(self, until: bytes) -> None:
        """Wait for input until that is there, or the input has ended."""
        while not self._typed or until not in self._typed:
            found = await self._read()
            if not found:
                if not self._typed:
                    self._typed = b"\x04"
                return
            self._typed += found

    async def _read(self) -> bytes:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
        try:
            return os.read(self._fd, AT_MOST)
        except OSError:  # the terminal is gone
            return b""

    def single(self) -> None:
        """Keys come one by one, unseen; signals stay."""
        tty.setcbreak(self._fd)

    def restore(self) -> None:
        """As it was found."""
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._cooked)


class Lines:
    """A file or a pipe, line by line."""

    alive = False

    def __init__(self, file: TextIO) -> None:
        self._file = file

    async def key(self) -> str:
        while line := await asyncio.to_thread(self._file.readline):
            if line.strip():
                return line.strip()
        return END

    async def line(self) -> str:
        return (await asyncio.to_thread(self._file.readline)).strip()


@contextmanager
def open_terminal(fd: int) -> Generator[Terminal, None, None]:
    """Keys of a terminal; it is as before afterwards, whatever happens."""
    terminal = Terminal(fd)
    terminal.single()
    try:
        yield terminal
    finally:
        terminal.restore()


@contextmanager
def open_keyboard() -> Generator[Keyboard, None, None]:
    """Standard input."""
    if not sys.stdin.isatty():
        yield Lines(sys.stdin)
        return
    with open_terminal(sys.stdin.fileno()) as terminal:
        yield terminal
