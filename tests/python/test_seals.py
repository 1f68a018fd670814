#!/usr/bin/env python3
"""Seals and the tree: docs/format.md, sections 6 and 9, the golden vectors and the second implementation against each other."""

import contextlib
import io
import json
import os
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import ledger  # noqa: E402  (found through the line above)
from test_ledger import LEDGER, chain_of, rewritten  # noqa: E402

TESTDATA = os.path.join(HERE, "..", "..", "crates", "ledger", "testdata")


def vectors(name):
    with open(os.path.join(TESTDATA, name), encoding="utf-8") as file:
        return json.load(file)


def seals_over(entries, *steps):
    """Seals over entries, pairs of hash and line: each step is a list of chain, first and last."""
    hashes = {}
    for stored, line in entries:
        fields = ledger.parse_line(line)
        hashes[fields["chain"], int(fields["seq"])] = stored
    tree, prev, seals = ledger.Tree(), ledger.GENESIS, []
    for number, step in enumerate(steps, 1):
        for chain, first, last in step:
            for seq in range(first, last + 1):
                tree.append(ledger.leaf_hash(hashes[chain, seq]))
        ranges = [ledger.Range(chain, first, last, hashes[chain, last]) for chain, first, last in step]
        seal = ledger.Seal(
            LEDGER, number, prev, "2026-02-03T05:%02d:00.000000Z" % number, tree.size, tree.root().hex(), 7, 1, ranges)
        line = ledger.build_seal(seal)
        prev = ledger.hash_line(line)
        seals.append((prev, line))
    return seals


def changed(stored, **fields):
    """A seal with other fields and the hash that goes with them."""
    line = ledger.build_seal(ledger.parse_seal(stored[1])._replace(**fields))
    return ledger.hash_line(line), line


class GoldenSeals(unittest.TestCase):
    def test_lines_are_read_built_and_hashed(self):
        for vector in vectors("seals.json"):
            with self.subTest(vector["name"]):
                seal = ledger.parse_seal(vector["line"])
                fields = vector["fields"]
                self.assertEqual(seal.ledger, fields["ledger"])
                self.assertEqual(
                    [str(seal.number), seal.prev, seal.at, str(seal.size), seal.root, str(seal.system), seal.timeline],
                    [fields[name] for name in ("seal", "prev", "at", "size", "root", "system", "timeline")])
                self.assertEqual([[r.chain, str(r.first), str(r.last), r.head] for r in seal.ranges], fields["ranges"])
                self.assertEqual(ledger.build_seal(seal), vector["line"])
                self.assertEqual(ledger.hash_line(vector["line"]), vector["hash"])
                self.assertIsNone(ledger.seal_fault(seal))

    def test_roots_are_those_of_the_entries(self):
        hashes = {vector["name"]: vector["hash"] for vector in vectors("entries.json")}
        tree = ledger.Tree()
        for name, seal in (("chain_1", None), ("chain_2", "seal_1"), ("chain_3", "seal_2")):
            tree.append(ledger.leaf_hash(hashes[name]))
            for vector in vectors("seals.json"):
                if vector["name"] == seal:
                    self.assertEqual((tree.size, tree.root().hex()), (int(vector["fields"]["size"]), vector["fields"]["root"]))


class Tree(unittest.TestCase):
    def test_example_of_the_page(self):
        with open(os.path.join(HERE, "..", "..", "docs", "format.md"), encoding="utf-8") as page:
            text = page.read()
        hashes = {vector["name"]: vector["hash"] for vector in vectors("entries.json")}
        leaves = [ledger.leaf_hash(hashes["chain_%d" % n]) for n in (1, 2, 3)]
        for place, leaf in enumerate(leaves):
            self.assertIn("leaf %d  %s" % (place, leaf.hex()), text)
        self.assertIn("root    %s" % ledger.tree_root(leaves).hex(), text)

    def test_leaf_by_leaf_is_the_definition(self):
        tree, leaves = ledger.Tree(), []
        for number in range(131):
            self.assertEqual(tree.root(), ledger.tree_root(leaves))
            leaves.append(ledger.leaf_hash("%064x" % number))
            tree.append(leaves[-1])


