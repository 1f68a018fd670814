//! Rows are taken apart without the server as the server itself does it: rows of all kinds, damaged ones, and those of the log.

use audit_tests::{Cluster, Rng, Session, database, guards_off};

#[path = "../../../src/pg/heap.rs"]
mod heap;

use heap::{Cell, Shape};

/// Columns of all lengths and alignments, and what gives the bytes of their values.
const COLUMNS: [(&str, &str, &str); 16] = [
    ("n", "int", "int4send"),
    ("yes", "bool", "boolsend"),
    ("kind", "\"char\"", "charsend"),
    ("small", "int2", "int2send"),
    ("usual", "int4", "int4send"),
    ("short", "text", "textsend"),
    ("large", "int8", "int8send"),
    ("float", "float8", "float8send"),
    ("at", "timestamptz", "timestamptz_send"),
    ("object", "oid", "oidsend"),
    ("uuid", "uuid", "uuid_send"),
    ("name", "name", "namesend"),
    ("long", "text", "textsend"),
    ("json", "json", "json_send"),
    ("bytes", "bytea", "byteasend"),
    ("last", "text", "textsend"),
];

/// Lengths around those at which the header of a value changes.
const LENGTHS: [u64; 20] = [0, 1, 2, 3, 5, 7, 8, 59, 60, 61, 63, 64, 65, 124, 125, 126, 127, 128, 255, 300];

/// A value that does not stay in its row as it is: it is compressed, or put out of line.
const TOO_LONG: u64 = 9000;

fn literal(rng: &mut Rng, number: usize, column: &str, too_long: bool) -> String {
    if column == "n" {
        return number.to_string();
    }
    if rng.chance(25) && !too_long {
        return "NULL".to_owned();
    }
    let length = if too_long { TOO_LONG } else { LENGTHS[rng.below(20) as usize] };
    // Letters that repeat can be compressed, hashes cannot.
    let text = if rng.chance(50) {
        format!("repeat('x', {length})")
    } else {
        format!("left((SELECT string_agg(md5(g || '{number}'), '') FROM generate_series(1, 300) g), {length})")
    };
    match column {
        "yes" => rng.chance(50).to_string(),
        "kind" => format!("{}::\"char\"", rng.below(128)),
        "small" => format!("({} - 32768)::int2", rng.below(65536)),
        "usual" | "large" => format!("{}::int8 - 1000000000", rng.below(2_000_000_000)),
        "float" => format!("{} / 7.0::float8", rng.below(1000)),
        "at" => format!("timestamptz '1990-01-01' + {} * interval '1 s'", rng.below(2_000_000_000)),
        "object" => (rng.below(1 << 31) * 2).to_string(),
        "uuid" => format!("md5('{number}')::uuid"),
        "name" => format!("left({text}, 63)"),
        "json" => format!("to_json({text})"),
        "bytes" => format!("convert_to({text}, 'UTF8')"),
        _ => text,
    }
}

/// A table of random rows; of some, one value is too long to stay in the row as it is.
fn random_rows(s: &mut Session, seed: u64) {
    let columns: Vec<String> = COLUMNS.iter().map(|(name, of_type, _)| format!("\"{name}\" {of_type}")).collect();
    s.run(&format!("CREATE TABLE r ({})", columns.join(", ")));
    let mut rng = Rng::new(seed);
    for number in 0..600 {
        let too_long = rng.chance(10).then(|| ["short", "long", "last"][rng.below(3) as usize]);
        let values: Vec<String> =
            COLUMNS.iter().map(|(name, ..)| literal(&mut rng, number, name, too_long == Some(*name))).collect();
        s.run(&format!("INSERT INTO r VALUES ({})", values.join(", ")));
    }
}

