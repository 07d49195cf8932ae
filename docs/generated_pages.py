"""Pages written from the code before each build: methods, options, spaces, records, measures, examples and notebooks.

A page is written only if the content changed, so that Sphinx reads only changed pages again.
"""

import inspect
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
EXAMPLES: Final = ROOT / "analysis" / "examples"
# Order of the pages, with headings.
FAMILIES: Final = {
    "basic": "Controls and plain distillation",
    "logits": "Logits",
    "features": "Penultimate features",
    "maps": "Feature maps",
    "text": "Text",
    "trained_networks": "Several networks, or a teacher that learns",
}


def write_pages(folder: Path) -> None:
    """Write all generated pages to a folder, and remove pages that are no longer generated.

    Args:
        folder: folder inside the sources of the documentation.
    """
    pages = {
        **method_pages(),
        "command_line.md": command_line_page(),
        "search_spaces.md": spaces_page(),
        "records.md": records_page(),
        "measures.md": measures_page(),
        "examples.md": examples_page(),
        "config_file.yaml": config_file(),
        **notebook_pages(),
    }
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.rglob("*.*"):
        if path.relative_to(folder).as_posix() not in pages:
            path.unlink()


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table. Vertical bars inside cells are escaped.

    Args:
        header: titles of the columns.
        rows: cells of each row.
    """
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


# -- methods ---------------------------------------------------------------------------------------------------------


def method_pages() -> dict[str, str]:
    """Return a page for each method, and a page that lists them."""
    from importlib import import_module

    from trainables.methods.registry import METHODS

    costs = recorded_costs()
    pages = {}
    lines = [
        "# Methods",
        "",
        "Each page has the formula, the source with our deviations, the settings, and the cost of training. The pages",
        "are written from the code, so they describe the version that you run.",
        "",
    ]
    for family, title in FAMILIES.items():
        specs = import_module(f"trainables.spec.methods.{family}").SPECS
        lines += [f"## {title}", "", "```{toctree}", ":maxdepth: 1", ""]
        for spec in specs:
            pages[f"methods/{spec.name}.md"] = method_page(METHODS[spec.name], costs)
            lines.append(f"methods/{spec.name}")
        lines += ["```", ""]
    pages["methods.md"] = "\n".join(lines)
    return pages


def method_page(method: Any, costs: Mapping[str, str]) -> str:
    """Return the page of one method.

    Args:
        method: definition of the method.
        costs: sentence with the recorded cost, by name of the method.
    """
    spec = method.spec
    module = inspect.getmodule(method.losses)
    assert module is not None
    summary, _, more = (inspect.getdoc(module) or "").partition("\n\n")
    summary = " ".join(summary.split())
    formula, sections = split_docstring(method.losses)
    source = sections.pop("Source", "")
    parts = [f"# `{spec.name}`", "", summary, "", more, "", "## Formula", "", formula, ""]
    for name, function in helpers(module, formula + source):
        text, sections_of = split_docstring(function)
        parts += [f"### `{name}`", "", text, ""]
        if "Source" in sections_of:
            parts += [f"Source: {sections_of['Source']}", ""]
    parts += [
        "## Source and deviations",
        "",
        source or "A control of this project, without a paper.",
        "",
        *(["On two classes: " + spec.two_classes + ".", ""] if spec.two_classes else []),
        "## Settings",
        "",
        "`--set FIELD=VALUE` changes a setting. A comparison of methods starts at the published value.",
        "",
        settings_table(spec),
        "## Cost and needs",
        "",
        *(f"- {line}" for line in needs(method)),
        *([f"- {costs[spec.name]}"] if spec.name in costs else ["- No study of the repository has this method."]),
        "",
        f"Code: `{Path(inspect.getfile(module)).relative_to(ROOT).as_posix()}`",
        "",
    ]
    return tidy("\n".join(parts))


def split_docstring(function: Any) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring before its first section, and the text of each section."""
    text = inspect.getdoc(function) or ""
    pieces = re.split(r"^(Args|Returns|Raises|Source|Notation|Example|Examples):\n", text, flags=re.MULTILINE)
    sections = {name: textwrap.dedent(body).strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}
    return pieces[0].strip(), sections


def helpers(module: Any, text: str) -> list[tuple[str, Any]]:
    """Return the loss functions that a text names in backticks, if the module has them."""
    names = dict.fromkeys(re.findall(r"`(\w+_loss)`", text))
    return [(name, getattr(module, name)) for name in names if callable(getattr(module, name, None))]


