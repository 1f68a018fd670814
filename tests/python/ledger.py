#!/usr/bin/env python3
"""A second implementation of line, hash, chain, tree and seal, after docs/format.md.

Written from that page alone, with the standard library alone, so that the page can be held against the extension:
where the two disagree, one of them is wrong. It knows nothing of PostgreSQL; "section" below means a section of
that page.

    python3 ledger.py FILE      check an export: each input line is "<hash> <line>", of an entry or a seal; FILE may be - for standard input

prints counts and findings; exits with 0 when there is nothing to find, with 1 when there is, with 2 when FILE cannot be read.
"""

import hashlib
import ipaddress
import re
import sys
from calendar import monthrange
from collections import Counter, namedtuple

# Section 2, in the order in which the members stand in a line.
MEMBERS = (
    "v", "ledger", "chain", "seq", "prev", "id", "at", "xid", "subxid", "command", "op",
    "table_oid", "table_schema", "table_name", "key", "old", "new",
    "login_name", "session_name", "user_name", "application_name", "client_addr", "context",
)
REQUIRED = ("v", "ledger", "chain", "seq", "prev", "id", "at", "xid", "op")
TABLE_MEMBERS = ("table_oid", "table_schema", "table_name")
VERSION = 1
GENESIS = "0" * 64

# Section 3: which of old and new each operation has, and what `new` holds when it is not a row. The first four are about a row.
ROW_OPERATIONS = ("INSERT", "UPDATE", "DELETE", "BASELINE")
COMMAND_OPERATIONS = ("INSERT", "UPDATE", "DELETE")
IMAGES = {
    "INSERT": ("new",),
    "UPDATE": ("old", "new"),
    "DELETE": ("old",),
    "BASELINE": ("new",),
    "TRUNCATE": (),
    "PROTECT": ("new",),
    "UNPROTECT": ("new",),
    "INCARNATION": ("new",),
    "KEY": ("new",),
    "DDL": ("new",),
    "MAINTENANCE": ("new",),
}

DETAILS = {
    "PROTECT": ("kind", "images", "exclude", "baseline"),
    "UNPROTECT": ("reason",),
    "INCARNATION": ("system_identifier", "database_oid", "tables"),
    "KEY": ("vkey",),
    "DDL": ("command",),
    "MAINTENANCE": ("reason",),
}
# Of DDL, `old` is there only where the definition differs.
DDL_BEFORE = ("schema", "name", "columns", "types", "key")

KINDS = ("content", "link", "missing", "order", "format")
SEAL_KINDS = KINDS + ("seal", "tree")
TOLERANCE = 60 * 1_000_000      # microseconds by which `at` may go back (section 4)


class FormatError(ValueError):
    """The line, or a field a line should be built from, is not as section 2 says."""


# ---------------------------------------------------------------------------------------------------------------------
# hash

def hash_line(line):
    """The hash of an entry: SHA-256 of its line, as hex."""
    if isinstance(line, str):
        line = line.encode("utf-8")
    return hashlib.sha256(line).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# writing

ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
TO_ESCAPE = re.compile('["\\\\\x00-\x1f]')


def quote(text):
    """A string as section 2.1 writes it."""
    return '"' + TO_ESCAPE.sub(lambda m: ESCAPES.get(m[0]) or "\\u%04x" % ord(m[0]), text) + '"'


def one_line(json_text):
    """JSON text made safe for one line (section 2.2). Inside a string JSON allows neither character, so no value changes."""
    return json_text.replace("\n", " ").replace("\r", " ")


def json_column(json_text):
    """The value of a json column. A JSON null must not read as SQL NULL."""
    text = one_line(json_text)
    return " null" if text == "null" else text


def column_object(columns):
    """`key`, `old` or `new` of a row change, from pairs of a column's name and its value as it is written."""
    return "{" + ",".join(quote(name) + ":" + value for name, value in columns) + "}"


