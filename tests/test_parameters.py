"""params.yaml is checked by the signatures of the stages, in the words of its schema."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import pytest
import yaml
from annotated_types import Interval, Len
from conftest import ROOT

from stages.runtime.parameters import find_faults, hints_of, read_parameters, schema_of, schema_of_all


class Group(TypedDict):
    C: Annotated[float, Interval(gt=0)]
    folds: int


HINTS = {
    "share": Annotated[float, Interval(gt=0, le=1)],
    "standardize": bool,
    "power": bool | Annotated[float, Interval(ge=0, le=1)],
    "linkage": Literal["average", "ward"],
    "k_min": Annotated[int, Interval(ge=2)],
    "address": str | None,
    "group": Group,
}
GOOD = {
    "share": 0.95, "standardize": True, "power": 0.5, "linkage": "ward", "k_min": 2,
    "address": None, "group": {"C": 10, "folds": 5}, "of_another": 1,
}  # fmt: skip


def read(**changes) -> dict:
    values = {name: value for name, value in {**GOOD, **changes}.items() if value != "absent"}
    Path("params.yaml").write_text(json.dumps(values))
    Path("params.schema.json").write_text(json.dumps({"properties": {"of_another": {"type": "integer", "minimum": 1}}}))
    return read_parameters(HINTS)


def test_good_parameters_arrive():
    assert read() == {name: GOOD[name] for name in HINTS}
    assert isinstance(read(share=1)["share"], float)
    assert [read(power=value)["power"] for value in (False, 0, 1)] == [False, 0, 1]
    assert read(address="tcp://one")["address"] == "tcp://one"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0}, "share is 0, expected a number above 0 and at most 1."),
        ({"share": 1.01}, "share is 1.01"),
        ({"share": float("inf")}, "share is 'Infinity'"),
        ({"share": "0.95"}, "share is '0.95'"),
        ({"share": True}, "share is True"),
        ({"standardize": 1}, "standardize is 1, expected true or false"),
        ({"power": 1.5}, "power is 1.5, expected true or false or a number from 0 to 1"),
        ({"power": "yes"}, "power is 'yes', expected true or false or a number from 0 to 1"),
        ({"linkage": "Ward"}, "linkage is 'Ward', expected one of average, ward"),
        ({"k_min": 1}, "k_min is 1, expected a whole number at least 2"),
        ({"k_min": 2.0}, "k_min is 2.0, expected a whole number"),
        ({"k_min": None}, "k_min is None"),
        ({"address": 3}, "address is 3, expected a text or null"),
        ({"group": 3}, "group is 3, expected a group of C, folds"),
        ({"group": {"C": 10}}, "parameter group.folds is missing"),
        ({"group": {"C": 0, "folds": 5}}, "group.C is 0, expected a number above 0"),
        ({"group": {"C": 1, "fold": 5}}, "unknown parameter group.fold; did you mean group.folds?"),
        ({"k_mni": 3}, "unknown parameter k_mni; did you mean k_min?"),
        ({"of_another": 0}, "of_another is 0, expected a whole number at least 1"),
        ({"k_min": "absent"}, "parameter k_min is missing; expected a whole number at least 2"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=r"params.yaml: ") as refused:
        read(**changes)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"- 1", b"", b"a: [", b"a: \t1", b"a: 1\na: 2", b"a: 2026-13-45", b"a: " + 5000 * b"9", b"a: \xff",
        b"a: !!int x", b"- " * 5000, b"a: !!python/object:os.system x", b"a: 1\n---\nb: 2",
    ],
)  # fmt: skip
def test_a_broken_file_is_refused(content):
    Path("params.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"^params.yaml: .+`git restore params.yaml`\.$") as refused:
        read_parameters(HINTS)
    assert len(str(refused.value)) < 400


DAMAGED_SCHEMAS = [
    None, b"", b"[]", b"{}", b"{", b"\xff", 100_000 * b"[", *(b'{"properties": {"a": %s}}' % each for each in (
        b"1", b'{"type": "object"}', b'{"type": "object", "properties": 1}', b'{"type": "odd"}', b'{"enum": 5}',
        b'{"anyOf": [3]}', b'{"anyOf": 3}', b'{"type": "integer", "minimum": "x"}', b'{"type": []}',
    )),
]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED_SCHEMAS)
def test_a_schema_that_is_damaged_or_missing_is_to_be_written_again(content):
    Path("params.yaml").write_text("a: 1")
    if content is not None:
        Path("params.schema.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"^params.schema.json: missing or not the schema .+ run `python -m stages"):
        read_parameters(HINTS)


@pytest.mark.parametrize(
    ("written", "value"), [("1e-5", 1e-5), ("0.00001", 1e-5), ("5e-5", 5e-5), ("+1e1", 10.0), ("010", 10.0)]
)
def test_a_number_is_read_as_dvc_reads_it(written, value):
    from dvc.utils.serialize import load_yaml

    Path("params.yaml").write_text(f"C: {written}")
    Path("params.schema.json").write_text('{"properties": {}}')
    assert read_parameters({"C": float}) == {"C": value} == load_yaml("params.yaml")


@pytest.mark.parametrize("written", [400 * "9", f"0x{5000 * 'f'}", f"[{'a' * 1000}]"])
def test_what_a_message_cannot_hold_is_cut(written):
    Path("params.yaml").write_text(f"C: {written}")
    Path("params.schema.json").write_text('{"properties": {}}')
    with pytest.raises(ValueError, match=r"C is .+, expected a number\.$") as refused:
        read_parameters({"C": float})
    assert len(str(refused.value)) < 400


# Each list holds ten of the one before it: three lines of text, and ten thousand million words.
LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{i}: &a{i} [{', '.join(10 * [f'*a{i - 1}'])}]\n" for i in range(1, 11))


@pytest.mark.parametrize("written", ["C: *a10", "C: {a: *a10}", "C: &c [*c]"])
def test_aliases_that_repeat_each_other_are_refused_at_once(written):
    Path("params.yaml").write_text(LAUGHS + written)
    Path("params.schema.json").write_text('{"properties": {}}')
    with pytest.raises(ValueError, match=r"C is .+, expected a number\.") as refused:
        read_parameters({"C": float})
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "not a file"),
        (Path.mkdir, "not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a file"),
        (lambda path: path.write_bytes(b"#" * 1_000_001), "1000001 bytes, expected at most 1000000"),
    ],
    ids=["pipe", "folder", "device", "large"],
)
def test_what_is_no_file_or_a_huge_one_is_refused_and_not_read(make, message):
    make(Path("params.yaml"))
    with pytest.raises(ValueError, match=f"^params.yaml: {message}; .*`git restore params.yaml`"):
        read_parameters(HINTS)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_schema_that_is_no_file_is_not_waited_for(make):
    Path("params.yaml").write_text("a: 1")
    make(Path("params.schema.json"))
    with pytest.raises(ValueError, match=r"^params.schema.json: missing or not the schema"):
        read_parameters(HINTS)


@pytest.mark.parametrize("content", ["a: 1", "stages: 1", "stages: {reduce: 1}"])
def test_a_pipeline_without_stages_is_refused(content):
    Path("dvc.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"^dvc.yaml: has no stages"):
        schema_of_all(Path("dvc.yaml"))


def test_all_faults_of_the_file_are_told_at_once():
    group = {"C": -1, "fold": 5, "taste": 1}
    with pytest.raises(ValueError, match=r"params.yaml: ") as refused:
        read(k_mni=3, k_min="absent", share=2, group=group, of_another=0)
    said = str(refused.value).removeprefix("params.yaml: ").split(" Also ")
    assert sorted(said) == [
        "parameter group.C is -1, expected a number above 0.",
        "parameter of_another is 0, expected a whole number at least 1.",
        "parameter share is 2, expected a number above 0 and at most 1.",
        "unknown parameter group.fold; did you mean group.folds?",
        "unknown parameter group.taste; allowed: C, folds.",
        "unknown parameter k_mni; did you mean k_min?",
    ]


def test_a_range_excludes_and_includes_its_ends():
    fits = {
        "gt": [False, False, True],
        "ge": [False, True, True],
        "le": [True, True, False],
        "lt": [True, False, False],
    }
    for end, expected in fits.items():
        schema = schema_of(Annotated[float, Interval(**{end: 2})])
        assert [not find_faults(value, schema, "x") for value in (1, 2, 3.5)] == expected, end


def test_a_list_has_a_length_and_each_of_its_values_a_range():
    schema = schema_of(Annotated[list[Annotated[int, Interval(ge=2, le=9)]], Len(1, 3)] | None)
    for value in (None, [2], [9, 2, 2]):
        assert find_faults(value, schema, "x") == []
    for value in ([], [2] * 4, [1], [2.0], [[2]], 2, "2", {"2": 2}):
        (fault,) = find_faults(value, schema, "x")
        assert fault.endswith("expected a list of 1 to 3, each a whole number from 2 to 9 or null.")


def test_the_schema_is_that_of_the_signatures_and_the_file_obeys_it():
    schema = json.loads((ROOT / "params.schema.json").read_text())
    written = schema_of_all(ROOT / "dvc.yaml")
    assert schema == written, "run python -m stages.runtime.parameters"
    text = (ROOT / "params.yaml").read_text()
    assert find_faults(yaml.safe_load(text), schema) == []
    assert text.splitlines()[0] == "# yaml-language-server: $schema=params.schema.json"


def test_a_parameter_of_several_stages_has_one_range():
    ranges = {}
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]:
        for name, hint in hints_of(getattr(import_module(f"stages.{stage}"), stage)).items():
            assert ranges.setdefault(name, schema_of(hint)) == schema_of(hint), (stage, name)
    # Random states end at 2**32 - 1, and cluster and compare count further seeds from this one on.
    assert ranges["seed"] == {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def test_every_number_has_a_least_and_a_most():
    def numbers(schema: dict, name: str):
        for each in schema.get("anyOf", [schema]):
            if each.get("type") in ("integer", "number"):
                yield name, each
            if "items" in each:
                yield from numbers(each["items"], name)
        for key, each in schema.get("properties", {}).items():
            yield from numbers(each, f"{name}.{key}")

    found = list(numbers(json.loads((ROOT / "params.schema.json").read_text()), ""))
    assert len(found) > 25
    for name, schema in found:
        assert {"minimum", "exclusiveMinimum"} & schema.keys(), name
        assert {"maximum", "exclusiveMaximum"} & schema.keys(), name


def test_the_command_writes_the_schema_of_all_stages():
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    subprocess.run([sys.executable, "-m", "stages.runtime.parameters"], env={"PYTHONPATH": str(ROOT)}, check=True)
    assert Path("params.schema.json").read_bytes() == (ROOT / "params.schema.json").read_bytes()


def test_the_command_that_writes_the_schema_is_refused_in_one_line():
    Path("dvc.yaml").write_text("stages: [")
    command = [sys.executable, "-m", "stages.runtime.parameters"]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"dvc\.yaml: not valid YAML .+ `git restore dvc\.yaml`\.\n", done.stderr)
    assert not Path("params.schema.json").exists()
