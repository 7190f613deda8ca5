"""Make template.html, the page that `dvc plots show` fills in: page.html with Vega inside, so that it opens offline.

    python .dvc/page/make_template.py
    python .dvc/page/make_template.py --check

The first writes it, and is run again only to move to other versions; the second writes nothing, and says whether it is
what page.html and the registry's packages make, byte for byte. Both need npm, which asks the registry that it is
configured for and holds what it gets against the registry's digests.

The templates in .dvc/plots are written in Vega-Lite 5, as DVC's own and the VS Code extension's are; 6 draws the same.
The three packages are under the BSD 3-Clause licence of LICENSE.vega, which is vega's; those of the two others differ
from it in the year alone. It has to go wherever they go, so it is put in front of them.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGES = ("vega@6.4.0", "vega-lite@6.5.0", "vega-embed@7.3.0")


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


def make_page(folder: Path) -> str:
    """page.html with the licence and the scripts in it."""
    licence = (folder / "LICENSE.vega").read_text(encoding="utf-8").strip()
    scripts = [f"<!-- {', '.join(PACKAGES)}\n\n{licence}\n-->"]
    scripts += [f"<script>{read_script(package)}</script>" for package in PACKAGES]
    return (folder / "page.html").read_text(encoding="utf-8").replace("BUNDLE", "\n".join(scripts))


def main() -> None:
    folder = Path(__file__).parent
    template, page = folder / "template.html", make_page(folder)
    if sys.argv[1:] != ["--check"]:
        template.write_text(page, encoding="utf-8")
    elif template.read_text(encoding="utf-8") == page:
        print(f"{template}: page.html with {', '.join(PACKAGES)} as the registry has them")
    else:
        sys.exit(f"{template}: not page.html with {', '.join(PACKAGES)}; run {__file__} and look at what Git shows.")


if __name__ == "__main__":
    main()