def settings_table(spec: Any) -> str:
    """Return the table of a method's settings."""
    from trainables.spec.methods import settings_fields
    from trainables.spec.methods.settings import AdapterSettings, AdapterTermSettings
    from trainables.spec.trial import TrialConfig

    fields = {**settings_fields((AdapterSettings, AdapterTermSettings)), **TrialConfig.model_fields}
    fields = {**fields, **spec.settings.model_fields}
    names = [*sorted(spec.trial_fields), *spec.settings.model_fields]
    if spec.has_adapter:
        names += [name for name in AdapterSettings.model_fields if name not in names]
    rows = []
    for name in dict.fromkeys(names):
        field = fields[name]
        rows.append(
            (
                f"`{name}`",
                f"`{field.default}`",
                f"`{spec.published[name]}`" if name in spec.published else "",
                limits_of(field),
                re.sub(r"^[\w, ]+: ", "", field.description or ""),
            )
        )
    return table(("setting", "default", "published", "allowed", "meaning"), rows) if rows else "None.\n"


def limits_of(field: Any) -> str:
    """Return the allowed values of a field in words."""
    from typing import Literal, get_args, get_origin

    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(each, name):g}"
        for name, sign in signs.items()
        for each in field.metadata
        if getattr(each, name, None) is not None
    ]
    return ", ".join(found)


def needs(method: Any) -> list[str]:
    """Return the networks and data that a method needs, as sentences."""
    spec = method.spec
    found = []
    if not spec.needs_teacher and spec.peer is None:
        found.append("Teacher: none is needed.")
    elif spec.peer == "teacher" and not spec.needs_teacher:
        found.append("Teacher: none. A peer with the teacher's architecture trains together with the student.")
    elif spec.trains_teacher:
        found.append("Teacher: trains together with the student, so it runs in every step.")
    elif spec.needs_maps:
        found.append("Teacher: runs in every step, because stored outputs have no feature maps.")
    else:
        found.append("Teacher: frozen. Stored outputs replace it during training.")
    if spec.peer == "student":
        found.append("A second student trains together with the first.")
    if spec.teacher_settings is not None:
        found.append("A special teacher is trained for the student's architecture before the trials.")
    if spec.has_adapter:
        found.append("Adapter: always.")
    elif spec.takes_adapter:
        found.append(f"Adapter: optional, `--method {spec.name} --adapter`, or `{spec.name}+adapter` in comparisons.")
    elif spec.no_adapter:
        found.append(f"Adapter: none, because {spec.no_adapter}.")
    if spec.modality != "any":
        found.append(f"Data: {spec.modality}.")
    if spec.smallest_batch > 1:
        found.append(f"Smallest batch: {spec.smallest_batch} samples.")
    if spec.shares_layers:
        found.append("The student's layers run twice.")
    return found


def recorded_costs() -> dict[str, str]:
    """Return the training cost of each method in the comparisons of the repository, relative to cross-entropy."""
    found: dict[str, str] = {}
    for study, where in (("sst2-pkd", "SST-2"), ("sst2-method", "SST-2"), ("fashion-method", "Fashion-MNIST")):
        summary = json.loads((EXAMPLES / study / "summary.json").read_text(encoding="utf-8"))
        for config in summary["configs"]:
            cost = (config.get("cost") or {}).get("flops_to_ce")
            if cost is not None:
                found[config["method"]] = (
                    f"Training took {cost:.2f} times the FLOPs of cross-entropy on {where} (study `{study}`)."
                )
    return found


# -- command line ----------------------------------------------------------------------------------------------------

MODULES: Final = {
    "run": "study.launch", "resume": "study.launch --resume NAME", "confirm": "study.confirm", "sync": "study.sync",
    "rerun": "study.rerun", "export": "study.export", "power": "study.power", "check": "study.check",
    "teacher": "trainables.teacher", "report": "analysis.report", "cluster-files": "study.cluster_files",
}  # fmt: skip


