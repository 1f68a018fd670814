#!/usr/bin/env python3
"""Holds docs/format.md, the golden vectors and the second implementation against each other.

    python3 -m unittest discover -s tests/python
"""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import ledger  # noqa: E402  (found through the line above, from whatever directory the tests are started)

VECTORS = os.path.join(HERE, "..", "..", "crates", "ledger", "testdata", "entries.json")
SEALS = os.path.join(HERE, "..", "..", "crates", "ledger", "testdata", "seals.json")
LEDGER = "0b0f5b0e-3c0a-4c8e-9d59-6f9f2f4f6a01"


def entry_fields(**changed):
    fields = {
        "v": 1, "ledger": LEDGER, "chain": 3, "seq": "1", "prev": ledger.GENESIS, "id": "1",
        "at": "2026-02-03T04:05:06.000007Z", "xid": "750", "command": 0, "op": "INSERT",
        "table_oid": 16390, "table_schema": "public", "table_name": "orders",
        "key": '{"id":1}', "new": '{"id":1,"note":null}', "session_name": "app", "user_name": "app",
    }
    fields.update(changed)
    return fields


def without(*members):
    return {name: value for name, value in entry_fields().items() if name not in members}


def chain_of(length, chain=3, first_id=1, second=0):
    """A sound chain as pairs of hash and line."""
    entries, prev = [], ledger.GENESIS
    for seq in range(1, length + 1):
        line = ledger.build_line(entry_fields(
            chain=chain, seq=str(seq), id=str(first_id + 2 * seq), prev=prev, key='{"id":%d}' % seq, new='{"id":%d}' % seq,
            at="2026-02-03T04:%02d:%02d.000000Z" % divmod(second + seq, 60)))
        prev = ledger.hash_line(line)
        entries.append((prev, line))
    return entries


def rewritten(entry, **changed):
    """The entry with other fields and the hash that goes with them: what a tamperer who knows the format leaves."""
    line = ledger.build_line({**ledger.parse_line(entry[1]), **changed})
    return ledger.hash_line(line), line


def leaf(entry_hash):
    """Section 6: the leaf of an entry."""
    return hashlib.sha256(b"\0" + bytes.fromhex(entry_hash)).digest()


def root(leaves):
    """Section 6: the root of a tree, straight from its definition."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return hashlib.sha256(b"\1" + root(leaves[:half]) + root(leaves[half:])).digest()


class GoldenSeals(unittest.TestCase):
    """Section 9. Nothing in a seal's line needs an escape, so the common writer of JSON writes it."""

    @classmethod
    def setUpClass(cls):
        with open(SEALS, encoding="utf-8") as file:
            cls.seals = json.load(file)
        with open(VECTORS, encoding="utf-8") as file:
            cls.entries = {vector["name"]: vector["hash"] for vector in json.load(file)}

    def test_fields_build_the_line_and_its_hash(self):
        members = ["v", "ledger", "seal", "prev", "at", "size", "root", "system", "timeline", "ranges"]
        for vector in self.seals:
            with self.subTest(vector["name"]):
                self.assertEqual(list(vector["fields"]), members)
                self.assertEqual(json.dumps(vector["fields"], separators=(",", ":")), vector["line"])
                self.assertEqual(ledger.hash_line(vector["line"]), vector["hash"])

    def test_no_line_of_a_seal_is_one_of_an_entry(self):
        for vector in self.seals:
            with self.assertRaises(ledger.FormatError):
                ledger.parse_line(vector["line"])

    def test_seals_of_the_chain_have_its_roots(self):
        leaves, prev = [], ledger.GENESIS
        for number, vector in enumerate((vector for vector in self.seals if vector["name"].startswith("seal_")), 1):
            fields = vector["fields"]
            self.assertEqual((fields["seal"], fields["prev"]), (str(number), prev))
            for chain, first, last, head in fields["ranges"]:
                leaves += [leaf(self.entries["chain_%d" % seq]) for seq in range(int(first), int(last) + 1)]
                self.assertEqual(head, self.entries["chain_" + last])
            self.assertEqual((fields["size"], fields["root"]), (str(len(leaves)), root(leaves).hex()))
            prev = vector["hash"]
        self.assertEqual(len(leaves), 3)


