"""A stage as a program: its options, its log, and refusals in one line.

A stage is a function whose signature is the schema of what it takes. Keyword arguments annotated `Path` are options of
the command line, with the default of the signature; all others are read from params.yaml and checked:

    def link(*, linkage: Literal["average", "ward"], reduced: Path = Path("data/reduced.npy")) -> None: ...

    if __name__ == "__main__":
        command.run(link)
"""

import argparse
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.runtime.cutting import LINE_LENGTH, cut_middle
from stages.runtime.parameters import hints_of, read_parameters
from stages.runtime.streams import open_standard_streams

log = logging.getLogger(__name__)


def run(stage: Callable[..., None]) -> None:
    """Run a stage as the program: read its arguments, log to standard error, end in one line if it is refused.

    Warnings, of libraries too, go to the log, each once. The environment variable STAGE_TRACEBACK=1 shows the traceback
    of a refusal as well.
    """
    open_standard_streams()
    logging.basicConfig(level=logging.INFO, format=f"{stage.__name__:>9}  %(message)s", stream=sys.stderr)
    for talkative in ("dvc", "dvclive", "openTSNE"):  # of what they do by default; their warnings are shown
        logging.getLogger(talkative).setLevel(logging.WARNING)
    warnings.showwarning = _log_each_once()
    # scikit-learn's doubt whether so many labels are classes; here labels are nothing else.
    warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
    try:
        hints = hints_of(stage)
        paths = {
            name: parameter.default
            for name, parameter in inspect.signature(stage).parameters.items()
            if name not in hints
        }
        options = argparse.ArgumentParser(
            prog=f"python -m stages.{stage.__name__}",
            description=inspect.getdoc(stage),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, default in paths.items():
            options.add_argument(f"--{name.replace('_', '-')}", type=Path, default=default, help=f"default: {default}")
        arguments = vars(options.parse_args())
        stage(**read_parameters(hints), **arguments)
    except KeyboardInterrupt:
        sys.exit(f"{stage.__name__}: interrupted; no output was replaced.")
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get("STAGE_TRACEBACK") == "1":
            raise
        sys.exit(f"{stage.__name__}: {cut_middle(' '.join(str(error).split()), LINE_LENGTH)}")


def _log_each_once() -> Callable[..., None]:
    """What Python is to call to show a warning: one line in the log, wherever it comes from and however often."""
    shown = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = f"{' '.join(str(message).split())} ({category.__name__})"
        if line not in shown:
            shown.add(line)
            log.warning("%s", line)

    return show
