"""Following a maintainer script along the path of a first installation, without running it.

A small interpreter for the part of the shell that such scripts use. Every command that would run
must be one whose effect is void in an image, each for the reason written beside it. A condition
that cannot be known here (is a file there?) counts both ways. What cannot be followed is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

_NOTHING = "has nothing to do on a first installation"
_SERVICE = "there is no service manager in a container"
_DESKTOP = "there is no desktop in a container"
_CACHE = "makes a cache that is made at first use, or done without"

# Commands without consequence in an image. A name alone stands for every use of the command.
_HARMLESS = {
    ":": "does nothing",
    "true": "does nothing",
    "set": "sets a shell option",
    "umask": "sets a shell option",
    "echo": "prints",
    "printf": "prints",
    "dpkg-maintscript-helper": _NOTHING,  # it acts on upgrades from an older version only
    "deb-systemd-helper": _SERVICE,
    "deb-systemd-invoke": _SERVICE,
    "systemctl": _SERVICE,
    "systemd-tmpfiles": _SERVICE,
    "update-rc.d": _SERVICE,
    "invoke-rc.d": _SERVICE,
    "update-menus": _DESKTOP,
    "update-mime": _DESKTOP,
    "update-desktop-database": _DESKTOP,
    "update-icon-caches": _DESKTOP,
    "gtk-update-icon-cache": _DESKTOP,
    "py3compile": _CACHE,
    "pypy3compile": _CACHE,
    "fc-cache": _CACHE,
    "ldconfig": "glibc looks into Debian's library directories without its cache",
}
_TERMINATORS = {"then", "else", "elif", "fi", "do", "done", "esac", "}"}


@dataclass(frozen=True)
class Alternative:
    """One ``update-alternatives --install``: paths are absolute.

    Attributes:
        link: The generic path, such as ``/usr/lib/x86_64-linux-gnu/libblas.so.3``.
        name: The group's name below ``/etc/alternatives``.
        path: What this package offers for it.
        priority: The highest one wins.
        slaves: Link, name and path of what follows the group's choice.
    """

    link: str
    name: str
    path: str
    priority: int
    slaves: tuple[tuple[str, str, str], ...] = ()


class Unclear(Exception):
    """A script does something that an image would miss, or that cannot be followed."""


def script_effects(script: str, argument: str, shipped: Collection[str]) -> tuple[Alternative, ...]:
    """Follows a maintainer script on the path of a first installation.

    Args:
        script: The script's text.
        argument: Its first argument: ``install`` for a preinst, ``configure`` for a postinst.
        shipped: Absolute paths of what the package holds.

    Returns:
        The alternatives that it registers, its only effect.

    Raises:
        Unclear: It does something else; the message says what, in a few words.
    """
    first = script.partition("\n")[0]
    if not re.fullmatch(r"#!\s*/bin/(ba|da)?sh( -e| -eu)?\s*", first):
        raise Unclear(f"it is no plain shell script ('{first[:40]}')")
    run = _Run(list(_tokens(script)), {"1": argument, "2": "", "@": argument}, shipped)
    try:
        run.sequence(_YES, frozenset())
        if run.position < len(run.tokens):
            raise Unclear(f"'{run.tokens[run.position].text}' stands where no command can")
    except _Exit:
        pass
    except RecursionError:
        raise Unclear("it is nested too deeply") from None
    return tuple(run.alternatives)


# --- words and operators -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    kind: str  # "word" or "operator"
    text: str


_OPERATORS = (";;", "&&", "||", "<<-", "<<", ">>", ">&", "<&", ">|", *";|&()<>\n")


def _tokens(script: str) -> Iterator[_Token]:
    text = script.replace("\\\n", "")
    position = 0
    while position < len(text):
        rest = text[position : position + 3]
        if rest[0] in " \t\r":
            position += 1
        elif rest[0] == "#":
            end = text.find("\n", position)
            position = end if end >= 0 else len(text)
        elif operator := next((item for item in _OPERATORS if rest.startswith(item)), ""):
            if operator.startswith("<<"):
                raise Unclear("it writes a file (here document)")
            position += len(operator)
            yield _Token("operator", operator)
        else:
            length = _word_length(text, position)
            yield _Token("word", text[position : position + length])
            position += length


def _word_length(text: str, start: int) -> int:
    position = start
    while position < len(text) and text[position] not in " \t\r\n;|&()<>":
        position += _piece_length(text, position)
    return position - start


def _piece_length(text: str, start: int) -> int:
    """The length of a quoted piece, an expansion or one plain character."""
    here = text[start]
    if here == "\\":
        return 2
    if here in "'`":
        return _closing(text, start + 1, here) - start
    if here == '"':
        position = start + 1
        while position < len(text) and text[position] != '"':
            position += _piece_length(text, position) if text[position] in "\\`$" else 1
        return position + 1 - start
    if text.startswith("$(", start):
        position, depth = start + 2, 1
        while position < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[position], 0)
            position += _piece_length(text, position) if text[position] in "\\'\"`" else 1
        return position - start
    if text.startswith("${", start):
        return _closing(text, start + 2, "}") - start
    return 1


def _closing(text: str, start: int, mark: str) -> int:
    end = text.find(mark, start)
    if end < 0:
        raise Unclear(f"a {mark} is missing")
    return end + 1


# --- following the path --------------------------------------------------------------------------

_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|[0-9@])")
# Whether a command runs, and whether it succeeds: yes, no, or not to be known here.
_YES, _NO, _MAYBE = True, False, None
_Tri = bool | None


class _Exit(Exception):
    """The script ends here."""


def _both(one: _Tri, other: _Tri) -> _Tri:
    """Logical and: certain when either is a no, or both are a yes."""
    if one is _NO or other is _NO:
        return _NO
    return _YES if one is _YES and other is _YES else _MAYBE


def _opposite(value: _Tri) -> _Tri:
    return None if value is None else not value


@dataclass
class _Run:
    tokens: list[_Token]
    variables: dict[str, str | None]
    shipped: Collection[str]
    position: int = 0
    alternatives: list[Alternative] = field(default_factory=list)

    def sequence(self, mode: _Tri, ends: frozenset[str]) -> _Tri:
        """Commands up to one of the words that end a block; gives the last one's success."""
        result: _Tri = _YES
        while True:
            while self._is_operator("\n", ";", "&"):
                self.position += 1
            token = self._peek()
            if token is None or token.text in ends:
                return result
            if token.text in _TERMINATORS:
                raise Unclear(f"'{token.text}' stands where no command can")
            result = self._and_or(mode)

    def _and_or(self, mode: _Tri) -> _Tri:
        result = self._pipeline(mode)
        while self._is_operator("&&", "||"):
            wanted = result if self._next().text == "&&" else _opposite(result)
            self._skip_newlines()
            before = result
            after = self._pipeline(_both(mode, wanted))
            if wanted is _YES:
                result = after
            elif wanted is _MAYBE:
                result = before if before is after else _MAYBE
        return result

    def _pipeline(self, mode: _Tri) -> _Tri:
        negated = self._accept("!")
        result = self._command(mode)
        while self._is_operator("|"):
            self.position += 1
            self._skip_newlines()
            result = self._command(mode)
        return _opposite(result) if negated else result

    def _command(self, mode: _Tri) -> _Tri:
        token = self._peek()
        if token is None:
            raise Unclear("it ends in the middle of a command")
        if token.text == "(" or token.text == "{":
            self.position += 1
            closing = ")" if token.text == "(" else "}"
            result = self.sequence(mode, frozenset({closing}))
            self._expect(closing)
            self._redirections(mode)
            return result
        compound = {"if": self._if, "case": self._case, "for": self._for}
        loops = {"while", "until"}
        if token.kind == "word" and token.text in compound:
            self.position += 1
            result = compound[token.text](mode)
            self._redirections(mode)
            return result
        if token.kind == "word" and token.text in loops and mode is not _NO:
            raise Unclear(f"it has a '{token.text}' loop")
        if token.kind == "word" and token.text in loops:
            self.position += 1
            self.sequence(_NO, frozenset({"do"}))
            self._block(_NO)
            return _YES
        return self._simple(mode)

    def _if(self, mode: _Tri) -> _Tri:
        left = mode  # whether this branch is still reached
        result: _Tri = _YES
        while True:
            found = self.sequence(left, frozenset({"then"}))
            self._expect("then")
            inner = self.sequence(_both(left, found), frozenset({"elif", "else", "fi"}))
            result = inner if found is _YES else result if found is _NO else _MAYBE
            left = _both(left, _opposite(found))
            word = self._next().text
            if word == "else":
                inner = self.sequence(left, frozenset({"fi"}))
                result = inner if left is _YES else result
                self._expect("fi")
                return result
            if word == "fi":
                return result

    def _case(self, mode: _Tri) -> _Tri:
        subject = self._expanded(self._next().text) if mode is not _NO else None
        self._skip_newlines()
        self._expect("in")
        left = mode
        while True:
            self._skip_newlines()
            if self._accept("esac"):
                return _MAYBE
            self._accept("(")
            patterns = [self._next().text]
            while self._is_operator("|"):
                self.position += 1
                patterns.append(self._next().text)
            self._expect(")")
            found = self._matches(subject, patterns)
            self.sequence(_both(left, found), frozenset({";;", "esac"}))
            left = _both(left, _opposite(found))
            self._accept(";;")

    def _matches(self, subject: str | None, patterns: list[str]) -> _Tri:
        words = [self._expanded(pattern) for pattern in patterns]
        if "*" in words:
            return _YES
        if subject is None or any(word is None or set(word) & set("*?[") for word in words):
            return _MAYBE
        return subject in words

    def _for(self, mode: _Tri) -> _Tri:
        name = self._next().text
        words: list[str] = []
        if self._accept("in"):
            while (token := self._peek()) and token.kind == "word":
                words.append(self._next().text)
        while self._is_operator(";", "\n"):
            self.position += 1
        start = self.position
        values = [] if mode is _NO else self._values(words)
        if not values:
            self._block(_NO)
            return _YES
        for value in values:
            if value is None or set(value) & set("*?["):
                raise Unclear("it has a loop over what it finds")
            self.position = start
            self.variables[name] = value
            self._block(mode)
        return _MAYBE

    def _block(self, mode: _Tri) -> None:
        self._skip_newlines()
        self._expect("do")
        self.sequence(mode, frozenset({"done"}))
        self._expect("done")

    def _simple(self, mode: _Tri) -> _Tri:
        words: list[str] = []
        while True:
            self._redirections(mode)
            token = self._peek()
            if token is None or token.kind != "word":
                break
            words.append(self._next().text)
        if self._is_operator("("):
            raise Unclear(f"it defines the function {words[0] if words else ''}")
        if not words:
            raise Unclear(f"'{token.text if token else ''}' stands where no command can")
        if mode is _NO:
            return _YES
        while words and (match := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", words[0], re.DOTALL)):
            value = self._expanded(match[2])
            self.variables[match[1]] = value if mode is _YES else None
            words.pop(0)
        return self._execute(words, mode) if words else _YES

    def _execute(self, words: list[str], mode: _Tri) -> _Tri:
        values = self._values(words)
        name = values[0] if values else ":"
        if name in {"exit", "return"}:
            if mode is _YES:
                raise _Exit
            return _YES
        if name in {"[", "test"}:
            wanted = values[1:-1] if name == "[" else values[1:]
            return self._test(wanted)
        if name == "false":
            return _NO
        if name in {"which", "type"} or values[:2] == ["command", "-v"]:
            return _MAYBE
        if name == "dpkg" and values[1:2] == ["--compare-versions"]:
            return _compare_with_nothing(values[2:])
        if name == "update-alternatives":
            return self._alternatives(values[1:], mode)
        if name in _HARMLESS and (name != "set" or (values[1] or "").startswith(("-e", "+e"))):
            return _MAYBE if name.startswith(("deb-", "invoke")) else _YES
        raise Unclear(f"it runs '{' '.join(words)[:80]}'")

    def _alternatives(self, values: list[str | None], mode: _Tri) -> _Tri:
        options = [value for value in values if value not in {"--quiet", "--force"}]
        shown = " ".join(value or "…" for value in options[:3])
        if options[:1] in (["--list"], ["--query"], ["--display"]):
            return _MAYBE
        if mode is not _YES or options[:1] != ["--install"] or None in options:
            raise Unclear(f"it runs 'update-alternatives {shown}'")
        words = [value or "" for value in options[1:]]
        slaves = []
        rest = words[4:]
        while rest[:1] == ["--slave"] and len(rest) >= 4:
            slaves.append((rest[1], rest[2], rest[3]))
            rest = rest[4:]
        if rest or len(words) < 4 or not words[3].isdigit():
            raise Unclear(f"it runs 'update-alternatives {shown}'")
        self.alternatives.append(
            Alternative(words[0], words[1], words[2], int(words[3]), tuple(slaves))
        )
        return _YES

    def _test(self, values: list[str | None]) -> _Tri:
        for word, joined in (("-o", any), ("-a", all)):
            if word in values:
                place = values.index(word)
                parts = [self._test(values[:place]), self._test(values[place + 1 :])]
                if None in parts:
                    certain = _YES if word == "-o" else _NO
                    return certain if certain in parts else _MAYBE
                return joined(parts)
        if values[:1] == ["!"]:
            return _opposite(self._test(values[1:]))
        if len(values) == 3 and values[1] in {"=", "==", "!="}:
            if values[0] is None or values[2] is None:
                return _MAYBE
            return (values[0] == values[2]) is (values[1] != "!=")
        if len(values) == 1:
            return None if values[0] is None else values[0] != ""
        if len(values) == 2 and values[0] in {"-n", "-z"}:
            return None if values[1] is None else (values[1] == "") is (values[0] == "-z")
        if len(values) == 2 and values[0] == "-e" and values[1] in self.shipped:
            return _YES
        if len(values) == 2 and values[1] == "/run/systemd/system":
            return _NO
        return _MAYBE

    def _expanded(self, word: str) -> str | None:
        """The word's value, or None when it cannot be known."""
        out = ""
        position = 0
        while position < len(word):
            length, value = self._piece(word, position)
            if value is None:
                return None
            out += value
            position += length
        return out

    def _values(self, words: list[str]) -> list[str | None]:
        """The words' values; an empty one without quotes is no word at all."""
        values: list[str | None] = []
        for word in words:
            value = self._expanded(word)
            bare = not set(word) & set("'\"\\")
            if value == "" and bare:
                continue
            split = bare and "$" in word and len((value or "").split()) > 1
            values.append(None if split else value)
        return values

    def _piece(self, text: str, start: int, *, quoted: bool = False) -> tuple[int, str | None]:
        """The length and value of a quoted piece, an expansion or one plain character."""
        if match := _VARIABLE.match(text, start):
            return len(match[0]), self.variables.get(match[1])
        length = _piece_length(text, start) if text[start] in "\\`$" or not quoted else 1
        piece = text[start : start + length]
        if piece.startswith("${"):
            return length, self._parameter(piece[2:-1])
        if piece[0] == "`" or piece.startswith("$("):
            self._asks_only(piece[1:-1] if piece[0] == "`" else piece[2:-1])
            return length, None
        if piece[0] == "$":
            return length, None
        if piece[0] == "\\":
            return length, piece[1:] if not quoted or piece[1:] in {"$", "`", '"', "\\"} else piece
        if piece[0] == "'" and not quoted:
            return length, piece[1:-1]
        if piece[0] == '"' and not quoted:
            return length, self._double_quoted(piece[1:-1])
        return length, piece

    def _double_quoted(self, text: str) -> str | None:
        out = ""
        position = 0
        while position < len(text):
            length, value = self._piece(text, position, quoted=True)
            if value is None:
                return None
            out += value
            position += length
        return out

    def _parameter(self, text: str) -> str | None:
        """``${NAME}`` and ``${NAME:-DEFAULT}``; dpkg sets ``DPKG_ROOT`` to nothing."""
        name, dash, default = text.partition(":-")
        known = self.variables.get(name, "" if name == "DPKG_ROOT" else None)
        return default if dash and known == "" else known

    def _asks_only(self, command: str) -> None:
        """A command whose output is used must be one that changes nothing."""
        words = command.split()
        plain = re.sub(r"2?>\s*/dev/null|2>&1", "", command)
        asks = words[:1] in (["which"], ["uname"]) or words[:2] == ["command", "-v"]
        if not asks and words[:2] != ["dpkg-divert", "--truename"]:
            raise Unclear(f"it uses the output of '{command[:60]}'")
        if set(plain) & set(";|&><`$\n"):
            raise Unclear(f"it uses the output of '{command[:60]}'")

    def _redirections(self, mode: _Tri) -> None:
        while True:
            token, after = self._peek(), self._peek(1)
            numbered = token is not None and token.text.isdigit() and after is not None
            if numbered and after is not None and after.text in {">", ">&", ">>", "<", "<&"}:
                self.position += 1
            elif not self._is_operator(">", ">&", ">>", "<", "<&", ">|"):
                return
            operator = self._next().text
            target = self._next().text
            if operator in {"<", "<&", ">&"} or target == "/dev/null" or mode is _NO:
                continue
            raise Unclear(f"it writes '{target[:60]}'")

    def _peek(self, ahead: int = 0) -> _Token | None:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else None

    def _next(self) -> _Token:
        token = self._peek()
        if token is None:
            raise Unclear("it ends in the middle of a command")
        self.position += 1
        return token

    def _is_operator(self, *texts: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "operator" and token.text in texts

    def _accept(self, text: str) -> bool:
        token = self._peek()
        found = token is not None and token.text == text
        self.position += found
        return found

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.text != text:
            raise Unclear(f"'{token.text.strip()[:40]}' stands where '{text}' should")

    def _skip_newlines(self) -> None:
        while self._is_operator("\n"):
            self.position += 1


def _compare_with_nothing(values: list[str | None]) -> _Tri:
    """``dpkg --compare-versions "" OP VERSION``: no version is older, except for ``…-nl``."""
    if len(values) != 3 or values[0] != "":
        return _MAYBE
    answers = {"lt": True, "le": True, "gt": False, "ge": False, "eq": False, "ne": True}
    operator = values[1] or ""
    if operator.endswith("-nl"):
        flipped = {"lt-nl": False, "le-nl": False, "gt-nl": True, "ge-nl": True}
        return flipped.get(operator)
    return answers.get(operator)