class GoldenVectors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(VECTORS, encoding="utf-8") as file:
            cls.vectors = json.load(file)

    def test_there_are_vectors(self):
        self.assertTrue(self.vectors)
        self.assertEqual({vector["fields"]["op"] for vector in self.vectors}, set(ledger.IMAGES))

    def test_fields_build_the_line(self):
        for vector in self.vectors:
            with self.subTest(vector["name"]):
                self.assertEqual(set(vector["fields"]), set(ledger.MEMBERS))
                self.assertEqual(ledger.build_line(vector["fields"]), vector["line"])

    def test_hash_is_sha256_of_the_line(self):
        for vector in self.vectors:
            with self.subTest(vector["name"]):
                self.assertEqual(ledger.hash_line(vector["line"]), vector["hash"])

    def test_line_parses_to_what_builds_it_again(self):
        for vector in self.vectors:
            with self.subTest(vector["name"]):
                fields = ledger.parse_line(vector["line"])
                for member in ledger.MEMBERS:
                    expected = vector["fields"][member]
                    if expected is not None and member in ("key", "old", "new", "context"):
                        expected = ledger.one_line(expected)
                    self.assertEqual(fields[member], expected, member)
                self.assertEqual(ledger.build_line(fields), vector["line"])

    def test_line_is_as_its_operation_demands(self):
        for vector in self.vectors:
            with self.subTest(vector["name"]):
                self.assertIsNone(ledger.operation_fault(ledger.parse_line(vector["line"])))


