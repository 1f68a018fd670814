//! The tamper table: each way of damaging log, tables or triggers, done by a superuser who means it, and what
//! audit.findings() must say about it: exactly this, and nothing else. Where nothing can be found without a copy of the log kept
//! elsewhere, that is shown as well.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use audit_tests::{Cluster, Database, Session, assert_clean, assert_found, guards_off};

/// A small history in one chain, written over TCP with all there is to say, so that no column is empty everywhere.
const HISTORY: &str = r#"
    CREATE TABLE account (id int PRIMARY KEY, owner text, balance numeric(12, 2));
    CREATE TABLE note (id int, body text);
    CREATE TABLE measure (id int, kind text, v int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
    CREATE TABLE measure_a PARTITION OF measure FOR VALUES IN ('a');
    CREATE TABLE measure_b PARTITION OF measure FOR VALUES IN ('b');
    SET audit.chains = 1;
    SET application_name = 'shop';
    SET audit.context = '{"user":"ann"}';
    SELECT audit.protect('account');                             -- 1
    SELECT audit.protect('note');                                -- 2
    SELECT audit.protect('measure');                             -- 3, 4, 5
    INSERT INTO account VALUES (1, 'ann', 100);                  -- 6
    INSERT INTO account VALUES (2, 'bob', 50);                   -- 7
    INSERT INTO account VALUES (3, 'cy', 0);                     -- 8
    BEGIN; SAVEPOINT a;
    UPDATE account SET balance = 70 WHERE id = 1;                -- 9
    COMMIT;
    UPDATE account SET balance = 80 WHERE id = 2;                -- 10
    INSERT INTO note VALUES (1, 'a');                            -- 11
    INSERT INTO note VALUES (2, 'b');                            -- 12
    INSERT INTO measure VALUES (1, 'a', 10);                     -- 13
    DELETE FROM account WHERE id = 3;                            -- 14
    UPDATE note SET body = 'B' WHERE id = 2;                     -- 15
    INSERT INTO measure VALUES (2, 'b', 20);                     -- 16
    UPDATE account SET owner = 'anna' WHERE id = 1;              -- 17
    INSERT INTO account VALUES (9, 'eve', 1);                    -- 18
    DELETE FROM account WHERE id = 9;                            -- 19
"#;

/// A fresh copy of the history in a database of its own.
fn history() -> Database<'static> {
    static HISTORY_DATABASE: OnceLock<Database<'static>> = OnceLock::new();
    let original = HISTORY_DATABASE.get_or_init(|| {
        let database = Cluster::shared().database();
        let port = database.cluster.port().to_string();
        database.psql_with(HISTORY.as_bytes(), &[("PGHOST", "127.0.0.1"), ("PGPORT", &port)]);
        database
    });
    original.cluster.copy_of(original)
}

/// Damages the log of a copy, with the guards off while that is done, and compares the findings.
#[track_caller]
fn damaged_log(damage: &str, expected: &[&str]) {
    let mut s = history().connect();
    guards_off(&mut s, "audit.log", damage);
    println!("damage: {damage}");
    assert_found(&mut s, expected);
}

/// Runs what needs no guards switched off, and compares the findings.
#[track_caller]
fn damaged(damage: &str, expected: &[&str]) {
    let mut s = history().connect();
    s.run(damage);
    println!("damage: {damage}");
    assert_found(&mut s, expected);
}

/// [`damaged`], around the triggers of a table, which are as they were in the end.
#[track_caller]
fn behind_the_triggers(table: &str, damage: &str, expected: &[&str]) {
    damaged(
        &format!(
            "BEGIN; ALTER TABLE {table} DISABLE TRIGGER USER; {damage};
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_row; ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_truncate; COMMIT"
        ),
        expected,
    );
}

/// Links and hashes the entries from `first` on anew, as one who knows docs/format.md can.
fn relink(first: u32, last: u32) -> String {
    format!(
        "DO $$ BEGIN FOR n IN {first}..{last} LOOP
           UPDATE audit.log SET prev = (SELECT hash FROM audit.log WHERE chain = 1 AND seq = n - 1) WHERE chain = 1 AND seq = n AND n > 1;
           UPDATE audit.log SET hash = sha256(convert_to(audit.line(1, n), 'UTF8')) WHERE chain = 1 AND seq = n;
         END LOOP; END $$;"
    )
}

// ---- The honest path ----

