"""The model is an artifact of DVC: registered by a Git tag, shown and fetched without a server."""

import json
import subprocess
import sys

from conftest import ROOT


def test_a_registered_model_is_shown_and_fetched_by_its_version(copy, tmp_path):
    copy.run("gto", "register", "clusters", "--version", "v1.0.0")
    model = copy.folder / "data" / "model" / "classifier.npz"
    registered = model.read_bytes()
    show = "import dvc.api, json; print(json.dumps(dvc.api.artifacts_show('clusters', version='v1.0.0')))"
    said = copy.run("python", "-c", show).stdout
    assert json.loads(said.splitlines()[-1])["path"] == "data/model"
    model.write_bytes(b"another")
    copy.run("dvc", "artifacts", "get", str(copy.folder), "clusters", "--rev", "v1.0.0", "-o", str(tmp_path / "got"))
    assert (tmp_path / "got" / "classifier.npz").read_bytes() == registered
    assert sorted(path.name for path in (tmp_path / "got").glob("[!.]*")) == [
        "classifier.npz", "model.json", "reduction.npz",
    ]  # fmt: skip
    code = "from stages.model import Clusters; print(Clusters.load('got').columns)"
    command, options = [sys.executable, "-c", code], {"env": {"PYTHONPATH": str(ROOT)}, "cwd": tmp_path}
    assert subprocess.run(command, **options, capture_output=True, check=True).stdout == b"100\n"


def test_a_readme_in_a_folder_of_code_makes_no_stage_run_again(copy):
    wings = [path.parent for path in ROOT.glob("stages/*/**/README.md")]
    assert wings
    for wing in wings:
        (copy.folder / wing.relative_to(ROOT) / "README.md").write_text("edited")
    assert "up to date" in copy.run("dvc", "status").stdout
