"""What reads and runs pages: it sees what is not as the page says."""

from __future__ import annotations

import signal
from pathlib import Path

from reading import parsed, read
from shells import Shell, unlike
from tables import CODES, EXCUSES, LATER, PRESUMED, STAND_INS, excuse
from test_help import EXAMPLES, pages
from test_walks import PAGES

PAGE = """\
First `one.py`:

```python
print(1)
```

and then

```
$ python one.py \\
    2>&1
1
...
$ cat <<'END' >two
x
END
```

```
Waiting for somebody.
```

```
export WHO=me  # somebody
kfp-bento --version
```
"""


def test_commands_have_their_lines_and_what_they_print() -> None:
    page = parsed("page.md", PAGE)
    assert [(one.line, one.text, one.shown) for one in page.commands] == [
        (10, "python one.py \\\n    2>&1", ("1", "...")),
        (14, "cat <<'END' >two\nx\nEND", ()),
        (24, "export WHO=me  # somebody", ()),
        (25, "kfp-bento --version", ()),
    ]
    assert page.files == {"one.py": "print(1)\n"}
    assert page.others == ["Waiting for somebody."]


def test_numbers_may_differ_and_words_may_not() -> None:
    told = "Built: credit:0123456789abcdef\n  rows   178\n  place  /tmp/x/y\nDone in 3.25 s\n"
    assert unlike(("Built: credit:fedcba9876543210", "...", "  rows 12", "Done in 1 s"), told) == []
    assert unlike(("Built: fraud:fedcba9876543210", "Done in 1 s"), told) == [
        "Built: fraud:fedcba9876543210"
    ]
    assert unlike(("Done in 1 s", "Built: credit:0f3c"), told) == ["Built: credit:0f3c"]
    assert unlike(("It is 0.994382 (before 0.9);",), "It is 1 (before 1);") == []
    assert unlike(("  place /home/ada/z", "Done in … s"), told) == []


def test_a_terminal_keeps_what_was_exported_and_ends_what_goes_on(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shell = Shell(here, {"PATH": "/usr/bin:/bin"})
    assert shell.run("export WHO='a  b'; (exit 3)") == (3, "")
    assert shell.run('echo "$WHO"; echo x >made') == (0, "a  b\n")
    assert (here / "made").exists()
    script = here / "kfp-bento"
    script.write_text("#!/bin/sh\necho It answers at http://x\nexec sleep 60\n")
    script.chmod(0o755)
    shell.run("export PATH=$PWD:$PATH")
    assert shell.run("kfp-bento bento serve ./bento") == (0, "It answers at http://x\n")
    ((_, code, told),) = shell.end()
    assert (code, told) == (-signal.SIGINT, "It answers at http://x\n")


def test_each_excuse_and_stand_in_is_needed() -> None:
    import re

    texts = [one.text for name in PAGES for one in read(name).commands] + EXAMPLES
    assert [one for one in EXCUSES if one not in map(excuse, texts)] == []
    assert [one for one in STAND_INS if not any(re.search(one, text) for text in texts)] == []
    known = {*PAGES, *(page.name for page in pages())}
    assert (PRESUMED.keys() | LATER) - known == set()
    assert [
        (name, part)
        for name, part in CODES
        if not any(part in one.text for one in read(name).commands)
    ] == []
