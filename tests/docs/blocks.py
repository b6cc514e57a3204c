"""The code blocks of a Markdown page, and what their info strings ask for."""

import re
import shlex
from dataclasses import dataclass

RUN = ("sh", "bash", "console", "python", "toml", "json")
SHOWN_ONLY = ("text",)
ATTRIBUTES = ("norun", "forever", "background", "exit", "file")
STOP = "<!-- stop -->"
FENCE = re.compile(r"( *)(`{3,}|~{3,})(.*)")


@dataclass
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    attributes: dict
    text: str

    @property
    def place(self):
        return f"{self.page}:{self.line}"

    def has(self, attribute):
        return attribute in self.attributes


class Mistake(Exception):
    """The page is not written as it should be; the text says where and how."""


def blocks(page, text):
    """All fenced blocks of a page, in order, and a block in language "stop" for each STOP. The name is for messages."""
    found, inside, lines = [], None, text.splitlines()
    for number, line in enumerate(lines, 1):
        fence = FENCE.fullmatch(line)
        if inside is None and fence:
            inside = (number, *fence.groups())
            body = []
        elif inside and fence and fence[2].startswith(inside[2]) and not fence[3].strip():
            found.append(block(page, inside[0], inside[3], "".join(body)))
            inside = None
        elif inside is None and line.strip() == STOP:
            found.append(Block(page, number, "stop", {}, ""))
        elif inside:
            body.append(line.removeprefix(inside[1]) + "\n")
    if inside:
        raise Mistake(f"{page}:{inside[0]}: this block has no end")
    return found


def block(page, line, info, text):
    words = shlex.split(info)
    if not words or words[0] not in RUN + SHOWN_ONLY:
        raise Mistake(f"{page}:{line}: a block begins with one of {', '.join(RUN + SHOWN_ONLY)}, not {info!r}")
    attributes = {}
    for word in words[1:]:
        name, _, value = word.partition("=")
        if name not in ATTRIBUTES:
            raise Mistake(f"{page}:{line}: {name!r} is none of {', '.join(ATTRIBUTES)}")
        attributes[name] = value
    if "norun" in attributes and not attributes["norun"]:
        raise Mistake(f"{page}:{line}: norun needs its reason, as norun='needs a Gerrit'")
    return Block(page, line, words[0], attributes, text)


def steps(text):
    """The commands of a console block, each with the lines it should print."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        elif found:
            found[-1][1].append(line)
        else:
            raise Mistake(f"a console block begins with `$ command`, not {line!r}")
    return found


def matches(expected, printed):
    """Whether lines are as expected; … in an expected line stands for anything, alone on a line for any lines."""
    pattern = "\n".join(".*" if line == "…" else ".*".join(map(re.escape, line.split("…"))) for line in expected)
    lines_may_follow = re.DOTALL if "…" in expected else 0
    return re.fullmatch(pattern, "\n".join(printed), lines_may_follow) is not None
