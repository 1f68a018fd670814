//! Every door through which a row can change leads to an entry that says truthfully what changed, by whom and when.

use std::collections::BTreeSet;
use std::io::Write;

use audit_tests::{Cluster, assert_clean, changes, changes_of, database, findings, guards_off, large, verdict};

// ---- Statements ----

#[test]
fn copy_is_recorded_row_by_row() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    let mut writer = s.copy_in("COPY t FROM stdin").expect("COPY begins");
    writer.write_all(b"1\ta\n2\t\\N\n").expect("COPY takes rows");
    writer.finish().expect("COPY ends");
    s.run("TRUNCATE t; BEGIN; CREATE TABLE frozen (id int PRIMARY KEY); SELECT audit.protect('frozen')");
    let mut writer = s.copy_in("COPY frozen FROM stdin (FREEZE)").expect("COPY begins");
    writer.write_all(b"7\n").expect("COPY takes rows");
    writer.finish().expect("COPY ends");
    s.run("COMMIT");
    assert_eq!(
        changes(&mut s, "t"),
        [r#"INSERT key={"id":1} new={"id":1,"v":"a"}"#, r#"INSERT key={"id":2} new={"id":2,"v":null}"#, "TRUNCATE"]
    );
    assert_eq!(changes(&mut s, "frozen"), [r#"INSERT key={"id":7} new={"id":7}"#]);
    assert_clean(&mut s);
}

#[test]
fn merge_is_recorded() {
    let database = database();
    let mut s = database.connect();
    if s.major() < 15 {
        return;
    }
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         SELECT audit.protect('t');
         INSERT INTO t VALUES (1, 'a'), (2, 'b');
         MERGE INTO t USING (VALUES (1, 'A'), (2, NULL), (3, 'c')) AS s(id, v) ON t.id = s.id
          WHEN MATCHED AND s.v IS NULL THEN DELETE
          WHEN MATCHED THEN UPDATE SET v = s.v
          WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)",
    );
    assert_eq!(
        changes(&mut s, "t")[2..],
        [
            r#"UPDATE key={"id":1} old={"v":"a"} new={"v":"A"}"#,
            r#"DELETE key={"id":2} old={"id":2,"v":"b"}"#,
            r#"INSERT key={"id":3} new={"id":3,"v":"c"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn on_conflict_records_what_really_happened() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         SELECT audit.protect('t');
         INSERT INTO t VALUES (1, 'a');
         INSERT INTO t VALUES (1, 'x'), (2, 'b') ON CONFLICT DO NOTHING;
         INSERT INTO t VALUES (1, 'y'), (3, 'c') ON CONFLICT (id) DO UPDATE SET v = excluded.v;
         INSERT INTO t VALUES (1, 'z') ON CONFLICT (id) DO UPDATE SET v = excluded.v WHERE false",
    );
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"INSERT key={"id":1} new={"id":1,"v":"a"}"#,
            r#"INSERT key={"id":2} new={"id":2,"v":"b"}"#,
            r#"UPDATE key={"id":1} old={"v":"a"} new={"v":"y"}"#,
            r#"INSERT key={"id":3} new={"id":3,"v":"c"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn foreign_key_actions_are_recorded_in_the_child() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE cascaded (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE emptied (id int PRIMARY KEY, p int REFERENCES parent ON DELETE SET NULL);
         CREATE TABLE reset (id int PRIMARY KEY, p int DEFAULT 0 REFERENCES parent ON DELETE SET DEFAULT);
         SELECT audit.protect(t::regclass) FROM unnest('{cascaded,emptied,reset}'::text[]) t;
         INSERT INTO parent VALUES (0), (1), (2);
         INSERT INTO cascaded VALUES (1, 1), (2, 2);
         INSERT INTO emptied VALUES (1, 1);
         INSERT INTO reset VALUES (1, 1);
         UPDATE parent SET id = 3 WHERE id = 2;
         DELETE FROM parent WHERE id = 1",
    );
    assert_eq!(
        changes(&mut s, "cascaded")[2..],
        [r#"UPDATE key={"id":2} old={"p":2} new={"p":3}"#, r#"DELETE key={"id":1} old={"id":1,"p":1}"#]
    );
    assert_eq!(changes(&mut s, "emptied")[1..], [r#"UPDATE key={"id":1} old={"p":1} new={"p":null}"#]);
    assert_eq!(changes(&mut s, "reset")[1..], [r#"UPDATE key={"id":1} old={"p":1} new={"p":0}"#]);
    assert_clean(&mut s);
}

#[test]
fn changes_through_views_are_recorded_in_the_table() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         SELECT audit.protect('t');
         CREATE VIEW simple AS SELECT id, v FROM t WHERE id < 100;
         CREATE VIEW shouted AS SELECT id, upper(v) AS v FROM t;
         CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO t VALUES (NEW.id, lower(NEW.v)); RETURN NEW; END';
         CREATE TRIGGER shout INSTEAD OF INSERT ON shouted FOR EACH ROW EXECUTE FUNCTION shout();
         INSERT INTO simple VALUES (1, 'a');
         UPDATE simple SET v = 'b';
         INSERT INTO shouted VALUES (2, 'LOUD');
         DELETE FROM simple WHERE id = 1",
    );
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"INSERT key={"id":1} new={"id":1,"v":"a"}"#,
            r#"UPDATE key={"id":1} old={"v":"a"} new={"v":"b"}"#,
            r#"INSERT key={"id":2} new={"id":2,"v":"loud"}"#,
            r#"DELETE key={"id":1} old={"id":1,"v":"b"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn changes_by_functions_cursors_and_writable_ctes_are_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         SELECT audit.protect('t');
         CREATE FUNCTION put(int) RETURNS void LANGUAGE sql AS 'INSERT INTO t VALUES ($1, ''sql'')';
         CREATE PROCEDURE put_and_commit() LANGUAGE plpgsql AS
           'BEGIN INSERT INTO t VALUES (2, ''one''); COMMIT; INSERT INTO t VALUES (3, ''two''); ROLLBACK; END';
         SELECT put(1);
         WITH moved AS (DELETE FROM t RETURNING id) INSERT INTO t SELECT id + 10, 'cte' FROM moved",
    );
    s.run("CALL put_and_commit()");
    s.run("BEGIN; DECLARE c CURSOR FOR SELECT * FROM t WHERE id = 2 FOR UPDATE; FETCH c");
    s.run("UPDATE t SET v = 'cursor' WHERE CURRENT OF c; COMMIT");
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"INSERT key={"id":1} new={"id":1,"v":"sql"}"#,
            r#"DELETE key={"id":1} old={"id":1,"v":"sql"}"#,
            r#"INSERT key={"id":11} new={"id":11,"v":"cte"}"#,
            r#"INSERT key={"id":2} new={"id":2,"v":"one"}"#,
            r#"UPDATE key={"id":2} old={"v":"one"} new={"v":"cursor"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn writes_during_commit_are_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY);
         SELECT audit.protect('t');
         CREATE TABLE source (id int);
         CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO t VALUES (NEW.id + 100); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER follow AFTER INSERT ON source DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION follow();
         CREATE FUNCTION put(int) RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO t VALUES ($1) RETURNING id'",
    );
    s.run("BEGIN; INSERT INTO source VALUES (1); COMMIT");
    s.run("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT put(g) FROM generate_series(1, 2) g; COMMIT");
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"INSERT key={"id":101} new={"id":101}"#,
            r#"INSERT key={"id":1} new={"id":1}"#,
            r#"INSERT key={"id":2} new={"id":2}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn the_replica_role_does_not_silence_the_triggers() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    s.run("SET session_replication_role = replica; INSERT INTO t VALUES (1); TRUNCATE t");
    assert_eq!(changes(&mut s, "t"), [r#"INSERT key={"id":1} new={"id":1}"#, "TRUNCATE"]);
    assert_clean(&mut s);
}

// ---- Other triggers on the table ----

#[test]
fn a_before_trigger_that_rewrites_the_row_is_seen() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         SELECT audit.protect('t');
         CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN IF NEW.id = 3 THEN RETURN NULL; END IF; NEW.v := 'rewritten'; RETURN NEW; END $$;
         CREATE TRIGGER zz BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION meddle();
         INSERT INTO t VALUES (1, 'asked'), (3, 'dropped');
         UPDATE t SET id = 2",
    );
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"INSERT key={"id":1} new={"id":1,"v":"rewritten"}"#,
            r#"UPDATE key={"id":1} old={"id":1,"v":"rewritten"} new={"id":2,"v":"rewritten"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn changes_by_other_triggers_are_recorded_at_any_depth() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE a (id int PRIMARY KEY);
         CREATE TABLE b (id int PRIMARY KEY);
         CREATE TABLE c (id int PRIMARY KEY);
         SELECT audit.protect(t::regclass) FROM unnest('{a,b,c}'::text[]) t;
         CREATE FUNCTION to_b() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO b VALUES (NEW.id); RETURN NULL; END';
         CREATE FUNCTION to_c() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO c VALUES (NEW.id); DELETE FROM a WHERE id = NEW.id; RETURN NULL; END';
         CREATE TRIGGER t AFTER INSERT ON a FOR EACH ROW EXECUTE FUNCTION to_b();
         CREATE TRIGGER t AFTER INSERT ON b FOR EACH ROW EXECUTE FUNCTION to_c();
         INSERT INTO a VALUES (1)",
    );
    let condition = "op IN ('INSERT', 'DELETE')";
    let tables = s.column(&format!("SELECT op || ' ' || table_name FROM audit.log WHERE {condition} ORDER BY id"));
    assert_eq!(tables, ["INSERT a", "INSERT b", "INSERT c", "DELETE a"]);
    assert_clean(&mut s);
}

