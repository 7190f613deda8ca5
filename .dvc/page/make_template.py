"""Make template.html, the page that `dvc plots show` fills in: page.html with Vega inside, so that it opens offline.

    python .dvc/page/make_template.py

Needs npm, and is run again only to move to other versions. Vega-Lite 5 is what the templates in .dvc/plots are written
in, as DVC's own and the VS Code extension's are. The three packages are under the BSD 3-Clause licence of LICENSE.vega,
word for word; it has to go wherever they go, so it is put in front of them. (The archive of this version of vega has
none; the text is that of the version before.)
"""

import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGES = ("vega@5.33.1", "vega-lite@5.23.0", "vega-embed@6.29.0")


def read_script(package: str) -> str:
    """The minified script of an npm package."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, package]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            name = package.partition("@")[0]
            script = files.extractfile(f"package/build/{name}.min.js").read().decode("utf-8")
    # A source map would be looked for beside the page; "</script" would end the script.
    return re.sub(r"^//# sourceMappingURL=.*$", "", script, flags=re.M).replace("</script", r"<\/script").strip()


def main() -> None:
    folder = Path(__file__).parent
    licence = (folder / "LICENSE.vega").read_text(encoding="utf-8").strip()
    scripts = [f"<!-- {', '.join(PACKAGES)}\n\n{licence}\n-->"]
    scripts += [f"<script>{read_script(package)}</script>" for package in PACKAGES]
    page = (folder / "page.html").read_text(encoding="utf-8").replace("BUNDLE", "\n".join(scripts))
    (folder / "template.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