def command_line_page() -> str:
    """Return the reference of all commands, from the declarations of their options."""
    import typer

    from pesfkd.command import app

    group = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "One program, `pesfkd`, has all commands. Most exist as modules too: `pesfkd run` is `python -m study.launch`.",
        "`pesfkd COMMAND -h` shows the common options, `--help-all` shows all. Every option of a study can also be a",
        "key of a [config file](../reference/config_file.md) and a keyword of",
        "[`pesfkd.run`](../reference/python_api.md).",
        "",
    ]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        lines += [f"## pesfkd {name}", "", plain(command.help or command.short_help or ""), ""]
        if name in MODULES:
            lines += [f"As a module: `python -m {MODULES[name]}`", ""]
        panels: dict[str, list[tuple[str, ...]]] = {}
        for parameter in command.params:
            panel = getattr(parameter, "rich_help_panel", None) or "Options"
            if "--help" not in parameter.opts:
                panels.setdefault(panel, []).append(option_row(parameter))
        for panel, rows in panels.items():
            lines += ["" if len(panels) == 1 else f"**{panel}**", ""]
            lines.append(table(("option", "value", "default", "meaning"), rows))
    return tidy("\n".join(lines))


def option_row(parameter: Any) -> tuple[str, ...]:
    """Return the cells of an option or an argument."""
    is_argument = parameter.param_type_name == "argument"
    spelled = [parameter.metavar or parameter.name.upper()] if is_argument else [*parameter.opts]
    kind = "" if getattr(parameter, "is_flag", False) or is_argument else value_of(parameter)
    default = parameter.default
    if callable(default) or default in (None, False, ()) or is_argument:
        shown = ""
    else:
        shown = f"`{getattr(default, 'value', default)}`"
    text = plain(getattr(parameter, "help", "") or "")
    if getattr(parameter, "envvar", None):
        text += f" Environment variable: `{parameter.envvar}`."
    return ", ".join(f"`{flag}`" for flag in spelled), kind, shown, text


