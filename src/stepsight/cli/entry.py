"""What all commands have in common: how they are found, how their flags are read, how they end.

A command is a module with `Args`, a dataclass whose fields are its flags, and `run`, which returns
the exit status and is given the `Args`, or what their own `parse` makes of the arguments. A module
with a `GROUP` holds further commands. None is imported before it is chosen.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from stepsight import distributed, signals
from stepsight.errors import UserError, command, suggest
from stepsight.signals import INTERRUPTED, Preempted

T = TypeVar("T")
DOWNLOADS = "STEPSIGHT_ALLOW_DOWNLOAD"  # as `checkpoint.hub` has it, which loads torch
CLOSED_PIPE = 141  # 128 + the number of the signal, as shells say it


@dataclass(frozen=True)
class Group:
    """Commands by name: those of `stepsight`, `stepsight data` and the like."""

    prog: str
    about: str
    commands: dict[str, tuple[str, str]]  # name -> module below stepsight.cli, what it does

    def run(self, arguments: Sequence[str]) -> int:
        """The exit status of the command that `arguments` begin with."""
        if not arguments or arguments[0] in ("-h", "--help"):
            print(self.help())
            return 0 if arguments else 2
        name, *rest = arguments
        if name not in self.commands:
            raise UserError(f"command '{name}' is unknown.{suggest(name, self.commands)}")
        module = import_module(f"stepsight.cli.{self.commands[name][0]}")
        if hasattr(module, "GROUP"):
            return module.GROUP.run(rest)
        prog, kind = f"{self.prog} {name}", module.Args
        return module.run(
            kind.parse(rest, prog) if hasattr(kind, "parse") else parse(kind, rest, prog)
        )

    def help(self) -> str:
        rows = [f"  {name:<13} {about}" for name, (_, about) in self.commands.items()]
        usage = f"usage: {self.prog} <command> ...\n\n{self.about}\n"
        return "\n".join([usage, *rows, f"\n{self.prog} <command> --help shows its flags."])


def guarded(body: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """The exit status of `body` on the arguments: 0, 1 (a fault), 2 (a UserError, which becomes a
    line, without traceback unless --debug), 75 (preempted, and saved). Of several processes the one
    that knows speaks. A closed pipe and Ctrl-C end in silence."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _taken(arguments, "--debug")
    before = os.environ.get(DOWNLOADS)
    if _taken(arguments, "--allow-download"):
        os.environ[DOWNLOADS] = "1"  # which processes that this one starts see too
    try:
        try:
            status = body(arguments)
        except SystemExit as exit:  # of --help
            status = int(exit.code or 0)
        sys.stdout.flush()
        return status
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout.fileno()):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
            return CLOSED_PIPE
        return distributed.speak(error, debug)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if before is None:
            os.environ.pop(DOWNLOADS, None)


def _taken(arguments: list[str], flag: str) -> bool:
    """Whether a flag that every command has is given; it is removed."""
    given = flag in arguments
    arguments[:] = [word for word in arguments if word != flag]
    return given


def _is_closed(pipe: int) -> bool:
    """Whether nobody reads a pipe any more."""
    poll = select.poll()
    poll.register(pipe, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def parse(
    kind: type[T], arguments: Sequence[str], prog: str, markers: tuple[Any, ...] | None = None
) -> T:
    """An instance of the dataclass `kind`, whose fields are flags.

    markers: how tyro reads them; None: a tuple's are repeated, and None is what is not given. Help
    that is asked for is printed, with `kind.more_help` of the arguments, and exits with status 0.
    Raises UserError for flags that are unknown, missing, or have a value that is none of theirs.
    """
    import tyro

    markers = (tyro.conf.UseAppendAction, tyro.conf.DisallowNone) if markers is None else markers
    asked = [flag for flag in ("-h", "--help") if flag in arguments]
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(kind, args=asked or list(arguments), prog=prog, config=markers)
    except SystemExit as exit:
        if not exit.code:
            print(getattr(kind, "more_help", lambda _: "")(arguments), end="")
            raise
    raise UserError(f"{_sentence(complaint.getvalue())} See {prog} --help.")


def _sentence(complaint: str) -> str:
    """One line of the frame in which tyro prints what is wrong."""
    lines = [line.strip("│╭╮╰╯─ ") for line in complaint.splitlines()]
    _, *lines = [line for line in lines if line.strip("-")]  # without the title
    text = " ".join(lines).partition(" For full helptext")[0]
    if text.startswith("Unrecognized options: "):
        unknown, _, near = text.partition(" Perhaps you meant: ")
        names = list(dict.fromkeys(re.findall(r"--[\w.-]+", near)))
        meant = f" Did you mean {' or '.join(names[:3])}?" if names else ""
        return f"unknown: {unknown.partition(': ')[2]}.{meant}"
    if value := re.match(r"Error parsing (\S+): .*?'(.*?)'.* Argument helptext: ", text):
        metavar = lines[lines.index("Argument helptext:") + 1].removeprefix(value[1]).strip()
        return f"{value[1]} {value[2]}: expected {metavar}."
    text = re.sub(r"Missing from [^:]*: ", "missing: ", text).replace(" (required) ", "; ")
    text = text.replace("Unrecognized options:", "unknown:").removesuffix(" (required)")
    return text.removesuffix(".") + "."


@contextmanager
def going_on(verb: str, arguments: Sequence[str]) -> Iterator[None]:
    """Signals that ask to end are noted meanwhile; a Preempted names the command to go on with,
    which is the same again."""
    with signals.caught():
        try:
            yield
        except Preempted as stopped:
            again = command(verb, *arguments)
            raise Preempted(f"{stopped} Go on with `{again}`.") from None


@contextmanager
def given_by(flag: str) -> Iterator[None]:
    """Name the flag, with its value, in a UserError that does not name it."""
    try:
        yield
    except UserError as error:
        if flag.split()[0] in str(error):
            raise
        raise type(error)(f"{flag}: {error}") from error


def exactly_one(args: object, *names: str) -> str:
    """The one of the flags that is given. Raises UserError for none and for several."""
    given = [name for name in names if getattr(args, name) not in (None, ())]
    if len(given) != 1:
        flags = ", ".join(f"--{name}" for name in names)
        raise UserError(f"give exactly one of {flags}.")
    return given[0]


def at_least(least: int, flag: str, value: float | None) -> None:
    """Raise UserError for a number below `least`; None is not given."""
    if value is not None and value < least:
        raise UserError(f"{flag} {value:g}: must be at least {least}.")


def output_folder(name: str | Path) -> Path:
    """A folder that is there or can be made later. Raises UserError where a file is in the way."""
    path = Path(name)
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise UserError(f"--out {path}: {nearest} is a file. Name a folder.")
    return path


def one_of(flag: str, value: str | None, choices: Sequence[str]) -> None:
    """Raise UserError, with a suggestion, for a value that is no choice; None is not given."""
    if value is not None and value not in choices:
        raise UserError(f"{flag} {value}: no such choice.{suggest(value, choices)}")


def setting(flag: str, text: str) -> tuple[int, int]:
    """Model calls and members of `8x4`. Raises UserError."""
    numbers = re.fullmatch(r"(\d+)x(\d+)", text)
    if not numbers:
        raise UserError(f"{flag} {text}: write two numbers without spaces, such as 8x4.")
    return int(numbers[1]), int(numbers[2])