class Line(unittest.TestCase):
    def test_line_written_by_hand(self):
        line = (
            '{"v":1,"ledger":"0b0f5b0e-3c0a-4c8e-9d59-6f9f2f4f6a01","chain":3,"seq":"1",'
            '"prev":"0000000000000000000000000000000000000000000000000000000000000000","id":"1",'
            '"at":"2026-02-03T04:05:06.000007Z","xid":"750","command":0,"op":"INSERT","table_oid":16390,'
            '"table_schema":"public","table_name":"orders","key":{"id":1},"new":{"id":1,"note":null},'
            '"session_name":"app","user_name":"app"}'
        )
        self.assertEqual(ledger.build_line(entry_fields()), line)
        # Made with sha256sum, not with this program.
        self.assertEqual(ledger.hash_line(line), "ec4c92a1cd44ee4dc4fced4a2bbb26d3eb6986d35fcf670ded8c15cba21cf52b")

    def test_hash_is_of_utf8(self):
        line = ledger.build_line(entry_fields(table_name="größe 表 😀"))
        self.assertEqual(ledger.hash_line(line), hashlib.sha256(line.encode("utf-8")).hexdigest())
        self.assertEqual(ledger.hash_line(line), ledger.hash_line(line.encode("utf-8")))

    def test_each_character_has_one_form(self):
        forms = {
            '"': r'\"', "\\": r"\\", "\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r",
            "\0": r"\u0000", "\v": r"\u000b", "\x1b": r"\u001b", "\x1f": r"\u001f",
            "/": "/", "'": "'", "\x7f": "\x7f", "\x85": "\x85", "\u2028": "\u2028", "\ufeff": "\ufeff", "é": "é", "e\u0301": "e\u0301",
            "\uffff": "\uffff", "\U0001f600": "\U0001f600",
        }
        for character, form in forms.items():
            with self.subTest(ascii(character)):
                self.assertEqual(ledger.quote(character), '"' + form + '"')
                line = ledger.build_line(entry_fields(application_name=character))
                self.assertIn('"application_name":"%s"' % form, line)
                self.assertEqual(ledger.parse_line(line)["application_name"], character)

    def test_every_character_below_space_survives(self):
        text = "".join(map(chr, range(0x20)))
        self.assertEqual(ledger.parse_line(ledger.build_line(entry_fields(table_schema=text)))["table_schema"], text)

    def test_all_members_stand_in_their_order(self):
        fields = entry_fields(
            op="UPDATE", subxid="751", old='{"note":"a"}', new='{"note":"b"}', login_name="login", application_name="", client_addr="2001:db8::1",
            context='{"request":"r-1"}')
        line = ledger.build_line(fields)
        self.assertEqual(tuple(json.loads(line)), ledger.MEMBERS)
        self.assertEqual(ledger.parse_line(line), fields)
        self.assertIsNone(ledger.operation_fault(fields))

    def test_absent_members_are_left_out(self):
        fields = ledger.parse_line(ledger.build_line(without("command", "key")))
        self.assertIsNone(fields["command"])
        self.assertNotIn("null}", ledger.build_line({**fields, "new": "{}"}))
        self.assertEqual(set(fields), set(ledger.MEMBERS))

    def test_largest_numbers(self):
        fields = entry_fields(
            chain=2**31 - 1, seq=str(2**63 - 1), id=str(2**63 - 1), xid=str(2**64 - 1), command=2**32 - 1, table_oid=2**32 - 1)
        self.assertEqual(ledger.parse_line(ledger.build_line(fields))["xid"], "18446744073709551615")
        fields = entry_fields(xid="0", subxid=str(2**64 - 1))
        self.assertEqual(ledger.parse_line(ledger.build_line(fields))["subxid"], "18446744073709551615")

    def test_fields_that_no_line_can_hold_are_not_written(self):
        for bad in (
            {"chain": 0}, {"chain": 2**31}, {"chain": "3"}, {"chain": True}, {"chain": 3.0}, {"v": 2}, {"v": None},
            {"seq": 1}, {"seq": "0"}, {"seq": "-1"}, {"seq": "+1"}, {"seq": "01"}, {"seq": ""}, {"seq": "1 "}, {"seq": str(2**63)},
            {"seq": "١"}, {"id": "1.0"}, {"id": "1e3"}, {"xid": str(2**64)}, {"xid": "9" * 100000},
            {"subxid": "750"}, {"subxid": "0751"}, {"subxid": 751}, {"subxid": str(2**64)}, {"command": -1}, {"command": 2**32},
            {"command": "0"}, {"table_oid": 0}, {"table_oid": 2**32}, {"op": "insert"}, {"op": "SELECT"}, {"op": ""},
            {"ledger": LEDGER.upper()}, {"ledger": LEDGER.replace("-", "")}, {"ledger": "{%s}" % LEDGER}, {"ledger": LEDGER + "\n"},
            {"prev": "0" * 63}, {"prev": "0" * 65}, {"prev": "A" * 64}, {"prev": "0" * 64 + "\n"}, {"prev": None},
            {"at": "2026-02-03T04:05:06Z"}, {"at": "2026-02-03T04:05:06.00000Z"}, {"at": "2026-02-03 04:05:06.000000Z"},
            {"at": "2026-02-03T04:05:06.000000+00:00"}, {"at": "2026-02-30T04:05:06.000000Z"}, {"at": "2026-13-03T04:05:06.000000Z"},
            {"at": "2026-00-03T04:05:06.000000Z"}, {"at": "2026-01-00T04:05:06.000000Z"}, {"at": "2025-02-29T04:05:06.000000Z"},
            {"at": "2026-02-03T24:00:00.000000Z"}, {"at": "2026-02-03T23:60:00.000000Z"}, {"at": "2026-02-03T23:59:60.000000Z"},
            {"at": "2026-02-03T04:05:06.000000z"}, {"at": "٢٠٢٦-02-03T04:05:06.000000Z"}, {"at": "0000-02-30T04:05:06.000000Z"},
            {"at": "1900-02-29T04:05:06.000000Z"}, {"at": "-001-02-03T04:05:06.000000Z"}, {"at": "10000-01-01T00:00:00.000000Z"},
            {"client_addr": "10.0.0.1/32"}, {"client_addr": "localhost"}, {"client_addr": ""}, {"client_addr": "10.0.0"},
            {"key": "[1]"}, {"key": ""}, {"new": "null"}, {"new": '{"a":1'}, {"new": '{"a":1}}'}, {"context": "[]"}, {"context": '"x"'},
            {"client_addr": "fe80::1%eth0"}, {"client_addr": "2001:db8::/32"}, {"id": "0"},
            {"table_name": None}, {"table_oid": None}, {"table_name": "\ud800"}, {"surplus": "x"},
            {"op": "UNPROTECT", "new": '{"reason": "moved"}'},
        ):
            with self.subTest(str(bad)[:80]), self.assertRaises(ValueError):
                ledger.build_line(entry_fields(**bad))

    def test_first_and_last_time(self):
        for at in ("0000-01-01T00:00:00.000000Z", "0000-02-29T23:59:59.999999Z", "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"):
            with self.subTest(at):
                self.assertEqual(ledger.parse_line(ledger.build_line(entry_fields(at=at)))["at"], at)

    def test_details_of_an_operation_without_a_row_have_no_white_space(self):
        fields = {**without("key", "command"), "op": "UNPROTECT"}
        good = '{"reason":"moved away","more":{"a":[1,{}]}}'
        self.assertEqual(ledger.parse_line(ledger.build_line({**fields, "new": good}))["new"], good)
        tokens = re.findall(r'"[^"]*"|[][{}:,]|[0-9]+', good)
        self.assertEqual("".join(tokens), good)
        for place in range(len(tokens) + 1):
            for blank in " \t\n":
                with self.subTest(tokens[place - 1:place + 1]), self.assertRaises(ledger.FormatError):
                    ledger.build_line({**fields, "new": "".join(tokens[:place]) + blank + "".join(tokens[place:])})

    def test_required_members(self):
        for member in ledger.REQUIRED:
            with self.subTest(member), self.assertRaises(ledger.FormatError):
                ledger.build_line(without(member))


