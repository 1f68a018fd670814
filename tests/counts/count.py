#!/usr/bin/env python3
"""Counts the instructions of each operation of a program that does it as often as it is told, and prints them beside those that are recorded.

    scripts/counts              builds the program and calls this
    scripts/counts --record     what was counted becomes what is recorded

Instructions are no times, but they do not depend on what else the machine does, so that a change of one per cent is one. The exit status tells only whether it was possible to count.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

RECORDED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recorded.json")

# Whole rounds of the program's 1024 entries. What the second does more than the first is the operation, and nothing but the operation.
FEWER, MORE = 1024, 3072

# Functions of which these are part of the name compute SHA-256.
SHA = "sha2::"

SOFT = ("SHA-256 is counted as a processor without instructions for it computes it, since valgrind has none: several times as many as it would take."
        " What an operation does besides stands in a line of its own.")


class CannotCount(Exception):
    pass


def output(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CannotCount(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise CannotCount(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout, done.stderr


def instructions(profile):
    """All instructions of a profile of cachegrind's, and those of SHA-256 among them."""
    told = re.findall(r"^summary: ([0-9]+)$", profile, re.MULTILINE)
    whole = sha = 0
    is_sha = False
    for line in profile.splitlines():
        if line.startswith("fn="):
            is_sha = SHA in line
        elif re.fullmatch(r"[0-9]+ [0-9]+", line):
            here = int(line.split()[1])
            whole += here
            sha += here if is_sha else 0
    if told != [str(whole)]:
        raise CannotCount(f"the profile of valgrind adds up to {whole}, and says {' and '.join(told) or 'nothing'}")
    return whole, sha


def run(program, operation, times):
    with tempfile.TemporaryDirectory() as directory:
        profile = os.path.join(directory, "profile")
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--branch-sim=no", f"--cachegrind-out-file={profile}"]
        output([*valgrind, program, operation, str(times)])
        try:
            with open(profile, encoding="utf-8", errors="replace") as file:
                return instructions(file.read())
        except OSError as error:
            raise CannotCount(f"valgrind left no profile: {error.strerror}") from error


def count(program):
    """Instructions of each operation; for those that compute SHA-256, also what is left without."""
    operations = output([program])[0].splitlines()
    if not operations:
        raise CannotCount(f"{program} names no operations")
    counted = {}
    for operation in operations:
        fewer, more = run(program, operation, FEWER), run(program, operation, MORE)
        whole, sha = (after - before for before, after in zip(fewer, more))
        if whole <= 0:
            raise CannotCount(f"{operation} {MORE} times took no more instructions than {FEWER} times")
        counted[operation] = round(whole / (MORE - FEWER))
        if sha > 0:
            counted[f"{operation}, but for SHA-256"] = round((whole - sha) / (MORE - FEWER))
    return counted


def tools():
    """What else the numbers depend on."""
    return {
        "rustc": output(["rustc", "--version"])[0].strip(),
        "valgrind": output(["valgrind", "--version"])[0].strip(),
        "processor": platform.machine(),
    }


def table(counted, recorded):
    """The lines to print: operation, instructions, those that are recorded, and the change."""
    rows = [("instructions, each", "now", "recorded", "change")]
    for name in [*counted, *(name for name in recorded if name not in counted)]:
        now, before = counted.get(name), recorded.get(name)
        change = f"{(now - before) / before * 100:+.1f} %" if now is not None and before else ""
        rows.append((name, *("-" if number is None else f"{number:,}" for number in (now, before)), change))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
            for row in rows]


def differences(used, recorded):
    """What to know of a comparison of numbers of other tools."""
    return [f"recorded with {recorded.get(tool)}, counted with {version}: that alone may be the change"
            for tool, version in used.items() if recorded.get(tool) != version]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="what is counted becomes what is recorded")
    parser.add_argument("--recorded", default=RECORDED, metavar="FILE", help="where it is recorded")
    parser.add_argument("program")
    given = parser.parse_args()
    try:
        with open(given.recorded, encoding="utf-8") as file:
            recorded = json.load(file)
    except FileNotFoundError:
        recorded = {}
    try:
        used, counted = tools(), count(given.program)
    except CannotCount as error:
        sys.exit(f"error: {error}")
    print(*table(counted, recorded.get("instructions", {})), sep="\n")
    print(*(differences(used, recorded) if recorded else ()), SOFT, sep="\n")
    if given.record:
        with open(given.recorded, "w", encoding="utf-8") as file:
            json.dump({**used, "instructions": counted}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