def build_line(fields):
    """Writes the line of an entry.

    `fields` maps the members to their values, absent ones to None: numbers of 32 bits as int, numbers of 64 bits as
    decimal strings, objects as strings of JSON text. Refuses fields that no line can hold.
    """
    unknown = set(fields) - set(MEMBERS)
    if unknown:
        raise FormatError("no member is named %s" % ", ".join(sorted(unknown)))
    members = []
    for member in MEMBERS:
        value = fields.get(member)
        if value is None:
            continue
        if member in ("v", "chain", "command", "table_oid"):
            if type(value) is not int:
                raise FormatError("%s is not a number: %r" % (member, value))
            text = str(value)
        elif not isinstance(value, str):
            raise FormatError("%s is not text: %r" % (member, value))
        elif member == "context" or member in ("key", "old", "new") and fields.get("op") in ROW_OPERATIONS:
            text = one_line(value)
        elif member in ("key", "old", "new"):
            text = value
        else:
            text = quote(value)
        members.append(quote(member) + ":" + text)
    line = "{" + ",".join(members) + "}"
    # The reader has all the rules; a line that it refuses is not written.
    parse_line(line)
    return line


# ---------------------------------------------------------------------------------------------------------------------
# reading

PLAIN = re.compile('[^"\\\\\x00-\x1f]*')
# Section 2.1 has one way to write a character ...
STRICT_ESCAPE = re.compile(r'\\(?:["\\btnfr]|u00(?:0[0-7be-f]|1[0-9a-f]))')
# ... RFC 8259 several, and inside values of type json each of them may stand.
JSON_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})')
JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
JSON_WORD = re.compile(r"true|false|null")
SURROGATE = re.compile("[\ud800-\udfff]")
BLANK = re.compile("[ \t]*")     # JSON white space, but for the two characters that a line cannot hold
NO_BLANK = re.compile("")
DECIMAL = re.compile(r"0|[1-9][0-9]*")
UNESCAPED = {'"': '"', "\\": "\\", "b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
HEX_HASH = re.compile(r"[0-9a-f]{64}")
TIME = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{6})Z")


class Reader:
    """A place in a text, and the tokens that may stand there."""

    def __init__(self, text):
        self.text = text
        self.pos = 0
        self.blank = BLANK

    def fail(self, what):
        raise FormatError("%s at character %d" % (what, self.pos + 1))

    def at(self, literal):
        return self.text.startswith(literal, self.pos)

    def take(self, literal):
        if not self.at(literal):
            return False
        self.pos += len(literal)
        return True

    def expect(self, literal):
        if not self.take(literal):
            self.fail("%s expected" % literal)

    def skip_blank(self):
        self.pos = self.blank.match(self.text, self.pos).end()

    def string(self, escape=STRICT_ESCAPE):
        """Steps over a string and returns what stands between its quotes, escapes as they are.

        A loop rather than one expression: a value may be 100 MB of backslashes, and an expression would remember a way back
        for each of them.
        """
        self.expect('"')
        start = self.pos
        while True:
            self.pos = PLAIN.match(self.text, self.pos).end()
            if self.at('"'):
                self.pos += 1
                return self.text[start:self.pos - 1]
            if self.pos == len(self.text):
                self.fail("end of string expected")
            found = escape.match(self.text, self.pos)
            if not found:
                self.fail("character that must be written in another way")
            self.pos = found.end()

    def strict_string(self):
        """A string in the one form of section 2.1; returns its value."""
        return unescape(self.string())

    def number(self, least, most):
        """A whole number: no sign, no leading zeros, no fraction, no exponent."""
        found = DECIMAL.match(self.text, self.pos)
        # Twenty digits hold 64 bits; more are not converted, for that takes time that grows with their square.
        if not found or len(found[0]) > 20 or not least <= int(found[0]) <= most:
            self.fail("number from %d to %d expected" % (least, most))
        self.pos = found.end()
        return int(found[0])

    def json(self):
        """Steps over one JSON value, white space around it included.

        What a service wrote may be nested thousands of levels deep, so the open brackets are on a list and not on the
        stack of this program. Numbers are never converted and duplicate names are not looked at.
        """
        opened = []
        while True:
            # Here a value must stand.
            self.skip_blank()
            if self.take("{"):
                self.skip_blank()
                if not self.take("}"):
                    opened.append("}")
                    self.json_name()
                    continue
            elif self.take("["):
                self.skip_blank()
                if not self.take("]"):
                    opened.append("]")
                    continue
            elif self.at('"'):
                self.string(JSON_ESCAPE)
            else:
                found = JSON_NUMBER.match(self.text, self.pos) or JSON_WORD.match(self.text, self.pos)
                if not found:
                    self.fail("value expected")
                self.pos = found.end()
            # Here a value has ended, and with it perhaps what holds it.
            self.skip_blank()
            while opened and self.take(opened[-1]):
                opened.pop()
                self.skip_blank()
            if not opened:
                return
            self.expect(",")
            if opened[-1] == "}":
                self.skip_blank()
                self.json_name()

    def json_name(self):
        self.string(JSON_ESCAPE)
        self.skip_blank()
        self.expect(":")

    def json_object(self):
        """A JSON object as given; returns its text."""
        start = self.pos
        self.skip_blank()
        if not self.at("{"):
            self.fail("object expected")
        self.json()
        return self.text[start:self.pos]

    def details(self):
        """An object that the ledger itself writes, without white space; returns its text."""
        self.blank = NO_BLANK
        text = self.json_object()
        self.blank = BLANK
        return text

    def column_object(self):
        """An object of columns (section 2.2); returns its text.

        A value that begins with a quote may be a text (strict escapes) or a value of type json (any escapes): the line
        does not say which, so any JSON is taken. What is around values has one form.
        """
        start = self.pos
        for _ in self.columns():
            pass
        return self.text[start:self.pos]

    def columns(self):
        self.expect("{")
        if self.take("}"):
            return
        seen = set()
        while True:
            name = self.strict_string()
            if name in seen:
                self.fail("column %.80s stands twice" % quote(name))
            seen.add(name)
            self.expect(":")
            start = self.pos
            self.json()
            yield name, self.text[start:self.pos]
            if self.take("}"):
                return
            self.expect(",")