def value_of(parameter: Any) -> str:
    """Return the kind of value that an option takes."""
    if parameter.metavar:
        return f"`{parameter.metavar}`"
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if kind is None:  # Typer before 0.25 has Click's types
        return str(parameter.type.name)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{each.value}`" for each in kind)
    names = {str: "text", int: "whole number", float: "number", Path: "path"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def plain(text: str) -> str:
    """Return a help text without Rich's markup and with placeholders that Markdown keeps."""
    text = re.sub(r"(?<!\\)\[/?(?:bold|dim|italic|green|yellow|red|cyan)[^\]]*\]", "", text).replace("\\[", "[")
    return " ".join(text.split()).replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def config_file() -> str:
    """Return the config file that `--print-config` prints for a small study."""
    done = subprocess.run(
        [sys.executable, "-m", "study.launch", "--space", "temperature", "--trials", "12", "--print-config"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


# -- search spaces ---------------------------------------------------------------------------------------------------


def spaces_page() -> str:
    """Return the search spaces with their questions and parameters."""
    from search_spaces import COMPARISONS, OWN, SPACES

    lines = [
        "# Search spaces",
        "",
        "A search space is a question with the parameters that may vary. *Scientific* parameters are the question;",
        "*nuisance* parameters are tuned along, so that each value of the others is at its best.",
        "",
    ]
    for name, space in {**SPACES, **COMPARISONS, OWN.name: OWN}.items():
        lines += [f"## `{name}`", "", getattr(space, "question", ""), ""]
        parameters = getattr(space, "parameters", ())
        if parameters:
            rows = [(f"`{each.name}`", each.role, range_of(each), each.why) for each in parameters]
            lines.append(table(("parameter", "role", "range", "reason"), rows))
        else:
            lines += ["Compares methods; each method has parameters of its own.", ""]
    return tidy("\n".join(lines))


def range_of(parameter: Any) -> str:
    """Return the range of a parameter in the form of `--search`."""
    if parameter.low is None:
        return ", ".join(f"`{value}`" for value in parameter.choices or (False, True))
    step = parameter.step
    ending = ":log" if parameter.log else f":{step}" if step else ""
    return f"`{parameter.low:g}:{parameter.high:g}{ending}`"


# -- records and measures --------------------------------------------------------------------------------------------


def records_page() -> str:
    """Return the schema of the records: the text of the module, and all columns."""
    import study.records as records

    lines = ["# Records", "", markdown_of(inspect.getdoc(records) or ""), ""]
    for title, schema in (("trials", records.TRIALS_SCHEMA), ("epochs", records.EPOCHS_SCHEMA)):
        rows = [(f"`{field.name}`", f"`{field.type}`", unit_in_words(field.name)) for field in schema]
        lines += [f"## Columns of `{title}`", "", table(("column", "type", "unit"), rows)]
    return tidy("\n".join(lines))


def measures_page() -> str:
    """Return all measures with their units."""
    import trainables.spec.measures as measures

    groups = {
        "Validation split": measures.VALIDATION_MEASURES,
        "Training": measures.TRAINING_MEASURES,
        "Test split, confirmed trials only": (*measures.TEST_MEASURES, *measures.TASK_MEASURES),
        "Gaps to the members of an ensemble": measures.TEACHER_GAPS,
        "Costs, every epoch": measures.COST_MEASURES,
        "Costs, once per trial": measures.COST_FACTS,
        "Splits, once per trial": measures.DATA_FACTS,
        "The student where it runs, once per trial": measures.DEPLOY_FACTS,
        "Calibration, once per finished trial": measures.CALIBRATION,
    }
    lines = ["# Measures", "", markdown_of(inspect.getdoc(measures) or ""), ""]
    for title, names in groups.items():
        rows = [(f"`{name}`", unit_in_words(name)) for name in names]
        lines += [f"## {title}", "", table(("measure", "unit"), rows)]
    return tidy("\n".join(lines))


def unit_in_words(name: str) -> str:
    """Return the unit of a column; empty if it has none."""
    from trainables.spec.measures import unit_of

    if name.startswith(("cost/", "deploy/")):
        return unit_of(name) or ""
    last = name.rpartition("/")[2]
    if last.startswith(("sharpness", "entropy")) or last == "adapter_shift" or last.startswith("loss"):
        return "nats" if last not in ("loss_gap", "loss_peer") else "nats² × weight" if last == "loss_gap" else "nats"
    if last.startswith(("accuracy", "ece", "agreement")) or last in ("f1", "val_constant_score", "test_constant_score"):
        return "fraction, 0 to 1"
    if last == "matthews":
        return "correlation, −1 to 1"
    if last.endswith("_samples"):
        return "samples"
    return {"seconds": "s", "time": "UTC", "started": "UTC"}.get(last, "")


# -- examples --------------------------------------------------------------------------------------------------------


def examples_page() -> str:
    """Return the studies that come with the repository: question, command, versions and files."""
    lines = [
        "# Recorded studies",
        "",
        "The results of this documentation come from these studies. Each has a plan, a summary and records. Open one",
        'with `pesfkd.open("analysis/examples/NAME")`, or write a report with',
        "`python -m analysis.report NAME --output-dir analysis/examples --out report.html`.",
        "",
    ]
    for folder in sorted(path for path in EXAMPLES.iterdir() if (path / "summary.json").is_file()):
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        trials, versions = summary["trials"], summary["versions"]
        used = [f"{name} {versions[f'version.{name}']}" for name in ("pesfkd", "torch", "ray", "optuna")]
        lines += [f"## {folder.name}", "", summary["question"], ""]
        lines += [f"{trials['finished']} trials in {summary['seconds'] / 60:.0f} minutes, with {', '.join(used)}.", ""]
        lines += ["```text", textwrap.fill(summary["command"], 110, break_on_hyphens=False), "```", ""]
        files = [folder / "summary.json", folder / "plan.json", *sorted(folder.rglob("*.parquet"))]
        for path in files:
            shown = path.relative_to(folder).as_posix()
            target = "/../" + path.relative_to(ROOT).as_posix()
            lines.append(f"- {{download}}`{shown} <{target}>`")
        lines.append("")
    return tidy("\n".join(lines))


# -- notebooks -------------------------------------------------------------------------------------------------------


def notebook_pages() -> dict[str, str]:
    """Return the notebooks as pages with outputs, folded code, and headings as the alternative texts of figures."""
    pages = {}
    for path in sorted((ROOT / "analysis" / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        heading = ""
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                heading = (re.findall(r"^#+ (.+)$", "".join(cell["source"]), flags=re.MULTILINE) or [heading])[-1]
            else:
                cell["metadata"] = {"tags": ["hide-input"], "mystnb": {"image": {"alt": f"Figure: {heading}"}}}
        pages[f"notebooks/{path.name}"] = json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
    return pages


# -- text ------------------------------------------------------------------------------------------------------------


def markdown_of(docstring: str) -> str:
    """Return a docstring as Markdown, with the lines that introduce a list as headings of their own paragraphs."""
    return re.sub(r":\n\n- ", ":\n\n- ", docstring)


def tidy(text: str) -> str:
    """Return a text without runs of empty lines, and with one line break at the end."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
