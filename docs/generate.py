"""Write the parts of the documentation that the program itself knows: ``python docs/generate.py``.

``tests/test_docs.py`` compares what lies here with what this would write.
"""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from probewatch.corpus.attacks import ATTACKS
from probewatch.corpus.clients import USES
from probewatch.corpus.recipe import Recipe
from probewatch.data.columns import ARTICLE, DEFAULT, FEATURES
from probewatch.serve.cli import app

HERE = Path(__file__).parent
WIDTH = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}


EXIT_CODES = """Progress and notes go to stderr, tables or the one JSON object of `--json` to stdout.

| exit code | meaning |
|---|---|
| 0 | done; alerts are no failure |
| 1 | who reads standard output has left, as `head` does (2 for `watch`, whose findings go there) |
| 2 | a mistake, told in a sentence on stderr; what stood in `--out` before stands there still |
| 130 | stopped by Ctrl-C |
| 143 | stopped by SIGTERM |

`train --resume` goes on with a run that was stopped or killed. [Logs, labels, verdicts and settings](formats.md) are
described on a page of their own.
"""


def command_line() -> str:
    """Every verb's help text."""
    verbs = list(get_command(app).commands)
    parts = ["# The command line\n", EXIT_CODES]
    for words in ([], *([verb] for verb in verbs)):
        text = CliRunner().invoke(app, [*words, "--help"], env=WIDTH, prog_name="probewatch").stdout
        text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n")
        parts.append(f"## probewatch {' '.join(words)}".rstrip() + f"\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def features() -> str:
    """The FEATURES table."""
    rows = [
        f"| `{name}` | {feature.group} | {'article' if name in ARTICLE else 'default' if name in DEFAULT else ''} "
        f"| {feature.text} |"
        for name, feature in FEATURES.items()
    ]
    head = """# The features

Every feature is causal: it knows the query it stands at and those before it in its session, so a session, a prefix of
it and a stream have the same numbers. `group` is what a log must hold for it (a feature whose group is missing is
masked); `scale` and distances need the usual queries of the model, which training learns and the bundle keeps, or a
[profile](profiles.md). `profile` and `members` need a profile; `members` one made from training records; `model` says
whether training had queries of the model. One that is known from neither is scaled by the session's own running
spread. Distances are in units of the usual distance between two queries of the model, as logarithms; confidences are
log-odds; gaps are logarithms of seconds.

| feature | group | preset | what it says |
|---|---|---|---|
"""
    return head + "\n".join(rows) + "\n"


def families() -> str:
    """The tables of attacks and of uses."""
    mark = {False: "", True: "further"}
    attacks = [f"| `{name}` | {one.text} | {one.paper} | {mark[one.further]} |" for name, one in ATTACKS.items()]
    uses = [f"| `{name}` | {one.text} | {one.attack} | {mark[one.further]} |" for name, one in USES.items()]
    return f"""# The families of a corpus

What `probewatch corpus` attacks and uses a model by, as `family` in `labels.csv` names it. Papers are named in full where
the code is, in `src/probewatch/corpus`.

## Membership inference

| family | what it does | described by | mix |
|---|---|---|---|
{chr(10).join(attacks)}

Any of them may hide (`evasions`): at a human's pace or in office hours, behind other queries, in another order, after
harmless ones, or with several keys.

## Uses, and attacks on something else

| family | what it is | `attack` | mix |
|---|---|---|---|
{chr(10).join(uses)}

## Recipes

`--recipe FILE` replaces settings of the mix. A table names all that is in the mix, with its weight; what it does not name
is left out. The *further* families above are in no mix that does not name them: many of these uses ask as some attack
does, so they take more sessions to learn. [drawn.toml](../bench/drawn.toml) is a recipe of all; with it, give
`--sessions 2000` or more.

```toml
days = 3
returning = [0.0, 0.2]

[attacks]
lira_offline = 2      # twice as many as of each other
rmia = 1
label_noise = 1

[uses]
people = 1
batch = 3
rescoring = 1         # who goes on the allow-list; nobody where it is left out
```

| setting | usual | what it is |
|---|---|---|
{chr(10).join(_settings())}
"""


def _settings() -> list[str]:
    """A row for each attribute that the docstring of a recipe explains."""
    usual = {name: "" if isinstance(value, dict) else f"`{value}`" for name, value in Recipe().to_json().items()}
    told = re.findall(r"^        (\w+(?:, \w+)*): (.+(?:\n            .+)*)", Recipe.__doc__ or "", re.MULTILINE)
    rows = [(names.split(", "), " ".join(text.split())) for names, text in told]
    return [
        f"| {', '.join(f'`{name}`' for name in names)} | {', '.join(filter(None, map(usual.get, names)))} | {text} |"
        for names, text in rows
    ]


PAGES = {"cli.md": command_line, "families.md": families, "features.md": features}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (HERE / name).write_text(write(), "utf-8")
