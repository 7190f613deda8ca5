"""A stage as a program: its options, its log, and refusals in one line.

A stage is a function whose signature is the schema of what it takes. Keyword arguments annotated `Path`, `Place` (a
path or an address), `Text` or `Number` are options of the command line, with the default of the signature, or required;
all others are read from params.yaml and checked:

    def link(*, linkage: Literal["average", "ward"], reduced: Path = Path("data/reduced.npy")) -> None: ...

    if __name__ == "__main__":
        command.run(link)
"""

import argparse
import inspect
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from stages.runtime.cutting import LINE_LENGTH, cut_middle
from stages.runtime.files import Run, check_unchanged, state_of
from stages.runtime.parameters import OPTIONS, PARAMETERS, Number, hints_of, read_parameters, shown
from stages.runtime.progress import told

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent.parent
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")  # of the log
TIME = "%Y-%m-%dT%H:%M:%S%z"


def run(stage: Callable[..., int | None], elsewhere: str | None = None) -> None:
    """Run a stage as the program: read its arguments, log to standard error, end in one line if it is refused.

    Parameters, sources and what the stage has read are the same at its end as at its start, or it is refused. Warnings,
    of libraries too, go to the log, each once. The environment variable STAGE_TRACEBACK=1 shows the traceback
    of a refusal as well; STAGE_LOG=DEBUG logs more, such as processor times, and STAGE_LOG=WARNING less. Where standard
    error is no terminal, each line begins with the time, and one every twenty seconds says what is done.

    Parameters
    ----------
    stage : callable
        What it returns is the exit status; None is 0. A refusal is 1, and so is an option that cannot be followed.
    elsewhere : str, optional
        An option that makes the stage a command for any folder: where it is given, params.yaml is not read, and
        parameters have the defaults of the signature.
    """
    _open_standard_streams()
    times = "" if sys.stderr.isatty() else "%(asctime)s  "
    logging.basicConfig(
        level=logging.INFO, format=f"{times}{stage.__name__:>9}  %(message)s", datefmt=TIME, stream=sys.stderr
    )
    # They tell what they do by default; their warnings are shown.
    for talkative in ("dvc", "dvclive", "openTSNE", "botocore", "aiobotocore"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    warnings.showwarning = _log_each_once()
    # scikit-learn's doubt whether so many labels are classes; here labels are nothing else.
    warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
    outputs, status = Run(), None
    try:
        hints = hints_of(stage)
        options = _Options(
            prog=f"python -m stages.{stage.__name__}",
            description=inspect.getdoc(stage),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,  # what is not given has the default of the signature
        )
        kinds = {each.name: each for each in inspect.signature(stage).parameters.values() if each.name not in hints}
        for name, each in kinds.items():
            required = each.default is each.empty
            about = {"required": True} if required else {"help": f"default: {each.default}"}
            number = {"type": int} if each.annotation is Number else {}
            options.add_argument(f"--{name.replace('_', '-')}", **number, **about)
        arguments = vars(options.parse_args())
        _set_level(os.environ.get("STAGE_LOG", "INFO"))
        arguments = {name: OPTIONS[kinds[name].annotation](value) for name, value in arguments.items()}
        _refuse_other_encodings()
        alone = elsewhere in arguments
        parameters = {} if alone else read_parameters(hints)
        sources = {path: state_of(path) for path in SOURCES.rglob("*.py")}
        with outputs, told():
            status = stage(**parameters, **arguments)
            if not alone:
                _check_unchanged(parameters, read_parameters(hints))
            imported = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
            check_unchanged({path: state for path, state in sources.items() if str(path) in imported})
    except KeyboardInterrupt:
        _end(f"{stage.__name__}: interrupted. {outputs.account()}")
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get("STAGE_TRACEBACK") == "1":
            raise
        said = " ".join(str(error).split())
        if isinstance(error, MemoryError) and ";" not in said:  # NumPy's own, or Python's, which has no words
            said = f"out of memory{f' ({said})' if said else ''}; end other programs, or give fewer rows."
        elif library := _library_that_raised(error):
            said = (
                f"{said.rstrip('.')} ({type(error).__name__} of {library}, which nothing here was known to raise); run "
                f"`STAGE_TRACEBACK=1 python -m stages.{stage.__name__}` and report what it shows."
            )
        _end(f"{stage.__name__}: {cut_middle(said, LINE_LENGTH)} {outputs.account()}")
    if status:
        sys.exit(status)


class _Options(argparse.ArgumentParser):
    """Options that are refused as all else is: in one line, with exit status 1."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; `{self.prog} --help` lists the options.")


def _set_level(name: str) -> None:
    """Let the stages log from this level on; libraries go on as they are."""
    if name not in LEVELS:
        raise ValueError(f"the environment variable STAGE_LOG is {name}, expected one of {', '.join(LEVELS)}.")
    for logger in ("stages", "__main__"):
        logging.getLogger(logger).setLevel(name)


def _end(said: str) -> NoReturn:
    """End the program with a refusal: a line on standard error, and exit status 1."""
    if not sys.stderr.isatty():
        with suppress(OSError):  # a log on a disk that is full: what is said next is lost as well
            sys.stderr.write(f"{time.strftime(TIME)}  ")
    sys.exit(said)


def _library_that_raised(error: Exception) -> str | None:
    """The library whose words an error has, so that nothing in them says what to do.

    None where the error is a refusal of the stages, or the system's, which has the name of a file. An error that joblib
    passes on was raised in another process, and is taken for a refusal.
    """
    *_, (innermost, _) = traceback.walk_tb(error.__traceback__)
    package = innermost.f_globals.get("__name__", "").partition(".")[0]
    named = package in ("stages", "__main__", "joblib", "concurrent") or getattr(error, "filename", None)
    return None if named else package


def _refuse_other_encodings() -> None:
    """Refuse a setting of Python or of the system by which names of files would be other names."""
    if (encoding := sys.getfilesystemencoding()) != "utf-8":
        raise ValueError(
            f"names of files are read as {encoding}, expected utf-8, by which they are written; set PYTHONUTF8=1, or "
            "take a locale of UTF-8."
        )


def _check_unchanged(used: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse parameters that were edited during the run: DVC records those in the file as the ones that were used."""
    if changed := [name for name in used if used[name] != now[name]]:
        name = changed[0]
        raise ValueError(
            f"{PARAMETERS}: {name} is {shown(now[name])}, but was {shown(used[name])} when the run began, which used "
            "that; run again."
        )


def _open_standard_streams() -> None:
    """Put the null device in the place of a standard stream that is closed (`>&- 2>&-`).

    Or the next file to be opened would have its number, and would get what libraries print; others fail without it.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _log_each_once() -> Callable[..., None]:
    """What Python is to call to show a warning: one line in the log, wherever it comes from and however often."""
    shown = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = f"{' '.join(str(message).split())} ({category.__name__})"
        if line not in shown:
            shown.add(line)
            log.warning("%s", line)

    return show