class StrictParse(unittest.TestCase):
    line = ledger.build_line(entry_fields(
        op="UPDATE", old='{"note":"a"}', new='{"note":"b"}', context='{"request":"r-1"}', application_name="psql"))

    def refused(self, line, message=""):
        with self.assertRaisesRegex(ledger.FormatError, message):
            ledger.parse_line(line)

    def test_white_space_between_tokens_is_refused(self):
        # A line without objects: around what stands in those, white space may be part of a json value.
        line = ledger.build_line({**without("key", "new", "command"), "op": "TRUNCATE", "application_name": "psql"})
        tokens = re.findall(r'"[^"]*"|[{}:,]|[0-9]+', line)
        self.assertEqual("".join(tokens), line)
        for place in range(len(tokens) + 1):
            for blank in " \t\r\n":
                with self.subTest(tokens[place - 1:place + 1]):
                    self.refused("".join(tokens[:place]) + blank + "".join(tokens[place:]))
        for blank in " \t\r\n\f\v\u00a0\ufeff":
            self.refused(blank + self.line)
            self.refused(self.line + blank)

    def test_white_space_in_columns_stands_only_around_values(self):
        for good in ('{"a": null}', '{"a": 1 }', '{"a":\t[ 1 ,\t2 ] ,"b":1}', '{"a": { "b" : { } } }', "{}"):
            with self.subTest(good):
                self.assertEqual(ledger.parse_line(ledger.build_line(entry_fields(new=good)))["new"], good)
        for bad in ('{ "a":1}', '{"a" :1}', '{"a":1, "b":2}', "{ }", '{"a":\f1}', '{"a":\u00a01}', ' {"a":1}', '{"a":1} '):
            with self.subTest(bad):
                self.refused(self.line.replace('{"note":"b"}', bad))

    def test_order_and_names_of_members(self):
        fields = json.loads(self.line)
        dump = lambda pairs: "{" + ",".join("%s:%s" % (json.dumps(k), json.dumps(v, separators=(",", ":"))) for k, v in pairs) + "}"
        pairs = list(fields.items())
        self.assertEqual(dump(pairs), self.line)
        for i in range(len(pairs) - 1):
            with self.subTest(pairs[i][0]):
                self.refused(dump(pairs[:i] + [pairs[i + 1], pairs[i]] + pairs[i + 2:]))
                self.refused(dump(pairs[:i] + [pairs[i]] + pairs[i:]))
        self.refused(dump(pairs + [("more", "x")]), "unknown member")
        self.refused(dump(pairs + [("context", {})]), "out of its order")
        self.refused(self.line.replace('"op"', '"Op"'), "unknown member")
        self.refused(self.line.replace('"op"', '"\\u006fp"'))
        for i, (name, _) in enumerate(pairs):
            if name in ledger.REQUIRED + ledger.TABLE_MEMBERS:
                with self.subTest(name):
                    self.refused(dump(pairs[:i] + pairs[i + 1:]))

    def test_absent_members_are_not_null(self):
        for old, new in (('"command":0', '"command":null'), ('"application_name":"psql"', '"application_name":null'),
                         ('"context":{"request":"r-1"}', '"context":null')):
            self.refused(self.line.replace(old, new))

    def test_unknown_version(self):
        for version in ("2", "0", "10", "999999999999999999999999"):
            self.refused(self.line.replace('"v":1', '"v":' + version), "unknown version")
        # What another version means by its members is not known: only its number is read.
        self.refused('{"v":2,anything', "unknown version 2")
        for version in ('"1"', "1.0", "01", "1e0", "-1", "+1", "null", "", " 1"):
            self.refused(self.line.replace('"v":1', '"v":' + version), "version expected")
        self.refused(self.line.replace('"v":1,', ""))

    def test_escapes_that_are_not_minimal(self):
        for form in (r"\u0041", r"\/", r"\u0022", r"\u005c", r"\u000a", r"\u0008", r"\u0009", r"\u000c", r"\u000d", r"\u001F", r"\u000B",
                     r"\U0000001f", r"\x1f", r"\u007f", r"\u00e9", r"\ud83d\ude00", r"\ud800", r"\v", r"\0", r"\a", r"\'", r"\u1", r"\u001",
                     "\t", "\0", "\x1f", "\\"):
            with self.subTest(form):
                self.refused(self.line.replace("psql", "x" + form + "y"))
                self.refused(self.line.replace("psql", form))
                self.refused(self.line.replace('{"note":"b"}', '{"%s":1}' % form))

    def test_numbers_in_another_form(self):
        for old, forms in (
            ('"chain":3', ("03", "3.0", "3e0", "+3", "-3", '"3"', "0", "2147483648", "9" * 100000, "٣")),
            ('"command":0', ("00", "-0", "0.0", "0e0", '"0"', "4294967296")),
            ('"table_oid":16390', ("016390", "0", "4294967296", "1639e1", '"16390"')),
            ('"seq":"1"', ("1", '"01"', '"1.0"', '"0"', '"-1"', '"+1"', '"9223372036854775808"')),
            ('"id":"1"', ("1", '"01"', '""', '"0x1"')),
            ('"xid":"750"', ("750", '"0750"', '"18446744073709551616"')),
        ):
            for form in forms:
                with self.subTest(old, form=form[:30]):
                    self.assertIn(old, self.line)
                    self.refused(self.line.replace(old, old.split(":")[0] + ":" + form))

    def test_bytes_that_are_not_utf8(self):
        for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe4"):
            self.refused(self.line.encode().replace(b"psql", bad), "UTF-8")

    def test_every_prefix_is_refused(self):
        for end in range(len(self.line)):
            self.refused(self.line[:end])

    def test_random_damage_never_does_more_than_refuse(self):
        generator = random.Random(2)
        characters = '{}[]":,\\ \tu0123456789abnft-+.eEé\0'
        for _ in range(20000):
            place = generator.randrange(len(self.line))
            damaged = self.line[:place] + generator.choice(characters) + self.line[place + generator.randrange(3):]
            try:
                fields = ledger.parse_line(damaged)
            except ledger.FormatError:
                continue
            # What is accepted is exactly what would be written.
            self.assertEqual(ledger.build_line(fields), damaged)