/// The rows that lie in the pages of a table, header and all.
fn stored_rows(s: &mut Session, table: &str) -> Vec<Vec<u8>> {
    s.run("CHECKPOINT");
    let file = unhex(&s.text(&format!("SELECT encode(pg_read_binary_file(pg_relation_filepath('{table}')), 'hex')")));
    let mut rows = Vec::new();
    for page in file.chunks(8192) {
        // bufpage.h: where the line pointers end is the seventh half word, and each has an offset of 15 bits, flags of two, a length of 15.
        let end = usize::from(u16::from_le_bytes([page[12], page[13]]));
        for pointer in page[24..end].as_chunks::<4>().0 {
            let pointer = u32::from_le_bytes(*pointer);
            let (offset, length) = (pointer as usize & 0x7fff, pointer as usize >> 17);
            assert_eq!(pointer >> 15 & 3, 1, "nothing was deleted");
            rows.push(page[offset..offset + length].to_vec());
        }
    }
    rows
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn shape(s: &mut Session, table: &str) -> Shape {
    let columns = s.rows(&format!(
        "SELECT attlen, attbyval, attalign FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 ORDER BY attnum"
    ));
    let column = |row: Vec<Option<String>>| {
        let text: Vec<String> = row.into_iter().map(Option::unwrap).collect();
        (text[0].parse().unwrap(), text[1] == "t", text[2].as_bytes()[0])
    };
    Shape::new(columns.into_iter().map(column)).unwrap()
}

/// The first `count` columns; `None` for a row that is left to the server.
fn cells<'a>(shape: &Shape, row: &'a [u8], count: usize) -> Option<Vec<Cell<'a>>> {
    let mut cells = Vec::new();
    shape.take_apart(row, count, |index, cell| {
        assert_eq!(index, cells.len());
        cells.push(cell);
    })?;
    assert_eq!(cells.len(), count);
    Some(cells)
}

/// Whether this is the value whose bytes the server sends, with the most significant one first.
fn is_value(cell: Cell<'_>, of_type: &str, sent: Option<&Vec<u8>>) -> bool {
    match (cell, sent) {
        (Cell::Null, None) => true,
        (Cell::Number(number), Some(sent)) => {
            let sign = if sent[0] & 0x80 == 0 { 0 } else { -1 };
            number == sent.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte))
        }
        (Cell::Bytes(bytes), Some(sent)) => match of_type {
            "uuid" => bytes == sent,
            "name" => bytes.len() == 64 && bytes.starts_with(sent) && bytes[sent.len()..].iter().all(|byte| *byte == 0),
            _ if bytes[0] & 1 == 1 => bytes.len() < 128 && bytes[1..] == *sent,
            _ => bytes[4..] == *sent,
        },
        _ => false,
    }
}

#[test]
fn rows_of_all_kinds_are_taken_apart_as_the_server_does() {
    let cluster = Cluster::shared();
    let mut s = cluster.database().connect();
    random_rows(&mut s, 1);
    let sent: Vec<String> =
        COLUMNS.iter().map(|(name, _, send)| format!("encode({send}(\"{name}\"), 'hex')")).collect();
    let expected: Vec<Vec<Option<Vec<u8>>>> = s
        .rows(&format!("SELECT {} FROM r ORDER BY n", sent.join(", ")))
        .into_iter()
        .map(|row| row.into_iter().map(|value| value.map(|text| unhex(&text))).collect())
        .collect();
    let of_r = shape(&mut s, "r");
    let rows = stored_rows(&mut s, "r");
    assert_eq!(rows.len(), 600);
    let mut left = 0;
    for row in &rows {
        let Some([Cell::Number(n)]) = cells(&of_r, row, 1).as_deref().map(|cells| [cells[0]]) else {
            panic!("the first column is always there")
        };
        let expected = &expected[n as usize];
        for count in 0..=COLUMNS.len() {
            let fits = expected[..count].iter().flatten().all(|value| value.len() < TOO_LONG as usize);
            let cells = cells(&of_r, row, count);
            assert_eq!(cells.is_some(), fits, "{count} columns of row {n}");
            for ((cell, sent), (name, of_type, _)) in cells.iter().flatten().zip(expected).zip(COLUMNS) {
                assert!(is_value(*cell, of_type, sent.as_ref()), "{name} of row {n}: {cell:?}, not {sent:?}");
            }
            left += u32::from(cells.is_none());
        }
    }
    assert!(left > 100, "there were values that do not stay in their rows");

    // Rows from before a column was added do not have it.
    s.run("ALTER TABLE r ADD COLUMN added int DEFAULT 7; INSERT INTO r (n, added) VALUES (600, -8)");
    let of_r = shape(&mut s, "r");
    for (number, row) in stored_rows(&mut s, "r").iter().enumerate() {
        let with_added = cells(&of_r, row, COLUMNS.len() + 1);
        assert_eq!(with_added.map(|cells| cells[COLUMNS.len()]), (number == 600).then_some(Cell::Number(-8)));
    }
}

