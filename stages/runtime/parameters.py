"""params.yaml against the signatures of the stages.

The type hints of a stage become a JSON Schema; what a stage refuses and what an editor underlines are the same.

    python -m stages.runtime.parameters

writes the schema of all stages, params.schema.json, anew after a signature has changed. The checks are our own because
pydantic adds 0.1 s to every start of a stage where they take 1 ms, and its messages would have to be reworded.
"""

import difflib
import inspect
import json
import os
import reprlib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints, is_typeddict

from annotated_types import Len
from ruamel.yaml import YAML

from stages.runtime.cutting import cut
from stages.runtime.remote import Place, local_path, place

PARAMETERS = Path("params.yaml")
SCHEMA = Path("params.schema.json")
PIPELINE = Path("dvc.yaml")

Text = NewType("Text", str)  # an option of the command line that is no path
Number = NewType("Number", int)  # likewise, a whole number
# What makes of a text the value of an option, by its annotation.
OPTIONS = {Path: local_path, Place: place, Text: str, Number: int}

LARGEST = sys.float_info.max
LARGEST_FILE = 1_000_000  # bytes of params.yaml or dvc.yaml, a hundred times what they have
Schema = dict[str, Any]  # a part of JSON Schema: object, array, enum, anyOf, type with limits

TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}
WORDS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "null": "null",
}
LIMITS = {"exclusiveMinimum": "above", "minimum": "at least", "maximum": "at most", "exclusiveMaximum": "below"}


def read_parameters(hints: dict[str, Any], path: Path = PARAMETERS, schema: Path = SCHEMA) -> dict[str, Any]:
    """Read the parameters of one stage, and check the whole file.

    Parameters
    ----------
    hints : dict
        Name to type: bool, int, float, str, Literal, a TypedDict of these for a group, `| None`,
        `Annotated[type, Interval(...)]` for a range, and `Annotated[list[type], Len(...)]` for a list.
    path, schema : Path
        params.yaml, and params.schema.json, which says what the other stages allow.

    Raises
    ------
    ValueError
        If a parameter of any stage is missing, unknown, of another type or out of range. The message names every such
        parameter, what was got and what is allowed.
    """
    values = load_yaml(path)
    own = {name: schema_of(hint) for name, hint in hints.items()}
    of_others = _load_schema(schema)["properties"]
    faults = find_faults(values, _group({**of_others, **own}))
    if faults:
        raise ValueError(f"{path}: " + " Also ".join(faults))
    return {name: _typed(values[name], own[name]) for name in hints}


def load_yaml(path: Path, empty: bool = False) -> dict[str, Any]:
    """Read params.yaml or dvc.yaml as DVC does, by the same library as YAML 1.2: 1e-5 is a number, and 010 is ten.

    A file without keys and values is refused, unless it may be `empty` or hold comments alone.
    """
    if os.path.exists(path):
        if not os.path.isfile(path):  # a pipe would be waited for
            raise ValueError(f"{path}: not a file; move it away, and `git restore {path}`.")
        if (size := os.path.getsize(path)) > LARGEST_FILE:
            raise ValueError(f"{path}: {size} bytes, expected at most {LARGEST_FILE}; `git restore {path}`.")
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file here; run from the root of the repository.") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); mend the file or its permissions.") from None
    except Exception as error:
        # Beside the library's own errors, what Python raises of an impossible date, a number of 5,000 digits, or a
        # thousand lists in each other.
        raise ValueError(f"{path}: not valid YAML ({shown(error)}); mend it, or `git restore {path}`.") from None
    if empty and values is None:
        return {}
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"{path}: holds {found}, expected keys and values; `git restore {path}`.")
    return values


def load_stages(path: Path = PIPELINE) -> dict[str, Any]:
    """What dvc.yaml says of each stage, by its name."""
    stages = load_yaml(path).get("stages")
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise ValueError(f"{path}: has no stages, each with keys and values; `git restore {path}`.")
    return stages


def _load_schema(path: Path) -> Schema:
    try:
        schema = json.loads(path.read_text(encoding="utf-8")) if os.path.isfile(path) else None
        if isinstance(schema, dict) and _is_schema({**schema, "type": "object"}):
            return schema
    except (OSError, ValueError, RecursionError):
        pass
    raise ValueError(
        f"{path}: missing or not the schema of params.yaml; run `python -m stages.runtime.parameters` to write it."
    )


def _is_schema(schema: Any) -> bool:
    """Whether this is a schema as `schema_of` makes them."""
    match schema:
        case {"enum": list()}:
            return True
        case {"anyOf": list(choices)}:
            return all(map(_is_schema, choices))
        case {"type": "object", "properties": dict(properties)}:
            return all(map(_is_schema, properties.values()))
        case {"type": "array", "items": dict(items), "minItems": int(), "maxItems": int()}:
            return _is_schema(items)
        case {"type": str(name)}:
            return name in WORDS and all(type(schema.get(key, 0)) in (int, float) for key in LIMITS)
    return False


def shown(value: Any, length: int = 200) -> str:
    """A value as a message can hold it: on one line, and cut where it is long."""
    bounded = reprlib.Repr()  # lists that aliases repeat would be longer than any memory
    bounded.maxstring = bounded.maxlong = bounded.maxother = length
    try:
        words = " ".join((str(value) if isinstance(value, Exception) else bounded.repr(value)).split())
    except (ValueError, RecursionError):  # a whole number of more digits than Python writes
        words = f"a very large {type(value).__name__}"
    return cut(words, length)


