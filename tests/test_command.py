"""A stage as a program: what it is refused with, and what its log shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, STAGES


def without_time(line: str) -> str:
    """A line of a log that no terminal shows, without the time that it begins with."""
    return re.sub(r"^\S+T\S+ +", "", line).strip()


def test_a_stage_starts_without_what_it_uses_late_or_seldom():
    late = ["matplotlib", "sklearn", "openTSNE", "dvclive", "joblib", "dask", "scipy.special", "scipy.sparse"]
    code = (
        f"import sys\nfrom stages import {', '.join(STAGES)}\nprint([name for name in {late} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    assert done.stdout.decode() == "[]\n"


def test_a_refusal_is_one_line_and_a_traceback_only_if_asked_for():
    code = "from stages.runtime import command\ndef sample(*, k: int): ...\ncommand.run(sample)"
    Path("params.yaml").write_text("k: 1.5")
    Path("params.schema.json").write_text('{"properties": {}}')
    for environment, lines in (({}, 1), ({"STAGE_TRACEBACK": "1"}, 5)):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) >= lines
        assert "k is 1.5, expected a whole number." in done.stderr.splitlines()[-1]
        assert ("Traceback" in done.stderr) == (lines > 1)


def test_a_refusal_of_very_much_keeps_its_beginning_and_its_end():
    code = "from stages.runtime import command\ndef sample(): raise ValueError(f\"begins {'A' * 500_000} ends\")\n"
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    done = subprocess.run(
        [sys.executable, "-c", f"{code}command.run(sample)"],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr) < 5000
    assert without_time(done.stderr).startswith("sample: begins AAA")
    assert done.stderr.endswith("AAA ends No output was replaced.\n")


def test_options_are_paths_and_texts_with_a_default_or_required():
    code = """
from pathlib import Path
from stages.runtime import command
from stages.runtime.parameters import Text

def sample(*, k: int, texts: Path, model: Text, text_column: Text = Text("text")):
    print(repr((k, texts, model, text_column)))

command.run(sample)
"""
    Path("params.yaml").write_text("k: 1")
    Path("params.schema.json").write_text('{"properties": {}}')
    for options, printed in (
        (["--texts", "t.csv", "--model", "some/name/"], f"(1, {Path('t.csv')!r}, 'some/name/', 'text')\n"),
        (["--model", "name"], ""),
    ):
        command = [sys.executable, "-c", code, *options]
        done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.stdout == printed
        assert done.returncode == (0 if printed else 1)
    said = "sample: the following arguments are required: --texts; `python -m stages.sample --help` lists the options."
    assert without_time(done.stderr) == f"{said} No output was replaced."


def test_an_option_lets_a_stage_run_anywhere_with_the_parameters_of_its_signature():
    code = """
from pathlib import Path
from stages.runtime import command
from stages.runtime.parameters import Number

def sample(*, k: int = 7, model: Path = Path("data/model"), workers: Number = Number(0)):
    print(k, model, repr(workers))
    return workers

command.run(sample, elsewhere="model")
"""

    def run(*options: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", code, *options]
        return subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    done = run("--workers", "2")
    assert done.returncode == 1
    assert "params.yaml: no such file here; run from the root of the repository." in done.stderr
    for content in (None, "k: 1", "of: [another, project"):
        if content:
            Path("params.yaml").write_text(content)
        done = run("--model", "m", "--workers", "2")
        assert (done.stdout, done.stderr, done.returncode) == ("7 m 2\n", "", 2)
    done = run("--workers", "two")
    assert done.returncode == 1
    assert "argument --workers: invalid int value: 'two'; `python -m" in done.stderr
    assert "default: data/model" in run("--help").stdout


@pytest.mark.skipif(os.name == "nt", reason="asks for a terminal of POSIX")
def test_lines_begin_with_the_time_unless_they_go_to_a_terminal():
    code = """
import logging
from stages.runtime import command

def sample():
    logging.info("begin")
    raise ValueError("refused.")

command.run(sample)
"""
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    command, environment = [sys.executable, "-c", code], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
    begin, refusal = done.stderr.splitlines()
    assert re.fullmatch(rf"{time}     sample  begin", begin)
    assert re.fullmatch(rf"{time}  sample: refused\. No output was replaced\.", refusal)
    ours, theirs = os.openpty()
    subprocess.run(command, env=environment, stdout=theirs, stderr=theirs, check=False)
    assert os.read(ours, 1000).decode().split("\r\n")[:2] == [
        "   sample  begin", "sample: refused. No output was replaced.",
    ]  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="where names of files are UTF-8 always")
def test_a_locale_that_reads_names_of_files_otherwise_is_refused():
    code = "from stages.runtime import command\ndef sample(): print('ran')\ncommand.run(sample)"
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    ascii_names = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for environment, status in ((ascii_names, 1), ({"LC_ALL": "C"}, 0), ({**ascii_names, "PYTHONUTF8": "1"}, 0)):
        environment = {"PYTHONPATH": str(ROOT), **environment}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == status
        assert ("names of files are read as ascii, expected utf-8" in done.stderr) == bool(status)


def test_warnings_are_shown_once_each_in_one_line_of_the_log():
    code = """