def unescape(text):
    if "\\" not in text:
        return text
    return re.sub(r"\\(?:u(....)|(.))", lambda m: chr(int(m[1], 16)) if m[1] else UNESCAPED[m[2]], text, flags=re.S)


def parse_columns(text):
    """The columns of a `key`, `old` or `new` of a row change: pairs of name and value as it is written."""
    reader = Reader(text)
    columns = list(reader.columns())
    if reader.pos != len(text):
        reader.fail("end of object expected")
    return columns


def parse_line(line, fields=None):
    """Reads a line and refuses what section 2 does not allow.

    Returns all members, absent ones as None, in the form that `build_line` takes. A caller who passes `fields` finds
    in it, when the line is refused, what was read until then.
    """
    if fields is None:
        fields = {}
    fields.update(dict.fromkeys(MEMBERS))
    if isinstance(line, (bytes, bytearray)):
        try:
            line = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError("not UTF-8 at byte %d" % (error.start + 1)) from None
    elif SURROGATE.search(line):
        raise FormatError("half of a surrogate pair, which UTF-8 does not know")
    reader = Reader(line)
    # The version comes first and alone (section 5): by the rules of version 1 nothing can be said of another version.
    reader.expect('{"v":')
    version = DECIMAL.match(line, reader.pos)
    if not version or version.end() == len(line) or line[version.end()] not in ",}":
        reader.fail("version expected")
    if version[0] != str(VERSION):
        raise FormatError("unknown version %.20s" % version[0])
    fields["v"] = VERSION
    reader.pos = version.end()
    expected = 1
    while not reader.take("}"):
        reader.expect(",")
        name = reader.strict_string()
        if name not in MEMBERS:
            reader.fail("unknown member %.80s" % quote(name))
        place = MEMBERS.index(name)
        if place < expected:
            reader.fail("member %s out of its order" % quote(name))
        for skipped in MEMBERS[expected:place]:
            if skipped in REQUIRED:
                reader.fail("member %s expected" % quote(skipped))
        expected = place + 1
        reader.expect(":")
        fields[name] = parse_member(reader, name, fields)
    for skipped in MEMBERS[expected:]:
        if skipped in REQUIRED:
            reader.fail("member %s expected" % quote(skipped))
    if reader.pos != len(line):
        reader.fail("end of line expected")
    if len({fields[name] is None for name in TABLE_MEMBERS}) != 1:
        raise FormatError("table_oid, table_schema and table_name are not there together")
    return fields


