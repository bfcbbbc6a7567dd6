"""Man page and bash completion of a command line, from its own tables and parsers: nothing is written twice."""

import argparse
import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "firmware-sim"), str(ROOT / "rules")]


@dataclass
class Command:
    """words: ("tidegate", "rule", "push"). Options and arguments are argparse's actions; below: its commands."""

    words: tuple
    about: str
    usage: str = ""
    actions: list = field(default_factory=list)
    below: list = field(default_factory=list)

    def every(self):
        """Itself and all below, in order."""
        yield self
        for command in self.below:
            yield from command.every()


def tidegate() -> Command:
    """The tree of `tidegate`."""
    from gateway import cli

    def made(words, place, about):
        parser = argparse.ArgumentParser(prog=" ".join(words), description=about)
        importlib.import_module(place).add_arguments(parser)
        return of_parser(parser, words, about)

    root = Command(("tidegate",), "edge event-processing gateway", "tidegate COMMAND [ARGUMENTS]")
    for name, about in cli.COMMANDS.items():
        words = ("tidegate", name)
        if name != "rule":
            root.below.append(made(words, f"gateway.commands.{name.replace('-', '_')}", about))
            continue
        rule = Command(words, about, "tidegate rule COMMAND [ARGUMENTS]")
        rule.below = [made((*words, n), cli._rule_place(n), a) for n, a in cli.RULE_COMMANDS.items()]
        root.below.append(rule)
    return root


def firmware_sim() -> Command:
    """The tree of `firmware-sim`."""
    from firmware_sim import cli

    return of_parser(cli._parser(), ("firmware-sim",), "a fleet of simulated MQTT devices, and the truth about what they sent")


def of_parser(parser, words, about) -> Command:
    """The tree of an argparse parser."""
    command = Command(words, about, " ".join(parser.format_usage().removeprefix("usage: ").split()))
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            abouts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            command.below += [of_parser(sub, (*words, name), abouts.get(name, "")) for name, sub in action.choices.items()]
        elif not isinstance(action, argparse._HelpAction):
            command.actions.append(action)
    return command


def man(command, version, date, sections) -> str:
    """The page in roff. sections: title -> paragraphs that no parser knows."""
    name = command.words[0]
    lines = [f'.TH {name.upper()} 1 {_quoted(date)} {_quoted(f"{name} {version}")} {_quoted("User commands")}', ".SH NAME", rf"{_roff(name)} \- {_roff(command.about)}",
             ".SH SYNOPSIS", rf".B {_roff(name)}", _roff(command.usage.partition(" ")[2]), ".SH COMMANDS"]
    for one in command.every():
        if one.below:
            continue
        lines += [f".SS {_quoted(' '.join(one.words))}", _roff(f"{one.about[:1].upper()}{one.about[1:]}."), ".PP", ".nh", rf"\fB{_roff(one.usage)}\fR", ".hy"]
        for action in one.actions:
            lines += [".TP", _term(action), _roff(_help(action))]
    for title, paragraphs in sections.items():
        lines.append(f".SH {_quoted(title)}")
        for paragraph in paragraphs:
            lines += [".PP", _roff(paragraph)]
    return "\n".join(lines) + "\n"


def _quoted(text):
    return '"' + _roff(text).replace('"', r"\(dq") + '"'


def _roff(text):
    return "\n".join(rf"\&{line}" if line[:1] in ".'" else line for line in text.replace("\\", r"\e").replace("-", r"\-").splitlines())


def _help(action):
    values = {**vars(action), "prog": "", "type": "", "default": action.default}
    return (action.help or "") % values


def _term(action):
    value = action.metavar or (",".join(map(str, action.choices)) if action.choices else action.dest.upper())
    value = " ".join(value) if isinstance(value, tuple) else value
    if not action.option_strings:
        return rf"\fI{_roff(value)}\fR"
    names = ", ".join(rf"\fB{_roff(name)}\fR" for name in action.option_strings)
    return names if action.nargs == 0 else rf"{names} \fI{_roff(value)}\fR"


def completion(command) -> str:
    """The script for bash: words that may follow, by what stands before them."""
    table = {}
    for one in command.every():
        path = " ".join(one.words)
        words = [below.words[-1] for below in one.below]
        for action in one.actions:
            words += [option for option in action.option_strings if option.startswith("--")] or [str(choice) for choice in action.choices or ()]
            for option in action.option_strings:
                if action.choices:
                    table[f"{path} {option}"] = [str(choice) for choice in action.choices]
        table[path] = [*words, "--help"]
    entries = "\n".join(f'        ["{path}"]="{" ".join(words)}"' for path, words in table.items())
    name = command.words[0]
    function = f"_{name.replace('-', '_')}"
    return f"""# bash completion for {name}; made with the package from the command's own tables.
{function}() {{
    local -A next=(
{entries}
    )
    local path={name} word i previous=${{COMP_WORDS[COMP_CWORD-1]}}
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        [[ $word != -* && -n ${{next["$path $word"]+known}} ]] && path="$path $word"
    done
    [[ $previous == -* && -n ${{next["$path $previous"]+known}} ]] && path="$path $previous"
    mapfile -t COMPREPLY < <(compgen -W "${{next[$path]}}" -- "${{COMP_WORDS[COMP_CWORD]}}")
}}
complete -o default -F {function} {name}
"""