class ColumnValues(unittest.TestCase):
    def accepted(self, value):
        text = ledger.column_object([("a", value), ("b", "null")])
        fields = ledger.parse_line(ledger.build_line(entry_fields(new=text)))
        self.assertEqual(fields["new"], ledger.one_line(text))
        self.assertEqual(ledger.parse_columns(fields["new"]), [("a", ledger.one_line(value)), ("b", "null")])

    def test_json_is_kept_as_it_is(self):
        for value in (
            '{"a":1,"a":2}', "1e400", "-1E-4000", "1.00", "-0", "0.10", "9" * 5000, '"\\u0041\\/\\ud800"', "[]", "{}", "[[],{},[{}]]",
            '{"a":{"a":{"a":[null,true,false]}}}', '""', ledger.json_column("null"), ledger.json_column('{"a":\n1,\r\n"b":2}'), ' "x" ', '{"":0}',
        ):
            with self.subTest(value[:40]):
                self.accepted(value)

    def test_what_is_not_json_is_refused(self):
        for value in (
            "", "01", "+1", ".5", "5.", "1e", "1e+", "0x1", "NaN", "Infinity", "-", "--1", "nul", "nulll", "True", "'a'", '"a', '"\\x"', '"\\u12g4"',
            '"\x01"', "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]",
            "{", '{"a"', '{"a":', '{"a":1', '{"a":1,', '{"a":1,}', "{1:1}", "{,}", '{"a" 1}',
            '{"a":1]', '["a":1]', "[}", "{]", "1,2", "1 2", '"a""b"', "/* */1", "1 // x", "\u0663", "\x0b1", "\xa01",
        ):
            with self.subTest(value), self.assertRaises(ledger.FormatError):
                ledger.build_line(entry_fields(new='{"a":%s}' % value))

    def test_json_null_is_not_sql_null(self):
        self.assertEqual(ledger.json_column("null"), " null")
        self.assertEqual(ledger.json_column("\nnull"), " null")
        self.assertNotEqual(ledger.column_object([("a", "null")]), ledger.column_object([("a", ledger.json_column("null"))]))

    def test_a_column_stands_once(self):
        with self.assertRaisesRegex(ledger.FormatError, "stands twice"):
            ledger.build_line(entry_fields(new='{"a":1,"b":2,"a":1}'))
        # Not so where the object is as somebody gave it.
        ledger.build_line(entry_fields(context='{"a":1,"a":2}'))

    def test_names_of_columns(self):
        for name in ("", "ä ö", 'say "hi"', "back\\slash", "tab\there", "line\nfeed", "null", "a:b,c}"):
            with self.subTest(name):
                text = ledger.column_object([(name, "1")])
                line = ledger.build_line(entry_fields(new=text))
                self.assertEqual(ledger.parse_columns(ledger.parse_line(line)["new"]), [(name, "1")])

    def test_adjacent_columns_cannot_be_cut_differently(self):
        one = ledger.column_object([("a", ledger.quote('x","b":"y'))])
        two = ledger.column_object([("a", ledger.quote("x")), ("b", ledger.quote("y"))])
        self.assertNotEqual(one, two)

    def test_deep_nesting(self):
        depth = 200_000
        for value in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, '[{"a":' * depth + "null" + "}]" * depth):
            self.accepted(value)
        with self.assertRaises(ledger.FormatError):
            ledger.build_line(entry_fields(new='{"a":%s%s}' % ("[" * depth, "]" * (depth - 1))))

    def test_long_values_take_time_in_proportion(self):
        started = time.process_time()
        self.accepted('"' + "\\\\" * 500_000 + '"')
        self.accepted('"' + "x" * 5_000_000 + '"')
        self.accepted("9" * 1_000_000)
        self.accepted(" " * 1_000_000 + "1")
        # A bound that only a method worse than linear reaches.
        self.assertLess(time.process_time() - started, 60)

    def test_context_is_as_given(self):
        fields = ledger.parse_line(ledger.build_line(entry_fields(context='{"a" : 1,\n "b":[1e400]}')))
        self.assertEqual(fields["context"], '{"a" : 1,  "b":[1e400]}')