def hints_of(stage: Callable[..., None]) -> dict[str, Any]:
    """The parameters in the signature of a stage, name to type; what is left are options of the command line."""
    hints = get_type_hints(stage, include_extras=True)
    return {name: hints[name] for name in inspect.signature(stage).parameters if hints[name] not in OPTIONS}


def schema_of(hint: Any) -> Schema:
    """The JSON Schema of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is Annotated and isinstance(arguments[1], Len):
        ends = arguments[1]
        return schema_of(arguments[0]) | {"minItems": ends.min_length, "maxItems": ends.max_length}
    if origin is Annotated:
        ends = arguments[1]
        limits = {
            "minimum": ends.ge,
            "exclusiveMinimum": ends.gt,
            "maximum": ends.le,
            "exclusiveMaximum": ends.lt,
        }
        return schema_of(arguments[0]) | {key: end for key, end in limits.items() if end is not None}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(choice) for choice in arguments]}
    if is_typeddict(hint):
        return _group({name: schema_of(each) for name, each in get_type_hints(hint, include_extras=True).items()})
    return {"type": TYPES[hint]}


def _group(properties: dict[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def find_faults(value: Any, schema: Schema, name: str = "") -> list[str]:
    """What a value of params.yaml breaks of a schema, a sentence a fault."""
    if schema.get("type") != "object" or not isinstance(value, dict):
        return [] if _fits(value, schema) else [f"parameter {name} is {shown(value)}, expected {in_words(schema)}."]
    known, prefix = schema["properties"], f"{name}." if name else ""
    faults, meant = [], set()
    for key in value:
        if key in known:
            continue
        similar = difflib.get_close_matches(str(key), known, n=1)
        meant.update(similar)
        remedy = f"did you mean {prefix}{similar[0]}?" if similar else f"allowed: {', '.join(sorted(known))}."
        unknown = shown(f"{prefix}{key}").strip("'")
        faults.append(f"unknown parameter {unknown}; {remedy}")
    for key, inner in known.items():
        if key in value:
            faults += find_faults(value[key], inner, prefix + key)
        elif key not in meant:
            faults.append(f"parameter {prefix}{key} is missing; expected {in_words(inner)}.")
    return faults


def _fits(value: Any, schema: Schema) -> bool:
    """Whether a value that is no group obeys a schema; stricter than JSON Schema, for which 2.0 is a whole number."""
    if "anyOf" in schema:
        return any(_fits(value, choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return any(value == choice and type(value) is type(choice) for choice in schema["enum"])
    if schema["type"] == "array":
        fits = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
        return fits and all(_fits(each, schema["items"]) for each in value)
    if schema["type"] == "number":
        # The bound stands for that of double precision, which a whole number may exceed.
        return type(value) in (int, float) and -LARGEST <= value <= LARGEST and _in_range(value, schema)
    return TYPES.get(type(value)) == schema["type"] and _in_range(value, schema)


def _in_range(value: Any, schema: Schema) -> bool:
    return (
        ("minimum" not in schema or value >= schema["minimum"])
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("maximum" not in schema or value <= schema["maximum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


def _typed(value: Any, schema: Schema) -> Any:
    """A value that fits, whole numbers made floats where the schema has a number."""
    if schema.get("type") == "object":
        return {key: _typed(value[key], inner) for key, inner in schema["properties"].items()}
    return float(value) if schema.get("type") == "number" else value


def in_words(schema: Schema) -> str:
    """What a schema allows, such as "a whole number from 1 to 100"."""
    if "anyOf" in schema:
        return " or ".join(in_words(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return ("one of " if len(schema["enum"]) > 1 else "") + ", ".join(map(str, schema["enum"]))
    if schema["type"] == "object":
        return "a group of " + ", ".join(schema["properties"])
    if schema["type"] == "array":
        return f"a list of {schema['minItems']} to {schema['maxItems']}, each {in_words(schema['items'])}"
    if {"minimum", "maximum"} <= schema.keys():
        return f"{WORDS[schema['type']]} from {schema['minimum']} to {schema['maximum']}"
    ends = [f"{words} {schema[key]}" for key, words in LIMITS.items() if key in schema]
    return f"{WORDS[schema['type']]} {' and '.join(ends)}".rstrip()


def schema_of_all(pipeline: Path = PIPELINE) -> Schema:
    """The JSON Schema of params.yaml, from the signatures of all stages; imports every stage."""
    properties: dict[str, Schema] = {}
    for stage in load_stages(pipeline):
        hints = hints_of(getattr(import_module(f"stages.{stage}"), stage))
        properties |= {name: schema_of(hint) for name, hint in hints.items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "params.yaml; written by python -m stages.runtime.parameters",
        **_group(properties),
    }


if __name__ == "__main__":
    # The module that stages have the types of their options from; this one is another, by the name of the program.
    parameters = import_module("stages.runtime.parameters")

    try:
        SCHEMA.write_text(json.dumps(parameters.schema_of_all(), indent=2) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        sys.exit(str(error))
