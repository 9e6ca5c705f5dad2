"""Arguments: a small parser for options in front of, between and behind words. Pure; argparse costs more than all of `plugins list`.

An option table maps each spelling to the key of its value; a key that ends in `?` is a flag, in `=` takes its value only when attached
(`--watch=2`) and is otherwise true. Every option may be given again. `--` ends the options.
"""

from __future__ import annotations

from nvcore.api.errors import UsageError

# What every command that looks at plugins accepts.
SELECTION_OPTIONS = {"--only": "only", "--no-plugins": "none?", "-p": "p"}

# Read anywhere on the line, before the command sees it; a command must not give them another meaning.
GLOBAL_OPTIONS = {"--config": "config", "--socket": "socket", "--timeout": "timeout"}


class Arguments:
    """What was said: `words` in order, and of each option by its key the `values`: texts, or True where it has none."""

    __slots__ = ("values", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self.values: dict[str, list[str | bool]] = {}

    def flag(self, key: str) -> bool:
        """Whether an option was given."""
        return key in self.values

    def text(self, key: str, default: str | None = None) -> str | None:
        """The value of an option, the last one given; `default` when it was not given or had no value."""
        value = self.values.get(key, [default])[-1]
        return value if isinstance(value, str) else default

    def seconds(self, option: str, default: float, *, least: float = 1e-3, most: float = 1e9, wrong: str = "is no time-out") -> float:
        """The value of an option `--OPTION` that is a time. Raises UsageError for what is none, or not in range."""
        text = self.text(option, str(default))
        try:
            seconds = float(text or 0)
        except ValueError:
            seconds = -1.0
        if not least <= seconds <= most:
            raise UsageError(f"--{option} {text} {wrong}", expected=f"{least:g} to {most:g} seconds")
        return seconds

    def many(self, key: str) -> list[str]:
        """All values of an option, split at commas."""
        return [part for value in self.values.get(key, ()) for part in str(value).split(",") if part]

    def parse(self, argv: list[str], options: dict[str, str], *, others: bool = False, front: bool = False) -> Arguments:
        """Read `argv` against the option table: values are added to those from before, words replace them. others: options that are not of
        the table, and whatever stands behind `--`, are left among the words. front: leave everything from the first word on.

        Raises UsageError for an unknown option, a missing, empty or superfluous value, an empty word.
        """
        rest, self.words = list(argv), []
        while rest:
            word = rest.pop(0)
            name = word.partition("=")[0] if word[:2] == "--" else word[:2]
            if word == "--":
                self.words += [word, *rest] if others else rest
                break
            if len(word) > 1 and word[0] == "-" and (not others or name in options):
                self._option(word, rest, options)
            elif not word and not others:
                raise UsageError("a word is empty", expected="a name")
            else:
                self.words.append(word)
                if front:
                    self.words += rest
                    break
        return self

    def _option(self, word: str, rest: list[str], options: dict[str, str]) -> None:
        name, equals, value = word.partition("=") if word.startswith("--") else (word[:2], word[2:] and "=", word[2:])
        key = options.get(name)
        if key is None:
            raise UsageError(f"unknown option {name}", expected="one of " + ", ".join(sorted(options)) if options else "no option")
        if key[-1] == "?" and equals:
            raise UsageError(f"option {name} takes no value", expected=name)
        if not equals and key[-1] not in "?=":
            equals, value = "=", rest.pop(0) if rest else ""
        if equals and not value:
            raise UsageError(f"option {name} needs a value", expected=f"{name} VALUE")
        self.values.setdefault(key.rstrip("?="), []).append(value if equals else True)