def parse_member(reader, name, fields):
    if name == "chain":
        return reader.number(1, 2**31 - 1)
    if name == "command":
        return reader.number(0, 2**32 - 1)
    if name == "table_oid":
        return reader.number(1, 2**32 - 1)
    if name in ("key", "old", "new") and fields["op"] in ROW_OPERATIONS:
        return reader.column_object()
    if name in ("key", "old", "new"):
        return reader.details()
    if name == "context":
        return reader.json_object()
    value = reader.strict_string()
    if not VALID.get(name, lambda value: True)(value):
        reader.fail("%.80s is not a valid %s, which ends" % (quote(value), name))
    if name == "subxid" and int(value) <= int(fields["xid"]):
        reader.fail("subxid %s is not greater than xid %s, which ends" % (value, fields["xid"]))
    return value


def is_decimal(least, most):
    def check(value):
        return bool(DECIMAL.fullmatch(value)) and len(value) <= 20 and least <= int(value) <= most
    return check


def microseconds(at):
    """A time as a number that can be compared, or None when it is not a time.

    Not by `datetime`, whose readers differ between versions of Python.
    """
    found = TIME.fullmatch(at)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction = map(int, found.groups())
    if not (1 <= month <= 12 and hour <= 23 and minute <= 59 and second <= 59):
        return None
    # The calendar repeats itself every 400 years; counted from there, as `monthrange` does not know the year 0.
    year += 400
    if not 1 <= day <= monthrange(year, month)[1]:
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400
    days += sum(monthrange(year, m)[1] for m in range(1, month)) + day
    return ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000 + fraction


def is_address(value):
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return "%" not in value     # Python takes a zone, the line does not.


VALID = {
    "ledger": UUID.fullmatch,
    "seq": is_decimal(1, 2**63 - 1),
    "prev": HEX_HASH.fullmatch,
    "id": is_decimal(1, 2**63 - 1),
    "at": lambda value: microseconds(value) is not None,
    "xid": is_decimal(0, 2**64 - 1),
    "subxid": is_decimal(1, 2**64 - 1),
    "op": IMAGES.__contains__,
    "client_addr": is_address,
}


def operation_fault(fields):
    """What in a parsed line is not as section 3 says of its operation, or None."""
    op = fields["op"]
    if fields["table_oid"] is None and op not in ("INCARNATION", "KEY", "MAINTENANCE"):
        return "%s without a table" % op
    if fields["table_oid"] is not None and op in ("KEY", "MAINTENANCE"):
        return "%s with a table" % op
    if (fields["command"] is not None) != (op in COMMAND_OPERATIONS):
        return "%s %s command" % (op, "without" if op in COMMAND_OPERATIONS else "with")
    if fields["key"] is not None and op not in ROW_OPERATIONS:
        return "%s with key" % op
    for image in ("old", "new"):
        if op == "DDL" and image == "old":
            continue
        if (fields[image] is not None) != (image in IMAGES[op]):
            return "%s %s %s" % (op, "without" if image in IMAGES[op] else "with", image)
    if op == "UPDATE":
        old, new = ([name for name, _ in parse_columns(fields[image])] for image in ("old", "new"))
        if old != new:
            return "old and new of UPDATE hold different columns"
    for detail in DETAILS.get(op, ()):
        if detail not in (name for name, _ in parse_columns(fields["new"])):
            return "new of %s without %s" % (op, detail)
    if op == "DDL" and fields["old"] is not None:
        for detail in DDL_BEFORE:
            if detail not in (name for name, _ in parse_columns(fields["old"])):
                return "old of DDL without %s" % detail
    return None


# ---------------------------------------------------------------------------------------------------------------------
# the chain

Finding = namedtuple("Finding", "kind ledger chain seq id detail")
Report = namedtuple("Report", "entries chains ledgers findings")
Link = namedtuple("Link", "seq id at prev hash")