/// An AFTER trigger whose name sorts before ours updates the row again: the inner change is recorded before the outer one.
#[test]
fn a_trigger_that_changes_the_same_row_again_does_not_confuse_the_history() {
    let database = database();
    let mut s = database.connect();
    s.run(
        r#"CREATE TABLE t (id int PRIMARY KEY, v int, note text);
           SELECT audit.protect('t');
           CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN UPDATE t SET v = NEW.v + 1 WHERE id = NEW.id AND v < 12; RETURN NULL; END';
           CREATE TRIGGER " first" AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION again();
           INSERT INTO t VALUES (1, 10)"#,
    );
    let replayed = s.column(
        "SELECT op || ' ' || (new ->> 'v') FROM audit.log WHERE table_name = 't' AND command IS NOT NULL
          ORDER BY command, seq",
    );
    assert_eq!(replayed, ["INSERT 10", "UPDATE 11", "UPDATE 12"]);
    assert_eq!(s.text("SELECT v FROM t"), "12");
    // The trigger itself is worth a finding of coverage; the history and the table agree.
    assert!(findings(&mut s).iter().all(|finding| finding.kind == "coverage"), "{:?}", verdict(&mut s));
    s.run(r#"DROP TRIGGER " first" ON t"#);
    assert_clean(&mut s);
}

#[test]
fn many_changes_of_one_row_in_one_transaction_are_all_kept() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v int); SELECT audit.protect('t')");
    s.run("BEGIN; INSERT INTO t VALUES (1, 0)");
    for value in 1..=20 {
        s.run(&format!("UPDATE t SET v = {value}"));
    }
    s.run("DELETE FROM t; INSERT INTO t VALUES (1, 99); COMMIT");
    let changes = changes(&mut s, "t");
    assert_eq!(changes.len(), 23);
    assert_eq!(changes[7], r#"UPDATE key={"id":1} old={"v":6} new={"v":7}"#);
    assert!(s.holds(
        "SELECT array_agg(command ORDER BY seq) = array_agg(DISTINCT command ORDER BY command)
           FROM audit.log WHERE op IN ('INSERT', 'UPDATE', 'DELETE')"
    ));
    assert_clean(&mut s);
}

// ---- TRUNCATE ----

#[test]
fn truncate_is_recorded_for_each_table_it_empties() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE a (id int PRIMARY KEY);
         CREATE TABLE b (id int PRIMARY KEY REFERENCES a);
         CREATE TABLE c (id int PRIMARY KEY);
         CREATE TABLE d (id int PRIMARY KEY);
         INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1); INSERT INTO d VALUES (1);
         SELECT audit.protect(t::regclass) FROM unnest('{a,b,c,d}'::text[]) t;
         TRUNCATE c;
         TRUNCATE a CASCADE;
         INSERT INTO c VALUES (2);
         TRUNCATE c, d RESTART IDENTITY",
    );
    assert_eq!(
        s.column("SELECT table_name FROM audit.log WHERE op = 'TRUNCATE' ORDER BY id"),
        ["c", "a", "b", "c", "d"]
    );
    assert_clean(&mut s);
    s.run("INSERT INTO c VALUES (2); BEGIN; TRUNCATE c; ROLLBACK");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'TRUNCATE'"), 5);
    assert_clean(&mut s);
}

const MEASURE: &str = "
    CREATE TABLE measure (id int, day int, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM (0) TO (10);
    CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20) PARTITION BY LIST (day);
    CREATE TABLE measure_2a PARTITION OF measure_2 FOR VALUES IN (10, 11);
    CREATE TABLE measure_2b PARTITION OF measure_2 DEFAULT;
    SELECT audit.protect('measure');";

#[test]
fn truncate_of_a_partition_and_of_its_parents_is_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run(MEASURE);
    let fill = "INSERT INTO measure VALUES (1, 1), (2, 10), (3, 15)";
    let leaves = |s: &mut audit_tests::Session, since: i64| {
        s.column(&format!(
            "SELECT table_name FROM audit.log
              WHERE op = 'TRUNCATE' AND id > {since} AND table_name IN ('measure_1', 'measure_2a', 'measure_2b')
              ORDER BY table_name"
        ))
    };
    let last = |s: &mut audit_tests::Session| s.number("SELECT max(id) FROM audit.log");

    s.run(fill);
    let mark = last(&mut s);
    s.run("TRUNCATE measure_2a");
    assert_eq!(leaves(&mut s, mark), ["measure_2a"]);
    assert_clean(&mut s);

    let mark = last(&mut s);
    s.run("TRUNCATE measure_2");
    assert_eq!(leaves(&mut s, mark), ["measure_2a", "measure_2b"]);
    assert_clean(&mut s);

    s.run("TRUNCATE measure");
    s.run(fill);
    let mark = last(&mut s);
    s.run("TRUNCATE measure");
    assert_eq!(leaves(&mut s, mark), ["measure_1", "measure_2a", "measure_2b"]);
    assert_clean(&mut s);
}

// ---- Partitions and inheritance ----