class Operations(unittest.TestCase):
    def fault(self, **changed):
        return ledger.operation_fault(ledger.parse_line(ledger.build_line(entry_fields(**changed))))

    def test_good(self):
        for changed in (
            dict(op="INSERT"), dict(op="BASELINE", command=None), dict(op="DELETE", old='{"id":1}', new=None),
            dict(op="INSERT", key=None), dict(op="UPDATE", old="{}", new="{}"), dict(op="TRUNCATE", key=None, new=None, command=None),
            dict(op="PROTECT", key=None, command=None, new='{"kind":"r","images":"changed","exclude":["note"],"baseline":true}'),
            dict(op="UNPROTECT", key=None, command=None, new='{"reason":"retired"}'),
            dict(op="INCARNATION", key=None, command=None, table_oid=None, table_schema=None, table_name=None,
                 new='{"system_identifier":"7412","database_oid":16384,"tables":{"16390":24577}}'),
            dict(op="DDL", key=None, command=None, new='{"command":"CREATE TRIGGER","statement":"CREATE TRIGGER ..."}'),
            dict(op="DDL", key=None, command=None, new='{"command":"DROP TABLE"}',
                 old='{"schema":"public","name":"t","columns":["id"],"types":["integer"],"key":["id"]}'),
            dict(op="MAINTENANCE", key=None, command=None, table_oid=None, table_schema=None, table_name=None,
                 new='{"reason":"repair"}'),
        ):
            with self.subTest(changed["op"]):
                self.assertIsNone(self.fault(**changed))

    def test_bad(self):
        for changed in (
            dict(op="INSERT", old="{}"), dict(op="INSERT", new=None), dict(op="DELETE"), dict(op="UPDATE"), dict(op="UPDATE", old='{"x":1}'),
            dict(op="TRUNCATE", command=None), dict(op="PROTECT", command=None), dict(op="UNPROTECT", key=None, new=None, command=None),
            dict(op="INSERT", table_oid=None, table_schema=None, table_name=None),
            dict(op="INSERT", command=None), dict(op="UPDATE", old="{}", new="{}", command=None),
            dict(op="DELETE", old='{"id":1}', new=None, command=None), dict(op="BASELINE"),
            dict(op="TRUNCATE", key=None, new=None), dict(op="UNPROTECT", key=None, new='{"reason":"retired"}'),
            dict(op="UNPROTECT", key=None, command=None, new="{}"),
            dict(op="DDL", key=None, command=None, new='{"statement":"DROP TABLE t"}'), dict(op="DDL", key=None, command=None, new=None),
            dict(op="DDL", command=None, new='{"command":"DROP TABLE"}'), dict(op="DDL", key=None, new='{"command":"DROP TABLE"}'),
            dict(op="DDL", key=None, command=None, new='{"command":"DROP TABLE"}', old='{"schema":"public","name":"t"}'),
            dict(op="PROTECT", key=None, command=None, new='{"kind":"r","images":"changed","baseline":true}'),
            dict(op="MAINTENANCE", key=None, command=None, new='{"reason":"repair"}'),
            dict(op="MAINTENANCE", key=None, command=None, table_oid=None, table_schema=None, table_name=None, new="{}"),
        ):
            with self.subTest(str(changed)):
                self.assertIsNotNone(self.fault(**changed))


