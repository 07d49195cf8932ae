"""Help on one screen: examples first, then the common options. `--help-all` shows all options in groups."""

import textwrap
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

_WIDTH: Final = 80
_ALL: Final = "pesfkd.help_all"
_HELP: Final = (("-h, --help", "Show this text."), ("--help-all", "Show all options."))


class BriefCommand(TyperCommand):
    """Command with a short help: examples and common options only."""

    purpose: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    common: tuple[str, ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        if ctx.meta.get(_ALL):
            super().format_help(ctx, formatter)
            return
        options = [
            each for each in self.params if each.param_type_name == "option" and not getattr(each, "hidden", False)
        ]
        by_name = {each.name: each for each in options}
        names = [name for name in self.common if name in by_name] or [each.name for each in options]
        rows = [_row(by_name[name]) for name in names if name != "help_all"]
        usage = " ".join([ctx.command_path, *(each for each in self.collect_usage_pieces(ctx) if each != "[OPTIONS]")])
        formatter.write(
            "\n".join(_page(f"{usage} [OPTIONS]", self.purpose, self.examples, [("Options", [*rows, *_HELP])]))
        )


class BriefGroup(TyperGroup):
    """Group with a short help: examples and commands."""

    examples: tuple[tuple[str, str], ...] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        commands = [(name, command.get_short_help_str(200)) for name, command in self.commands.items()]
        page = _page(f"{ctx.command_path} COMMAND", (self.help or "").strip(), self.examples, [("Commands", commands)])
        own = [*(max(each.opts, key=len) for each in self.params), "-h"]
        formatter.write("\n".join([*page, "", f"Options: {', '.join(dict.fromkeys(own))}"]))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the commands in the order in which a study needs them."""
        return list(self.commands)


def _row(option: Any) -> tuple[str, str]:
    """Return an option's flags with the placeholder, and the help text."""
    flags = sorted(option.opts, key=len)
    value = "" if option.is_flag else f" {option.metavar or _placeholder(option)}"
    text = " ".join((option.help or "").split())
    default = option.default
    shows = not (default is None or isinstance(default, bool) or callable(default))
    return ", ".join(flags) + value, f"{_first_sentence(text)} [{default}]" if shows else _first_sentence(text)


def _placeholder(option: Any) -> str:
    return str(option.name).rpartition("_")[2].upper()


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _page(
    usage: str,
    purpose: str,
    examples: Sequence[tuple[str, str]],
    parts: Sequence[tuple[str, Sequence[tuple[str, str]]]],
) -> list[str]:
    lines = [f"Usage: {usage}"]
    lines += textwrap.wrap(" ".join(purpose.split()), _WIDTH)
    if examples:
        lines += ["", *_table([(command, what) for what, command in examples])]
    for title, rows in parts:
        lines += ["", f"{title}:", *_table(rows)]
    return lines


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Format rows in two columns, cut to the page width."""
    column = max(len(left) for left, _ in rows)
    return [_cut(f"  {left:{column}}  {right}") for left, right in rows]


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3].rstrip()}..."


def brief(purpose: str, examples: tuple[tuple[str, str], ...], common: tuple[str, ...] = ()) -> type[BriefCommand]:
    """Return a command class with this short help.

    Args:
        purpose: the command's purpose in one line.
        examples: description and command of each example.
        common: option names in the short help. Default: all options.
    """
    return type("Brief", (BriefCommand,), {"purpose": purpose, "examples": examples, "common": common})


def show_all_options(context: typer.Context, value: bool) -> None:
    """Show the help with all options, and exit."""
    if value and not context.resilient_parsing:
        context.meta[_ALL] = True
        if text := context.get_help():
            typer.echo(text)
        raise typer.Exit