class StrictSeal(unittest.TestCase):
    def test_only_one_spelling_is_read(self):
        line = seals_over(chain_of(2), [(3, 1, 2)])[0][1]
        for old, new in (
            ('"v":1', '"v":2'), ('"seal":"1"', '"seal":1'), ('"seal":"1"', '"seal":"01"'), (':"7"', ':"+7"'), ("[[", "[ ["),
            ("]]", "],]"), ('"timeline":1', '"timeline":4294967296'), ("T05:", "T25:"), ("}", "} "), ('"2"', '"9223372036854775808"'),
        ):
            self.assertIn(old, line)
            with self.subTest(new), self.assertRaises(ledger.FormatError):
                ledger.parse_seal(line.replace(old, new, 1))
        with self.assertRaises(ledger.FormatError):
            ledger.parse_seal(chain_of(1)[0][1])
        with self.assertRaises(ledger.FormatError):
            ledger.parse_line(line)


class Seals(unittest.TestCase):
    def setUp(self):
        self.entries = chain_of(5, chain=3) + chain_of(4, chain=4, first_id=100)
        self.seals = seals_over(self.entries, [(3, 1, 3)], [(3, 4, 4), (4, 1, 2)], [(4, 3, 4)])

    def found(self, seals=None, entries=None):
        findings = ledger.verify_seals(self.seals if seals is None else seals, self.entries if entries is None else entries)
        return [(finding.kind, finding.chain, finding.seq) for finding in findings]

    def test_whole_log_has_no_findings(self):
        self.assertEqual(self.found(), [])
        self.assertEqual(self.found(self.seals[::-1], self.entries[::-1]), [])

    def test_tail_cut_behind_the_last_seal_is_not_found_and_before_it_is(self):
        self.assertEqual(self.found(entries=[e for e in self.entries if e != self.entries[4]]), [])
        self.assertEqual(self.found(entries=self.entries[:3] + self.entries[5:]), [("missing", 3, 4)])
        self.assertEqual(self.found(entries=self.entries[:5]), [("missing", 4, 1)])

    def test_rewritten_chain_is_found(self):
        entries = list(self.entries)
        entries[1] = rewritten(entries[1], new='{"id":99}')
        for place in range(2, 5):
            entries[place] = rewritten(entries[place], prev=entries[place - 1][0])
        kinds = self.found(entries=entries)
        self.assertEqual(kinds[:2], [("seal", 3, 3), ("tree", None, None)])

    def test_removed_and_changed_seals_are_found(self):
        self.assertEqual(self.found(self.seals[1:]), [("seal", None, None)])
        self.assertEqual(self.found(self.seals[:1] + self.seals[2:]), [("seal", None, None)])
        for fields in ({"root": "0" * 64}, {"size": 7}, {"at": "2026-02-03T05:02:01.000000Z"}, {"system": 8}):
            stored = changed(self.seals[1], **fields)
            self.assertEqual(self.found([self.seals[0], (self.seals[1][0], stored[1]), self.seals[2]]), [("seal", None, None)], fields)
            self.assertIn(("seal", None, None), self.found([self.seals[0], stored, self.seals[2]]), fields)
        last = changed(self.seals[2], root="0" * 64)
        self.assertEqual(self.found(self.seals[:2] + [last]), [("tree", None, None)])

    def test_program_reads_seals_among_entries(self):
        for seals, status, part in ((self.seals, 0, "seals 3"), (self.seals[1:], 1, "seal 1\ntree ok\nfinding seal: ")):
            with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
                file.write("".join("%s %s\n" % one for one in self.entries[:4] + seals + self.entries[4:]))
                file.flush()
                with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), encoding="utf-8")) as out:
                    self.assertEqual(ledger.main([file.name]), status)
                    out.seek(0)
                    self.assertIn(part, out.read())


if __name__ == "__main__":
    unittest.main()