class Chain(unittest.TestCase):
    """One test for each way to damage a chain, with all the findings it must give: kind, seq."""

    def setUp(self):
        self.entries = chain_of(9)

    def found(self, entries=None):
        return [(finding.kind, finding.seq) for finding in ledger.verify_entries(self.entries if entries is None else entries).findings]

    def test_sound_chains_in_any_order(self):
        entries = self.entries + chain_of(5, chain=1, first_id=100) + chain_of(1, chain=2, first_id=50)
        random.Random(1).shuffle(entries)
        report = ledger.verify_entries(entries)
        self.assertEqual(report, ledger.Report(15, 3, 1, []))

    def test_nothing(self):
        self.assertEqual(ledger.verify_entries([]), ledger.Report(0, 0, 0, []))

    def test_cut_end_cannot_be_seen(self):
        self.assertEqual(self.found(self.entries[:-1]), [])

    def test_other_ledger_is_another_chain(self):
        other = rewritten(self.entries[0], ledger=LEDGER.replace("0b", "1b"))
        report = ledger.verify_entries(self.entries + [other])
        self.assertEqual(report, ledger.Report(10, 2, 2, []))

    def test_content_of_an_entry_edited(self):
        stored, line = self.entries[3]
        self.entries[3] = stored, line.replace('"new":{"id":4}', '"new":{"id":5}')
        # Links are held against hashes as they are stored: one changed entry is one fault.
        self.assertEqual(self.found(), [("content", 4)])

    def test_content_of_the_last_entry_edited(self):
        stored, line = self.entries[8]
        self.entries[8] = stored, line.replace('"new":{"id":9}', '"new":{"id":5}')
        self.assertEqual(self.found(), [("content", 9)])

    def test_every_bit_of_an_entry_counts(self):
        first, (stored, line) = chain_of(2)
        line = line.encode()
        for bit in range(0, 8 * len(line)):
            flipped = bytearray(line)
            flipped[bit // 8] ^= 1 << bit % 8
            self.assertIn("content", [kind for kind, _ in self.found([first, (stored, bytes(flipped))])])

    def test_stored_hash_edited(self):
        self.entries[3] = "f" * 64, self.entries[3][1]
        self.assertEqual(self.found(), [("content", 4), ("link", 5)])

    def test_stored_hash_in_another_form(self):
        for form in (self.entries[3][0].upper(), self.entries[3][0][:62], "", "\\x" + self.entries[3][0]):
            self.assertEqual(self.found(self.entries[:3] + [(form, self.entries[3][1])] + self.entries[4:]), [("content", 4), ("link", 5)])

    def test_entry_edited_with_its_hash(self):
        self.entries[3] = rewritten(self.entries[3], new='{"id":5}')
        self.assertEqual(self.found(), [("link", 5)])

    def test_prev_edited_with_its_hash(self):
        self.entries[8] = rewritten(self.entries[8], prev=self.entries[3][0])
        self.assertEqual(self.found(), [("link", 9)])

    def test_first_entry_is_not_the_genesis(self):
        self.assertEqual(self.found([rewritten(self.entries[0], prev="1" * 64)]), [("link", 1)])

    def test_genesis_in_the_middle(self):
        self.entries[8] = rewritten(self.entries[8], prev=ledger.GENESIS)
        self.assertEqual(self.found(), [("link", 9)])

    def test_one_entry_missing(self):
        del self.entries[3]
        self.assertEqual(self.found(), [("missing", 4)])

    def test_first_entries_missing(self):
        report = ledger.verify_entries(self.entries[2:])
        self.assertEqual([finding[:6] for finding in report.findings], [("missing", LEDGER, 3, 1, None, "seq 1 to 2")])

    def test_several_holes_are_all_found(self):
        self.assertEqual(self.found(self.entries[:2] + self.entries[3:6] + self.entries[8:]), [("missing", 3), ("missing", 7)])

    def test_hole_in_numbers_alone(self):
        # Re-numbered and re-hashed by somebody who knows how: the hole stays.
        entry = rewritten(self.entries[8], seq="11")
        self.assertEqual(self.found(self.entries[:8] + [entry]), [("missing", 9)])

    def test_id_does_not_grow(self):
        for id_ in ("17", "16", "1"):
            self.assertEqual(self.found(self.entries[:8] + [rewritten(self.entries[8], id=id_)]), [("order", 9)])
        self.assertEqual(self.found(self.entries[:8] + [rewritten(self.entries[8], id="18")]), [])

    def test_ids_are_compared_as_numbers(self):
        self.assertEqual(self.found(self.entries[:8] + [rewritten(self.entries[8], id="100")]), [])

    def test_id_is_compared_across_a_hole(self):
        self.assertEqual(self.found(self.entries[:7] + [rewritten(self.entries[8], id="2")]), [("missing", 8), ("order", 9)])

    def test_time_is_not_compared_across_a_hole(self):
        self.assertEqual(self.found(self.entries[:7] + [rewritten(self.entries[8], at="2025-02-03T04:00:08.000000Z")]), [("missing", 8)])

    def test_seq_twice(self):
        self.assertEqual(self.found(self.entries + [self.entries[3]]), [("order", 4)])

    def test_fork(self):
        forked = rewritten(self.entries[3], new='{"id":5}')
        for entries in (self.entries + [forked], [forked] + self.entries):
            # Both go on from the entry before, and the chain goes on from one of them.
            self.assertEqual(self.found(entries), [("order", 4)])

    def test_time_goes_back(self):
        for at, expected in (("2026-02-03T04:00:08.000000Z", []), ("2026-02-03T03:59:08.000000Z", []),
                             ("2026-02-03T03:59:07.999999Z", [("order", 9)]), ("2025-02-03T04:00:08.000000Z", [("order", 9)])):
            with self.subTest(at):
                self.assertEqual(self.found(self.entries[:8] + [rewritten(self.entries[8], at=at)]), expected)

    def test_time_at_the_end_of_months_and_years(self):
        moments = ["0000-02-28T23:59:59.999999Z", "0000-02-29T00:00:00.000000Z", "0000-12-31T23:59:59.999999Z", "0001-01-01T00:00:00.000000Z",
                   "2023-12-31T23:59:59.999999Z", "2024-01-01T00:00:00.000000Z", "2024-02-28T23:59:59.999999Z", "2024-02-29T00:00:00.000000Z",
                   "2024-02-29T23:59:59.999999Z", "2024-03-01T00:00:00.000000Z", "2100-02-28T23:59:59.999999Z", "2100-03-01T00:00:00.000000Z"]
        values = [ledger.microseconds(moment) for moment in moments]
        for before, after in zip(values[::2], values[1::2]):
            self.assertEqual(after - before, 1)
        self.assertEqual(sorted(values), values)

    def test_badly_written_line_with_the_right_hash(self):
        good = self.entries[8][1]
        for line in (good.replace(",", ", ", 1), good.replace('"session_name":"app"', '"session_name":"\\u0061pp"'), good[:-1] + ',"more":1}'):
            entries = self.entries[:8] + [(ledger.hash_line(line), line)]
            self.assertEqual([kind for kind, _ in self.found(entries)], ["format"])

    def test_badly_written_line_keeps_its_place(self):
        line = self.entries[3][1].replace('"session_name"', '"session-name"')
        self.entries[3] = ledger.hash_line(line), line
        self.assertEqual(self.found(), [("format", 4), ("link", 5)])

    def test_unknown_version(self):
        line = self.entries[3][1].replace('"v":1', '"v":2')
        self.entries[3] = ledger.hash_line(line), line
        # Nothing of such a line is believed, not even its place.
        self.assertEqual(self.found(), [("format", None), ("missing", 4)])

    def test_operation_without_what_it_must_have(self):
        self.entries[8] = rewritten(self.entries[8], new=None)
        self.assertEqual(self.found(), [("format", 9)])

    def test_relinked_end_cannot_be_seen(self):
        # A superuser who writes the end of a chain anew is beyond what a chain alone can show (section 4, last sentence of
        # the first paragraph, and the reason for seals).
        prev, entries = self.entries[3][0], self.entries[:4]
        for entry in self.entries[4:]:
            entries.append(rewritten(entry, prev=prev, new='{"id":0}'))
            prev = entries[-1][0]
        self.assertEqual(self.found(entries), [])

    def test_faults_in_two_chains_have_their_places(self):
        second = chain_of(4, chain=1, first_id=100)
        del second[1]
        self.entries[8] = rewritten(self.entries[8], id="2")
        places = [(finding.kind, finding.chain, finding.seq) for finding in ledger.verify_entries(self.entries + second).findings]
        self.assertEqual(places, [("missing", 1, 2), ("order", 3, 9)])


class Program(unittest.TestCase):
    def run_on(self, content):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "export")
            with open(path, "wb") as file:
                file.write(content)
            return self.run_with([path])

    def run_with(self, arguments):
        # The program sets how its output shows strange characters, so the stand-in must be a real text stream.
        output, errors = io.TextIOWrapper(io.BytesIO(), "ascii"), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = ledger.main(arguments)
        output.seek(0)
        return status, output.read(), errors.getvalue()

    @staticmethod
    def export(entries):
        return "".join("%s %s\n" % entry for entry in entries).encode()

    def test_sound_export(self):
        status, output, _ = self.run_on(self.export(chain_of(3) + chain_of(2, chain=1)))
        self.assertEqual((status, output), (0, "entries 5\nchains 2\nledgers 1\ncontent ok\nlink ok\nmissing ok\norder ok\nformat ok\n"))

    def test_no_line_feed_at_the_end(self):
        self.assertEqual(self.run_on(self.export(chain_of(3))[:-1])[0], 0)

    def test_empty_export(self):
        self.assertEqual(self.run_on(b"")[:2], (0, "entries 0\nchains 0\nledgers 0\ncontent ok\nlink ok\nmissing ok\norder ok\nformat ok\n"))

    def test_findings(self):
        entries = chain_of(5)
        entries[1] = rewritten(entries[1], table_name="größe")
        entries[3] = entries[3][0], entries[3][1].replace('"app"', '"äpp"')
        status, output, _ = self.run_on(self.export(entries[:3] + entries[4:] + [entries[3]]))
        self.assertEqual(status, 1)
        self.assertIn("content 1\nlink 1\nmissing ok\n", output)
        self.assertIn("finding content: ledger %s, chain 3, seq 4, id 9: computed " % LEDGER, output)
        self.assertIn("finding link: ledger %s, chain 3, seq 3, id 7: prev is " % LEDGER, output)

    def test_what_is_no_export_is_all_findings(self):
        for content in (b"\n", b"hello\n", b"\xff\xfe\x00 \x00\n", self.export(chain_of(1)).replace(b"\n", b"\r\n"), chain_of(1)[0][1].encode()):
            self.assertEqual(self.run_on(content)[0], 1)

    def test_what_cannot_be_read(self):
        self.assertEqual(self.run_with(["/nonexistent/export"])[0], 2)
        self.assertEqual(self.run_with([])[0], 2)
        self.assertEqual(self.run_with(["--help"])[0], 2)

    def test_strange_characters_can_be_shown(self):
        line = chain_of(1)[0][1].replace('"session_name"', '"größe\u202e"')
        status, output, _ = self.run_on(self.export([(ledger.hash_line(line), line)]))
        self.assertEqual(status, 1)
        self.assertIn("gr\\xf6\\xdfe\\u202e", output)


if __name__ == "__main__":
    unittest.main()
