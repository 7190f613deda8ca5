"""What results depend on beside parameters and data: the code and its packages."""

import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import xxhash

STAGES = Path(__file__).parents[1]
PACKAGES = ("numpy", "scipy", "scikit-learn", "threadpoolctl", "xxhash", "dask", "distributed")
SOURCES = "stages/"


def digest_code(names: Iterable[str]) -> str:
    """Digest of modules of the stages and of all modules below folders, whatever the line ends of a checkout."""
    paths = [STAGES / name for name in names]
    sources = [source for path in paths for source in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    said = (f"{source.relative_to(STAGES).as_posix()}\0{source.read_text(encoding='utf-8')}\0" for source in sources)
    return xxhash.xxh3_128_hexdigest("".join(said).encode())


# When a process begins, not when it is asked: code that is edited later is not the code that runs in it.
OWN_CODE = digest_code(["."])


@cache
def environment() -> dict[str, str]:
    """All of it by name, for this process; equal where the same rows give the same bytes."""
    return {
        SOURCES: OWN_CODE,
        "Python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def why_not_alike(here: dict[str, str], there: dict[str, str]) -> str | None:
    """What differs first between the environments of this machine and of a worker, and the remedy; None if nothing."""
    for name, own in here.items():
        other = there.get(name, "missing")
        if other == own:
            continue
        if name == SOURCES:
            return (
                f"it runs other code of {SOURCES} (digest {other[:8]}, here {own[:8]}); let it see this checkout, and "
                "start it again"
            )
        return (
            f"its {name} is {other}, here {own}; install requirements-distributed.txt with the same Python there, and "
            "start it again"
        )
    return None