#[test]
fn an_untampered_history_is_clean() {
    let mut s = history().connect();
    assert_clean(&mut s);
    assert_eq!(s.text("SELECT max(seq) FROM audit.log"), "19");
    assert_eq!(s.text("SELECT op || key::text FROM audit.log WHERE seq = 9"), r#"UPDATE{"id":1}"#);
    let empty = s.column(
        "SELECT attname FROM pg_attribute
          WHERE attrelid = 'audit.log'::regclass AND attnum > 0 AND NOT attisdropped
            AND NOT EXISTS (SELECT FROM audit.log l, json_each(to_json(l)) e WHERE e.key = attname AND e.value::text <> 'null')",
    );
    assert!(empty.is_empty(), "nothing could be tampered with in {empty:?}");
    // Nor do the means of the tests below leave a trace.
    guards_off(&mut s, "audit.log", "SELECT 1");
    s.run("UPDATE account SET balance = balance + 1");
    assert_clean(&mut s);
}

/// A verdict inside the transaction that did the damage sees it too.
#[test]
fn damage_is_seen_inside_its_own_transaction() {
    let mut s = history().connect();
    s.run("BEGIN; ALTER TABLE audit.log DISABLE TRIGGER ALL; DELETE FROM audit.log WHERE seq = 16");
    let kinds: BTreeSet<String> = s.column("SELECT kind FROM audit.findings()").into_iter().collect();
    assert!(kinds.contains("missing") && kinds.contains("table"), "{kinds:?}");
    s.run("ROLLBACK");
    assert_clean(&mut s);
}

// ---- One column of one entry ----

/// Column of audit.log, its forged value in entry 9 (UPDATE of account 1: balance 100.00 to 70.00), and the findings.
const COLUMNS: &[(&str, &str, &[&str])] = &[
    ("id", "id + 1000", &["content 1:9", "order 1:10"]),
    (
        "ledger",
        "'00112233-4455-6677-8899-aabbccddeeff'",
        &["content 1:9", "missing 1:1", "missing 1:9", "table public.account"],
    ),
    ("ledger_prefix", "ledger_prefix + 1", &["content 1:9", "table public.account"]),
    ("chain", "99", &["content 99:9", "missing 99:1", "missing 1:9"]),
    ("seq", "900", &["content 1:900", "missing 1:9", "missing 1:20", "order 1:900"]),
    ("at", "at + interval '1 microsecond'", &["content 1:9"]),
    ("xid", "'1'", &["content 1:9"]),
    ("subxid", "'18446744073709551615'", &["content 1:9"]),
    ("command", "command + 1", &["content 1:9"]),
    ("op", "'DELETE'", &["content 1:9", "table public.account"]),
    ("table_oid", "'note'::regclass::oid", &["content 1:9", "table public.account"]),
    ("table_schema", "'other'", &["content 1:9"]),
    ("table_name", "'note'", &["content 1:9"]),
    ("key", "'{\"id\":2}'", &["content 1:9", "table public.account", "table public.account"]),
    ("old", "'{\"balance\":100.01}'", &["content 1:9", "table public.account"]),
    ("new", "'{\"balance\":70.01}'", &["content 1:9", "table public.account"]),
    ("login_name", "'bob'", &["content 1:9"]),
    ("session_name", "'bob'", &["content 1:9"]),
    ("user_name", "'bob'", &["content 1:9"]),
    ("application_name", "'bob'", &["content 1:9"]),
    ("client_addr", "'127.0.0.2'", &["content 1:9"]),
    ("context", "'{\"user\":\"bob\"}'", &["content 1:9"]),
    ("prev", "sha256('x')", &["content 1:9", "link 1:9"]),
    ("hash", "sha256('x')", &["content 1:9", "link 1:10"]),
];

#[test]
fn a_forged_value_is_found_in_each_column() {
    for (column, value, expected) in COLUMNS {
        damaged_log(&format!("UPDATE audit.log SET {column} = {value} WHERE seq = 9"), expected);
    }
}

#[test]
fn no_column_is_forgotten_in_the_table_above() {
    let mut s = history().connect();
    let columns = s.column(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'audit.log'::regclass AND attnum > 0 AND NOT attisdropped",
    );
    let tested: BTreeSet<&str> = COLUMNS.iter().map(|(column, ..)| *column).collect();
    assert_eq!(columns.iter().map(String::as_str).collect::<BTreeSet<_>>(), tested);
}

#[test]
fn a_value_taken_away_is_found_in_each_column() {
    for (column, ..) in COLUMNS {
        let mut s = history().connect();
        let optional = s.holds(&format!(
            "SELECT NOT attnotnull FROM pg_attribute WHERE attrelid = 'audit.log'::regclass AND attname = '{column}'"
        ));
        if !optional {
            continue;
        }
        println!("column: {column}");
        guards_off(&mut s, "audit.log", &format!("UPDATE audit.log SET {column} = NULL WHERE seq = 9"));
        let found = s.column("SELECT kind || ' ' || seq FROM audit.findings() WHERE kind IN ('content', 'format')");
        assert_eq!(found, ["content 9"]);
    }
}

/// Values that no line can hold: there is no line, so the hash does not fit, and the entry still has its place in the chain.
#[test]
fn an_entry_of_which_no_line_can_be_made_is_found() {
    for forgery in [
        "table_oid = NULL",
        "table_name = NULL",
        "at = '-infinity'",
        "at = '294276-01-01'",
        "command = -1",
        "table_oid = 0",
        "client_addr = '10.0.0.0/8'",
    ] {
        let mut s = history().connect();
        println!("forgery: {forgery}");
        guards_off(&mut s, "audit.log", &format!("UPDATE audit.log SET {forgery} WHERE seq = 9"));
        let found = s.column(
            "SELECT kind || ' ' || seq FROM audit.findings() WHERE kind IN ('content', 'missing', 'order', 'format')",
        );
        assert_eq!(found, ["content 9"]);
    }
    // Without a hash it cannot be linked either.
    for forgery in ["hash = 'short'", "hash = ''", "prev = ''", "chain = -1", "seq = 0", "seq = -1"] {
        let mut s = history().connect();
        println!("forgery: {forgery}");
        guards_off(&mut s, "audit.log", &format!("UPDATE audit.log SET {forgery} WHERE seq = 9"));
        assert!(s.number("SELECT count(*) FROM audit.findings() WHERE kind = 'content'") >= 1);
    }
}

/// What looks the same to a JSON reader is not the same text.
#[test]
fn another_spelling_of_the_same_value_is_found() {
    for (column, value) in [
        ("new", r#"'{"balance":70.000}'"#),
        ("new", r#"'{"balance": 70.00}'"#),
        ("key", r#"'{"id":1 }'"#),
        ("context", r#"'{"user":"\u0061nn"}'"#),
        ("context", r#"'{}'"#),
        ("application_name", "''"),
    ] {
        let mut s = history().connect();
        println!("{column} = {value}");
        guards_off(&mut s, "audit.log", &format!("UPDATE audit.log SET {column} = {value} WHERE seq = 9"));
        assert_eq!(s.column("SELECT seq FROM audit.findings() WHERE kind = 'content'"), ["9"]);
    }
}

/// Neighbouring fields cannot be cut anew.
#[test]
fn a_piece_moved_between_columns_is_found() {
    damaged_log("UPDATE audit.log SET table_schema = 'publi', table_name = 'caccount' WHERE seq = 9", &["content 1:9"]);
    damaged_log(
        "UPDATE audit.log SET session_name = user_name || 'x', user_name = session_name WHERE seq = 9",
        &["content 1:9"],
    );
}

// ---- Entries ----

#[test]
fn a_deleted_entry_is_found() {
    // PROTECT of account
    damaged_log("DELETE FROM audit.log WHERE seq = 1", &["missing 1:1", "coverage public.account"]);
    damaged_log("DELETE FROM audit.log WHERE seq = 9", &["missing 1:9", "table public.account"]);
    damaged_log("DELETE FROM audit.log WHERE seq = 16", &["missing 1:16", "table public.measure_b"]);
    // A hole is one finding, however wide; two holes are two.
    damaged_log(
        "DELETE FROM audit.log WHERE seq BETWEEN 11 AND 12",
        &["missing 1:11", "table public.note", "table public.note"],
    );
    damaged_log(
        "DELETE FROM audit.log WHERE seq IN (16, 18)",
        &["missing 1:16", "missing 1:18", "table public.account", "table public.measure_b"],
    );
}

/// The documented limit of chains: a cut tail leaves a whole, shorter chain. Where nothing was sealed, only the tables can tell.
#[test]
fn a_cut_tail_is_found_only_as_far_as_tables_tell() {
    damaged_log("DELETE FROM audit.log WHERE seq > 17", &[]);
    damaged_log("DELETE FROM audit.log WHERE seq > 16", &["table public.account"]);
    damaged_log("DELETE FROM audit.log WHERE seq = 19", &["table public.account"]);
}

#[test]
fn an_emptied_log_is_found() {
    let mut s = history().connect();
    guards_off(&mut s, "audit.log", "TRUNCATE audit.log");
    let kinds: BTreeSet<String> = s.column("SELECT kind FROM audit.findings()").into_iter().collect();
    assert!(kinds.contains("coverage"), "{kinds:?}");
    let tables: BTreeSet<String> =
        s.column("SELECT relation FROM audit.findings() WHERE kind = 'coverage'").into_iter().collect();
    for table in ["public.account", "public.note", "public.measure", "public.measure_a", "public.measure_b"] {
        assert!(tables.contains(table), "{table} in {tables:?}");
    }
}

#[test]
fn entries_that_changed_places_are_found() {
    damaged_log(
        "UPDATE audit.log SET seq = 900 WHERE seq = 9; UPDATE audit.log SET seq = 9 WHERE seq = 10; UPDATE audit.log SET seq = 10 WHERE seq = 900",
        &["content 1:9", "content 1:10", "link 1:9", "link 1:10", "link 1:11", "order 1:10"],
    );
    // With everything but their places: the contents of two entries
    damaged_log(
        "UPDATE audit.log a SET key = b.key, old = b.old, new = b.new FROM audit.log b WHERE a.seq + b.seq = 19 AND a.seq IN (9, 10)",
        &["content 1:9", "content 1:10"],
    );
}

#[test]
fn a_repeated_entry_is_found() {
    // In another chain, with its own hash made right: the log says twice what happened once.
    damaged_log(
        "INSERT INTO audit.log SELECT (jsonb_populate_record(l, '{\"chain\": 77}')).* FROM audit.log l WHERE seq = 1;
         UPDATE audit.log SET id = 1000, op = 'INSERT', key = '{\"id\":5}', command = 0, new = '{\"id\":5,\"owner\":\"x\",\"balance\":1.00}' WHERE chain = 77;
         UPDATE audit.log SET hash = sha256(convert_to(audit.line(77, 1), 'UTF8')) WHERE chain = 77",
        &["table public.account"],
    );
    // In its own place, with the primary key gone
    let mut s = history().connect();
    s.run("ALTER TABLE audit.log DROP CONSTRAINT log_pkey");
    guards_off(&mut s, "audit.log", "INSERT INTO audit.log SELECT * FROM audit.log WHERE seq = 9");
    let kinds = s.column("SELECT kind || ' ' || seq FROM audit.findings() WHERE kind = 'order'");
    assert_eq!(kinds, ["order 9"]);
}

#[test]
fn an_inserted_entry_is_found() {
    // All later entries move on by one place; the new one fits the one before it, and has a good hash.
    let shifted: Vec<String> = (11..=20).map(|seq| format!("content 1:{seq}")).collect();
    let mut expected: Vec<&str> = shifted.iter().map(String::as_str).collect();
    expected.extend(["link 1:11", "order 1:11", "table public.account"]);
    damaged_log(
        r#"UPDATE audit.log SET seq = seq + 1000 WHERE seq >= 10;
           UPDATE audit.log SET seq = seq - 999 WHERE seq >= 1000;
           INSERT INTO audit.log SELECT * FROM (SELECT (jsonb_populate_record(l, '{"seq": 10}')).* FROM audit.log l WHERE seq = 9) e;
           UPDATE audit.log SET id = 1000, old = '{"balance":70.00}', new = '{"balance":7000.00}', prev = (SELECT hash FROM audit.log WHERE seq = 9)
            WHERE seq = 10;
           UPDATE audit.log SET hash = sha256(convert_to(audit.line(1, 10), 'UTF8')) WHERE seq = 10"#,
        &expected,
    );
}

#[test]
fn an_entry_with_a_new_hash_breaks_the_link_after_it() {
    damaged_log(
        r#"UPDATE audit.log SET new = '{"balance":7000.00}' WHERE seq = 9;
           UPDATE audit.log SET hash = sha256(convert_to(audit.line(1, 9), 'UTF8')) WHERE seq = 9"#,
        &["link 1:10", "table public.account"],
    );
    // Linked anew for a while: found where the forger stopped
    damaged_log(&format!("UPDATE audit.log SET user_name = 'nobody' WHERE seq = 9; {}", relink(9, 14)), &["link 1:15"]);
}

/// The documented limit: who links everything anew, to the end, and leaves the tables as the log then says, is found only by
/// comparison with what was kept elsewhere.
#[test]
fn a_history_rewritten_to_the_end_is_found_only_as_far_as_tables_tell() {
    damaged_log(&format!("UPDATE audit.log SET user_name = 'nobody' WHERE seq = 9; {}", relink(9, 19)), &[]);
    damaged_log(
        &format!(r#"UPDATE audit.log SET new = '{{"balance":7000.00}}' WHERE seq = 9; {}"#, relink(9, 19)),
        &["table public.account"],
    );
    // An INSERT removed, with all later entries renumbered, leaves the row without its history.
    damaged_log(
        &format!(
            "DELETE FROM audit.log WHERE seq = 16; UPDATE audit.log SET seq = seq - 1 WHERE seq > 16; {}",
            relink(16, 18)
        ),
        &["table public.measure_b"],
    );
}

#[test]
fn well_linked_entries_of_a_wrong_form_are_found() {
    for (forgery, seq) in [
        ("op = 'UPSERT'", 9),
        ("old = NULL", 9),
        ("command = NULL", 9),
        ("key = '[1]'", 9),
        ("new = '1'", 9),
        ("new = NULL", 2),
    ] {
        let mut s = history().connect();
        println!("forgery: {forgery}");
        guards_off(
            &mut s,
            "audit.log",
            &format!("UPDATE audit.log SET {forgery} WHERE seq = {seq}; {}", relink(seq, 19)),
        );
        let found = s.column("SELECT kind || ' ' || seq FROM audit.findings() WHERE kind IN ('content', 'link', 'missing', 'order', 'format')");
        assert_eq!(found, [format!("format {seq}")]);
    }
}

#[test]
fn times_that_go_back_are_found_beyond_the_tolerance() {
    damaged_log(&format!("UPDATE audit.log SET at = at - interval '50 seconds' WHERE seq = 9; {}", relink(9, 19)), &[]);
    damaged_log(
        &format!("UPDATE audit.log SET at = at - interval '1 hour' WHERE seq = 9; {}", relink(9, 19)),
        &["order 1:9"],
    );
    damaged_log(
        &format!("UPDATE audit.log SET at = at + interval '1 hour' WHERE seq = 9; {}", relink(9, 19)),
        &["order 1:10"],
    );
}

#[test]
fn a_chain_that_begins_in_the_middle_is_found() {
    damaged_log(
        &format!("DELETE FROM audit.log WHERE seq <= 5; {}", relink(6, 5)),
        &[
            "missing 1:1",
            "coverage public.account",
            "coverage public.note",
            "coverage public.measure",
            "coverage public.measure_a",
            "coverage public.measure_b",
        ],
    );
    // Renumbered, and linked anew but for the beginning
    let mut s = history().connect();
    guards_off(&mut s, "audit.log", "DELETE FROM audit.log WHERE seq <= 8; UPDATE audit.log SET seq = seq - 8");
    let found = s.column("SELECT kind || ' ' || seq FROM audit.findings() WHERE kind = 'link'");
    assert_eq!(found, ["link 1"]);
}

#[test]
fn every_fault_is_reported_not_only_the_first() {
    damaged_log(
        "UPDATE audit.log SET user_name = 'nobody' WHERE seq IN (2, 9, 17); DELETE FROM audit.log WHERE seq IN (13, 16);
         UPDATE audit.log SET hash = sha256('x') WHERE seq = 6",
        &[
            "content 1:2",
            "content 1:6",
            "content 1:9",
            "content 1:17",
            "link 1:7",
            "missing 1:13",
            "missing 1:16",
            "table public.measure_a",
            "table public.measure_b",
        ],
    );
}

// ---- Rows behind the triggers' back ----

#[test]
fn rows_changed_behind_the_triggers_are_found() {
    behind_the_triggers("account", "UPDATE account SET balance = 7000 WHERE id = 1", &["table public.account"]);
    behind_the_triggers(
        "account",
        "UPDATE account SET balance = 7, owner = NULL WHERE id = 1",
        &["table public.account", "table public.account"],
    );
    behind_the_triggers("account", "DELETE FROM account WHERE id = 1", &["table public.account"]);
    behind_the_triggers("account", "INSERT INTO account VALUES (5, 'eve', 1)", &["table public.account"]);
    behind_the_triggers("account", "TRUNCATE account", &["table public.account", "table public.account"]);
    behind_the_triggers(
        "account",
        "UPDATE account SET id = 20 WHERE id = 2",
        &["table public.account", "table public.account"],
    );
    behind_the_triggers("account", "UPDATE account SET balance = balance", &[]);
}

#[test]
fn rows_without_a_key_changed_behind_the_triggers_are_found() {
    behind_the_triggers("note", "INSERT INTO note VALUES (1, 'a')", &["table public.note"]);
    behind_the_triggers("note", "DELETE FROM note WHERE id = 1", &["table public.note"]);
    behind_the_triggers("note", "UPDATE note SET body = 'x' WHERE id = 1", &["table public.note", "table public.note"]);
    behind_the_triggers("note", "UPDATE note SET id = id", &[]);
}

#[test]
fn rows_of_a_partition_changed_behind_the_triggers_are_found() {
    behind_the_triggers("measure_a", "UPDATE measure_a SET v = 11", &["table public.measure_a"]);
    behind_the_triggers("measure_b", "TRUNCATE measure_b", &["table public.measure_b"]);
}

#[test]
fn a_fault_of_a_row_names_key_column_and_both_values() {
    let mut s = history().connect();
    s.run("ALTER TABLE account DISABLE TRIGGER USER; UPDATE account SET balance = 7000 WHERE id = 1; DELETE FROM account WHERE id = 2");
    let details = s.column("SELECT detail FROM audit.findings() WHERE kind = 'table' ORDER BY detail");
    assert_eq!(details.len(), 2, "{details:?}");
    assert!(
        details
            .iter()
            .any(|detail| ["\"id\":1", "balance", "70.00", "7000.00"].iter().all(|part| detail.contains(part))),
        "{details:?}"
    );
    assert!(details.iter().any(|detail| detail.contains("\"id\":2")), "{details:?}");
}

#[test]
fn data_changed_by_ddl_behind_the_event_triggers_is_found() {
    let mut s = history().connect();
    s.run("ALTER EVENT TRIGGER audit_ddl_rewrite DISABLE");
    s.run("ALTER TABLE account ALTER owner TYPE text USING upper(owner)");
    s.run("ALTER EVENT TRIGGER audit_ddl_rewrite ENABLE ALWAYS");
    let found = s.column("SELECT DISTINCT kind || ' ' || relation FROM audit.findings()");
    assert_eq!(found, ["table public.account"]);
}

#[test]
fn rows_of_tables_without_baseline_are_not_compared() {
    let mut s = history().connect();
    s.run(
        "CREATE TABLE old (id int PRIMARY KEY, v int); INSERT INTO old VALUES (1, 1);
         SELECT audit.protect('old', baseline => false); UPDATE old SET v = 2; DELETE FROM old; INSERT INTO old VALUES (2, 2)",
    );
    assert_clean(&mut s);
    assert!(s.text("SELECT detail FROM audit.verify() WHERE what = 'table'").contains("public.old"));
}

#[test]
fn tables_are_left_out_on_request() {
    let mut s = history().connect();
    s.run("ALTER TABLE account DISABLE TRIGGER USER; DELETE FROM account; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row");
    s.run("ALTER TABLE account ENABLE ALWAYS TRIGGER audit_truncate");
    assert_eq!(s.number("SELECT count(*) FROM audit.findings(tables => false)"), 0);
    assert!(s.number("SELECT count(*) FROM audit.findings(tables => true)") > 0);
    assert_eq!(
        s.column("SELECT what FROM audit.verify(tables => false)"),
        [
            "content",
            "link",
            "missing",
            "order",
            "format",
            "seal",
            "tree",
            "checkpoint",
            "coverage",
            "table",
            "transaction"
        ]
    );
}

// ---- Protection taken away ----

/// What is done to triggers, and the findings of coverage.
const COVERAGE: &[(&str, &[&str])] = &[
    ("DROP TRIGGER audit_row ON account", &["coverage public.account"]),
    ("DROP TRIGGER audit_truncate ON account", &["coverage public.account"]),
    ("ALTER TABLE account DISABLE TRIGGER audit_row", &["coverage public.account"]),
    ("ALTER TABLE account DISABLE TRIGGER audit_truncate", &["coverage public.account"]),
    ("ALTER TABLE account DISABLE TRIGGER ALL", &["coverage public.account", "coverage public.account"]),
    ("ALTER TABLE account ENABLE TRIGGER audit_row", &["coverage public.account"]),
    ("ALTER TABLE account ENABLE REPLICA TRIGGER audit_row", &["coverage public.account"]),
    ("ALTER TABLE account ENABLE REPLICA TRIGGER audit_truncate", &["coverage public.account"]),
    ("ALTER TRIGGER audit_row ON account RENAME TO other", &["coverage public.account"]),
    (
        "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW WHEN (false)
           EXECUTE FUNCTION audit.audit_row(); ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
        &["coverage public.account"],
    ),
    (
        "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR UPDATE OF owner OR DELETE ON account FOR EACH ROW
           EXECUTE FUNCTION audit.audit_row(); ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
        &["coverage public.account"],
    ),
    (
        "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR DELETE ON account FOR EACH ROW
           EXECUTE FUNCTION audit.audit_row(); ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
        &["coverage public.account"],
    ),
    (
        "CREATE OR REPLACE TRIGGER audit_row BEFORE INSERT OR UPDATE OR DELETE ON account FOR EACH ROW
           EXECUTE FUNCTION audit.audit_row(); ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
        &["coverage public.account"],
    ),
    (
        "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW
           EXECUTE FUNCTION audit.audit_row('x'); ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
        &["coverage public.account"],
    ),
    (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION nothing();
         ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
        &["coverage public.account"],
    ),
    // Under the name of ours, in another schema
    (
        "CREATE SCHEMA fake; CREATE FUNCTION fake.audit_truncate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE OR REPLACE TRIGGER audit_truncate AFTER TRUNCATE ON account FOR EACH STATEMENT EXECUTE FUNCTION fake.audit_truncate();
         ALTER TABLE account ENABLE ALWAYS TRIGGER audit_truncate",
        &["coverage public.account"],
    ),
    // Partitions
    ("ALTER TABLE measure_a DISABLE TRIGGER audit_row", &["coverage public.measure_a"]),
    ("ALTER TABLE measure_a ENABLE REPLICA TRIGGER audit_row", &["coverage public.measure_a"]),
    ("DROP TRIGGER audit_truncate ON measure_a", &["coverage public.measure_a"]),
    ("DROP TRIGGER audit_truncate ON measure", &["coverage public.measure"]),
    (
        "DROP TRIGGER audit_row ON measure",
        &["coverage public.measure", "coverage public.measure_a", "coverage public.measure_b"],
    ),
    // In the catalog, where no event trigger looks
    ("UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = 'account'::regclass AND tgname = 'audit_row'", &["coverage public.account"]),
    ("UPDATE pg_trigger SET tgtype = tgtype & ~16 WHERE tgrelid = 'account'::regclass AND tgname = 'audit_row'", &["coverage public.account"]),
    ("DELETE FROM pg_trigger WHERE tgrelid = 'account'::regclass AND tgname = 'audit_row'", &["coverage public.account"]),
];

#[test]
fn triggers_taken_away_or_altered_are_found() {
    for (damage, expected) in COVERAGE {
        damaged(damage, expected);
    }
}

/// With pg_class.relhastriggers off no trigger fires, however well pg_trigger looks.
#[test]
fn a_table_that_hides_its_triggers_is_found() {
    let mut s = history().connect();
    s.run("UPDATE pg_class SET relhastriggers = false WHERE oid = 'account'::regclass");
    let found = s.column("SELECT DISTINCT kind || ' ' || relation FROM audit.findings()");
    assert_eq!(found, ["coverage public.account"]);
}

#[test]
fn the_view_of_protected_tables_tells_the_state_of_triggers() {
    let mut s = history().connect();
    let state =
        "SELECT row_trigger || ' ' || truncate_trigger FROM audit.protected WHERE relation = 'account'::regclass";
    assert_eq!(s.text(state), "ok ok");
    for (damage, expected) in [
        ("ALTER TABLE account DISABLE TRIGGER audit_row", "disabled ok"),
        (
            "ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; ALTER TABLE account DISABLE TRIGGER audit_truncate",
            "ok disabled",
        ),
        (
            "ALTER TABLE account ENABLE ALWAYS TRIGGER audit_truncate; DROP TRIGGER audit_truncate ON account",
            "ok missing",
        ),
        ("DROP TRIGGER audit_row ON account", "missing missing"),
    ] {
        s.run(damage);
        assert_eq!(s.text(state), expected, "{damage}");
    }
    let mut s = history().connect();
    s.run(
        "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION audit.audit_row();
         ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
    );
    assert_eq!(s.text(state), "altered ok");
}

#[test]
fn a_trigger_function_that_is_not_ours_any_more_is_found() {
    let mut s = history().connect();
    s.run("CREATE OR REPLACE FUNCTION audit.audit_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    s.run("UPDATE note SET body = 'unseen' WHERE id = 1");
    let kinds: BTreeSet<String> = s.column("SELECT kind FROM audit.findings()").into_iter().collect();
    assert_eq!(kinds, ["coverage", "table"].map(str::to_owned).into());
}

#[test]
fn a_registry_that_was_emptied_is_found() {
    let mut s = history().connect();
    guards_off(&mut s, "audit.registry", "DELETE FROM audit.registry WHERE relation = 'account'::regclass");
    assert_found(&mut s, &["coverage public.account"]);
    // A write without registration is refused, not lost.
    assert_eq!(s.sqlstate("UPDATE account SET balance = 1"), "39P01");

    let mut s = history().connect();
    guards_off(&mut s, "audit.registry", "DELETE FROM audit.registry");
    let found: BTreeSet<String> =
        s.column("SELECT relation FROM audit.findings() WHERE kind = 'coverage'").into_iter().collect();
    assert_eq!(found.len(), 5, "{found:?}");
}

#[test]
fn a_registry_that_says_something_else_is_found() {
    for change in ["exclude = '{balance}'", "images = 'full'", "baseline = false"] {
        let mut s = history().connect();
        guards_off(
            &mut s,
            "audit.registry",
            &format!("UPDATE audit.registry SET {change} WHERE relation = 'account'::regclass"),
        );
        println!("change: {change}");
        let found = s.column("SELECT DISTINCT kind || ' ' || relation FROM audit.findings()");
        assert_eq!(found, ["coverage public.account"]);
    }
}

#[test]
fn a_table_dropped_replaced_or_renamed_is_found() {
    damaged("DROP TABLE account", &["coverage public.account"]);
    // Where it is recorded, a table may have another name (ddl.rs).
    let unseen =
        |ddl| format!("ALTER EVENT TRIGGER audit_ddl DISABLE; {ddl}; ALTER EVENT TRIGGER audit_ddl ENABLE ALWAYS");
    damaged(&unseen("ALTER TABLE account RENAME TO account_old"), &["coverage public.account"]);
    damaged(&unseen("CREATE SCHEMA s; ALTER TABLE account SET SCHEMA s"), &["coverage public.account"]);
    damaged("DROP TABLE measure_a", &["coverage public.measure_a"]);
    damaged(
        "DROP TABLE measure",
        &["coverage public.measure", "coverage public.measure_a", "coverage public.measure_b"],
    );
    // Another table under the old name, with the same rows
    let mut s = history().connect();
    s.run("CREATE TABLE copy AS TABLE account; DROP TABLE account; ALTER TABLE copy RENAME TO account");
    let found = s.column("SELECT DISTINCT kind || ' ' || relation FROM audit.findings()");
    assert_eq!(found, ["coverage public.account"]);
    // Moved aside: the old table keeps its history under its new name, the new one has none.
    let mut s = history().connect();
    s.run("ALTER TABLE account RENAME TO account_old; CREATE TABLE account (id int PRIMARY KEY, owner text, balance numeric)");
    let found = s.column("SELECT DISTINCT kind FROM audit.findings()");
    assert_eq!(found, ["coverage"]);
}

/// Row security, rules and triggers that swallow what the application writes, or hide what is there, change what a table is.
#[test]
fn a_protected_table_made_unlogged_is_found() {
    damaged("ALTER TABLE account SET UNLOGGED", &["coverage public.account"]);
}

// ---- The guards themselves ----

#[test]
fn guards_taken_away_are_found() {
    for damage in [
        "ALTER TABLE audit.log DISABLE TRIGGER ALL",
        "ALTER TABLE audit.log DISABLE TRIGGER audit_guard_row",
        "ALTER TABLE audit.log ENABLE TRIGGER audit_guard_statement",
        "ALTER TABLE audit.log ENABLE REPLICA TRIGGER audit_guard_row",
        "ALTER TABLE audit.registry DISABLE TRIGGER ALL",
        "ALTER EVENT TRIGGER audit_ddl DISABLE",
        "ALTER EVENT TRIGGER audit_ddl ENABLE REPLICA",
    ] {
        let mut s = history().connect();
        s.run(damage);
        println!("damage: {damage}");
        let kinds = s.column("SELECT DISTINCT kind FROM audit.findings()");
        assert_eq!(kinds, ["coverage"]);
    }
}

#[test]
fn a_log_that_was_replaced_or_opened_is_found() {
    for damage in [
        "ALTER TABLE audit.log SET UNLOGGED",
        "CREATE TABLE more () INHERITS (audit.log)",
        "ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY",
        "CREATE RULE hide AS ON UPDATE TO audit.log DO INSTEAD NOTHING",
        "ALTER TABLE audit.log DROP CONSTRAINT log_pkey",
    ] {
        let mut s = history().connect();
        s.run(damage);
        println!("damage: {damage}");
        let kinds = s.column("SELECT DISTINCT kind FROM audit.findings()");
        assert_eq!(kinds, ["coverage"]);
    }
}

#[test]
fn a_ledger_that_names_another_or_none_is_found() {
    for damage in [
        "DELETE FROM audit.ledger",
        "UPDATE audit.ledger SET id = '00112233-4455-6677-8899-aabbccddeeff'",
        "INSERT INTO audit.ledger VALUES ('00112233-4455-6677-8899-aabbccddeeff', now())",
    ] {
        let mut s = history().connect();
        guards_off(&mut s, "audit.ledger", damage);
        println!("damage: {damage}");
        let kinds = s.column("SELECT DISTINCT kind FROM audit.findings()");
        assert_eq!(kinds, ["coverage"]);
    }
}

/// Without its row in audit.incarnation a database counts as restored: the next write says so in the log.
#[test]
fn a_forged_restore_shows_in_the_log() {
    let mut s = history().connect();
    guards_off(&mut s, "audit.incarnation", "DELETE FROM audit.incarnation");
    s.run("SET audit.chains = 1; INSERT INTO account VALUES (100, 'new', 1)");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 1);
    assert_clean(&mut s);
}

// ---- Writing on over damage ----

/// A chain whose end was tampered with is not continued as if nothing had happened.
#[test]
fn writing_on_does_not_heal_a_damaged_log() {
    let mut s = history().connect();
    guards_off(
        &mut s,
        "audit.log",
        "DELETE FROM audit.log WHERE seq = 16; UPDATE audit.log SET user_name = 'nobody' WHERE seq = 9",
    );
    s.run("SET audit.chains = 1; INSERT INTO account VALUES (100, 'new', 1)");
    s.run("RESET audit.chains; INSERT INTO account VALUES (101, 'new', 1)");
    assert_found(&mut s, &["content 1:9", "missing 1:16", "table public.measure_b"]);
}

#[test]
fn a_forged_head_is_found_when_the_chain_goes_on() {
    let mut s = history().connect();
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET user_name = 'nobody' WHERE seq = 19");
    let _ = s.batch_execute("SET audit.chains = 1; INSERT INTO account VALUES (100, 'new', 1)");
    let found = s.column("SELECT kind || ' ' || seq FROM audit.findings() WHERE kind IN ('content', 'link')");
    assert!(found.contains(&"content 19".to_owned()), "{found:?}");
}

#[test]
fn the_hint_of_each_finding_says_what_to_do() {
    let mut s = history().connect();
    s.run("DROP TRIGGER audit_row ON note; ALTER TABLE account DISABLE TRIGGER USER; DELETE FROM account WHERE id = 1");
    guards_off(
        &mut s,
        "audit.log",
        "UPDATE audit.log SET hash = sha256('x') WHERE seq = 6; DELETE FROM audit.log WHERE seq = 13",
    );
    let without =
        s.column("SELECT kind FROM audit.findings() WHERE coalesce(hint, '') !~ '\\.$' OR coalesce(detail, '') = ''");
    assert!(without.is_empty(), "{without:?}");
    let kinds: BTreeSet<String> = s.column("SELECT kind FROM audit.findings()").into_iter().collect();
    assert_eq!(kinds, ["content", "link", "missing", "coverage", "table"].map(str::to_owned).into());
}

/// The view of the session's own transaction: entries of others that are not committed are not missing.
#[test]
fn entries_not_yet_committed_raise_no_false_alarm() {
    let database = history();
    let (mut s, mut writer): (Session, Session) = (database.connect(), database.connect());
    writer
        .run("BEGIN; INSERT INTO account VALUES (100, 'open', 1); UPDATE note SET body = 'open'; DELETE FROM measure");
    assert_clean(&mut s);
    assert_clean(&mut writer);
    writer.run("COMMIT");
    assert_clean(&mut s);
}
