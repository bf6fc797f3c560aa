"""The memory of a measured command is that of all its processes, forked workers included."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bench import process


def test_workers_that_were_forked_are_counted(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "workers = []\n"
        "for _ in range(2):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        held = b'x' * (64 << 20)\n"
        "        time.sleep(1)\n"
        "        os._exit(0)\n"
        "    workers.append(pid)\n"
        "for pid in workers:\n"
        "    os.waitpid(pid, 0)\n"
    )
    used = process.run([sys.executable, script], os.environ, tmp_path / "log", watch_memory=True)
    assert used.peak_rss > 2 * (64 << 20)