import logging, warnings
import numpy as np
from stages.runtime import command
from stages.algorithms.partitions.processes import run_each

def sample():
    logging.info("begin")
    for _ in range(2):
        warnings.warn("first of\\n  two lines")
        with warnings.catch_warnings():
            warnings.warn("first of\\n  two lines")
        np.log(np.zeros(1) - 1)
    run_each(np.divide, [(1.0, 0.0)] * 3, workers=2)

if __name__ == "__main__":
    command.run(sample)
"""
    Path("sample.py").write_text(code)
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    done = subprocess.run([sys.executable, "sample.py"], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [without_time(line) for line in done.stderr.splitlines()] == [
        "sample  begin",
        "sample  first of two lines (UserWarning)",
        "sample  invalid value encountered in log (RuntimeWarning)",
        "sample  divide by zero encountered in divide (RuntimeWarning)",
    ]


def refusal_of(raising: str) -> str:
    """The last line that a stage says which does one thing."""
    Path("sample.py").write_text(
        "import numpy as np, os, json\nfrom pathlib import Path\nfrom stages.runtime import command\n"
        f"from stages.runtime.arrays import read_array\ndef sample(): {raising}\n"
        "if __name__ == '__main__': command.run(sample)"
    )
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    done = subprocess.run([sys.executable, "sample.py"], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("raising", ["np.linalg.inv(np.zeros((2, 2)))", "json.loads('x')", "np.stack([])"])
def test_what_a_library_says_without_a_name_comes_with_what_to_do(raising):
    said = refusal_of(raising)
    library = raising.split(".")[0].replace("np", "numpy")
    assert f"Error of {library}, which nothing here was known to raise); run `STAGE_TRACEBACK=1 python -m" in said
    assert said.endswith("and report what it shows. No output was replaced.")


@pytest.mark.parametrize(
    "raising",
    ["raise ValueError('refused.')", "read_array(Path('no.npy'), 'link', 'f8', 2)", "Path('no').read_bytes()"],
)
def test_refusals_and_what_the_system_says_of_a_file_stand_as_they_are(raising):
    assert "STAGE_TRACEBACK" not in refusal_of(raising)


EDITING = """
import logging
from pathlib import Path
from stages.runtime import command, files, record

def sample(*, k: int, C: float):
    import stages.algorithms.centroids
    record.write_text(Path("out"), "new")
    {edit}

if __name__ == "__main__":
    command.run(sample)
"""


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ("Path('params.yaml').write_text('k: 2\\nC: 5')", "params.yaml: C is 5.0, but was 1.0 when the run began"),
        ("Path('params.yaml').write_text('k: 2')", "params.yaml: parameter C is missing"),
        ("Path('stages/algorithms/centroids.py').touch()", "centroids.py: changed during the run"),
        ("files.read(Path('in')), Path('in').write_text('x')", "in: changed during the run"),
        ("Path('params.yaml').write_text('C: 1.0  # no other value\\nk: 2')", None),
        ("Path('stages/reduce.py').touch()", None),
    ],
    ids=["parameter", "parameter gone", "code", "input", "comment", "code of another stage"],
)
def test_what_a_run_used_is_the_same_at_its_end_or_nothing_is_replaced(edit, said):
    shutil.copytree(ROOT / "stages", "stages", ignore=shutil.ignore_patterns("__pycache__"))
    Path("sample.py").write_text(EDITING.format(edit=edit))
    Path("params.yaml").write_text("k: 2\nC: 1")
    Path("params.schema.json").write_text('{"properties": {}}')
    Path("out").write_text("old")
    done = subprocess.run([sys.executable, "sample.py"], env={"PYTHONPATH": "."}, capture_output=True, text=True)
    assert Path("out").read_text() == ("old" if said else "new")
    if said:
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.endswith("No output was replaced.\n")
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="closes streams as a POSIX shell does")
@pytest.mark.parametrize("closed", [">&- 2>&-", "2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_stage_runs_without_standard_streams(closed):
    code = """
import logging, os, sys, warnings
from pathlib import Path
from stages.algorithms.partitions.processes import run_each
from stages.runtime import command
from stages.runtime.progress import progress

def sample():
    logging.info("begin")
    warnings.warn("a warning")
    os.write(2, b"what a library prints")
    with Path("out.txt").open("w") as file:
        file.write(f"{run_each(divmod, [(7, 2)] * 3, workers=2, done=progress('divisions', 3))}")
    print("end", flush=True)
    raise ValueError("refused after all")

if __name__ == "__main__":
    command.run(sample)
"""
    Path("sample.py").write_text(code)
    Path("params.yaml").write_text("{}")
    Path("params.schema.json").write_text('{"properties": {}}')
    done = subprocess.run(["sh", "-c", f'"$0" sample.py {closed}', sys.executable], env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert Path("out.txt").read_text() == "[(3, 1), (3, 1), (3, 1)]"


@pytest.mark.long
def test_every_stage_runs_without_standard_streams(copy):
    outputs = copy.digests()
    for stage in STAGES:
        copy.run("sh", "-c", f"python -m stages.{stage} <&- >&- 2>&-")
    assert copy.digests() == outputs
