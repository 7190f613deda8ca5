"""Make the pages that carry other people's scripts inside, so that they open offline.

    python .dvc/page/make_template.py
    python .dvc/page/make_template.py --check

The first writes template.html, which `dvc plots show` fills in, from page.html, and map_template.html, which the stage
`map` fills in, from map.html. It is run again after a change of these, or to move to other versions. The second writes
nothing, and says whether they are what these and the registry's packages make, byte for byte. Both need npm, which asks
the registry that it is configured for and holds what it gets against the registry's digests.

The templates in .dvc/plots are written in Vega-Lite 5, as DVC's own and the VS Code extension's are; 6 draws the same.
The three packages of Vega are under the BSD 3-Clause licence of LICENSE.vega, which is vega's; those of the two others
differ from it in the year alone. Licences have to go wherever the packages go, so they are put in front of them.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent


class Template(NamedTuple):
    """A page, what is put into it, and the licence of that."""

    source: str
    licence: str
    scripts: dict[str, str]  # of npm packages, in this order: name@version to the file


TEMPLATES = {
    "template.html": Template(
        "page.html",
        "LICENSE.vega",
        {
            "vega@6.4.0": "build/vega.min.js",
            "vega-lite@6.5.0": "build/vega-lite.min.js",
            "vega-embed@7.3.0": "build/vega-embed.min.js",
        },
    ),
    "map_template.html": Template(
        "map.html",
        "LICENSE.map",
        {
            "regl@2.1.1": "dist/regl.min.js",
            "pub-sub-es@3.0.0": "dist/index.js",
            "regl-scatterplot@1.16.0": "dist/regl-scatterplot.min.js",
        },
    ),
}


def read_script(package: str, path: str) -> str:
    """A script of an npm package."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, package]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as files:
            script = files.extractfile(f"package/{path}").read().decode("utf-8")
    # A source map would be looked for beside the page; "</script" would end the script.
    script = re.sub(r"^//# sourceMappingURL=.*$", "", script, flags=re.M).replace("</script", r"<\/script").strip()
    # A module exports to nobody here: what it would export gets the global name that the next package asks for.
    if exported := re.search(r"^export default (\w+);$", script, flags=re.M):
        script = re.sub(r"^export .*$", "", script, flags=re.M).strip()
        script = f"var {exported[1]} = (() => {{\n{script}\nreturn {exported[1]};\n}})();"
    return script


def make_page(template: Template) -> str:
    """The page with the licence and the scripts in it."""
    licence = (FOLDER / template.licence).read_text(encoding="utf-8").strip()
    scripts = [f"<!-- {', '.join(template.scripts)}\n\n{licence}\n-->"]
    scripts += [f"<script>{read_script(package, path)}</script>" for package, path in template.scripts.items()]
    return (FOLDER / template.source).read_text(encoding="utf-8").replace("BUNDLE", "\n".join(scripts), 1)


def main() -> None:
    for name, template in TEMPLATES.items():
        path, page = FOLDER / name, make_page(template)
        made_of = f"{template.source} with {', '.join(template.scripts)}"
        if sys.argv[1:] != ["--check"]:
            path.write_text(page, encoding="utf-8")
        elif path.read_text(encoding="utf-8") == page:
            print(f"{path}: {made_of} as the registry has them")
        else:
            sys.exit(f"{path}: not {made_of}; run {__file__} and look at what Git shows.")


if __name__ == "__main__":
    main()