#[test]
fn rows_of_partitions_are_recorded_whichever_way_they_come() {
    let database = database();
    let mut s = database.connect();
    s.run(MEASURE);
    s.run(
        "INSERT INTO measure VALUES (1, 1, 'parent');
         INSERT INTO measure_2 VALUES (2, 10, 'between');
         INSERT INTO measure_2b VALUES (3, 15, 'direct');
         UPDATE measure SET v = 'x' WHERE id = 1;
         UPDATE measure SET day = 11 WHERE id = 1;
         DELETE FROM measure_2 WHERE id = 3",
    );
    let moved = s.column(
        "SELECT concat_ws(' ', op, table_name, key, old, new) FROM audit.log
          WHERE op NOT IN ('PROTECT', 'BASELINE') ORDER BY id",
    );
    assert_eq!(
        moved,
        [
            r#"INSERT measure_1 {"id":1,"day":1} {"id":1,"day":1,"v":"parent"}"#,
            r#"INSERT measure_2a {"id":2,"day":10} {"id":2,"day":10,"v":"between"}"#,
            r#"INSERT measure_2b {"id":3,"day":15} {"id":3,"day":15,"v":"direct"}"#,
            r#"UPDATE measure_1 {"id":1,"day":1} {"v":"parent"} {"v":"x"}"#,
            r#"DELETE measure_1 {"id":1,"day":1} {"id":1,"day":1,"v":"x"}"#,
            r#"INSERT measure_2a {"id":1,"day":11} {"id":1,"day":11,"v":"x"}"#,
            r#"DELETE measure_2b {"id":3,"day":15} {"id":3,"day":15,"v":"direct"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn a_partition_with_other_column_numbers_is_recorded_by_name() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE p (id int, v text, PRIMARY KEY (id)) PARTITION BY LIST (id);
         CREATE TABLE odd (gone int, v text, gone2 int, id int PRIMARY KEY);
         ALTER TABLE odd DROP COLUMN gone, DROP COLUMN gone2;
         INSERT INTO odd VALUES ('before', 1);
         ALTER TABLE p ATTACH PARTITION odd FOR VALUES IN (1, 2);
         SELECT audit.protect('p');
         INSERT INTO p VALUES (2, 'b');
         UPDATE p SET v = 'B' WHERE id = 2",
    );
    assert_eq!(
        changes_of(&mut s, "table_name = 'odd' AND op <> 'PROTECT'"),
        [
            r#"BASELINE key={"id":1} new={"v":"before","id":1}"#,
            r#"INSERT key={"id":2} new={"v":"b","id":2}"#,
            r#"UPDATE key={"id":2} old={"v":"b"} new={"v":"B"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn partitions_made_or_attached_later_are_covered_from_their_first_row() {
    let database = database();
    let mut s = database.connect();
    s.run(MEASURE);
    s.run(
        "CREATE TABLE measure_3 PARTITION OF measure FOR VALUES FROM (20) TO (30);
         INSERT INTO measure VALUES (1, 21, 'new');
         TRUNCATE measure_3;
         CREATE TABLE loaded (id int NOT NULL, day int NOT NULL, v text, PRIMARY KEY (id, day));
         INSERT INTO loaded VALUES (1, 31, 'before');
         ALTER TABLE measure ATTACH PARTITION loaded FOR VALUES FROM (30) TO (40);
         UPDATE measure SET v = 'after' WHERE day = 31;
         TRUNCATE loaded",
    );
    assert_eq!(
        changes(&mut s, "measure_3"),
        [r#"INSERT key={"id":1,"day":21} new={"id":1,"day":21,"v":"new"}"#, "TRUNCATE"]
    );
    assert_eq!(
        changes_of(&mut s, "table_name = 'loaded' AND op <> 'PROTECT'"),
        [
            r#"BASELINE key={"id":1,"day":31} new={"id":1,"day":31,"v":"before"}"#,
            r#"UPDATE key={"id":1,"day":31} old={"v":"before"} new={"v":"after"}"#,
            "TRUNCATE",
        ]
    );
    assert_eq!(
        s.number("SELECT count(*) FROM audit.log WHERE op = 'PROTECT' AND table_name IN ('measure_3', 'loaded')"),
        2
    );
    assert_eq!(
        s.number("SELECT count(*) FROM audit.protected WHERE row_trigger <> 'ok' OR truncate_trigger <> 'ok'"),
        0
    );
    assert_clean(&mut s);
}

/// A whole tree of partitions can come at once.
#[test]
fn an_attached_partitioned_table_brings_its_partitions_under_protection() {
    let database = database();
    let mut s = database.connect();
    s.run(MEASURE);
    s.run(
        "CREATE TABLE tree (id int NOT NULL, day int NOT NULL, v text, PRIMARY KEY (id, day)) PARTITION BY LIST (day);
         CREATE TABLE tree_leaf PARTITION OF tree FOR VALUES IN (41, 42);
         INSERT INTO tree VALUES (1, 41, 'leaf');
         ALTER TABLE measure ATTACH PARTITION tree FOR VALUES FROM (40) TO (50);
         CREATE TABLE tree_late PARTITION OF tree FOR VALUES IN (43);
         INSERT INTO measure VALUES (2, 43, 'late');
         TRUNCATE tree_leaf",
    );
    assert_eq!(
        changes_of(&mut s, "table_name IN ('tree_leaf', 'tree_late') AND op <> 'PROTECT'"),
        [
            r#"BASELINE key={"id":1,"day":41} new={"id":1,"day":41,"v":"leaf"}"#,
            r#"INSERT key={"id":2,"day":43} new={"id":2,"day":43,"v":"late"}"#,
            "TRUNCATE",
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn a_detached_partition_stays_protected() {
    let database = database();
    let mut s = database.connect();
    s.run(MEASURE);
    s.run(
        "INSERT INTO measure VALUES (1, 1, 'a');
         ALTER TABLE measure DETACH PARTITION measure_1;",
    );
    // Detaching takes the cloned trigger away. That must not pass in silence.
    s.run("UPDATE measure_1 SET v = 'unseen'");
    let recorded = changes(&mut s, "measure_1").len() == 2;
    let reported = findings(&mut s)
        .iter()
        .any(|finding| finding.kind == "coverage" && finding.relation.as_deref() == Some("public.measure_1"));
    assert!(recorded || reported, "{:?}", verdict(&mut s));
}

#[test]
fn inheritance_children_are_protected_with_their_parent_and_so_are_later_ones() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE city (id int PRIMARY KEY, name text);
         CREATE TABLE capital (country text, PRIMARY KEY (id)) INHERITS (city);
         INSERT INTO capital VALUES (1, 'Rome', 'Italy')",
    );
    assert_eq!(s.number("SELECT audit.protect('city')"), 2);
    s.run("UPDATE city SET name = 'Roma'; DELETE FROM capital; INSERT INTO capital VALUES (2, 'Paris', 'France'); TRUNCATE city");
    assert_eq!(
        changes_of(&mut s, "table_name = 'capital' AND op <> 'PROTECT'"),
        [
            r#"BASELINE key={"id":1} new={"id":1,"name":"Rome","country":"Italy"}"#,
            r#"UPDATE key={"id":1} old={"name":"Rome"} new={"name":"Roma"}"#,
            r#"DELETE key={"id":1} old={"id":1,"name":"Roma","country":"Italy"}"#,
            r#"INSERT key={"id":2} new={"id":2,"name":"Paris","country":"France"}"#,
            "TRUNCATE",
        ]
    );
    assert_clean(&mut s);
    s.run("CREATE TABLE late () INHERITS (city); INSERT INTO late VALUES (3, 'Oslo'); TRUNCATE late");
    s.run("CREATE TABLE filled (id int NOT NULL, name text); INSERT INTO filled VALUES (4, 'Bern'); ALTER TABLE filled INHERIT city");
    assert_eq!(changes(&mut s, "late"), [r#"INSERT new={"id":3,"name":"Oslo"}"#, "TRUNCATE"]);
    assert_eq!(
        changes_of(&mut s, "table_name = 'filled' AND op <> 'PROTECT'"),
        [r#"BASELINE new={"id":4,"name":"Bern"}"#]
    );
    assert_clean(&mut s);
}

/// Where the event trigger does not look, the verdict does.
#[test]
fn children_and_partitions_that_nobody_protected_are_reported() {
    let database = database();
    let mut s = database.connect();
    s.run(MEASURE);
    s.run("CREATE TABLE city (id int PRIMARY KEY); SELECT audit.protect('city')");
    s.run("ALTER EVENT TRIGGER audit_ddl DISABLE");
    s.run("CREATE TABLE late () INHERITS (city); CREATE TABLE measure_3 PARTITION OF measure FOR VALUES FROM (20) TO (30)");
    s.run("ALTER EVENT TRIGGER audit_ddl ENABLE ALWAYS");
    let mut found: Vec<String> = findings(&mut s).iter().map(ToString::to_string).collect();
    found.sort();
    // The change of the event trigger is a command as well, at whose end it looks for what it missed.
    assert!(found.is_empty() || found == ["coverage public.late", "coverage public.measure_3"], "{found:?}");
    s.run("CREATE TABLE unrelated ()");
    assert_clean(&mut s);
}

// ---- Columns, keys and names ----

#[test]
fn generated_identity_and_dropped_columns_are_recorded_as_they_are() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (gone int, id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int,
                         twice int GENERATED ALWAYS AS (a * 2) STORED, n int GENERATED BY DEFAULT AS IDENTITY (START 5));
         ALTER TABLE t DROP COLUMN gone;
         SELECT audit.protect('t');
         INSERT INTO t (a) VALUES (4);
         UPDATE t SET a = 5;
         ALTER TABLE t DROP COLUMN n;
         UPDATE t SET a = 6;
         DELETE FROM t",
    );
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"INSERT key={"id":1} new={"id":1,"a":4,"twice":8,"n":5}"#,
            r#"UPDATE key={"id":1} old={"a":4,"twice":8} new={"a":5,"twice":10}"#,
            r#"UPDATE key={"id":1} old={"a":5,"twice":10} new={"a":6,"twice":12}"#,
            r#"DELETE key={"id":1} old={"id":1,"a":6,"twice":12}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn virtual_generated_columns_are_left_out() {
    let database = database();
    let mut s = database.connect();
    if s.major() < 18 {
        return;
    }
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL);
         INSERT INTO t VALUES (1, 1);
         SELECT audit.protect('t');
         UPDATE t SET a = 2;
         CREATE TABLE k (a int, twice int GENERATED ALWAYS AS (a * 2) VIRTUAL);
         SELECT audit.protect('k');
         INSERT INTO k VALUES (1)",
    );
    assert_eq!(
        changes_of(&mut s, "op <> 'PROTECT'"),
        [
            r#"BASELINE key={"id":1} new={"id":1,"a":1}"#,
            r#"UPDATE key={"id":1} old={"a":1} new={"a":2}"#,
            r#"INSERT new={"a":1}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn columns_added_renamed_and_retyped_later_raise_no_false_alarm() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, a int, b text);
         INSERT INTO t VALUES (1, 1, 'x'), (2, 2, 'y');
         SELECT audit.protect('t');
         ALTER TABLE t ADD COLUMN empty text",
    );
    assert_clean(&mut s);
    s.run("UPDATE t SET empty = 'full' WHERE id = 1; INSERT INTO t VALUES (3, 3, 'z', 'e')");
    assert_clean(&mut s);
    assert_eq!(changes(&mut s, "t")[0], r#"UPDATE key={"id":1} old={"empty":null} new={"empty":"full"}"#);
    s.run("ALTER TABLE t DROP COLUMN b; UPDATE t SET a = 4 WHERE id = 2; DELETE FROM t WHERE id = 1");
    assert_clean(&mut s);
    for statement in ["VACUUM FULL t", "CLUSTER t USING t_pkey", "REINDEX TABLE t", "ANALYZE t"] {
        s.run(statement);
    }
    assert_clean(&mut s);
}

#[test]
fn quoted_and_non_ascii_names_are_recorded_exactly() {
    let database = database();
    let mut s = database.connect();
    s.run(
        r#"CREATE SCHEMA "Bücher ""&"" mehr";
           CREATE TABLE "Bücher ""&"" mehr"."it's a 📖 \ table" (
             "Ключ" int PRIMARY KEY, "with ""quotes"" and \" text, "{""x"":1}" int, "$$;--" text, """" text, "new" int);
           SELECT audit.protect('"Bücher ""&"" mehr"."it''s a 📖 \ table"', exclude => '{"$$;--"}');
           INSERT INTO "Bücher ""&"" mehr"."it's a 📖 \ table" VALUES (1, 'v', 2, 'out', 'quote', 3)"#,
    );
    let row = &s.rows("SELECT table_schema, table_name, key::text, new::text FROM audit.log WHERE op = 'INSERT'")[0];
    let row: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or_default()).collect();
    assert_eq!(
        row,
        [
            r#"Bücher "&" mehr"#,
            r"it's a 📖 \ table",
            r#"{"Ключ":1}"#,
            r#"{"Ключ":1,"with \"quotes\" and \\":"v","{\"x\":1}":2,"\"":"quote","new":3}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn names_of_63_bytes_and_500_columns_are_recorded() {
    let database = database();
    let mut s = database.connect();
    let table = format!("ä{}", "x".repeat(61));
    let columns: Vec<String> = (1..=500).map(|number| format!("c{number} int")).collect();
    s.run(&format!(
        r#"CREATE TABLE "{table}" (id int PRIMARY KEY, {});
           SELECT audit.protect('"{table}"');
           INSERT INTO "{table}" (id, c1, c500) VALUES (1, 1, 500);
           UPDATE "{table}" SET c499 = 499"#,
        columns.join(", ")
    ));
    assert_eq!(s.text("SELECT table_name FROM audit.log WHERE op = 'INSERT'"), table);
    assert_eq!(s.number("SELECT count(*) FROM audit.log, json_each(new) WHERE op = 'INSERT'"), 501);
    assert_eq!(changes(&mut s, &table)[1], r#"UPDATE key={"id":1} old={"c499":null} new={"c499":499}"#);
    assert_clean(&mut s);
}

#[test]
fn a_table_without_columns_is_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE nothing (); SELECT audit.protect('nothing'); INSERT INTO nothing DEFAULT VALUES; DELETE FROM nothing");
    assert_eq!(changes(&mut s, "nothing"), ["INSERT new={}", "DELETE old={}"]);
    assert_clean(&mut s);
}

#[test]
fn a_table_renamed_or_moved_keeps_its_history() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY);
         SELECT audit.protect('t');
         INSERT INTO t VALUES (1);
         CREATE SCHEMA archive;
         ALTER TABLE t SET SCHEMA archive;
         ALTER TABLE archive.t RENAME TO u;
         INSERT INTO archive.u VALUES (2)",
    );
    assert_eq!(
        s.column("SELECT table_schema || '.' || table_name FROM audit.log WHERE op = 'INSERT' ORDER BY id"),
        ["public.t", "archive.u"]
    );
    assert_eq!(s.number("SELECT count(DISTINCT table_oid) FROM audit.log WHERE op = 'INSERT'"), 1);
}

/// Entries tell of columns by name, and of rows by key. When names, types or key change, the log begins anew with the table.
fn definition_changed(change: &str, after: &str) {
    let before = "UPDATE t SET a = a + 1, x = 'secret' WHERE id = 1;
                  INSERT INTO t VALUES ((SELECT max(id) + 1 FROM t), (SELECT max(a) + 1 FROM t))";
    let protected = || {
        let database = database();
        let mut s = database.connect();
        s.run("CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, x text); INSERT INTO t VALUES (1, 10), (2, 20)");
        s.run("SELECT audit.protect('t', exclude => '{x}')");
        s.run(before);
        (database, s)
    };
    let protections = "SELECT count(*) FROM audit.log WHERE op = 'PROTECT'";

    let (database, mut s) = protected();
    // A migration has a session of its own, and does nothing else before.
    database.connect().run(change);
    assert_clean(&mut s);
    assert!(s.number(protections) > 1, "{change}");
    assert!(s.holds("SELECT row_trigger = 'ok' AND truncate_trigger = 'ok' AND exclude = '{x}' FROM audit.protected"));
    // Other sessions go on as well.
    let mut other = database.connect();
    other.run(after);
    s.run(after);
    assert_clean(&mut s);
    assert_eq!(s.number("SELECT count(*) FROM audit.export() WHERE line LIKE '%secret%'"), 0);
    // What is changed behind the triggers from then on is found.
    s.run("ALTER TABLE t DISABLE TRIGGER USER; DELETE FROM t; ALTER TABLE t ENABLE ALWAYS TRIGGER audit_row");
    s.run("ALTER TABLE t ENABLE ALWAYS TRIGGER audit_truncate");
    let found = s.column("SELECT DISTINCT kind || ' ' || relation FROM audit.findings()");
    assert_eq!(found, ["table public.t"]);

    // In a transaction that is rolled back nothing has changed.
    let (_database, mut s) = protected();
    s.run(&format!("BEGIN; {change}; {after}; ROLLBACK"));
    s.run(before);
    assert_eq!(s.number(protections), 1);
    assert_clean(&mut s);

    // Where the event trigger was off, that is one finding of coverage, and no false alarm about rows.
    s.run("ALTER EVENT TRIGGER audit_ddl DISABLE");
    s.run(change);
    let found = s.column("SELECT kind FROM audit.findings() WHERE relation = 'public.t'");
    assert_eq!(found, ["coverage"]);
}

#[test]
fn a_column_added_with_a_default_raises_no_false_alarm() {
    definition_changed(
        "ALTER TABLE t ADD COLUMN flag boolean NOT NULL DEFAULT false",
        "UPDATE t SET flag = NOT flag, x = 'secret' WHERE id = 1",
    );
}

#[test]
fn a_column_renamed_raises_no_false_alarm() {
    definition_changed("ALTER TABLE t RENAME COLUMN a TO b", "UPDATE t SET b = b + 10, x = 'secret' WHERE id = 1");
}

#[test]
fn a_column_of_another_type_raises_no_false_alarm() {
    definition_changed(
        "ALTER TABLE t ALTER COLUMN a TYPE numeric(10, 3)",
        "UPDATE t SET a = a + 0.5, x = 'secret' WHERE id = 1",
    );
}

#[test]
fn columns_dropped_and_added_raise_no_false_alarm() {
    definition_changed(
        "ALTER TABLE t DROP COLUMN a, ADD COLUMN b int; ALTER TABLE t RENAME COLUMN b TO c",
        "UPDATE t SET c = coalesce(c, 0) + 10, x = 'secret' WHERE id = 1",
    );
}

#[test]
fn a_primary_key_taken_away_raises_no_false_alarm() {
    definition_changed("ALTER TABLE t DROP CONSTRAINT t_pkey", "UPDATE t SET a = a + 10, x = 'secret' WHERE id = 1");
}

#[test]
fn another_primary_key_raises_no_false_alarm() {
    definition_changed(
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (a)",
        "UPDATE t SET id = id + 10, x = 'secret' WHERE a = 20",
    );
}

#[test]
fn an_excluded_column_renamed_stays_excluded() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, x text); SELECT audit.protect('t', exclude => '{x}')");
    s.run("INSERT INTO t VALUES (1, 'secret'); ALTER TABLE t RENAME COLUMN x TO y; UPDATE t SET y = 'secret 2'");
    s.run("INSERT INTO t VALUES (2, 'secret'); DELETE FROM t WHERE id = 1");
    assert_eq!(s.number("SELECT count(*) FROM audit.export() WHERE line LIKE '%secret%'"), 0);
    assert_clean(&mut s);
    // Another column takes its name: whatever is recorded or refused then, the excluded values are not in the log.
    let _ =
        s.batch_execute("ALTER TABLE t ADD COLUMN x int; UPDATE t SET x = 1; INSERT INTO t VALUES (3, 'secret', 3)");
    assert_eq!(s.number("SELECT count(*) FROM audit.export() WHERE line LIKE '%secret%'"), 0);
    assert_clean(&mut s);
}

/// DDL that changes nothing that entries of rows tell of leaves at most an entry about itself.
#[test]
fn ddl_that_changes_no_recorded_column_begins_nothing_anew() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, a int, b text, x text); INSERT INTO t VALUES (1, 1, 'b', 'x')");
    s.run("SELECT audit.protect('t', exclude => '{x}'); CREATE TABLE other (id int)");
    let entries = s.number("SELECT count(*) FROM audit.log WHERE op <> 'DDL'");
    for ddl in [
        "CREATE INDEX ON t (a)",
        "ALTER TABLE t ALTER a SET DEFAULT 5",
        "ALTER TABLE t ADD CHECK (a > 0)",
        "ALTER TABLE t ALTER a SET STATISTICS 10",
        "ALTER TABLE t SET (fillfactor = 90)",
        "COMMENT ON TABLE t IS 'c'",
        "ANALYZE t",
        "VACUUM FULL t",
        "REINDEX TABLE t",
        "GRANT SELECT ON t TO PUBLIC",
        "ALTER TABLE other ADD COLUMN a int DEFAULT 1",
        "CREATE TABLE unrelated AS TABLE t",
        "DROP TABLE unrelated",
        "CREATE VIEW v AS SELECT a, b FROM t",
        "SET quote_all_identifiers = on",
        "ALTER TABLE t ALTER a SET NOT NULL",
        "SET search_path = ''",
        "ALTER TABLE public.t ALTER b SET STORAGE EXTERNAL",
        "RESET search_path",
    ] {
        s.run(ddl);
        assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op <> 'DDL'"), entries, "{ddl}");
        assert_clean(&mut s);
    }
}

/// How types are written does not depend on who looks.
#[test]
fn names_of_types_are_the_same_in_every_session() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE SCHEMA other; CREATE TYPE other.mood AS ENUM ('good'); CREATE DOMAIN amount AS numeric(10, 2)");
    s.run("SET search_path = other, public; SET quote_all_identifiers = on");
    s.run(
        r#"CREATE TABLE public.t (id int PRIMARY KEY, m mood, a amount, v varchar(10)[], t timestamptz(3), b "char")"#,
    );
    s.run("SELECT audit.protect('public.t')");
    assert_clean(&mut s);
    let mut other = database.connect();
    assert_clean(&mut other);
    other.run("ALTER TABLE t ADD CHECK (id > 0); INSERT INTO t VALUES (1, 'good')");
    assert_eq!(other.number("SELECT count(*) FROM audit.log WHERE op = 'PROTECT'"), 1);
    assert_clean(&mut other);
    assert_clean(&mut s);
}

/// Times of four-digit years are not written by the server's own function.
#[test]
fn times_are_written_as_the_server_writes_them() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE moment (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tz timestamptz, ts timestamp)");
    s.run("SELECT audit.protect('moment')");
    s.run("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET extra_float_digits = 0");
    s.run(
        "INSERT INTO moment (tz) SELECT '4713-11-24 00:00 BC UTC'::timestamptz + random() * interval '298000 years' FROM generate_series(1, 5000);
         INSERT INTO moment (tz) SELECT '0001-01-01 BC UTC'::timestamptz + random() * interval '10010 years' FROM generate_series(1, 20000);
         INSERT INTO moment (tz) SELECT date_trunc(unit, '2001-01-01 UTC'::timestamptz + random() * interval '20 years')
           FROM unnest('{milliseconds,second,minute,hour,day}'::text[]) AS unit, generate_series(1, 200);
         INSERT INTO moment (tz) SELECT '2024-02-29 23:59:59 UTC'::timestamptz + make_interval(secs => 1 / 10.0 ^ digits)
           FROM generate_series(0, 6) AS digits;
         INSERT INTO moment (tz) VALUES ('infinity'), ('-infinity'), ('0001-12-31 23:59:59.999999 BC UTC'), ('0001-01-01 UTC'), ('9999-12-31 23:59:59.999999 UTC'), ('10000-01-01 UTC'), (NULL)",
    );
    s.run("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; UPDATE moment SET ts = tz");
    let compared = "FROM moment AS m JOIN audit.log AS l ON (l.key ->> 'id')::bigint = m.id WHERE l.op";
    assert_eq!(s.number(&format!("SELECT count(*) {compared} = 'INSERT'")), 26_014);
    let wrong = format!("SELECT count(*) {compared} = 'INSERT' AND l.new ->> 'tz' IS DISTINCT FROM m.tz::text");
    assert_eq!(s.number(&wrong), 0);
    assert_eq!(s.number(&format!("SELECT count(*) {compared} = 'UPDATE'")), 26_013);
    let wrong = format!("SELECT count(*) {compared} = 'UPDATE' AND l.new ->> 'ts' IS DISTINCT FROM m.ts::text");
    assert_eq!(s.number(&wrong), 0);
    assert_clean(&mut s);
}

#[test]
fn columns_of_partitions_and_children_change_with_their_parent() {
    let database = database();
    let mut s = database.connect();
    s.run(MEASURE);
    s.run("CREATE TABLE city (id int PRIMARY KEY, name text); CREATE TABLE capital (PRIMARY KEY (id)) INHERITS (city)");
    s.run("SELECT audit.protect('city')");
    let write =
        "INSERT INTO measure SELECT count(*), 1 FROM measure; INSERT INTO measure SELECT count(*), 11 FROM measure;
                 INSERT INTO capital SELECT count(*), 'x' FROM capital; UPDATE city SET name = name || 'y'";
    s.run(write);
    s.run("ALTER TABLE measure ADD COLUMN w int DEFAULT 7; ALTER TABLE city ADD COLUMN country text DEFAULT 'Italy'");
    assert_clean(&mut s);
    s.run(write);
    s.run("UPDATE measure SET w = 8; ALTER TABLE measure RENAME v TO u; ALTER TABLE city ALTER name TYPE varchar(20)");
    s.run(write);
    assert_clean(&mut s);
    s.run("ALTER TABLE measure DROP COLUMN u; ALTER TABLE measure DROP CONSTRAINT measure_pkey");
    s.run(write);
    assert_clean(&mut s);
}

/// The owner may change his table without any right on the ledger.
#[test]
fn an_owner_changes_the_definition_of_his_table() {
    let database = database();
    let mut s = database.connect();
    hostile(&mut s, "capture_ddl");
    let mut role = database.connect_as("capture_ddl");
    role.run("CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1)");
    s.run("SELECT audit.protect('capture_ddl.t')");
    let mut role = database.connect_as("capture_ddl");
    role.run("ALTER TABLE t ADD COLUMN b int DEFAULT 3; INSERT INTO t VALUES (2, 2); UPDATE t SET b = 4");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'PROTECT' AND user_name = 'capture_ddl'"), 1);
    assert_clean(&mut s);
}

// ---- Protection itself ----

#[test]
fn a_transaction_older_than_the_protection_is_recorded() {
    let database = database();
    let (mut s, mut old) = (database.connect(), database.connect());
    s.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)");
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    s.run("SELECT audit.protect('t')");
    old.run("INSERT INTO t VALUES (2, 2); UPDATE t SET v = 0 WHERE id = 1; COMMIT");
    assert_eq!(changes(&mut s, "t").len(), 2);
    assert_clean(&mut s);
}

#[test]
fn the_baseline_is_what_is_there_not_what_an_old_snapshot_sees() {
    let database = database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    s.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    other.run("INSERT INTO t VALUES (2); DELETE FROM t WHERE id = 1");
    s.run("SELECT audit.protect('t'); COMMIT");
    assert_eq!(changes_of(&mut s, "op = 'BASELINE'"), [r#"BASELINE key={"id":2} new={"id":2}"#]);
    assert_clean(&mut s);
}

#[test]
fn protection_rolled_back_leaves_nothing_behind() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY)");
    s.run("BEGIN; SELECT audit.protect('t'); INSERT INTO t VALUES (1); ROLLBACK; INSERT INTO t VALUES (2)");
    assert_eq!(s.number("SELECT count(*) FROM audit.log"), 0);
    assert_clean(&mut s);
    s.run("BEGIN; SAVEPOINT a; SELECT audit.protect('t'); INSERT INTO t VALUES (3); ROLLBACK TO a");
    s.run("INSERT INTO t VALUES (4); SELECT audit.protect('t'); INSERT INTO t VALUES (5); COMMIT; INSERT INTO t VALUES (6)");
    assert_eq!(
        changes_of(&mut s, "op <> 'PROTECT'"),
        [
            r#"BASELINE key={"id":2} new={"id":2}"#,
            r#"BASELINE key={"id":4} new={"id":4}"#,
            r#"INSERT key={"id":5} new={"id":5}"#,
            r#"INSERT key={"id":6} new={"id":6}"#,
        ]
    );
    assert_clean(&mut s);
    s.run(
        "BEGIN; SELECT audit.unprotect('t', 'not now'); INSERT INTO t VALUES (7); ROLLBACK; INSERT INTO t VALUES (8)",
    );
    assert_eq!(changes(&mut s, "t").len(), 3);
    assert_clean(&mut s);
}

#[test]
fn two_sessions_may_protect_at_once() {
    let database = database();
    database.connect().run("CREATE TABLE shared (id int PRIMARY KEY)");
    std::thread::scope(|scope| {
        for number in 0..6 {
            let database = &database;
            scope.spawn(move || {
                let mut s = database.connect();
                s.run(&format!("CREATE TABLE own_{number} (id int PRIMARY KEY); INSERT INTO own_{number} VALUES (1)"));
                s.run(&format!("SELECT audit.protect('own_{number}'); INSERT INTO own_{number} VALUES (2)"));
                if let Err(error) = s.batch_execute("SELECT audit.protect('shared')") {
                    assert_eq!(error.code().map(|code| code.code()), Some("42710"), "{error:?}");
                }
                s.run(&format!("INSERT INTO shared VALUES ({number})"));
            });
        }
    });
    let mut s = database.connect();
    assert_eq!(s.number("SELECT count(*) FROM audit.ledger"), 1);
    assert_eq!(s.number("SELECT count(*) FROM audit.protected"), 7);
    assert_clean(&mut s);
}

#[test]
fn other_sessions_learn_of_protection_and_its_end() {
    let database = database();
    let (mut s, mut writer) = (database.connect(), database.connect());
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text, w text)");
    writer.run("INSERT INTO t VALUES (1, 'a', 'b')");
    s.run("SELECT audit.protect('t')");
    writer.run("UPDATE t SET v = 'b', w = 'c'");
    s.run("SELECT audit.unprotect('t', 'other columns'); SELECT audit.protect('t', exclude => '{w}')");
    writer.run("UPDATE t SET v = 'c', w = 'd'");
    s.run("SELECT audit.unprotect('t', 'done')");
    writer.run("UPDATE t SET v = 'd', w = 'e'");
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"UPDATE key={"id":1} old={"v":"a","w":"b"} new={"v":"b","w":"c"}"#,
            r#"UPDATE key={"id":1} old={"v":"b"} new={"v":"c"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn a_dropped_table_is_unprotected_by_its_number() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    let oid = s.text("SELECT 't'::regclass::oid");
    s.run("DROP TABLE t");
    assert_eq!(findings(&mut s).iter().map(ToString::to_string).collect::<Vec<_>>(), ["coverage public.t"]);
    s.run("TABLE audit.protected");
    s.run(&format!("SELECT audit.unprotect({oid}, 'dropped with release 7')"));
    assert_clean(&mut s);
    assert_eq!(s.number("SELECT count(*) FROM audit.log"), 4);
    // Another table of that name begins anew.
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    assert_clean(&mut s);
}

#[test]
fn children_that_cannot_be_protected_are_refused() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE city (id int PRIMARY KEY); SELECT audit.protect('city')");
    s.run("CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere");
    for child in [
        "CREATE FOREIGN TABLE far () INHERITS (city) SERVER nowhere",
        "CREATE TEMPORARY TABLE scratch () INHERITS (city)",
        "CREATE UNLOGGED TABLE volatile () INHERITS (city)",
    ] {
        assert_eq!(s.sqlstate(child), "42809", "{child}");
    }
    assert_clean(&mut s);
}

#[test]
fn a_bulk_insert_does_not_fill_the_memory() {
    let database = database();
    let mut s = database.connect();
    let pid = s.backend_pid();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    let peak = |s: &mut audit_tests::Session, first: u32, last: u32| -> u64 {
        s.run(&format!("INSERT INTO t SELECT g, 'value ' || g FROM generate_series({first}, {last}) g"));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the backend is alive");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
        line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
    };
    let small = peak(&mut s, 1, 10_000);
    let big = peak(&mut s, 10_001, 210_000);
    assert!(big < small + 32 * 1024, "{small} kB after 10,000 rows, {big} kB after 200,000 more");
    assert_clean(&mut s);
}

/// Nothing is done through SQL of ours, so nothing of ours is among the statements of the application.
#[test]
fn the_statistics_of_statements_hold_only_those_of_the_application() {
    let cluster = Cluster::builder().start();
    let available = cluster
        .connect("postgres")
        .holds("SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'pg_stat_statements'");
    if !available {
        println!("pg_stat_statements is not there: not tested");
        return;
    }
    drop(cluster);
    let cluster = Cluster::builder()
        .conf("shared_preload_libraries = 'pg_stat_statements'")
        .conf("pg_stat_statements.track = 'all'")
        .start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run("CREATE EXTENSION pg_stat_statements; CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    s.run("SELECT pg_stat_statements_reset()");
    s.run("INSERT INTO t SELECT g FROM generate_series(1, 10) g");
    s.run("DELETE FROM t");
    let mut statements = s.column("SELECT query FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'");
    statements.sort();
    assert_eq!(statements, ["DELETE FROM t", "INSERT INTO t SELECT g FROM generate_series($1, $2) g"]);
}

// ---- Values ----

/// What a session may set that would change how PostgreSQL prints values.
const SETTINGS: [&str; 3] = [
    "SET TimeZone = 'UTC'",
    "SET TimeZone = 'America/New_York'; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'iso_8601';
     SET extra_float_digits = -15; SET bytea_output = 'escape'; SET xmlbinary = 'hex'; SET quote_all_identifiers = on;
     SET search_path = ''; SET standard_conforming_strings = off; SET array_nulls = off; SET backslash_quote = on;
     SET transform_null_equals = on; SET escape_string_warning = off",
    "SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard';
     SET extra_float_digits = 3; SET search_path = other, public; SET default_text_search_config = 'german';
     SET xmloption = 'document'; SET lc_numeric = 'C.UTF-8'",
];

const SOURCE: &str = "
    CREATE SCHEMA other;
    CREATE TYPE other.pair AS (a timestamptz, b float8);
    CREATE TABLE other.thing ();
    CREATE TABLE public.source (
      ts timestamptz, tz timetz, t timestamp, d date, i interval, f4 float4, f8 float8, b bytea, m money, c regclass, ty regtype,
      a timestamptz[], p other.pair, r tstzrange, mr tstzmultirange, af float8[], ab bytea[], j json, n numeric, q tsquery);
    INSERT INTO public.source VALUES (
      '2024-02-03 04:05:06.789+00', '01:02:03+05:30', '2024-02-03 04:05:06', '2024-02-03', '1 year 2 days -03:04:05.6',
      0.1, 1234.56789, '\\x00ff5c27', 1234567.891, 'other.thing', 'other.pair', '{2024-02-03 04:05:06+00}', ('2024-02-03 04:05:06+00', 0.1),
      '[2024-02-03 04:05:06+00,)', '{[2024-02-03 04:05:06+00,)}', '{0.1,1e-300}', '{\"\\\\x00ff\"}', '{\"a\": 1}', 1.10, 'a & b');
    CREATE TABLE public.target (session int, id int, LIKE public.source, PRIMARY KEY (session, id));
    SELECT audit.protect('target');";

#[test]
fn sessions_with_different_settings_record_the_same_text() {
    let database = database();
    database.connect().run(SOURCE);
    let mut sessions: Vec<String> = SETTINGS.iter().map(ToString::to_string).collect();
    // The machine may have locales; the minimal one has none but C.
    sessions.push("SET lc_monetary = 'C'".to_owned());
    for (number, settings) in sessions.iter().enumerate() {
        let mut s = database.connect();
        s.run(settings);
        s.run(&format!("INSERT INTO public.target SELECT {number}, 1, * FROM public.source"));
        s.run(&format!("UPDATE public.target SET n = n + 1 WHERE session = {number}"));
        s.run(&format!("DELETE FROM public.target WHERE session = {number}"));
        s.run(&format!("INSERT INTO public.target SELECT {number}, 2, * FROM public.source"));
        // A verdict does not depend on them either.
        assert_clean(&mut s);
    }
    let mut s = database.connect();
    let texts: BTreeSet<String> = s
        .column(
            r#"SELECT regexp_replace(concat_ws('|', op, old, new), '"session":\d+,"id":\d+', '')
                 FROM audit.log WHERE op IN ('INSERT', 'DELETE')"#,
        )
        .into_iter()
        .collect();
    assert_eq!(texts.len(), 2, "one for INSERT, one for DELETE: {texts:#?}");
    let text = texts.first().expect("there are two");
    assert!(text.contains(r#""ts":"2024-02-03 04:05:06.789+00""#), "{text}");
    assert!(text.contains(r#""f8":1234.56789"#), "{text}");
    assert!(text.contains(r#""b":"\\x00ff5c27""#), "{text}");
    assert!(text.contains(r#""c":"other.thing""#), "{text}");
    assert!(text.contains(r#""i":"1 year 2 days -03:04:05.6""#), "{text}");
}

#[test]
fn the_settings_of_the_session_are_its_own_again_after_a_change() {
    let database = database();
    database.connect().run(SOURCE);
    let mut s = database.connect();
    s.run(SETTINGS[1]);
    let settings = "SELECT string_agg(name || '=' || setting || ':' || source, ' ' ORDER BY name) FROM pg_settings
                     WHERE name NOT LIKE 'audit.%'";
    let before = s.text(settings);
    s.run("INSERT INTO public.target SELECT 1, 1, * FROM public.source");
    assert_eq!(s.text(settings), before);
    // Also when it fails in the middle
    s.refused("INSERT INTO public.target SELECT 1, g, s.* FROM public.source s, unnest('{2,3,1}'::int[]) g");
    assert_eq!(s.text(settings), before);
    s.run("BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'; INSERT INTO public.target SELECT 1, 2, * FROM public.source");
    assert_eq!(s.text("SHOW TimeZone"), "Asia/Tokyo");
    s.run("ROLLBACK");
    assert_eq!(s.text(settings), before);
}

#[test]
fn the_encoding_of_the_client_does_not_matter() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    database.psql_with(b"INSERT INTO t VALUES (1, 'caf\xe9')", &[("PGCLIENTENCODING", "LATIN1")]);
    database.psql_with("INSERT INTO t VALUES (2, 'café')".as_bytes(), &[("PGCLIENTENCODING", "UTF8")]);
    assert_eq!(
        changes(&mut s, "t"),
        [r#"INSERT key={"id":1} new={"id":1,"v":"café"}"#, r#"INSERT key={"id":2} new={"id":2,"v":"café"}"#]
    );
    let verdict = database.psql_with(
        b"SELECT count(*) FROM audit.findings(); SELECT encode(sha256(convert_to(audit.line(chain, seq), 'UTF8')), 'hex') = encode(hash, 'hex') FROM audit.log WHERE key ->> 'id' = '1'",
        &[("PGCLIENTENCODING", "LATIN1")],
    );
    assert_eq!(verdict, "0\nt\n");
}

#[test]
fn a_value_of_100_mb_is_recorded_whole_and_only_when_it_changes() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, small int, big text);
         ALTER TABLE t ALTER big SET STORAGE EXTENDED;
         SELECT audit.protect('t');
         INSERT INTO t SELECT 1, 1, repeat('0123456789\"', 9600000)",
    );
    assert!(s.holds("SELECT (new ->> 'big') = (SELECT big FROM t) AND length(new ->> 'big') > 100 * 1024 * 1024 FROM audit.log WHERE op = 'INSERT'"));
    s.run("UPDATE t SET small = 2");
    assert_eq!(changes_of(&mut s, "op = 'UPDATE'"), [r#"UPDATE key={"id":1} old={"small":1} new={"small":2}"#]);
    assert_clean(&mut s);
    s.run("DELETE FROM t");
    assert!(s.holds("SELECT length(old ->> 'big') > 100 * 1024 * 1024 FROM audit.log WHERE op = 'DELETE'"));
    assert_clean(&mut s);
}

#[test]
fn long_values_are_compressed_with_lz4_where_the_server_has_it() {
    let database = database();
    let mut s = database.connect();
    let has_lz4 = s.holds("SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'");
    let method = if has_lz4 { "lz4" } else { "pglz" };
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         SELECT audit.protect('t');
         INSERT INTO t VALUES (1, repeat('to and fro ', 1000));
         UPDATE t SET v = v || '!';
         DELETE FROM t",
    );
    let methods = "SELECT op || ' ' || coalesce(pg_column_compression(old), '-') || ' ' || coalesce(pg_column_compression(new), '-')
                     FROM audit.log WHERE table_name = 't' AND op <> 'PROTECT' ORDER BY id";
    assert_eq!(
        s.column(methods),
        [format!("INSERT - {method}"), format!("UPDATE {method} {method}"), format!("DELETE {method} -")]
    );
    assert_clean(&mut s);
}

/// Out-of-line values come to the trigger as pointers, equal or not whatever they point to.
#[test]
fn out_of_line_values_are_compared_by_content() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
         SELECT audit.protect('t');
         INSERT INTO t SELECT 1, repeat('a', 10000);
         UPDATE t SET v = repeat('a', 10000);
         UPDATE t SET v = repeat('a', 9999) || 'b'",
    );
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'UPDATE'"), 1);
    assert!(s.holds(
        "SELECT right(old ->> 'v', 1) = 'a' AND right(new ->> 'v', 1) = 'b' FROM audit.log WHERE op = 'UPDATE'"
    ));
    assert_clean(&mut s);
}

/// Values that are equal to PostgreSQL but not the same text are a change; the log must be able to say what is there.
#[test]
fn changes_that_equality_does_not_see_are_recorded() {
    let database = database();
    let mut s = database.connect();
    // A server built without ICU has but the one collation that comes with every catalog; then the case is a plain change of the text.
    let collation = if s.number("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'") > 1 {
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    } else {
        "CREATE COLLATION nocase (provider = libc, locale = 'C')"
    };
    s.run(&format!(
        "{collation};
         CREATE TABLE t (id int PRIMARY KEY, n numeric, f float8, c text COLLATE nocase, j json, i interval, p char(3));
         SELECT audit.protect('t');
         INSERT INTO t VALUES (1, 1.0, 0, 'a', '{{\"a\":1}}', '1 day', 'x');
         UPDATE t SET n = 1.00; UPDATE t SET f = '-0'; UPDATE t SET c = 'A'; UPDATE t SET j = '{{\"a\": 1}}';
         UPDATE t SET i = '24 hours'; UPDATE t SET p = 'x  '"
    ));
    assert_eq!(
        changes(&mut s, "t")[1..],
        [
            r#"UPDATE key={"id":1} old={"n":1.0} new={"n":1.00}"#,
            r#"UPDATE key={"id":1} old={"f":0} new={"f":-0}"#,
            r#"UPDATE key={"id":1} old={"c":"a"} new={"c":"A"}"#,
            r#"UPDATE key={"id":1} old={"j":{"a":1}} new={"j":{"a": 1}}"#,
            r#"UPDATE key={"id":1} old={"i":"1 day"} new={"i":"24:00:00"}"#,
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn excluded_columns_never_reach_the_log() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text, secret text);
         INSERT INTO t VALUES (1, 'a', 'classified-0');
         SELECT audit.protect('t', exclude => '{secret}', images => 'full');
         INSERT INTO t VALUES (2, 'b', 'classified-1');
         UPDATE t SET secret = 'classified-2';
         UPDATE t SET secret = 'classified-3', v = 'c';
         UPDATE t SET id = id + 10;
         DELETE FROM t",
    );
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'UPDATE'"), 4);
    assert_eq!(s.number("SELECT count(*) FROM audit.export() WHERE line LIKE '%classified%'"), 0);
    assert_clean(&mut s);
    // Nor are they compared with it.
    s.run("INSERT INTO t VALUES (1, 'a', 'classified-4'); ALTER TABLE t DISABLE TRIGGER audit_row");
    s.run("UPDATE t SET secret = 'elsewhere'; ALTER TABLE t ENABLE ALWAYS TRIGGER audit_row");
    assert_clean(&mut s);
}

#[test]
fn an_update_that_changes_nothing_is_recorded_only_on_demand() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text, x text); SELECT audit.protect('t', exclude => '{x}')");
    s.run("INSERT INTO t VALUES (1, 'a', 'b'); UPDATE t SET v = v; UPDATE t SET id = id, x = 'c'");
    assert_eq!(changes(&mut s, "t").len(), 1);
    s.run("SET audit.record_unchanged = on; UPDATE t SET v = v");
    assert_eq!(changes(&mut s, "t")[1], r#"UPDATE key={"id":1} old={} new={}"#);
    assert_clean(&mut s);
    s.run("CREATE ROLE capture_unchanged LOGIN; GRANT ALL ON t TO capture_unchanged");
    let mut role = database.connect_as("capture_unchanged");
    role.run("UPDATE t SET v = v");
    assert_eq!(role.sqlstate("SET audit.record_unchanged = on"), "42501");
}

// ---- A change that cannot be recorded ----

#[test]
fn a_change_that_cannot_be_recorded_fails_as_a_whole() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    // The numbers of entries run out.
    let last = s.number("SELECT last_value FROM audit.log_id_seq");
    s.run(&format!("ALTER SEQUENCE audit.log_id_seq MAXVALUE {}", last + 2));
    let mut other = database.connect();
    let error = other.refused("INSERT INTO t SELECT generate_series(2, 1000)");
    assert_eq!(error.code().code(), "2200H", "{error:?}");
    other.refused("BEGIN; INSERT INTO t VALUES (2); INSERT INTO t SELECT generate_series(3, 1000); COMMIT");
    other.run("ROLLBACK");
    assert_eq!(s.number("SELECT count(*) FROM t"), 1);
    s.run("ALTER SEQUENCE audit.log_id_seq NO MAXVALUE; INSERT INTO t VALUES (2)");
    other.run("INSERT INTO t VALUES (3)");
    assert_clean(&mut s);
}

/// An enum label that is gone cannot be printed. The error says what cannot be recorded.
#[test]
fn a_value_that_cannot_be_printed_cannot_be_changed() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE TABLE t (id int PRIMARY KEY, m mood, v int);
         INSERT INTO t VALUES (1, 'bad', 1);
         SELECT audit.protect('t');
         DELETE FROM pg_enum WHERE enumlabel = 'bad'",
    );
    s.refused("DELETE FROM t");
    // What does not touch the value is not held up.
    s.run("UPDATE t SET v = 2");
    assert_eq!(changes(&mut s, "t"), [r#"UPDATE key={"id":1} old={"v":1} new={"v":2}"#]);
    // One table that cannot be read does not hide the verdict about all else.
    s.run("CREATE TABLE other (id int PRIMARY KEY); SELECT audit.protect('other'); INSERT INTO other VALUES (1)");
    guards_off(
        &mut s,
        "audit.log",
        "UPDATE audit.log SET application_name = 'x' WHERE table_name = 'other' AND op = 'INSERT'",
    );
    let kinds: BTreeSet<String> = findings(&mut s).into_iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains("content") && kinds.contains("table"), "{kinds:?}");
}

#[test]
fn a_row_too_large_to_record_is_refused() {
    if !large() {
        return;
    }
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, b bytea); SELECT audit.protect('t')");
    s.refused("INSERT INTO t SELECT 1, convert_to(repeat('a', 550000000), 'UTF8')");
    assert_eq!(s.number("SELECT count(*) FROM t"), 0);
    s.run("INSERT INTO t VALUES (1, '\\x00')");
    assert_clean(&mut s);
}

// ---- Who and when ----

#[test]
fn login_session_and_current_user_are_told_apart() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE ROLE capture_login LOGIN; CREATE ROLE capture_hat; CREATE ROLE capture_definer; CREATE ROLE capture_owner;
         GRANT capture_hat TO capture_login;
         CREATE TABLE t (n int PRIMARY KEY);
         GRANT INSERT ON t TO capture_login, capture_hat, capture_definer;
         SELECT audit.protect('t');
         CREATE FUNCTION put(int) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO public.t VALUES ($1)';
         ALTER FUNCTION put OWNER TO capture_definer;
         CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1);
         GRANT SELECT, DELETE ON parent TO capture_login;
         SELECT audit.protect('child');
         GRANT CREATE ON SCHEMA public TO capture_owner;
         ALTER TABLE child OWNER TO capture_owner; GRANT SELECT ON parent TO capture_owner",
    );
    let mut login = database.connect_as("capture_login");
    login.run("INSERT INTO t VALUES (1); SELECT put(2); SET ROLE capture_hat; INSERT INTO t VALUES (3); SELECT put(4)");
    login.run("RESET ROLE; DELETE FROM parent");
    s.run("SET SESSION AUTHORIZATION capture_login; INSERT INTO t VALUES (5); SET ROLE capture_hat; INSERT INTO t VALUES (6)");
    s.run("RESET SESSION AUTHORIZATION");
    // A foreign-key action runs as the owner of the child. Its AFTER triggers run as him too since PostgreSQL 18, before that as
    // the one whose statement it was.
    let deleted_by = if s.major() < 18 {
        "DELETE capture_login capture_login capture_login"
    } else {
        "DELETE capture_login capture_login capture_owner"
    };
    assert_eq!(
        s.column(
            "SELECT concat_ws(' ', coalesce(key ->> 'n', op), login_name, session_name, user_name) FROM audit.log
              WHERE op IN ('INSERT', 'DELETE') ORDER BY id"
        ),
        [
            "1 capture_login capture_login capture_login",
            "2 capture_login capture_login capture_definer",
            "3 capture_login capture_login capture_hat",
            "4 capture_login capture_login capture_definer",
            deleted_by,
            "5 postgres capture_login capture_login",
            "6 postgres capture_login capture_hat",
        ]
    );
    assert_clean(&mut s);
}

#[test]
fn address_and_application_of_the_client_are_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    s.run("SET application_name = 'local'; INSERT INTO t VALUES (1)");
    let port = database.cluster.port().to_string();
    database.psql_with(
        b"INSERT INTO t VALUES (2); SET application_name = 'changed'; INSERT INTO t VALUES (3)",
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGAPPNAME", "my \"shop\"")],
    );
    assert_eq!(
        s.column("SELECT concat_ws('|', key ->> 'id', host(client_addr), application_name) FROM audit.log WHERE op = 'INSERT' ORDER BY id"),
        ["1|local", r#"2|127.0.0.1|my "shop""#, "3|127.0.0.1|changed"]
    );
    assert_clean(&mut s);
}

#[test]
fn time_and_transaction_are_those_of_the_change() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    s.run("BEGIN; SELECT pg_sleep(0.2)");
    let before = s.text("SELECT clock_timestamp()");
    s.run("INSERT INTO t VALUES (1)");
    let after = s.text("SELECT clock_timestamp()");
    let xid = s.text("SELECT pg_current_xact_id()");
    s.run("SAVEPOINT a; INSERT INTO t VALUES (2); COMMIT");
    assert!(s.holds(&format!("SELECT at BETWEEN '{before}' AND '{after}' FROM audit.log WHERE key ->> 'id' = '1'")));
    // The number of the whole transaction, also inside a savepoint
    assert_eq!(s.column("SELECT DISTINCT xid FROM audit.log WHERE op = 'INSERT'"), [xid]);
}

#[test]
fn context_belongs_to_the_transaction() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    s.run(r#"BEGIN; SELECT audit.set_context('{"user": "ann"}'); INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2)"#);
    s.run(r#"BEGIN; SELECT audit.set_context('{"user": "bob"}'); ROLLBACK; INSERT INTO t VALUES (3)"#);
    s.run(r#"BEGIN; SET LOCAL audit.context = '{"user":"cy"}'; INSERT INTO t VALUES (4); COMMIT; INSERT INTO t VALUES (5)"#);
    s.run(r#"BEGIN; SAVEPOINT a; SELECT audit.set_context('{"user": "dan"}'); ROLLBACK TO a; INSERT INTO t VALUES (6); COMMIT"#);
    assert_eq!(
        s.column("SELECT (key ->> 'id') || coalesce(' ' || (context ->> 'user'), '') FROM audit.log WHERE op = 'INSERT' ORDER BY id"),
        ["1 ann", "2", "3", "4 cy", "5", "6"]
    );
    assert_eq!(s.sqlstate("SET audit.context = '[]'"), "22023");
    assert_clean(&mut s);
}

/// Before the library is loaded, the server takes any text for a setting that it does not know yet.
#[test]
fn a_context_that_is_no_json_is_never_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); CREATE ROLE capture_context LOGIN; GRANT ALL ON t TO capture_context");
    let mut role = database.connect_as("capture_context");
    role.run("SET audit.context = 'no json'; INSERT INTO t VALUES (1)");
    let mut fresh = database.connect();
    fresh.run("ALTER ROLE capture_context SET audit.context = '{\"user\":'");
    let mut role = database.connect_as("capture_context");
    role.run("INSERT INTO t VALUES (2)");
    role.run(r#"SET audit.context = '{"user":"ann"}'; INSERT INTO t VALUES (3)"#);
    assert_eq!(
        s.column("SELECT (key ->> 'id') || coalesce(context::text, '') FROM audit.log WHERE op = 'INSERT' ORDER BY id"),
        ["1", "2", r#"3{"user":"ann"}"#]
    );
    assert_clean(&mut s);
}

/// Names of roles are shared by databases of all encodings.
#[test]
fn a_role_whose_name_is_not_utf8_does_no_harm() {
    let database = database();
    let cluster = database.cluster;
    cluster.connect("postgres").run("CREATE DATABASE capture_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    database.connect().run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    let ascii = audit_tests::Database { cluster, name: "capture_ascii".to_owned() };
    ascii.psql_with(b"CREATE ROLE \"caf\xe9\" SUPERUSER LOGIN", &[("PGCLIENTENCODING", "SQL_ASCII")]);
    // Recorded in some form, or refused with an error; the ledger stays whole in both cases.
    database.psql_with(
        b"\\set ON_ERROR_STOP off
          DO $$ BEGIN EXECUTE format('SET SESSION AUTHORIZATION %s', (SELECT oid::regrole FROM pg_roles WHERE rolname LIKE 'caf%')); END $$;
          INSERT INTO t VALUES (1);
          RESET SESSION AUTHORIZATION;
          INSERT INTO t VALUES (2);",
        &[("PGCLIENTENCODING", "SQL_ASCII")],
    );
    let mut s = database.connect();
    println!("{:?}", s.column("SELECT concat_ws(' ', key, session_name) FROM audit.log WHERE op = 'INSERT'"));
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE key ->> 'id' = '2'"), 1);
    assert_clean(&mut s);
}

#[test]
fn a_context_with_line_feeds_stays_on_one_line() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    s.run("SET audit.context = E'{\\n\"user\":\\r\\n \"ann\" , \"user\": 1e400}'; INSERT INTO t VALUES (1)");
    assert_eq!(s.number("SELECT count(*) FROM audit.export() WHERE line ~ E'[\\n\\r]'"), 0);
    assert_eq!(s.text("SELECT context FROM audit.log WHERE op = 'INSERT'"), "{ \"user\":   \"ann\" , \"user\": 1e400}");
    assert_clean(&mut s);
}

// ---- Hostile owners and users ----

/// A role that may create what it likes in schemas and tables of its own.
fn hostile(s: &mut audit_tests::Session, role: &str) {
    let database = s.text("SELECT current_database()");
    s.run(&format!(
        r#"CREATE ROLE {role} LOGIN;
           GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO {role};
           CREATE SCHEMA {role} AUTHORIZATION {role}"#
    ));
}

#[test]
fn a_cast_of_the_users_own_is_never_called() {
    let database = database();
    let mut s = database.connect();
    hostile(&mut s, "capture_caster");
    let mut role = database.connect_as("capture_caster");
    role.run(
        "CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE TYPE pair AS (a mood, b int);
         CREATE DOMAIN word AS text;
         CREATE FUNCTION trap(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap'; END $$;
         CREATE FUNCTION trap(pair) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap'; END $$;
         CREATE FUNCTION trap_text(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap'; END $$;
         CREATE FUNCTION trap_jsonb(mood) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap'; END $$;
         CREATE CAST (mood AS json) WITH FUNCTION trap(mood) AS IMPLICIT;
         CREATE CAST (pair AS json) WITH FUNCTION trap(pair) AS IMPLICIT;
         CREATE CAST (mood AS jsonb) WITH FUNCTION trap_jsonb(mood) AS IMPLICIT;
         CREATE CAST (mood AS text) WITH FUNCTION trap_text(mood) AS IMPLICIT;
         CREATE TABLE t (id int PRIMARY KEY, m mood, p pair, am mood[], w word)",
    );
    s.run("SELECT audit.protect('capture_caster.t')");
    role.run("INSERT INTO t VALUES (1, 'good', ('bad', 1), '{good}', 'w'); UPDATE t SET m = 'bad', w = 'x'; DELETE FROM t WHERE id = 2");
    assert_eq!(
        changes(&mut s, "t"),
        [
            r#"INSERT key={"id":1} new={"id":1,"m":"good","p":"(bad,1)","am":"{good}","w":"w"}"#,
            r#"UPDATE key={"id":1} old={"m":"good","w":"w"} new={"m":"bad","w":"x"}"#,
        ]
    );
    assert_clean(&mut s);
}

/// Comparing what changed, rendering and verifying use no operator that a user can define, and no check of a domain.
#[test]
fn operators_and_domain_checks_of_the_users_own_are_never_called() {
    let database = database();
    let mut s = database.connect();
    hostile(&mut s, "capture_operator");
    let mut role = database.connect_as("capture_operator");
    role.run(
        "CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE FUNCTION trap(mood, mood) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap'; END $$;
         CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = mood, FUNCTION = trap);
         CREATE OPERATOR <> (LEFTARG = mood, RIGHTARG = mood, FUNCTION = trap);
         CREATE FUNCTION fine(text) RETURNS bool LANGUAGE plpgsql AS $$
           BEGIN IF current_user <> 'capture_operator' THEN RAISE EXCEPTION 'trap'; END IF; RETURN true; END $$;
         CREATE DOMAIN word AS text CHECK (fine(value));
         CREATE TABLE t (id int PRIMARY KEY, m mood, w word)",
    );
    s.run("SELECT audit.protect('capture_operator.t')");
    role.run("INSERT INTO t VALUES (1, 'good', 'w'); UPDATE t SET m = 'bad'");
    assert_clean(&mut s);
}

#[test]
fn a_temporary_table_called_log_catches_nothing() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t')");
    s.run(
        "CREATE ROLE capture_temp LOGIN; GRANT INSERT ON t TO capture_temp;
         CREATE ROLE capture_schema LOGIN; GRANT INSERT ON t TO capture_schema",
    );
    let tables = "log registry ledger incarnation protected";
    let mut role = database.connect_as("capture_temp");
    role.run("CREATE TEMPORARY SEQUENCE log_id_seq");
    for table in tables.split(' ') {
        role.run(&format!(
            "CREATE TEMPORARY TABLE {table} (relation oid, id bigint, chain int, seq bigint, hash bytea)"
        ));
    }
    role.run("SET search_path = pg_temp, audit, public; INSERT INTO public.t VALUES (1)");
    for table in tables.split(' ') {
        assert_eq!(role.number(&format!("SELECT count(*) FROM pg_temp.{table}")), 0);
    }
    assert_eq!(changes(&mut s, "t"), [r#"INSERT key={"id":1} new={"id":1}"#]);
    assert_clean(&mut s);
}

#[test]
fn functions_and_operators_in_the_search_path_catch_nothing() {
    let database = database();
    let mut s = database.connect();
    hostile(&mut s, "capture_path");
    let trap = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trap'; END $$";
    let mut role = database.connect_as("capture_path");
    role.run(&format!(
        "CREATE FUNCTION to_json(anyelement) RETURNS json {trap};
         CREATE FUNCTION to_jsonb(anyelement) RETURNS jsonb {trap};
         CREATE FUNCTION row_to_json(record) RETURNS json {trap};
         CREATE FUNCTION sha256(bytea) RETURNS bytea {trap};
         CREATE FUNCTION nextval(regclass) RETURNS bigint {trap};
         CREATE FUNCTION clock_timestamp() RETURNS timestamptz {trap};
         CREATE FUNCTION count() RETURNS bigint {trap};
         CREATE FUNCTION trap_text(text, text) RETURNS bool {trap};
         CREATE FUNCTION trap_oid(oid, oid) RETURNS bool {trap};
         CREATE FUNCTION trap_int(int, int) RETURNS bool {trap};
         CREATE FUNCTION trap_big(bigint, bigint) RETURNS bool {trap};
         CREATE FUNCTION trap_bytea(bytea, bytea) RETURNS bool {trap};
         CREATE FUNCTION trap_char(\"char\", \"char\") RETURNS bool {trap};
         CREATE FUNCTION trap_name(name, name) RETURNS bool {trap};
         CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = trap_text);
         CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = oid, FUNCTION = trap_oid);
         CREATE OPERATOR = (LEFTARG = int, RIGHTARG = int, FUNCTION = trap_int);
         CREATE OPERATOR = (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap_big);
         CREATE OPERATOR = (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = trap_bytea);
         CREATE OPERATOR = (LEFTARG = name, RIGHTARG = name, FUNCTION = trap_name);
         CREATE OPERATOR = (LEFTARG = \"char\", RIGHTARG = \"char\", FUNCTION = trap_char);
         CREATE TABLE t (id int PRIMARY KEY, v text)"
    ));
    let path = "SET search_path = capture_path, pg_temp, pg_catalog";
    s.run(path);
    role.run(path);
    s.run("SELECT audit.protect('capture_path.t')");
    role.run("INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'; TRUNCATE t; INSERT INTO t VALUES (2, 'c')");
    s.run("SELECT * FROM audit.verify(); SELECT * FROM audit.findings(); TABLE audit.protected; SELECT * FROM audit.status()");
    s.run("SELECT * FROM audit.export(); SELECT audit.line(1, 1); SELECT audit.unprotect('capture_path.t', 'over')");
    s.run("RESET search_path");
    assert_eq!(changes(&mut s, "t").len(), 4);
    assert_clean(&mut s);
}

/// The owner of a database can set a search_path for everybody, with an equality that is always true in it.
#[test]
fn a_search_path_of_the_database_does_not_hide_tampering() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    hostile(&mut s, "capture_database");
    database.connect_as("capture_database").run(
        "CREATE FUNCTION yes(bytea, bytea) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE FUNCTION yes(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR = (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = yes);
         CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = yes);
         CREATE FUNCTION no(bytea, bytea) RETURNS bool LANGUAGE sql AS 'SELECT false';
         CREATE OPERATOR <> (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = no)",
    );
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET application_name = 'x' WHERE op = 'INSERT'");
    s.run(&format!(r#"ALTER DATABASE "{}" SET search_path = capture_database, pg_catalog"#, database.name));
    let mut s = database.connect();
    assert_eq!(findings(&mut s).len(), 1);
}

/// Row security of the table and of the reader hides nothing from the log or the verdict.
#[test]
fn row_security_hides_nothing_from_the_log() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text);
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
         CREATE POLICY few ON t USING (id < 10) WITH CHECK (true);
         CREATE ROLE capture_policy LOGIN; GRANT ALL ON t TO capture_policy;
         SELECT audit.protect('t')",
    );
    database.connect_as("capture_policy").run("INSERT INTO t VALUES (1, 'a'), (50, 'b'); UPDATE t SET v = 'c'");
    assert_eq!(changes(&mut s, "t").len(), 3);
    assert_clean(&mut s);
}

// ---- Logical replication ----

#[test]
fn what_logical_replication_applies_is_recorded() {
    let cluster = Cluster::builder().conf("wal_level = logical").start();
    let publisher = cluster.bare_database();
    let subscriber = cluster.database();
    let mut p = publisher.connect();
    let mut s = subscriber.connect();
    p.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'copied'); CREATE PUBLICATION p FOR TABLE t");
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    // Publisher and subscriber are one server here: the slot cannot be made by CREATE SUBSCRIPTION, it would wait for itself.
    p.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    s.run(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port={} user=postgres dbname={}' PUBLICATION p WITH (create_slot = false)",
        cluster.data().parent().expect("data is inside").display(),
        cluster.port(),
        publisher.name,
    ));
    let wait_for = |s: &mut audit_tests::Session, entries: usize| {
        for _ in 0..600 {
            let changes = changes(s, "t");
            if changes.len() >= entries {
                return changes;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("not replicated: {:?}\n{}", changes(s, "t"), cluster.server_log());
    };
    wait_for(&mut s, 1);
    p.run("INSERT INTO t VALUES (2, 'b'); UPDATE t SET v = 'B' WHERE id = 2; DELETE FROM t WHERE id = 1; TRUNCATE t");
    assert_eq!(
        wait_for(&mut s, 5),
        [
            r#"INSERT key={"id":1} new={"id":1,"v":"copied"}"#,
            r#"INSERT key={"id":2} new={"id":2,"v":"b"}"#,
            r#"UPDATE key={"id":2} old={"v":"b"} new={"v":"B"}"#,
            r#"DELETE key={"id":1} old={"id":1,"v":"copied"}"#,
            "TRUNCATE",
        ]
    );
    assert_eq!(
        s.number(
            "SELECT count(*) FROM audit.log WHERE op = 'UPDATE' AND login_name IS NULL AND user_name = 'postgres'"
        ),
        1
    );
    assert_clean(&mut s);
    // The slot goes with it.
    s.run("ALTER SUBSCRIPTION s DISABLE");
    s.run("DROP SUBSCRIPTION s");
}
