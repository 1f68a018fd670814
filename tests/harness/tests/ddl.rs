//! DDL on protected tables: what it leaves in the log, and that rows and log agree after it.

use audit_tests::{
    Database, Session, assert_clean, assert_found, changes, changes_of, database, findings, guards_off, verdict,
};

/// A protected table with rows, and a session.
fn protected(create: &str) -> (Database<'static>, Session) {
    let database = database();
    let mut s = database.connect();
    s.run(create);
    s.run("SELECT audit.protect('t')");
    (database, s)
}

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 10, 'x'), (2, 20, 'y')";

/// The DDL entries of a table by its present object id: command and statement.
#[track_caller]
fn commands(s: &mut Session, table: &str) -> Vec<String> {
    s.column(&format!(
        "SELECT (new ->> 'command') || ': ' || (new ->> 'statement') FROM audit.log
          WHERE op = 'DDL' AND table_oid = '{table}'::regclass ORDER BY id"
    ))
}

#[track_caller]
fn baselines(s: &mut Session) -> i64 {
    s.number("SELECT count(*) FROM audit.log WHERE op = 'BASELINE'")
}

// ---- Entries ----

#[test]
fn each_command_about_a_table_leaves_an_entry_with_its_text() {
    let (_database, mut s) = protected(TABLE);
    s.run(
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE ROLE ddl_other",
    );
    let mut expected = Vec::new();
    for (tag, ddl) in [
        ("ALTER TABLE", "ALTER TABLE t ALTER a SET DEFAULT 5"),
        ("ALTER TABLE", "ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0)"),
        ("ALTER TABLE", "ALTER TABLE t RENAME CONSTRAINT positive TO above"),
        ("ALTER TABLE", "ALTER TABLE t DROP CONSTRAINT above"),
        ("ALTER TABLE", "ALTER TABLE t SET (fillfactor = 90)"),
        ("ALTER TABLE", "ALTER TABLE t OWNER TO ddl_other"),
        ("COMMENT", "COMMENT ON COLUMN t.a IS 'what it is'"),
        ("CREATE TRIGGER", "CREATE TRIGGER mine AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()"),
        ("ALTER TABLE", "ALTER TABLE t DISABLE TRIGGER mine"),
        ("ALTER TRIGGER", "ALTER TRIGGER mine ON t RENAME TO yours"),
        ("DROP TRIGGER", "DROP TRIGGER yours ON t"),
        ("CREATE RULE", "CREATE RULE swallow AS ON INSERT TO t DO INSTEAD NOTHING"),
        ("DROP RULE", "DROP RULE swallow ON t"),
        ("CREATE POLICY", "CREATE POLICY mine ON t USING (true)"),
        ("ALTER POLICY", "ALTER POLICY mine ON t USING (false)"),
        ("DROP POLICY", "DROP POLICY mine ON t"),
        ("ALTER TABLE", "ALTER TABLE t ENABLE ROW LEVEL SECURITY"),
        ("CREATE TRIGGER", "CREATE TRIGGER mine AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()"),
        ("DROP FUNCTION", "DROP FUNCTION nothing CASCADE"),
    ] {
        s.run(ddl);
        expected.push(format!("{tag}: {ddl}"));
    }
    // What is about other objects, or no DDL.
    for ddl in [
        "CREATE INDEX i ON t (a)",
        "ALTER INDEX i RENAME TO j",
        "REINDEX TABLE t",
        "DROP INDEX j",
        "CREATE INDEX CONCURRENTLY i ON t (a)",
        "REINDEX INDEX CONCURRENTLY i",
        "CLUSTER t USING t_pkey",
        "VACUUM FULL t",
        "ANALYZE t",
        "GRANT SELECT ON t TO ddl_other",
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE TABLE other AS TABLE t",
        "ALTER TABLE other ADD COLUMN c int",
        "CREATE TABLE child (id int REFERENCES t)",
        "DROP TABLE child, other",
        "DROP VIEW v",
    ] {
        s.run(ddl);
    }
    assert_eq!(commands(&mut s, "t"), expected);
    // No column has changed, so there is nothing to say of before.
    assert_eq!(
        s.rows("SELECT DISTINCT old::text, (new ->> 'columns') FROM audit.log WHERE op = 'DDL'"),
        [[None, Some(r#"["id","a","b"]"#.to_owned())]]
    );
    assert_eq!((baselines(&mut s), s.number("SELECT count(*) FROM audit.log WHERE op = 'PROTECT'")), (2, 1));
    assert_clean(&mut s);
    s.run("DROP OWNED BY ddl_other CASCADE");
    s.run("DROP ROLE ddl_other");
}

#[test]
fn columns_before_and_after_are_recorded() {
    let (_database, mut s) = protected(TABLE);
    s.run("ALTER TABLE t ADD COLUMN \"größe\" numeric(8, 2) DEFAULT 1");
    s.run("ALTER TABLE t RENAME a TO amount");
    s.run("ALTER TABLE t ALTER amount TYPE bigint");
    s.run("ALTER TABLE t DROP CONSTRAINT t_pkey, DROP COLUMN b");
    let shape = |side: &str| {
        format!(
            "SELECT {side} ->> 'columns' || ' ' || ({side} ->> 'types') || ' ' || ({side} ->> 'key') FROM audit.log WHERE op = 'DDL' ORDER BY id"
        )
    };
    let shapes = [
        r#"["id","a","b"] ["integer","integer","text"] ["id"]"#,
        r#"["id","a","b","größe"] ["integer","integer","text","numeric(8,2)"] ["id"]"#,
        r#"["id","amount","b","größe"] ["integer","integer","text","numeric(8,2)"] ["id"]"#,
        r#"["id","amount","b","größe"] ["integer","bigint","text","numeric(8,2)"] ["id"]"#,
        r#"["id","amount","größe"] ["integer","bigint","numeric(8,2)"] []"#,
    ];
    assert_eq!(s.column(&shape("old")), shapes[..4]);
    assert_eq!(s.column(&shape("new")), shapes[1..]);
    // Each entry comes before what follows from it, in the same transaction.
    assert_eq!(
        s.column("SELECT string_agg(op, ' ' ORDER BY id) FROM audit.log WHERE xid IN (SELECT xid FROM audit.log WHERE op = 'DDL') GROUP BY xid"),
        ["DDL PROTECT BASELINE BASELINE"; 4]
    );
    assert_clean(&mut s);
}

/// The text is that of the client's statement: of several sent together the one, and of a function's command the statement that called the function.
#[test]
fn the_text_is_the_statement_of_the_client() {
    let (_database, mut s) = protected(TABLE);
    s.run("/* first */ SELECT 1; ALTER /* second */ TABLE t ADD c1 int ; SELECT 2");
    s.run("DO 'BEGIN EXECUTE ''ALTER TABLE t ADD c'' || 2 || '' int''; END'");
    s.run("CREATE FUNCTION migrate() RETURNS void LANGUAGE plpgsql AS 'BEGIN ALTER TABLE t ADD c3 int; END'");
    s.run("SELECT migrate() -- as agreed");
    s.execute("ALTER TABLE t ADD c4 int", &[]).expect("a prepared statement");
    s.run(&format!("ALTER TABLE t ADD c5 text DEFAULT '{}'", "ä".repeat(50_000)));
    let found = commands(&mut s, "t");
    assert_eq!(
        found[..4],
        [
            "ALTER TABLE: ALTER /* second */ TABLE t ADD c1 int",
            "ALTER TABLE: DO 'BEGIN EXECUTE ''ALTER TABLE t ADD c'' || 2 || '' int''; END'",
            "ALTER TABLE: SELECT migrate() -- as agreed",
            "ALTER TABLE: ALTER TABLE t ADD c4 int",
        ]
    );
    // Too long a text is cut, and says so.
    assert_eq!(
        s.column("SELECT (new ->> 'truncated') || ' ' || (octet_length(new ->> 'statement') BETWEEN 65000 AND 65536) FROM audit.log WHERE op = 'DDL' ORDER BY id"),
        ["", "", "", "", "true true"]
    );
    assert_clean(&mut s);
}

/// If the entry cannot be written, the command fails.
#[test]
fn a_command_that_cannot_be_recorded_fails() {
    let (database, mut s) = protected(TABLE);
    s.run("ALTER SEQUENCE audit.log_id_seq MAXVALUE 1000; SELECT setval('audit.log_id_seq', 1000)");
    for ddl in ["ALTER TABLE t ADD c int", "ALTER TABLE t RENAME TO u", "DROP TABLE t", "COMMENT ON TABLE t IS 'x'"] {
        assert_eq!(database.connect().sqlstate(ddl), "2200H", "{ddl}");
    }
    s.run("ALTER SEQUENCE audit.log_id_seq NO MAXVALUE");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'DDL'"), 0);
    s.run("ALTER TABLE t ADD c int");
    assert_clean(&mut s);
}

#[test]
fn what_is_rolled_back_leaves_nothing() {
    let (_database, mut s) = protected(TABLE);
    s.run("BEGIN; ALTER TABLE t ADD c int; ROLLBACK");
    s.run(
        "BEGIN; SAVEPOINT a; ALTER TABLE t ALTER a TYPE int USING a + 1; ALTER TABLE t RENAME TO u; ROLLBACK TO a;
         COMMENT ON TABLE t IS 'c'; COMMIT",
    );
    s.run("BEGIN; SAVEPOINT a; DROP TABLE t; ROLLBACK TO a; UPDATE t SET a = 3; COMMIT");
    // Stopped in the middle of writing the table anew.
    s.run("CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'");
    s.run("BEGIN; SAVEPOINT a");
    s.refused("ALTER TABLE t ALTER a TYPE int USING fails(a)");
    s.run("ROLLBACK TO a; CREATE TEMP TABLE x (); ALTER TABLE t ALTER b SET DEFAULT 'z'; COMMIT");
    assert_eq!(
        commands(&mut s, "t"),
        ["COMMENT: COMMENT ON TABLE t IS 'c'", "ALTER TABLE: ALTER TABLE t ALTER b SET DEFAULT 'z'"]
    );
    assert_eq!(baselines(&mut s), 2);
    assert_clean(&mut s);
}

/// Neither the search path nor privileges of whoever runs the DDL have a say in what is recorded.
#[test]
fn an_owner_cannot_hide_his_ddl() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE ROLE ddl_hider LOGIN; CREATE SCHEMA ddl_hider AUTHORIZATION ddl_hider");
    let mut role = database.connect_as("ddl_hider");
    role.run("CREATE TABLE t (id int PRIMARY KEY)");
    s.run("SELECT audit.protect('ddl_hider.t')");
    s.run("REVOKE EXECUTE ON FUNCTION pg_event_trigger_ddl_commands(), pg_event_trigger_dropped_objects(), pg_event_trigger_table_rewrite_oid(), pg_event_trigger_table_rewrite_reason() FROM PUBLIC");
    role.run(
        "CREATE FUNCTION pg_event_trigger_ddl_commands() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
         CREATE FUNCTION pg_temp.pg_event_trigger_dropped_objects() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
         SET search_path = ddl_hider, pg_temp, pg_catalog; SET quote_all_identifiers = on; SET standard_conforming_strings = off",
    );
    role.run("ALTER TABLE t ADD c int DEFAULT 1");
    role.run("ALTER TABLE t ALTER c TYPE int USING c + 1");
    role.run("ALTER TABLE t DROP COLUMN c");
    role.run("DROP TABLE t");
    assert_eq!(
        s.column("SELECT (new ->> 'statement') || ' ' || user_name FROM audit.log WHERE op = 'DDL' ORDER BY id"),
        [
            "ALTER TABLE t ADD c int DEFAULT 1 ddl_hider",
            "ALTER TABLE t ALTER c TYPE int USING c + 1 ddl_hider",
            "ALTER TABLE t DROP COLUMN c ddl_hider",
            "DROP TABLE t ddl_hider",
        ]
    );
    assert_found(&mut s, &["coverage ddl_hider.t"]);
}

// ---- Names ----

#[test]
fn renamed_by_any_door_a_table_goes_on_under_its_new_name() {
    let (database, mut s) = protected(TABLE);
    // This session has recorded under the old names, and learns of each new one.
    let mut writer = database.connect();
    let mut number = 100;
    for (ddl, name) in [
        ("ALTER TABLE t RENAME TO t2", "public.t2"),
        ("ALTER INDEX t2 RENAME TO t3", "public.t3"),
        ("ALTER VIEW t3 RENAME TO t4", "public.t4"),
        ("ALTER SEQUENCE t4 RENAME TO t5", "public.t5"),
        ("CREATE SCHEMA s; ALTER TABLE t5 SET SCHEMA s", "s.t5"),
        ("ALTER SCHEMA s RENAME TO s2", "s2.t5"),
        ("BEGIN; ALTER SCHEMA s2 RENAME TO s3; ALTER TABLE s3.t5 RENAME TO t6; COMMIT", "s3.t6"),
        ("ALTER VIEW s3.t6 RENAME COLUMN a TO c", "s3.t6"),
        ("ALTER INDEX s3.t6 SET SCHEMA public", "public.t6"),
    ] {
        if s.batch_execute(ddl).is_err() {
            // Not every major takes each of these doors.
            s.run(&ddl.replace("INDEX", "TABLE").replace("VIEW", "TABLE").replace("SEQUENCE", "TABLE"));
        }
        number += 1;
        writer.run(&format!("INSERT INTO {name} VALUES ({number}); UPDATE {name} SET b = 'z' WHERE id = {number}"));
        let last =
            "SELECT table_schema || '.' || table_name FROM audit.log WHERE op = 'UPDATE' ORDER BY id DESC LIMIT 1";
        assert_eq!(s.text(last), name, "{ddl}");
        let entry = s.rows("SELECT table_schema || '.' || table_name, old IS NOT NULL FROM audit.log WHERE op = 'DDL' ORDER BY id DESC LIMIT 1");
        assert_eq!(entry, [[Some(name.to_owned()), Some("t".to_owned())]], "{ddl}");
        assert_clean(&mut s);
    }
    assert_eq!(s.number("SELECT count(DISTINCT table_oid) FROM audit.log"), 1);
    assert_eq!(
        s.column("SELECT (old ->> 'schema') || '.' || (old ->> 'name') FROM audit.log WHERE op = 'DDL' ORDER BY id")
            [..3],
        ["public.t", "public.t2", "public.t3"]
    );
    assert_eq!(s.text("SELECT relation::text FROM audit.protected"), "t6");
}

/// Columns that change their names change their meaning: the log says so, and goes on by the new names.
#[test]
fn columns_that_swap_their_names_are_followed() {
    let (_database, mut s) =
        protected("CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t VALUES (1, 10, 20)");
    s.run("BEGIN; ALTER TABLE t RENAME a TO x; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME x TO b; COMMIT");
    s.run("UPDATE t SET a = 21");
    assert_eq!(commands(&mut s, "t").len(), 3);
    assert_eq!(
        changes_of(&mut s, "op IN ('BASELINE', 'UPDATE')").last().map(String::as_str),
        Some(r#"UPDATE key={"id":1} old={"a":20} new={"a":21}"#)
    );
    assert_clean(&mut s);
}

#[test]
fn a_table_that_takes_the_place_of_a_protected_one_is_reported() {
    let (_database, mut s) = protected(TABLE);
    s.run("BEGIN; ALTER TABLE t RENAME TO t_old; CREATE TABLE t (LIKE t_old INCLUDING ALL); COMMIT");
    s.run("INSERT INTO t VALUES (1)");
    assert_found(&mut s, &["coverage public.t"]);
    // As protected, or gone, it is none of that.
    s.run("BEGIN; SELECT audit.protect('t')");
    assert_clean(&mut s);
    s.run("ROLLBACK; DROP TABLE t");
    assert_clean(&mut s);
    // A view of the old name that shows the table hides no change.
    s.run("CREATE VIEW t AS TABLE t_old; UPDATE t SET a = 11 WHERE id = 1");
    assert_eq!(changes(&mut s, "t_old").len(), 1);
    assert_clean(&mut s);
}

// ---- Rows written anew, and values that read differently ----

/// The change alters what rows say without touching a name or type of a column; the log begins anew with the table.
#[track_caller]
fn values_changed(create: &str, change: &str, tables: i64) {
    let (database, mut s) = protected(create);
    let before = baselines(&mut s);
    let mut other = database.connect();
    other.run("SELECT count(*) FROM t; UPDATE t SET a = a");
    s.run(change);
    let found = verdict(&mut s);
    assert!(found.is_empty(), "{change}: {found:?}");
    assert!(baselines(&mut s) > before, "{change}");
    assert_eq!(s.number("SELECT count(DISTINCT table_oid) FROM audit.log WHERE op = 'DDL'"), tables, "{change}");
    // In a session that knew the table before, and for rows that come.
    other.run("UPDATE t SET a = a; DELETE FROM t");
    let found = verdict(&mut s);
    assert!(found.is_empty(), "{change}: {found:?}");
}

#[test]
fn rows_written_anew_by_alter_table_are_followed_by_a_baseline() {
    for change in [
        "ALTER TABLE t ALTER a TYPE int USING a + 1",
        "ALTER TABLE t ALTER b TYPE text USING upper(b)",
        "ALTER TABLE t DROP COLUMN b, ADD COLUMN b text DEFAULT 'other'",
        "ALTER TABLE t ADD COLUMN c float8 DEFAULT random()",
        "ALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS (a * 2) STORED",
        "ALTER TABLE t ADD COLUMN c int GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE t ALTER a TYPE int USING a + 1, ALTER b TYPE text USING b || b, ADD COLUMN c int DEFAULT 7",
        "DO 'BEGIN ALTER TABLE t ALTER a TYPE int USING a + 1; END'",
        "BEGIN; SAVEPOINT x; ALTER TABLE t ALTER a TYPE int USING a + 1; RELEASE x; COMMIT",
    ] {
        values_changed(TABLE, change, 1);
    }
    // All partitions, and the table above them.
    values_changed(
        "CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         INSERT INTO t VALUES (1, 1), (11, 2)",
        "ALTER TABLE t ALTER a TYPE int USING a + 1",
        3,
    );
    let mut s = database().connect();
    if s.major() >= 17 {
        values_changed(
            "CREATE TABLE t (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO t VALUES (1, 1)",
            "ALTER TABLE t ALTER g SET EXPRESSION AS (id * 3)",
            1,
        );
    }
}

/// Files that are written anew with the same rows are nobody's business.
#[test]
fn tables_moved_or_packed_anew_are_not_recorded_again() {
    let (_database, mut s) = protected(TABLE);
    s.run("ALTER TABLE t SET UNLOGGED");
    assert_found(&mut s, &["coverage public.t"]);
    s.run("ALTER TABLE t SET LOGGED");
    s.run("ALTER TABLE t SET TABLESPACE pg_default; ALTER TABLE t SET ACCESS METHOD heap");
    for statement in ["VACUUM FULL t", "CLUSTER t USING t_pkey", "REINDEX TABLE t", "VACUUM (FREEZE) t"] {
        s.run(statement);
    }
    assert_eq!((baselines(&mut s), s.number("SELECT count(*) FROM audit.log WHERE op = 'PROTECT'")), (2, 1));
    assert_clean(&mut s);
}

/// A function that runs DDL of its own while the table is being written anew: its end is not that of the command around it.
#[test]
fn ddl_inside_of_a_rewrite_does_not_disturb_it() {
    for inner in [
        "CREATE TEMP TABLE IF NOT EXISTS x (c text)",
        "BEGIN CREATE TEMP TABLE x (c text); RAISE ''again''; EXCEPTION WHEN OTHERS THEN NULL; END",
    ] {
        let (_database, mut s) = protected(TABLE);
        s.run(&format!(
            "CREATE FUNCTION evil(int) RETURNS text LANGUAGE plpgsql AS 'BEGIN {inner}; RETURN repeat(''wide'', 100) || $1; END'"
        ));
        s.run("ALTER TABLE t ALTER a TYPE text USING evil(a), ALTER b TYPE text USING upper(b)");
        assert_eq!(commands(&mut s, "t").len(), 1);
        assert_eq!(baselines(&mut s), 4);
        assert_clean(&mut s);
        // Also where neither name nor type shows that anything changed.
        s.run("CREATE FUNCTION evil(text) RETURNS text LANGUAGE sql AS 'SELECT evil(1) || $1'");
        s.run("ALTER TABLE t ALTER a TYPE text USING evil(a)");
        assert_eq!(baselines(&mut s), 6);
        assert_clean(&mut s);
    }
}

const MOOD: &str = "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN d AS mood; CREATE TYPE pair AS (m mood, n int);
                    CREATE TABLE t (id int PRIMARY KEY, a int, m mood, l mood[], d d, p pair);
                    INSERT INTO t VALUES (1, 1, 'good', '{good,bad}', 'good', '(good,1)'), (2, 2, 'bad', '{}', 'bad', NULL)";

/// The labels of an enum are part of what rows say: exchanged, they turn the meaning of each row around, and no table is touched.
#[test]
fn labels_of_an_enum_that_change_are_followed_by_a_baseline() {
    values_changed(MOOD, "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'", 1);
    values_changed(
        MOOD,
        "BEGIN; ALTER TYPE mood RENAME VALUE 'good' TO 'x'; ALTER TYPE mood RENAME VALUE 'bad' TO 'good'; ALTER TYPE mood RENAME VALUE 'x' TO 'bad'; COMMIT",
        1,
    );
    // Each way in which a column can hold them.
    for column in ["mood", "mood[]", "d", "d[]", "pair", "pair[]", "moods", "outer_pair"] {
        let create = format!(
            "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN d AS mood; CREATE TYPE pair AS (m mood, n int); CREATE TYPE moods AS RANGE (subtype = mood);
             CREATE TYPE outer_pair AS (p pair[], n int); CREATE TABLE t (id int PRIMARY KEY, a int, c {column});
             INSERT INTO t VALUES (1, 1, {})",
            match column {
                "mood" | "d" => "'good'",
                "mood[]" | "d[]" => "'{good}'",
                "pair" => "'(good,1)'",
                "pair[]" => "ARRAY['(good,1)'::pair]",
                "moods" => "'[good,bad)'",
                _ => "ROW(ARRAY['(good,1)'::pair], 1)",
            }
        );
        values_changed(&create, "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'", 1);
    }
    // New labels change no row, nor do other types.
    let (_database, mut s) = protected(MOOD);
    s.run("CREATE TYPE other AS ENUM ('a'); ALTER TYPE other RENAME VALUE 'a' TO 'b'; ALTER TYPE mood ADD VALUE 'new'");
    assert_eq!((baselines(&mut s), s.number("SELECT count(*) FROM audit.log WHERE op = 'DDL'")), (2, 0));
    assert_clean(&mut s);
}

#[test]
fn attributes_of_a_type_that_change_are_followed_by_a_baseline() {
    values_changed(MOOD, "ALTER TYPE pair ADD ATTRIBUTE more text", 1);
    values_changed(MOOD, "ALTER TYPE pair DROP ATTRIBUTE n", 1);
    // A table of a type follows the type.
    values_changed(
        "CREATE TYPE order_line AS (id int, a int); CREATE TABLE t OF order_line (PRIMARY KEY (id)); INSERT INTO t VALUES (1, 1)",
        "ALTER TYPE order_line ADD ATTRIBUTE b text CASCADE",
        1,
    );
    // The row type of another table.
    values_changed(
        "CREATE TABLE other (x int); CREATE TABLE t (id int PRIMARY KEY, a int, o other); INSERT INTO t VALUES (1, 1, '(5)')",
        "ALTER TABLE other ADD COLUMN y int",
        1,
    );
}

// ---- New baselines against what was before ----

/// Details of the findings, each with the operation of the entry that it names.
#[track_caller]
fn told(s: &mut Session) -> Vec<String> {
    s.column(
        "SELECT f.kind || ' ' || f.relation || coalesce(' at ' || l.op, '') || ': ' || f.detail
           FROM audit.findings() f LEFT JOIN audit.log l USING (chain, seq) ORDER BY f.id, f.detail",
    )
}

/// Each change of a table's definition that leaves columns as they are, with their names before and after.
const CARRYING: [&str; 12] = [
    "ALTER TABLE t ADD COLUMN c int DEFAULT 7",
    "ALTER TABLE t ADD COLUMN c float8 DEFAULT random()",
    "ALTER TABLE t DROP COLUMN b",
    "ALTER TABLE t ALTER b TYPE varchar(5) USING upper(b)",
    "ALTER TABLE t DROP COLUMN b, ADD COLUMN b text DEFAULT 'other'",
    "ALTER TABLE t RENAME a TO amount",
    "ALTER TABLE t RENAME id TO number",
    "ALTER TABLE t ALTER id TYPE bigint",
    "ALTER TABLE t ALTER a TYPE bigint",
    "ALTER TABLE t DROP CONSTRAINT t_pkey",
    "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, a)",
    "ALTER TABLE t ADD COLUMN g int GENERATED ALWAYS AS (a * 2) STORED",
];

/// What was changed behind the triggers is not washed clean by a change of the definition: the new baseline is held against the entries before it.
#[test]
fn what_was_changed_behind_the_triggers_shows_in_the_new_baseline() {
    for ddl in CARRYING {
        let (_database, mut s) = protected(TABLE);
        s.run("INSERT INTO t VALUES (3, 30, 'z'); UPDATE t SET a = 11 WHERE id = 1; UPDATE t SET id = 4 WHERE id = 3");
        guards_off(
            &mut s,
            "t",
            "UPDATE t SET a = 1000000 WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (9, 90, 'e')",
        );
        s.run(ddl);
        let at = "table public.t at PROTECT: row";
        assert_eq!(
            told(&mut s),
            [
                format!(
                    r#"{at} {{"id":1}}: column "a" is 1000000 in the baseline after this entry, the entries before it say 11"#
                ),
                format!(
                    r#"{at} {{"id":2}} is in the entries before this one 1 time more than in the baseline after it"#
                ),
                format!(
                    r#"{at} {{"id":9}} is in the baseline after this entry 1 time more than in the entries before it"#
                ),
            ],
            "{ddl}"
        );
        // It stays so, whatever comes after.
        s.run("ALTER TABLE t ADD COLUMN later int; TRUNCATE t");
        assert_eq!(told(&mut s).len(), 3, "{ddl}");
    }
}

/// What the definition itself changes is no fault of the rows, and what was recorded before is taken over.
#[test]
fn new_baselines_that_take_over_what_was_recorded_raise_no_alarm() {
    let compared = "SELECT detail FROM audit.verify() WHERE what = 'table'";
    for ddl in CARRYING {
        let (_database, mut s) = protected(TABLE);
        s.run("INSERT INTO t VALUES (3, 30, NULL); UPDATE t SET a = 11 WHERE id = 1; UPDATE t SET id = 4 WHERE id = 3; DELETE FROM t WHERE id = 2");
        s.run(&format!(
            "BEGIN; UPDATE t SET b = 'own' WHERE id = 1; SAVEPOINT x; DELETE FROM t; ROLLBACK TO x; {ddl}; COMMIT"
        ));
        let found = verdict(&mut s);
        assert!(found.is_empty(), "{ddl}: {found:?}");
        let detail = s.text(compared);
        assert!(detail.ends_with("; 1 later baseline with the entries before"), "{ddl}: {detail}");
    }
    // One after the other, with changes in between.
    let (_database, mut s) = protected(TABLE);
    for number in 0..5 {
        s.run(&format!("INSERT INTO t (id, a) VALUES (10 + {number}, 1); UPDATE t SET a = a + 1"));
        s.run(&format!("ALTER TABLE t ADD COLUMN c{number} int DEFAULT {number}"));
        s.run(&format!(
            "TRUNCATE t; INSERT INTO t (id, a) VALUES (100 + {number}, 1); ALTER TABLE t DROP COLUMN c{number}"
        ));
    }
    assert_clean(&mut s);
    assert!(s.text(compared).ends_with("; 10 later baselines with the entries before"));
}

/// Equal rows without a key are counted, by what is left of them.
#[test]
fn rows_without_a_key_are_held_against_the_entries_before_too() {
    let create = "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, 'y')";
    for (ddl, row) in [
        ("ALTER TABLE t ADD COLUMN c int", r#"{"a":1,"b":"x"}"#),
        ("ALTER TABLE t ADD COLUMN id serial PRIMARY KEY", r#"{"a":1,"b":"x"}"#),
        ("ALTER TABLE t DROP COLUMN b", r#"{"a":1}"#),
        ("ALTER TABLE t RENAME a TO n", r#"{"a":1,"b":"x"}"#),
    ] {
        let (_database, mut s) = protected(create);
        s.run("INSERT INTO t VALUES (3, 'z'); UPDATE t SET a = 4 WHERE a = 3");
        s.run(ddl);
        assert_clean(&mut s);
        let (_database, mut s) = protected(create);
        guards_off(&mut s, "t", "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)");
        s.run(ddl);
        assert_eq!(
            told(&mut s),
            [format!(
                "table public.t at PROTECT: row {row} is in the entries before this one 1 time more than in the baseline after it"
            )],
            "{ddl}"
        );
    }
}

/// Where the key itself got other values, rows can still be counted.
#[test]
fn rows_whose_key_changed_are_counted() {
    let ddl = "ALTER TABLE t ALTER id TYPE text USING 'no ' || id";
    let (_database, mut s) = protected(TABLE);
    s.run(ddl);
    assert_clean(&mut s);
    let (_database, mut s) = protected(TABLE);
    guards_off(&mut s, "t", "DELETE FROM t WHERE id = 1");
    s.run(ddl);
    assert_eq!(
        told(&mut s),
        ["table public.t at PROTECT: the baseline after this entry has 1 row less than the entries before it"]
    );
}

/// What a command says it changes is recorded with its text, and not compared: values that it computes, and labels of a type.
#[test]
fn values_that_a_command_changes_are_said_not_to_be_kept() {
    let kept = "SELECT new -> 'kept' FROM audit.log WHERE op = 'DDL' ORDER BY id DESC LIMIT 1";
    for (create, ddl, expected) in [
        (TABLE, "ALTER TABLE t ALTER a TYPE int USING a + 1", r#"{"b":"b","id":"id"}"#),
        (TABLE, "ALTER TABLE t ALTER a TYPE text", r#"{"b":"b","id":"id"}"#),
        (TABLE, "ALTER TABLE t RENAME a TO x", r#"{"a":"x","b":"b","id":"id"}"#),
        (TABLE, "ALTER TABLE t DROP a, ADD COLUMN a int", r#"{"b":"b","id":"id"}"#),
        (MOOD, "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'", r#"{"a":"a","id":"id"}"#),
        (TABLE, "COMMENT ON TABLE t IS 'x'", ""),
    ] {
        let (_database, mut s) = protected(create);
        s.run(ddl);
        assert_eq!(s.value(kept).unwrap_or_default(), expected, "{ddl}");
        assert_clean(&mut s);
    }
}

/// Which rows a table has is told only to those who may read it.
#[test]
fn whoever_may_not_read_a_table_is_not_told_of_its_former_rows() {
    let (database, mut s) = protected(TABLE);
    s.run("CREATE ROLE ddl_auditor LOGIN; SELECT audit.grant_auditor('ddl_auditor')");
    guards_off(&mut s, "t", "UPDATE t SET a = 5 WHERE id = 1");
    s.run("ALTER TABLE t ADD COLUMN c int");
    let mut auditor = database.connect_as("ddl_auditor");
    assert_eq!(told(&mut auditor), [""; 0]);
    s.run("GRANT SELECT ON t TO ddl_auditor");
    assert_eq!(told(&mut auditor).len(), 1);
}

/// Parallel workers find the same.
#[test]
fn workers_hold_new_baselines_against_the_entries_before_as_well() {
    let (_database, mut s) = protected(
        "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT n, n FROM generate_series(1, 5000) AS n",
    );
    s.run("UPDATE t SET a = a + 1");
    guards_off(&mut s, "t", "UPDATE t SET a = 0 WHERE id % 1000 = 0");
    s.run("ALTER TABLE t ADD COLUMN c int DEFAULT 1; UPDATE t SET c = 2");
    s.run("SET max_parallel_workers_per_gather = 0");
    let alone = told(&mut s);
    assert_eq!(alone.len(), 5);
    s.run("SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0; SET client_min_messages = debug1");
    s.notices();
    assert_eq!(told(&mut s), alone);
    assert!(s.notices().iter().any(|notice| notice.contains("parallel workers")));
}

#[test]
fn types_that_are_renamed_or_moved_raise_no_false_alarm() {
    for change in [
        "ALTER TYPE mood RENAME TO temper",
        "CREATE SCHEMA s; ALTER TYPE mood SET SCHEMA s",
        "ALTER DOMAIN d RENAME TO e",
        "CREATE SCHEMA s; ALTER DOMAIN d SET SCHEMA s; ALTER SCHEMA s RENAME TO s2",
    ] {
        let (_database, mut s) = protected(MOOD);
        s.run(change);
        s.run("UPDATE t SET a = 5");
        let found = verdict(&mut s);
        assert!(found.is_empty(), "{change}: {found:?}");
        assert!(s.number("SELECT count(*) FROM audit.log WHERE op = 'DDL'") >= 1, "{change}");
    }
    let (_database, mut s) = protected(MOOD);
    s.run("ALTER TYPE pair RENAME ATTRIBUTE n TO number");
    s.run("ALTER DOMAIN d ADD CONSTRAINT c CHECK (value IS NOT NULL)");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'DDL'"), 0);
    assert_clean(&mut s);
}

/// Whoever writes the table while labels change is waited for, and waits.
#[test]
fn writers_and_a_change_of_labels_wait_for_each_other() {
    let (database, mut s) = protected(MOOD);
    let mut writer = database.connect();
    writer.run("BEGIN; INSERT INTO t VALUES (3, 3, 'good')");
    s.run("SET lock_timeout = '200ms'");
    assert_eq!(s.sqlstate("ALTER TYPE mood RENAME VALUE 'good' TO 'fine'"), "55P03");
    writer.run("COMMIT");
    s.run("BEGIN; ALTER TYPE mood RENAME VALUE 'good' TO 'fine'");
    writer.run("SET lock_timeout = '200ms'");
    assert_eq!(writer.sqlstate("INSERT INTO t VALUES (4, 4, 'good')"), "55P03");
    s.run("COMMIT");
    writer.run("INSERT INTO t VALUES (4, 4, 'fine')");
    assert_clean(&mut s);
}

/// Where a query of the same session still reads the table, what its rows say cannot be recorded anew.
#[test]
fn labels_do_not_change_under_a_query_that_reads_the_table() {
    let (_database, mut s) = protected(MOOD);
    s.run("CREATE FUNCTION relabel() RETURNS int LANGUAGE plpgsql AS 'BEGIN ALTER TYPE mood RENAME VALUE ''good'' TO ''fine''; RETURN 1; END'");
    for query in [
        "SELECT relabel() FROM t LIMIT 1",
        "ALTER TABLE t ALTER a TYPE int USING relabel()",
        "DO 'DECLARE r t; BEGIN FOR r IN SELECT * FROM t LOOP PERFORM relabel(); END LOOP; END'",
    ] {
        assert_eq!(s.sqlstate(query), "55006", "{query}");
        assert_clean(&mut s);
    }
    s.run("SELECT relabel()");
    assert_clean(&mut s);
}

/// DROP TYPE ... CASCADE takes columns away without naming the table.
#[test]
fn columns_dropped_with_their_type_are_recorded() {
    let (_database, mut s) = protected(MOOD);
    s.run("DROP TYPE mood CASCADE");
    assert_eq!(commands(&mut s, "t"), ["DROP TYPE: DROP TYPE mood CASCADE"]);
    assert_eq!(s.text("SELECT new ->> 'columns' FROM audit.log WHERE op = 'DDL'"), r#"["id","a","p"]"#);
    s.run("UPDATE t SET a = 3");
    assert_clean(&mut s);
}

// ---- Tables that go ----

#[test]
fn a_dropped_table_leaves_an_entry_and_is_reported_until_somebody_agrees() {
    for (drop, statement) in [
        ("DROP TABLE t", "DROP TABLE t"),
        ("BEGIN; DROP TABLE t; COMMIT", "DROP TABLE t"),
        ("DROP SCHEMA public CASCADE", "DROP SCHEMA public CASCADE"),
        ("DO 'BEGIN DROP TABLE t; END'", "DO 'BEGIN DROP TABLE t; END'"),
    ] {
        let (_database, mut s) = protected(TABLE);
        let oid = s.text("SELECT 't'::regclass::oid");
        s.run(drop);
        assert_eq!(
            changes_of(&mut s, "op = 'DDL'"),
            [format!(
                r#"DDL old={{"schema":"public","name":"t","columns":["id","a","b"],"types":["integer","integer","text"],"key":["id"]}} new={{"command":"{}","statement":"{statement}"}}"#,
                if statement.starts_with("DROP SCHEMA") { "DROP SCHEMA" } else { "DROP TABLE" }
            )]
        );
        assert_eq!(s.text("SELECT table_schema || '.' || table_name FROM audit.log WHERE op = 'DDL'"), "public.t");
        assert_found(&mut s, &["coverage public.t"]);
        let place = s.rows("SELECT chain, seq FROM audit.log WHERE op = 'DDL'");
        let finding = &findings(&mut s)[0];
        let (chain, seq) = finding.place.expect("the finding names the entry");
        assert_eq!([chain.to_string(), seq.expect("and its number").to_string()].map(Some).to_vec(), place[0]);
        s.run(&format!("SELECT audit.unprotect({oid}, 'not needed any more')"));
        assert_eq!(
            s.text("SELECT table_schema || '.' || table_name FROM audit.log WHERE op = 'UNPROTECT'"),
            "public.t"
        );
        assert_clean(&mut s);
    }
}

#[test]
fn what_an_owner_drops_with_all_that_is_his_leaves_entries() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE ROLE ddl_leaver LOGIN; CREATE SCHEMA ddl_leaver AUTHORIZATION ddl_leaver");
    let mut role = database.connect_as("ddl_leaver");
    role.run("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)");
    s.run("SELECT audit.protect('ddl_leaver.t'); SELECT audit.protect('ddl_leaver.p')");
    role.run("DROP OWNED BY ddl_leaver CASCADE");
    assert_eq!(
        s.column("SELECT table_name || ' ' || (new ->> 'command') || ' ' || login_name FROM audit.log WHERE op = 'DDL' ORDER BY 1"),
        ["p DROP OWNED ddl_leaver", "p1 DROP OWNED ddl_leaver", "t DROP OWNED ddl_leaver"]
    );
    assert_found(&mut s, &["coverage ddl_leaver.p", "coverage ddl_leaver.p1", "coverage ddl_leaver.t"]);
}

#[test]
fn a_table_made_anew_under_the_name_of_a_dropped_one_is_not_taken_for_it() {
    let (_database, mut s) = protected(TABLE);
    let oid = s.text("SELECT 't'::regclass::oid");
    s.run("BEGIN; CREATE TABLE u AS TABLE t; DROP TABLE t; ALTER TABLE u RENAME TO t; COMMIT");
    assert_found(&mut s, &["coverage public.t"]);
    s.run(&format!("SELECT audit.unprotect({oid}, 'made anew'); SELECT audit.protect('t')"));
    s.run("UPDATE t SET a = 3 WHERE id = 1");
    assert_clean(&mut s);
}

// ---- Partitions and children ----

const PARTS: &str = "CREATE TABLE t (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
                     CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10); INSERT INTO t VALUES (1, 1)";

#[test]
fn a_detached_partition_goes_on_by_itself() {
    for detach in ["ALTER TABLE t DETACH PARTITION t1", "ALTER TABLE t DETACH PARTITION t1 CONCURRENTLY"] {
        let (database, mut s) = protected(PARTS);
        s.run(detach);
        let mut other = database.connect();
        other.run("UPDATE t1 SET a = 2; INSERT INTO t1 VALUES (2, 2); TRUNCATE t1; INSERT INTO t1 VALUES (3, 3)");
        assert_eq!(changes(&mut s, "t1").len(), 4, "{detach}");
        assert_eq!(commands(&mut s, "t"), [format!("ALTER TABLE: {detach}")]);
        assert_eq!(commands(&mut s, "t1"), [format!("ALTER TABLE: {detach}")]);
        assert_clean(&mut s);
        // It can be protected and unprotected as any other table, and the rest without it.
        s.run("SELECT audit.unprotect('t', 'x')");
        assert!(
            s.holds("SELECT count(*) = 1 FROM audit.protected WHERE relation = 't1'::regclass AND row_trigger = 'ok'")
        );
        s.run("UPDATE t1 SET a = 4; SELECT audit.unprotect('t1', 'x')");
        assert_clean(&mut s);
    }
}

#[test]
fn a_detached_tree_of_partitions_goes_on_with_its_leaves() {
    let (_database, mut s) = protected(
        "CREATE TABLE t (id int, a int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id);
         CREATE TABLE t11 PARTITION OF t1 FOR VALUES IN (1)",
    );
    s.run("ALTER TABLE t DETACH PARTITION t1; CREATE TABLE t12 PARTITION OF t1 FOR VALUES IN (2)");
    s.run("INSERT INTO t1 VALUES (1, 1), (2, 2); TRUNCATE t12");
    assert_eq!((changes(&mut s, "t11").len(), changes(&mut s, "t12").len()), (1, 2));
    assert_clean(&mut s);
}

#[test]
fn a_child_that_is_let_go_stays_protected() {
    let (_database, mut s) = protected("CREATE TABLE t (id int); CREATE TABLE child () INHERITS (t)");
    s.run("ALTER TABLE child NO INHERIT t; INSERT INTO child VALUES (1); SELECT audit.unprotect('t', 'x'); INSERT INTO child VALUES (2)");
    assert_eq!(changes(&mut s, "child").len(), 2);
    assert_clean(&mut s);
}

/// Detached, changed, attached again: nothing of it goes unrecorded.
#[test]
fn a_partition_that_comes_back_comes_back_with_its_history() {
    let (database, mut s) = protected(PARTS);
    s.run("ALTER TABLE t DETACH PARTITION t1; UPDATE t1 SET a = 2; INSERT INTO t1 VALUES (2, 2)");
    s.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (10)");
    s.run("UPDATE t SET a = 3; TRUNCATE t1");
    assert_eq!(changes(&mut s, "t1").len(), 5);
    assert_clean(&mut s);
    // Again, as somebody who only owns it, and where the command fails.
    s.run("ALTER TABLE t DETACH PARTITION t1; INSERT INTO t1 VALUES (3, 3)");
    s.refused("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (5) TO (10)");
    s.run("INSERT INTO t1 VALUES (4, 4)");
    assert_eq!(changes(&mut s, "t1").len(), 7);
    s.run("CREATE ROLE ddl_attacher LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO ddl_attacher; ALTER TABLE t OWNER TO ddl_attacher; ALTER TABLE t1 OWNER TO ddl_attacher");
    let mut role = database.connect_as("ddl_attacher");
    role.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (10); ALTER TABLE t DETACH PARTITION t1");
    role.run("ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (10); UPDATE t SET a = 9");
    assert_eq!(changes(&mut s, "t1").len(), 9);
    assert_clean(&mut s);
    s.run("SELECT audit.unprotect('t', 'x')");
    assert_eq!(s.number("SELECT count(*) FROM audit.protected"), 0);
}

/// Attaching takes the row trigger away for as long as the command runs: no command that attaches nothing leaves the table without.
#[test]
fn attaching_that_comes_to_nothing_leaves_the_triggers_in_place() {
    let (database, mut s) =
        protected("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int) PARTITION BY LIST (id)");
    s.run("CREATE ROLE ddl_stranger LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO ddl_stranger");
    let mut stranger = database.connect_as("ddl_stranger");
    stranger.run("CREATE TABLE mine (id int) PARTITION BY LIST (id)");
    stranger.refused("ALTER TABLE mine ATTACH PARTITION t FOR VALUES IN (1)");
    // The parent does not exist, and that is no error.
    s.run("ALTER TABLE IF EXISTS nothing ATTACH PARTITION t FOR VALUES IN (1)");
    stranger.run("ALTER TABLE IF EXISTS nothing ATTACH PARTITION t FOR VALUES IN (1)");
    s.run("BEGIN; SAVEPOINT a; ALTER TABLE other ATTACH PARTITION t FOR VALUES IN (1); ROLLBACK TO a; COMMIT");
    s.run("INSERT INTO t VALUES (1)");
    assert_clean(&mut s);
    // A parent that is not protected has no trigger to give.
    s.run("ALTER TABLE other ATTACH PARTITION t FOR VALUES IN (1); UPDATE other SET id = 1; DELETE FROM t");
    assert!(s.holds("SELECT row_trigger = 'ok' FROM audit.protected"));
    assert_eq!(changes(&mut s, "t"), [r#"INSERT key={"id":1} new={"id":1}"#, r#"DELETE key={"id":1} old={"id":1}"#]);
    assert_clean(&mut s);
}

#[test]
fn what_cannot_be_protected_cannot_become_a_partition() {
    let (_database, mut s) = protected(PARTS);
    s.run("CREATE FOREIGN DATA WRAPPER w; CREATE SERVER f FOREIGN DATA WRAPPER w");
    for ddl in [
        "CREATE FOREIGN TABLE t9 PARTITION OF t FOR VALUES FROM (90) TO (100) SERVER f",
        "CREATE UNLOGGED TABLE t9 PARTITION OF t FOR VALUES FROM (90) TO (100)",
    ] {
        s.refused(ddl);
    }
    assert_clean(&mut s);
}
