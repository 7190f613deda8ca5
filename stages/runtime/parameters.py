"""params.yaml against the signature of a stage."""

import difflib
import math
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import yaml
from annotated_types import Interval

PARAMETERS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")


def read_parameters(schema: dict[str, Any], path: Path = PARAMETERS, pipeline: Path = PIPELINE) -> dict[str, Any]:
    """Read from params.yaml the parameters that a schema names.

    Parameters
    ----------
    schema : dict
        Name to type: bool, int, float, str, Literal, a TypedDict of these for a group, `| None`, and
        `Annotated[type, Interval(...)]` for a range.
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
        raise ValueError(f"{path}: parameter {prefix}{name} is missing; expected {describe(hint)}.")
    value = values[name]
    if is_typeddict(hint) and isinstance(value, dict):
        group = get_type_hints(hint, include_extras=True)
        _refuse_unknown(value, set(group), f"{prefix}{name}.", path)
        return {key: _checked(key, value, group[key], path, f"{prefix}{name}.") for key in group}
    if not _fits(value, hint):
        raise ValueError(f"{path}: parameter {prefix}{name} is {value!r}, expected {describe(hint)}.")
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return float(value) if base is float else value


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, arguments[0]) and _holds(arguments[1], value)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is UnionType:
        return any(_fits(value, choice) for choice in arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is hint


def _holds(interval: Interval, value: float) -> bool:
    """Whether a value lies in a range; of its four ends those that are None set no limit."""
    return (
        (interval.gt is None or value > interval.gt)
        and (interval.ge is None or value >= interval.ge)
        and (interval.le is None or value <= interval.le)
    )


def _in_words(interval: Interval) -> str:
    low = f"above {interval.gt}" if interval.ge is None else f"at least {interval.ge}"
    return low if interval.le is None else f"{low.replace('at least', 'from')} to {interval.le}"


def describe(hint: Any) -> str:
    """The type of a parameter in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{describe(arguments[0])} {_in_words(arguments[1])}"
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is UnionType:
        return " or ".join(describe(choice) for choice in arguments)
    if is_typeddict(hint):
        return "a group of " + ", ".join(get_type_hints(hint))
    names = {bool: "true or false", int: "a whole number", float: "a number such as 0.95 or 10", str: "a text"}
    return "null" if hint is NoneType else names[hint]
