"""Look for known holes in what the lock files install; `make audit`.

pip-audit asks the package index, which repeats the advisories of the Python Packaging Authority.
A mirror may serve packages without them: what could not be judged is counted and said, and where
nothing could be judged the audit is no success.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOUND, NOTHING_JUDGED = 1, 3
_SHOWN = 5


def audited(lock: Path) -> Mapping[str, Any]:
    """What pip-audit says about the versions in a lock file."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
    done = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off", "--requirement", str(lock)],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.strip():
        raise SystemExit(f"pip-audit failed for {lock.name}:\n{done.stderr}")
    report: Mapping[str, Any] = json.loads(done.stdout)
    return report


def told(name: str, report: Mapping[str, Any]) -> tuple[str, int]:
    """What to say about one lock file, and with which status to end."""
    packages: Sequence[Mapping[str, Any]] = report["dependencies"]
    judged = [package for package in packages if "skip_reason" not in package]
    missing = [package["name"] for package in packages if "skip_reason" in package]
    lines = []
    for package in judged:
        for hole in package.get("vulns", ()):
            names = ", ".join([hole["id"], *hole.get("aliases", ())])
            mended = ", ".join(hole.get("fix_versions", ())) or "no version yet"
            lines.append(f"  {package['name']} {package['version']}: {names}; mended in {mended}")
    status = FOUND if lines else 0 if judged else NOTHING_JUDGED
    lines.insert(0, f"{name}: {len(judged)} of {len(packages)} packages judged, {len(lines)} holes")
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        lines.append(f"  not judged, the index has no data: {', '.join(missing[:_SHOWN])}{more}")
    return "\n".join(lines), status


def main(locks: Sequence[str]) -> int:
    """Audit lock files; the worst status counts: a hole before data that is not there."""
    results = [told(Path(lock).name, audited(Path(lock))) for lock in locks]
    print("\n".join(text for text, _ in results))
    statuses = {status for _, status in results}
    if statuses == {NOTHING_JUDGED}:
        print("Nothing could be judged: this package index serves no advisories. Run it elsewhere.")
    return next((status for status in (FOUND, NOTHING_JUDGED) if status in statuses), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
