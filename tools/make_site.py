"""Pages of the site that are made from code, for MkDocs (`hooks` in mkdocs.yml).

A recipe is a program of examples/, a reference page what `python -m mtorch explain` prints, the programming interface
what mkdocstrings reads. Links from docs/ to files of the repository lead to the page about that file, or become text.
"""

import ast
import html
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from latex2mathml.converter import convert  # noqa: E402
from mkdocs.structure.files import File  # noqa: E402

from mtorch.insight.explain import page  # noqa: E402
from mtorch.insight.explain.names import families  # noqa: E402

INTERFACE = {
    "Core": ["mtorch.layer.Layer", "mtorch.parameter.Parameter", "mtorch.parameter.Buffer", "mtorch.module.Module"],
    "Training": [
        "mtorch.training.trainer.Trainer", "mtorch.training.train_epoch", "mtorch.training.evaluate",
        "mtorch.optim.base.Optimizer", "mtorch.losses.base.LossFunction", "mtorch.losses.base.Loss",
    ],
    "Data": ["mtorch.data.ArrayDataset", "mtorch.data.DataLoader", "mtorch.data.digits", "mtorch.data.standardise"],
    "Saving": ["mtorch.checkpoint.save", "mtorch.checkpoint.load"],
    "Looking inside": [
        "mtorch.insight.summary.summary", "mtorch.insight.inspection.inspect", "mtorch.testing.check_gradients",
    ],
    "Models": ["mtorch.models"],
}  # fmt: skip


def recipes() -> dict[str, str]:
    """{page: text} of the programs in examples/, each its docstring and its code."""
    pages, rows = {}, ["# Recipes", "", "Each program ends with a check of what it claims. A test runs them all.", ""]
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text()
        what = ast.get_docstring(ast.parse(text)) or ""
        title, code = path.stem.replace("_", " "), text.split('"""', 2)[2].strip()
        pages[f"recipes/{path.stem}.md"] = (
            f"# {title}\n\n{what}\n\n```sh\npython examples/{path.name}\n```\n\n```python\n{code}\n```\n"
        )
        rows.append(f"* [{title}]({path.stem}.md): {what.splitlines()[0]}")
    return {"recipes/index.md": "\n".join(rows) + "\n"} | pages


def references() -> tuple[list, dict[str, str]]:
    """The navigation and {page: text} of every layer, loss, optimizer and schedule, by family."""
    index = ["# Reference", "", "`python -m mtorch explain NAME` prints each of these pages in a terminal.", ""]
    nav: list = ["reference/index.md", "reference/interface.md"]
    pages: dict[str, str] = {}
    for family, names in families().items():
        index += [f"**{family}**", "", " · ".join(f"[{name}]({name}.md)" for name in names), ""]
        nav.append({family: [f"reference/{name}.md" for name in names]})
        pages |= {f"reference/{name}.md": page(name) for name in names}
    index += ["**Everything else**: [Programming interface](interface.md)", ""]
    interface = ["# Programming interface", ""]
    for title, names in INTERFACE.items():
        interface += [f"## {title}", "", *(f"::: {name}\n    options:\n      heading_level: 3\n" for name in names)]
    return nav, {"reference/index.md": "\n".join(index), "reference/interface.md": "\n".join(interface)} | pages


def on_config(config):
    """Fills the sections of the navigation whose pages are made here."""
    found = recipes()
    nav, pages = references()
    made = {"Recipes": list(found), "Reference": nav, "About": ["results.md"]}
    for section in config["nav"]:
        for title, entries in section.items() if isinstance(section, dict) else ():
            if title in made:
                entries += made[title]
    config["made"] = found | pages | {"results.md": (ROOT / "benchmarks" / "RESULTS.md").read_text()}
    return config


def on_files(files, config):
    for name, text in config["made"].items():
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "results.png", abs_src_path=str(ROOT / "benchmarks" / "results.png")))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to files outside docs/ become links to their page, or their text alone."""

    def target(match):
        text, link = match.groups()
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), link))
        if place.startswith("docs/") or "://" in link or link.startswith("#"):
            return match[0]
        stem = posixpath.splitext(posixpath.basename(place))[0]
        found = {"benchmarks/RESULTS.md": "results.md", f"examples/{stem}.py": f"recipes/{stem}.md"}.get(place)
        if found is None and re.fullmatch(r"\w+", text) and files.get_file_from_path(f"reference/{text}.md"):
            found = f"reference/{text}.md"
        if found is None:
            return text
        return f"[{text}]({posixpath.relpath(found, posixpath.dirname(page.file.src_uri) or '.')})"

    return re.sub(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)", target, markdown)


def on_page_content(content, page, config, files):
    """Formulas of the notebook as MathML, which a browser draws without the help of another host."""
    if not page.file.src_uri.endswith(".ipynb"):
        return content

    def formula(match):
        block, inline = match.groups()
        return convert(html.unescape(block or inline), display="block" if block else "inline")

    content = re.sub(
        r"<script[^>]*>(?:(?!</script>).)*mermaid.*?</script>", "", content, flags=re.S
    )  # asks another host
    parts = re.split(r"(<(?:pre|style|script)\b.*?</(?:pre|style|script)>)", content, flags=re.S)
    parts[::2] = [re.sub(r"\$\$(.+?)\$\$|\$([^$]+?)\$", formula, part, flags=re.S) for part in parts[::2]]
    return "".join(parts)
