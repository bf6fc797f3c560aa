"""Build the pages as a site: `python docs/site/build.py build/site`.

The pages lie in a copy as they lie in the repository, so that links between them, the components'
pages and examples hold. What is generated from the code comes beside them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docstring_parser import parse
from typer.main import get_command

from kfp_bento.runtime import deployments
from kfp_bento.runtime.cli.application import app
from kfp_bento.runtime.local.pipelines import SHIPPED, load_pipeline

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGES = (
    *("[!R]*.md", "docs/*.md", "docs/pictures/*"),
    *(
        "components/*/README.md",
        "examples/*/README.md",
        "runtime/**/README.md",
        "tests/*/README.md",
    ),
)
GENERATED = {
    "pipelines": "Pipelines and their parameters",
    "commands": "Commands and their options",
    "targets": "Targets and their options",
}
SECTION = re.compile(r"^## (.+)\n\n((?:- .+\n)+)", re.MULTILINE)
NAMED = re.compile(r"\[(?:[\w-]+/)*[\w-]+\.md\]\(")
LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")


def main(site: Path) -> None:
    """Build the site into a directory; a link that leads nowhere is an error."""
    source = site.with_name(f"{site.name}-pages")
    shutil.rmtree(source, ignore_errors=True)
    for page in (page for pattern in PAGES for page in ROOT.glob(pattern)):
        target = source / page.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)
        if page.suffix == ".md":
            target.write_text(in_the_site(page))
    notebook = json.loads((ROOT / "examples/notebook.ipynb").read_text())
    (source / "examples/notebook.md").write_text("\n\n".join(cells(notebook)))
    for name, text in (
        ("pipelines", pipelines()),
        ("commands", commands()),
        ("targets", targets()),
    ):
        page = source / f"docs/generated/{name}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"# {GENERATED[name]}\n\n{text}")
    start = source / "docs/README.md"
    start.write_text(SECTION.sub(navigation, start.read_text()))
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(HERE)]
    subprocess.run([*command, str(source), str(site)], check=True)
    (site / "index.html").write_text(
        '<!doctype html><meta http-equiv="refresh" content="0; url=docs/README.html">\n'
    )


def in_the_site(page: Path) -> str:
    """Give a page as the site has it: outside the navigation where only links lead to it."""
    text = page.read_text().replace("notebook.ipynb)", "notebook.md)")
    text = NAMED.sub("[](", text)  # a page is called by its title, where it was by its file
    apart = page.name == "README.md" and page.parent != ROOT / "docs"
    return f"---\norphan: true\n---\n\n{text}" if apart else text


def navigation(section: re.Match[str]) -> str:
    """Turn a section of links on the first page into a part of the navigation."""
    entries = [
        f"{title} <{target.removesuffix('.md')}>" for title, target in LINK.findall(section[2])
    ]
    if section[1] == "Look up":
        entries[1:1] = [f"{title} <generated/{name}>" for name, title in GENERATED.items()]
    tree = "\n".join(["```{toctree}", f":caption: {section[1]}", ":hidden:", "", *entries, "```"])
    return f"{section[0]}\n{tree}\n"


def cells(notebook: dict[str, Any]) -> Iterator[str]:
    """Give the cells of a notebook as Markdown, with what they have printed."""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield text
            continue
        yield f"```python\n{text}\n```"
        printed = "".join(
            line
            for output in cell["outputs"]
            for line in output.get("text", ())
            if output.get("name") == "stdout"
        )
        if printed.strip():
            yield f"```text\n{printed.rstrip()}\n```"


def table(headings: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Give a table; text in cells is kept from ending them."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return "".join(f"| {' | '.join(map(cleaned, line))} |\n" for line in lines)


def cleaned(cell: str) -> str:
    """Give text that does not end its cell, and begins no element unless it is shown as code."""
    text = " ".join(cell.replace("|", "\\|").split())
    return text if "`" in text else text.replace("<", "&lt;")


def pipelines() -> str:
    """Describe the parameters of the shipped pipelines, as their run forms ask for them."""
    parts = []
    for name in SHIPPED:
        specification = load_pipeline(name).component_spec
        told = parse(specification.description or "")
        rows = (
            (f"`{key}`", str(one.type), default(one), one.description or "")
            for key, one in (specification.inputs or {}).items()
        )
        heads = ("parameter", "type", "default", "meaning")
        parts.append(f"## {name}\n\n{told.short_description or ''}\n\n{table(heads, rows)}\n")
    return "\n".join(parts)


def default(parameter: Any) -> str:
    """Give a default as a table shows it."""
    if not parameter.optional:
        return "has to be given"
    return f"`{parameter.default!r}`" if parameter.default not in (None, "") else ""


def commands() -> str:
    """Describe every command with its arguments and options."""
    parts = []
    for path, command in leaves(get_command(app), ()):
        rows = (
            (
                " ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
                if one.opts[0].startswith("-")
                else f"`{(one.metavar or one.name or '').upper()}`",
                (getattr(one, "help", "") or "")
                + (" **Has to be given.**" if one.required else ""),
            )
            for one in command.params
        )
        said = (command.help or "").replace("\n\n", "\n").strip()
        example = (command.epilog or "").removeprefix("Example: ")
        parts.append(
            f"## {path}\n\n{said}\n\n```\n{example}\n```\n\n{table(('option', 'meaning'), rows)}\n"
        )
    return "\n".join(parts)


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Give the commands below a group by their path."""
    if not hasattr(command, "commands"):
        yield " ".join(path), command
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, (*path, name))


def targets() -> str:
    """Describe the options of every target."""
    parts = []
    for name in deployments.TARGETS:
        rows = (
            (f"`{one.name}`", one.type, f"`{one.default}`" if one.default else "", one.meaning)
            for one in deployments.option_docs(deployments.target_of(name).options_type)
        )
        heads = ("option", "type", "default", "meaning")
        parts.append(f"## {name}\n\n{table(heads, rows)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