#[test]
fn more_columns_than_are_known_and_unusual_ones_are_left_to_the_server() {
    let mut s = database().connect();
    let columns: Vec<String> = (0..65).map(|number| format!("c{number} int")).collect();
    s.run(&format!("CREATE TABLE wide ({}); INSERT INTO wide (c0, c63, c64) VALUES (1, 2, 3)", columns.join(", ")));
    let of_wide = shape(&mut s, "wide");
    let row = stored_rows(&mut s, "wide").remove(0);
    let known = cells(&of_wide, &row, 64).unwrap();
    assert_eq!((known[0], known[1], known[63]), (Cell::Number(1), Cell::Null, Cell::Number(2)));
    assert_eq!(cells(&of_wide, &row, 65), None);
    for unusual in [(-2, false, b'c'), (0, false, b'i'), (3, true, b'c'), (4, true, b'x'), (-1, true, b'i')] {
        assert!(Shape::new([unusual].into_iter()).is_none(), "{unusual:?}");
    }
}

/// What is cut off is missed, not read from what lies behind; bytes that were changed give other values, or none.
#[test]
fn nothing_is_read_beyond_a_damaged_row() {
    let mut s = database().connect();
    random_rows(&mut s, 2);
    let of_r = shape(&mut s, "r");
    let rows = stored_rows(&mut s, "r");
    let mut rng = Rng::new(3);
    let (mut refused, mut read) = (0, 0);
    for row in &rows {
        let whole = cells(&of_r, row, COLUMNS.len());
        for length in 0..row.len() {
            let mut seen = Vec::new();
            let all = of_r.take_apart(&row[..length], COLUMNS.len(), |_, cell| seen.push(cell));
            let Some(whole) = &whole else { continue };
            assert_eq!(seen, whole[..seen.len()]);
            // Only trailing nulls take no room.
            let rest = whole.iter().rev().take_while(|cell| **cell == Cell::Null).count();
            let end = whole[..whole.len() - rest].last().map(|cell| match cell {
                Cell::Bytes(bytes) => bytes.as_ptr() as usize + bytes.len() - row.as_ptr() as usize,
                _ => 0,
            });
            assert!(all.is_none() || end.is_some_and(|end| length >= end), "{length} of {}", row.len());
        }
        for _ in 0..300 {
            let mut damaged = row.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(damaged.len() as u64) as usize;
                // Most often where it says how the rest is to be read.
                let at = if rng.chance(40) { 18 + at % 10 } else { at };
                damaged[at] = rng.below(256) as u8;
            }
            match cells(&of_r, &damaged, COLUMNS.len()) {
                None => refused += 1,
                Some(cells) => {
                    read += 1;
                    let inside = damaged.as_ptr_range();
                    assert!(cells.iter().all(|cell| match cell {
                        Cell::Bytes(bytes) => {
                            let range = bytes.as_ptr_range();
                            inside.start <= range.start && range.end <= inside.end
                        }
                        _ => true,
                    }));
                }
            }
        }
    }
    assert!(refused > 1000 && read > 1000, "{refused} refused, {read} read");
}

