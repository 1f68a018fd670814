#!/usr/bin/env python3
"""That counts are read and compared as they should be; no valgrind is needed.

    python3 -m unittest discover -s tests/counts
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import count  # noqa: E402  (found through the line above)

# Leaves a profile of what the arguments behind the options ask for: so many instructions to start with, and so many each time, some of them of SHA-256.
VALGRIND = """#!/bin/sh
[ "$1" = --version ] && { echo valgrind-9.9; exit; }
for last; do
  case $last in --cachegrind-out-file=*) profile=${last#*=} ;; esac
  operation=$times times=$last
done
case $operation in line) each=70 sha=0 ;; hash) each=200 sha=${SHA-800} ;; verify) each=${REST-500} sha=1000 ;; esac
[ "$operation" = "${FAILS-}" ] && { echo "cannot" >&2; exit 1; }
[ "$operation" = "${SILENT-}" ] && exit
each=$((each * times)) sha=$((sha * times))
printf 'desc: x\nevents: Ir\nfl=??\nfn=main\n0 %s\n1 %s\nfn=<sha2::x as y>::z\n0 %s\nfn=end\n0 5\nsummary: %s\n' \\
  12345 $each $sha $((12345 + each + sha + 5 + ${WRONG-0})) > "$profile"
"""
RUSTC = "#!/bin/sh\necho 'rustc 1.0'\n"
PROGRAM = "#!/bin/sh\nprintf 'line\\nhash\\nverify\\n'\n"


class Profile(unittest.TestCase):
    def test_what_belongs_to_sha256_is_told_apart(self):
        profile = "events: Ir\nfl=a\nfn=one\n0 5\n17 6\nfn=sha2::sha256::soft::compress\n0 100\nfl=b\nfn=two\n3 7\nsummary: 118\n"
        self.assertEqual(count.instructions(profile), (118, 100))

    def test_what_does_not_add_up_is_an_error(self):
        for profile in ("", "fn=a\n0 5\n", "fn=a\n0 5\nsummary: 6\n", "fn=a\n0 5 5\nsummary: 5\n", "fn=a\n0 5\nsummary: 5\nsummary: 5\n"):
            with self.assertRaises(count.CannotCount, msg=profile):
                count.instructions(profile)


class Table(unittest.TestCase):
    def test_each_change_is_told_in_per_cent(self):
        lines = count.table({"a": 1100, "b": 995, "c": 5}, {"a": 1000, "b": 1000, "d": 7})
        self.assertEqual(
            [line.split() for line in lines[1:]],
            [["a", "1,100", "1,000", "+10.0", "%"], ["b", "995", "1,000", "-0.5", "%"], ["c", "5", "-"], ["d", "-", "7"]])

    def test_other_tools_are_named(self):
        used = {"rustc": "rustc 2", "valgrind": "valgrind-1"}
        self.assertEqual(count.differences(used, dict(used, instructions={})), [])
        (line,) = count.differences(used, {"rustc": "rustc 1", "valgrind": "valgrind-1"})
        self.assertIn("recorded with rustc 1, counted with rustc 2", line)


class Program(unittest.TestCase):
    """The whole of it, with a valgrind and a program whose numbers are known."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.recorded = os.path.join(self.directory, "recorded.json")
        for name, text in (("valgrind", VALGRIND), ("rustc", RUSTC), ("program", PROGRAM)):
            path = os.path.join(self.directory, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(path, 0o755)

    def run_it(self, *options, **environment):
        command = [sys.executable, os.path.join(HERE, "count.py"), "--recorded", self.recorded, *options,
                   os.path.join(self.directory, "program")]
        path = f"{self.directory}:{os.environ['PATH']}"
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": path, **environment})

    def test_what_is_recorded_is_compared_with(self):
        done = self.run_it("--record")
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.recorded, encoding="utf-8") as file:
            recorded = json.load(file)
        self.assertEqual((recorded["rustc"], recorded["valgrind"]), ("rustc 1.0", "valgrind-9.9"))
        self.assertEqual(recorded["instructions"], {
            "line": 70, "hash": 1000, "hash, but for SHA-256": 200, "verify": 1500, "verify, but for SHA-256": 500})
        with open(self.recorded, encoding="utf-8") as file:
            before = file.read()
        done = self.run_it(SHA="900", REST="400")
        self.assertEqual(done.returncode, 0, "a change is told and is no failure")
        self.assertRegex(done.stdout, r"(?m)^line +70 +70 +\+0\.0 %$")
        self.assertRegex(done.stdout, r"(?m)^hash +1,100 +1,000 +\+10\.0 %$")
        self.assertRegex(done.stdout, r"(?m)^verify, but for SHA-256 +400 +500 +-20\.0 %$")
        with open(self.recorded, encoding="utf-8") as file:
            self.assertEqual(file.read(), before, "only --record records")

    def test_what_cannot_be_counted_fails(self):
        for environment in ({"FAILS": "verify"}, {"SILENT": "hash"}, {"WRONG": "1"}, {"SHA": "-200"}):
            done = self.run_it("--record", **environment)
            self.assertNotEqual(done.returncode, 0, environment)
            self.assertIn("error: ", done.stderr)
            self.assertFalse(os.path.exists(self.recorded), "nothing is recorded")
        os.remove(os.path.join(self.directory, "program"))
        self.assertNotEqual(self.run_it().returncode, 0)


if __name__ == "__main__":
    unittest.main()