def verify_entries(entries):
    """Checks entries, given as pairs of stored hash and line (text or bytes) in any order (section 4)."""
    findings = []
    chains = {}
    count = 0
    for count, (stored, line) in enumerate(entries, 1):
        computed = hash_line(line)
        fields = {}
        try:
            parse_line(line, fields)
            fault = operation_fault(fields)
        except FormatError as error:
            fault = str(error)
        place = (fields["ledger"], fields["chain"], fields["seq"] and int(fields["seq"]), fields["id"] and int(fields["id"]))
        if stored != computed:
            # That the line of such an entry is also badly written says nothing more: it is not what was hashed.
            findings.append(Finding("content", *place, "computed %s, stored %.80s" % (computed, stored)))
        elif fault:
            findings.append(Finding("format", *place, "entry %d of the input: %s" % (count, fault)))
        ledger, chain, seq, id_ = place
        if seq is not None:
            # A line refused for what stands after its seq keeps its place in the chain.
            at = fields["at"] and microseconds(fields["at"])
            chains.setdefault((ledger, chain), []).append(Link(seq, id_, at, fields["prev"], stored))
    for (ledger, chain), links in sorted(chains.items()):
        for kind, seq, id_, detail in chain_faults(links):
            findings.append(Finding(kind, ledger, chain, seq, id_, detail))
    return Report(count, len(chains), len({ledger for ledger, _ in chains}), findings)