/// Each entry by the index, where the server takes it apart, and in a reading of the whole log.
#[test]
fn entries_of_all_kinds_have_the_same_hash_in_both_ways_to_read_them() {
    let mut s = database().connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, a text, b text); SELECT audit.protect('t'); SET audit.context = '{\"request\": \"r-1\"}'");
    s.run(
        "INSERT INTO t SELECT g, repeat('x', g % 300), CASE g % 5 WHEN 0 THEN NULL WHEN 1 THEN repeat('y', 9000)
           WHEN 2 THEN (SELECT string_agg(md5(g || ',' || h), '') FROM generate_series(1, 300) h) ELSE 'ü' || g END
         FROM generate_series(1, 1000) g",
    );
    s.run("RESET audit.context; UPDATE t SET a = 'ä' || a WHERE id % 3 = 0; DELETE FROM t WHERE id % 4 = 0");
    let differences = "SELECT chain, seq, 'stored hash ' || encode(hash, 'hex') || ', computed ' || encode(computed, 'hex')
      FROM (SELECT *, sha256(convert_to(audit.line(chain, seq), 'UTF8')) AS computed FROM audit.log) AS all_of_them WHERE hash <> computed ORDER BY 1, 2";
    let found = "SELECT chain, seq, detail FROM audit.findings(tables => false) WHERE kind = 'content' ORDER BY 1, 2";
    assert_eq!(s.rows(differences), Vec::<Vec<_>>::new());
    assert_eq!(s.rows(found), Vec::<Vec<_>>::new());
    // So that each column is null, short, long, compressed and out of line somewhere.
    let long = "(SELECT string_agg(md5(g || ',' || seq), '') FROM generate_series(1, 300) g)";
    let mut rng = Rng::new(4);
    let texts = ["table_schema", "table_name", "login_name", "session_name", "user_name", "application_name"];
    let mut damage: Vec<String> = texts
        .iter()
        .flat_map(|column| {
            ["NULL", "''", "repeat('ä', 62)", "repeat('b', 127)", "repeat('c', 9000)", long]
                .map(|value| format!("{column} = {value}"))
        })
        .collect();
    for column in ["key", "old", "new", "context"] {
        for value in ["NULL", "'{}'", "'{\"a\": 1}'", "to_json(repeat('c', 9000))"] {
            damage.push(format!("{column} = {value}"));
        }
        damage.push(format!("{column} = to_json({long})"));
    }
    let others = [
        "command = NULL",
        "command = 4294967295",
        "table_oid = NULL",
        "table_oid = 4294967295",
        "client_addr = NULL",
        "client_addr = '10.1.2.3'",
        "client_addr = '2001:db8::1/64'",
        "xid = '18446744073709551615'",
        "op = 'UPSERT'",
        "op = repeat('INSERT', 2000)",
        "at = at + interval '1 us'",
    ];
    damage.extend(others.map(str::to_owned));
    let damage: Vec<String> = damage
        .iter()
        .map(|change| format!("UPDATE audit.log SET {change} WHERE seq % 131 = {} AND seq > 5", rng.below(131)))
        .collect();
    guards_off(&mut s, "audit.log", &damage.join("; "));
    let expected = s.rows(differences);
    assert!(expected.len() > 500, "{}", expected.len());
    assert_eq!(s.rows(found), expected);
    // With hashes that fit, none is wrong in either.
    guards_off(
        &mut s,
        "audit.log",
        "UPDATE audit.log SET hash = sha256(convert_to(audit.line(chain, seq), 'UTF8')) WHERE seq > 5",
    );
    assert_eq!(s.rows(differences), Vec::<Vec<_>>::new());
    assert_eq!(s.rows(found), Vec::<Vec<_>>::new());
}
