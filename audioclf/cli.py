"""The command `audioclf`: its subcommands, exit statuses, and sentences instead of tracebacks."""

import os
import shlex
import signal
import sys

import tyro

from .allocator import keep_freed_memory
from .commands.cache import cache
from .commands.config_file import with_defaults
from .commands.evaluate import evaluate
from .commands.export import export
from .commands.inspect import inspect
from .commands.pages import app, explore
from .commands.predict import predict
from .commands.push import push
from .commands.report import report
from .commands.train import compare, cross_validate, train
from .errors import AudioclfError, ResourceError

USAGE_ERROR = 2
COMMANDS = {
    "inspect": inspect,
    "explore": explore,
    "train": train,
    "cross-validate": cross_validate,
    "compare": compare,
    "evaluate": evaluate,
    "report": report,
    "predict": predict,
    "app": app,
    "export": export,
    "push": push,
    "cache": cache,
}
OF_OPTIONS = ("train", "cross-validate", "compare")
"""Those whose options a file or a recipe can give."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM."""
    arguments = sys.argv[1:] if arguments is None else arguments
    keep_freed_memory()  # the process is ours to tune
    commands = dict(COMMANDS)
    try:
        if arguments and arguments[0] in OF_OPTIONS:
            commands[arguments[0]] = with_defaults(commands[arguments[0]], arguments[1:])
        return tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="audioclf",
            description="Fine-tune audio classifiers in plain PyTorch.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except AudioclfError as error:
        # Of the processes of a job all find the same fault, but for what befalls one alone and says so.
        rank = os.environ.get("RANK", "0")
        if rank == "0" or isinstance(error, ResourceError) or str(error).startswith(f"Process {rank} of "):
            print(f"audioclf: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        _tell_how_to_resume(arguments)
        return 128 + signal.SIGINT
    except SystemExit as end:
        if end.code == 128 + signal.SIGTERM:
            _tell_how_to_resume(arguments)
        raise
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        return 0


def _tell_how_to_resume(arguments: list[str]) -> None:
    if arguments and arguments[0] in OF_OPTIONS:
        again = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
        print(f"Go on with: {shlex.join(['audioclf', *again, '--resume'])}", file=sys.stderr)
    elif arguments and arguments[0] == "predict" and any(word.split("=")[0] == "--output" for word in arguments):
        print(f"Go on with: {shlex.join(['audioclf', *arguments])}", file=sys.stderr)


def entry_point() -> None:
    """What the installed command `audioclf` calls."""
    sys.stdin.reconfigure(errors="surrogateescape")  # names of files are bytes, as they are on a command line
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a label that the terminal's encoding lacks is no error
    status = main()
    # All is said and saved: a second Ctrl-C would only fill the screen with how Python ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)