def chain_faults(links):
    """The faults of one chain, as tuples of kind, seq, id and detail.

    Links are compared with hashes as they are stored, so that one changed entry is one fault.
    """
    links.sort(key=lambda link: (link.seq, link.id or 0))
    expected = 1
    before = None           # the entry that `id` and `at` are compared with
    hashes = {GENESIS}      # stored with the entries with the seq before; more than one when a seq stands twice
    index = 0
    while index < len(links):
        same = [links[index]]
        while index + len(same) < len(links) and links[index + len(same)].seq == same[0].seq:
            same.append(links[index + len(same)])
        index += len(same)
        seq = same[0].seq
        if seq > expected:
            last = "" if seq == expected + 1 else " to %d" % (seq - 1)
            yield "missing", expected, None, "seq %d%s" % (expected, last)
            hashes = None   # what stood before is not there, so the link cannot be judged
        for link in same[1:]:
            yield "order", seq, link.id, "seq stands %d times" % len(same)
        for link in same:
            if hashes is not None and link.prev is not None and link.prev not in hashes:
                yield "link", seq, link.id, "prev is %s, the entry before has %.150s" % (link.prev, " or ".join(sorted(hashes)))
        # Of several with one seq the one that the next entry goes on from belongs to the chain.
        following = {link.prev for link in links[index:index + 1]}
        link = next((link for link in same if link.hash in following), same[0])
        if before is not None:
            if link.id is not None and before.id is not None and link.id <= before.id:
                yield "order", seq, link.id, "id %d comes after id %d" % (link.id, before.id)
            # Of a time only the entry directly before it can tell.
            adjacent = before.seq == seq - 1
            if adjacent and link.at is not None and before.at is not None and link.at < before.at - TOLERANCE:
                yield "order", seq, link.id, "at goes back by %d seconds" % ((before.at - link.at) // 1_000_000)
        before = link
        hashes = {link.hash for link in same}
        expected = seq + 1


# ---------------------------------------------------------------------------------------------------------------------
# the tree (section 6)

def leaf_hash(entry_hash):
    """The leaf of an entry, from the 64 hex digits of its hash."""
    return hashlib.sha256(b"\0" + bytes.fromhex(entry_hash)).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def tree_root(leaves):
    """The root over leaves, word by word as section 6 defines it."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(tree_root(leaves[:half]), tree_root(leaves[half:]))


class Tree:
    """The same, leaf by leaf: the roots of the perfect subtrees from left to right, each with its size."""

    def __init__(self):
        self.size = 0
        self.roots = []

    def append(self, leaf):
        size, node = 1, leaf
        while self.roots and self.roots[-1][0] == size:
            node = node_hash(self.roots.pop()[1], node)
            size *= 2
        self.roots.append((size, node))
        self.size += 1

    def root(self):
        if not self.roots:
            return hashlib.sha256(b"").digest()
        node = self.roots[-1][1]
        for _, left in reversed(self.roots[:-1]):
            node = node_hash(left, node)
        return node


# ---------------------------------------------------------------------------------------------------------------------
# the seal (section 9)

IS_SEAL = re.compile(rb'\{"v":1,"ledger":"[0-9a-f-]{36}","seal":')
DIGITS = "(0|[1-9][0-9]*)"
SEAL = re.compile(
    r'\{"v":1,"ledger":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})","seal":"%s","prev":"([0-9a-f]{64})","at":"([^"]*)","size":"%s",'
    r'"root":"([0-9a-f]{64})","system":"%s","timeline":%s,"ranges":\[(.*)\]\}' % ((DIGITS,) * 4))
RANGE = re.compile(r'\[%s,"%s","%s","([0-9a-f]{64})"\]' % ((DIGITS,) * 3))

Seal = namedtuple("Seal", "ledger number prev at size root system timeline ranges")
Range = namedtuple("Range", "chain first last head")


def build_seal(seal):
    """The line of a seal."""
    ranges = ",".join('[%d,"%d","%d","%s"]' % entries for entries in seal.ranges)
    return (
        '{"v":1,"ledger":"%s","seal":"%d","prev":"%s","at":"%s","size":"%d","root":"%s","system":"%d","timeline":%d,"ranges":[%s]}'
        % (*seal[:-1], ranges))


def parse_seal(line):
    """Reads the line of a seal, and refuses every other."""
    if isinstance(line, bytes):
        line = line.decode("utf-8", "backslashreplace")
    found = SEAL.fullmatch(line)
    if not found:
        raise FormatError("not the line of a seal")
    ledger, number, prev, at, size, root, system, timeline, text = found.groups()
    ranges = [Range(int(chain), int(first), int(last), head) for chain, first, last, head in RANGE.findall(text)]
    seal = Seal(ledger, int(number), prev, at, int(size), root, int(system), int(timeline), ranges)
    if build_seal(seal) != line:
        raise FormatError("not the line of a seal")
    if not (seal.number < 2**64 and seal.size < 2**63 and seal.system < 2**64 and seal.timeline < 2**32):
        raise FormatError("number out of range")
    if microseconds(at) is None or any(r.chain >= 2**32 or r.first >= 2**64 or r.last >= 2**64 for r in ranges):
        raise FormatError("value out of range")
    return seal


def seal_fault(seal):
    """What in a seal by itself is not as section 9 says, or None."""
    if not 1 <= seal.number < 2**63 or (seal.number == 1) != (seal.prev == GENESIS):
        return "number or prev"
    if seal.timeline < 1 or not seal.ranges:
        return "timeline or ranges"
    chains = [entries.chain for entries in seal.ranges]
    if chains != sorted(set(chains)) or not all(1 <= chain < 2**31 for chain in chains):
        return "order of chains"
    if not all(1 <= entries.first <= entries.last < 2**63 for entries in seal.ranges):
        return "range"
    return None


def verify_seals(seals, entries):
    """Checks seals, given as pairs of stored hash and line in any order, against entries, pairs of hash and line.

    Yields findings of the kinds seal, missing and tree. What stands behind a damaged seal or a missing entry is checked without the tree.
    """
    hashes = {}
    for stored, line in entries:
        fields = {}
        try:
            parse_line(line, fields)
        except FormatError:
            pass
        if fields["seq"] is not None:
            hashes.setdefault((fields["ledger"], fields["chain"], int(fields["seq"])), stored)
    parsed = []
    for stored, line in seals:
        try:
            parsed.append((parse_seal(line), stored, hash_line(line)))
        except FormatError as error:
            yield Finding("seal", None, None, None, None, str(error))
    trees, before, ends, gone = {}, {}, {}, set()
    for seal, stored, computed in sorted(parsed, key=lambda one: (one[0].ledger, one[0].number)):
        ledger = seal.ledger

        def told(kind, detail, chain=None, seq=None):
            return Finding(kind, ledger, chain, seq, None, "seal %d: %s" % (seal.number, detail))

        tree = trees.setdefault(ledger, Tree())
        number, prev, size, at = before.get(ledger, (0, GENESIS, 0, None))
        fault = seal_fault(seal)
        if computed != stored:
            yield told("seal", "computed %s, stored %.80s" % (computed, stored))
        elif seal.number != number + 1:
            yield told("seal", "follows seal %d" % number)
        elif fault:
            yield told("seal", fault)
        elif seal.prev != prev:
            yield told("seal", "prev is %s, the seal before has %s" % (seal.prev, prev))
        elif size is not None and seal.size != size + sum(entries.last - entries.first + 1 for entries in seal.ranges):
            yield told("seal", "size")
        elif at is not None and microseconds(seal.at) < at - TOLERANCE:
            yield told("seal", "at goes back")
        damaged = computed != stored or seal.number != number + 1 or fault
        if damaged:
            trees[ledger] = tree = None
        for chain, first, last, head in seal.ranges if not fault else ():
            end = ends.get((ledger, chain), 0)
            if tree is not None and first != end + 1:
                yield told("seal", "begins with %d, the seal before ends with %d" % (first, end), chain, first)
                trees[ledger] = tree = None
            ends[ledger, chain] = last
            for seq in range(first, last + 1):
                found = hashes.get((ledger, chain, seq))
                if found is None:
                    if (ledger, chain) not in gone and computed == stored:
                        gone.add((ledger, chain))
                        yield told("missing", "counts entries that are not there", chain, seq)
                    trees[ledger] = tree = None
                    break
                if tree is not None:
                    tree.append(leaf_hash(found))
            else:
                if computed == stored and hashes[ledger, chain, last] != head:
                    yield told("seal", "head is %s, the log has %s" % (head, hashes[ledger, chain, last]), chain, last)
        if tree is not None and tree.root().hex() != seal.root:
            yield told("tree", "root is %s, computed %s" % (seal.root, tree.root().hex()))
        before[ledger] = (seal.number, stored, None if damaged else seal.size, microseconds(seal.at))


# ---------------------------------------------------------------------------------------------------------------------
# the program

def read_export(file):
    """Pairs of hash and line from a file of "<hash> <line>".

    What stands where a hash should stand is taken as one: it will not be the hash of the line, and that is a finding
    with a place, where an error would hide what comes after.
    """
    for record in file:
        stored, _, line = (record[:-1] if record.endswith(b"\n") else record).partition(b" ")
        yield stored.decode("ascii", "backslashreplace"), line


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("--"):
        print(__doc__.strip(), file=sys.stderr)
        return 2
    seals, sealed = [], []
    try:
        if arguments[0] == "-":
            report = verify_log(sys.stdin.buffer, seals, sealed)
        else:
            with open(arguments[0], "rb") as file:
                report = verify_log(file, seals, sealed)
    except OSError as error:
        print("ledger.py: %s" % error, file=sys.stderr)
        return 2
    if seals:
        # A hole in a chain was told already.
        places = {finding[:4] for finding in report.findings}
        report.findings.extend(finding for finding in verify_seals(seals, sealed) if finding[:4] not in places)
    # Details quote what is in the log, which the terminal may not be able to show.
    sys.stdout.reconfigure(errors="backslashreplace")
    print("entries %d" % report.entries)
    print("chains %d" % report.chains)
    print("ledgers %d" % report.ledgers)
    if seals:
        print("seals %d" % len(seals))
    counts = Counter(finding.kind for finding in report.findings)
    for kind in SEAL_KINDS if seals else KINDS:
        print("%s %s" % (kind, "%d" % counts[kind] if counts[kind] else "ok"))
    for finding in report.findings:
        place = ("%s %s" % (name, value) for name, value in zip(Finding._fields[1:-1], finding[1:-1]) if value is not None)
        print("finding %s: %s: %s" % (finding.kind, ", ".join(place) or "no place", finding.detail))
    return 1 if report.findings else 0


def verify_log(file, seals, sealed):
    """Verifies the entries of an export, and puts its seals and its entries into the two lists."""
    def entries():
        for stored, line in read_export(file):
            if IS_SEAL.match(line):
                seals.append((stored, line))
            else:
                sealed.append((stored, line))
                yield stored, line
    return verify_entries(entries())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
