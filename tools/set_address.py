"""Set the address of this repository, and the branch or tag that readers get, everywhere at once.

Usage: set_address.py [--repository OWNER/NAME] [--ref main|v0.1.0]

Both stand in _config.yml. Pages, README, notebooks and settings repeat them, and
tests/test_house.py holds them to it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "_config.yml"
ENDS = (".md", ".ipynb", ".py", ".yml", ".toml", ".cff", ".html", ".js", ".po")


@dataclass(frozen=True)
class Address:
    """Where the repository is, and which branch or tag of it readers get."""

    owner: str
    name: str
    ref: str

    def places(self) -> dict[str, str]:
        """Return each form of the address, as a pattern, and what it should be."""
        name, tag = re.escape(self.name), "" if self.ref == "main" else f"@{self.ref}"
        pages = f"{self.owner}.github.io/{self.name}/"
        raw = f"raw.githubusercontent.com/{self.owner}/{self.name}/{self.ref}/"
        blob = f"/github/{self.owner}/{self.name}/blob/{self.ref}/"  # in Colab
        return {
            rf"(?<=git\+https://)github\.com/[\w-]+/{name}(?:@[\w.-]+)?": f"{self.site}{tag}",
            rf"(?<!git\+https://)github\.com/[\w-]+/{name}\b": self.site,
            rf"[\w-]+\.github\.io/{name}/": pages,
            rf"raw\.githubusercontent\.com/[\w-]+/{name}/[\w.-]+/": raw,
            rf"/github/[\w-]+/{name}/blob/[\w.-]+/": blob,
        }

    @property
    def site(self) -> str:
        """The address without https."""
        return f"github.com/{self.owner}/{self.name}"


def read() -> Address:
    """Return what _config.yml says."""
    repository = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))["repository"]
    owner, name = repository["url"].removeprefix("https://github.com/").split("/")
    return Address(owner, name, repository["branch"])


def texts() -> Iterator[Path]:
    """Find the files in which the address may stand."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    yield from (ROOT / n for n in names if n.endswith(ENDS) and (ROOT / n).is_file())


def main() -> None:
    """Rewrite the files."""
    old = read()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", default=f"{old.owner}/{old.name}")
    parser.add_argument("--ref", default=old.ref)
    options = parser.parse_args()
    new = Address(*options.repository.split("/"), options.ref)
    changed = 0
    for path in texts():
        before = after = path.read_text(encoding="utf-8")
        for pattern, wanted in zip(old.places(), new.places().values(), strict=True):
            after = re.sub(pattern, wanted, after)
        if path == SETTINGS:
            after = re.sub(r"(?m)^  branch: .*$", f"  branch: {new.ref}", after)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    print(f"{new.site}, {new.ref}: {changed} files changed")


if __name__ == "__main__":
    main()
