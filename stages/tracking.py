"""What a stage shares with DVC: parameters in, metrics and plot data out, files that appear whole or not at all.

A stage is a function whose signature is the schema of what it takes. Keyword arguments annotated `Path` are options of
the command line, with the default of the signature; all others are read from params.yaml and checked:

    def link(*, linkage: Literal["average", "ward"], reduced: Path = Path("data/reduced.npy")) -> None: ...

    if __name__ == "__main__":
        tracking.run(link)
"""

import argparse
import difflib
import inspect
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import yaml

log = logging.getLogger(__name__)

PARAMETERS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
PARTIAL = ".partial-"  # the start of a name of a file that is being written; .gitignore and .dvcignore know it


class Between(NamedTuple):
    """A range for `Annotated`: from `low` to `high`, of which `low` is left out where `above` is set."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'above' if self.above else 'at least'} {self.low}"
        return f"{'above ' if self.above else 'from '}{self.low} to {self.high}"


def run(stage: Callable[..., None]) -> None:
    """Run a stage as the program: read its arguments, log to standard error, end in one line if it is refused.

    Warnings, of libraries too, go to the log, each once. The environment variable STAGE_TRACEBACK=1 shows the traceback
    of a refusal as well.
    """
    logging.basicConfig(level=logging.INFO, format=f"{stage.__name__:>9}  %(message)s", stream=sys.stderr)
    for talkative in ("dvc", "dvclive", "openTSNE"):  # of what they do by default; their warnings are shown
        logging.getLogger(talkative).setLevel(logging.WARNING)
    warnings.showwarning = _log_each_once()
    # scikit-learn's doubt whether so many labels are classes; here labels are nothing else.
    warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
    try:
        hints = get_type_hints(stage, include_extras=True)
        paths = {
            name: default.default
            for name, default in inspect.signature(stage).parameters.items()
            if hints[name] is Path
        }
        options = argparse.ArgumentParser(
            prog=f"python -m stages.{stage.__name__}",
            description=inspect.getdoc(stage),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, default in paths.items():
            options.add_argument(f"--{name.replace('_', '-')}", type=Path, default=default, help=f"default: {default}")
        arguments = vars(options.parse_args())
        schema = {name: hint for name, hint in hints.items() if name not in paths and name != "return"}
        stage(**read_parameters(schema), **arguments)
    except KeyboardInterrupt:
        sys.exit(f"{stage.__name__}: interrupted; no output was replaced.")
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if os.environ.get("STAGE_TRACEBACK") == "1":
            raise
        sys.exit(f"{stage.__name__}: {' '.join(str(error).split())}")


def _log_each_once() -> Callable[..., None]:
    """What Python is to call to show a warning: one line in the log, wherever it comes from and however often."""
    shown = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = f"{' '.join(str(message).split())} ({category.__name__})"
        if line not in shown:
            shown.add(line)
            log.warning("%s", line)

    return show


def read_parameters(schema: dict[str, Any], path: Path = PARAMETERS, pipeline: Path = PIPELINE) -> dict[str, Any]:
    """Read from params.yaml the parameters that a schema names.

    Parameters
    ----------
    schema : dict
        Name to type: bool, int, float, str, Literal, a TypedDict of these for a group, `| None`, and
        `Annotated[type, Between(...)]` for a range.
    path, pipeline : Path
        params.yaml, and dvc.yaml, whose stages say which parameters exist.

    Raises
    ------
    ValueError
        If a parameter is missing, unknown to every stage, of another type or out of range. The message names it,
        what was got and what is allowed.
    """
    values = _load_yaml(path)
    known = {"run"}
    for stage in _load_yaml(pipeline)["stages"].values():
        known.update(stage.get("params", []))
    _refuse_unknown(values, known | set(schema), prefix="", path=path)
    return {name: _checked(name, values, hint, path) for name, hint in schema.items()}


def log_metrics(stage: str, **metrics: float | int | bool) -> None:
    """Write `metrics/<stage>/metrics.json` through DVCLive, floats rounded to six significant digits."""
    from dvclive import Live

    with Live(f"metrics/{stage}", dvcyaml=False, save_dvc_exp=False) as live:
        live.summary.update({name: rounded(value) for name, value in metrics.items()})


def write_plot(path: Path, points: Iterable[dict[str, Any]]) -> None:
    """Write plot data as JSON, an object a line, floats rounded to six significant digits.

    A "<" is followed by an invisible word joiner: DVC writes the data into the script of a page, which a text such as
    "</script>" would end.
    """
    lines = (
        json.dumps({name: rounded(value) for name, value in point.items()}, ensure_ascii=False).replace("<", "<\u2060")
        for point in points
    )
    with replacing(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """Round a float to six significant digits, as a plain Python number; anything else stays as it is."""
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.6g}") if isinstance(value, float) else value


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def save_model(path: Path, **arrays: np.ndarray) -> None:
    """Write one .npz file of named arrays, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends, and is removed if it fails.

    What a killed run leaves has the same name every time, so that the next run writes over it; Git and DVC ignore it.
    """
    temporary = path.with_name(PARTIAL + path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with none of its bytes
        temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path}: not written ({error}); free space or mend the permissions, and run again.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _load_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file here; run from the root of the repository.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: holds {type(values).__name__}, expected keys and values.")
    return values


def _refuse_unknown(values: dict[str, Any], known: set[str], prefix: str, path: Path) -> None:
    for name in values:
        if name not in known:
            similar = difflib.get_close_matches(str(name), known, n=1)
            meant = f"did you mean {prefix}{similar[0]}?" if similar else f"allowed: {', '.join(sorted(known))}."
            raise ValueError(f"{path}: unknown parameter {prefix}{name}; {meant}")


def _checked(name: str, values: dict[str, Any], hint: Any, path: Path, prefix: str = "") -> Any:
    """The value of one parameter, or of one group of them, checked against its type."""
    if name not in values:
        raise ValueError(f"{path}: parameter {prefix}{name} is missing; expected {_describe(hint)}.")
    value = values[name]
    if is_typeddict(hint) and isinstance(value, dict):
        group = get_type_hints(hint, include_extras=True)
        _refuse_unknown(value, set(group), f"{prefix}{name}.", path)
        return {key: _checked(key, value, group[key], path, f"{prefix}{name}.") for key in group}
    if not _fits(value, hint):
        raise ValueError(f"{path}: parameter {prefix}{name} is {value!r}, expected {_describe(hint)}.")
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return float(value) if base is float else value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0]) and arguments[1].holds(value)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is UnionType:
        return any(_fits(value, choice) for choice in arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{_describe(arguments[0])} {arguments[1]}"
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is UnionType:
        return " or ".join(_describe(choice) for choice in arguments)
    if is_typeddict(hint):
        return "a group of " + ", ".join(get_type_hints(hint))
    names = {bool: "true or false", int: "a whole number", float: "a number such as 0.95 or 10", str: "a text"}
    return "null" if hint is NoneType else names[hint]
