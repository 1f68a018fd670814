//! Entries wait in the backend until their transaction commits. Nobody may notice but by the speed: the transaction itself reads what it
//! recorded, savepoints take exactly their own entries with them, and nothing is lost on whatever way a transaction ends.

use audit_tests::{Rng, Session, assert_clean, database};

const WORK: &str = "
    CREATE TABLE work (mark text PRIMARY KEY, v int NOT NULL DEFAULT 0);
    SELECT audit.protect('work');";

const MARKS: &str =
    "SELECT coalesce(string_agg(key ->> 'mark', ' ' ORDER BY id), '') FROM audit.log WHERE op = 'INSERT'";

#[test]
fn a_transaction_reads_what_it_has_recorded_whichever_way_it_reads() {
    let database = database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run(WORK);
    s.run(&format!("CREATE VIEW marks AS {}", MARKS.replace("'')", "'') AS marks")));
    s.run("CREATE FUNCTION marks_sql() RETURNS text LANGUAGE sql STABLE AS 'SELECT marks FROM marks'");
    s.run("CREATE FUNCTION marks_plpgsql() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN (SELECT marks FROM marks); END'");
    s.run("PREPARE prepared AS SELECT marks FROM marks");
    // Plans that are kept from before anything waited
    assert_eq!(s.text("EXECUTE prepared"), "");
    let ways = [
        MARKS,
        "SELECT marks FROM marks",
        "SELECT marks_sql()",
        "SELECT marks_plpgsql()",
        "EXECUTE prepared",
        "DECLARE c CURSOR FOR SELECT marks FROM marks; FETCH c",
        "WITH m AS MATERIALIZED (SELECT * FROM marks) SELECT marks FROM m",
        "SELECT (SELECT marks FROM marks)",
    ];
    for (number, way) in ways.into_iter().enumerate() {
        s.run(&format!("BEGIN; INSERT INTO work VALUES ('a{number}')"));
        if let Some((before, last)) = way.split_once("; ") {
            s.run(before);
            assert_eq!(s.text(last), format!("a{number}"), "{way}");
        } else {
            assert_eq!(s.text(way), format!("a{number}"), "{way}");
        }
        assert_eq!(other.text(MARKS), "", "nobody else sees it before the commit");
        s.run("ROLLBACK");
    }
    // What counts or renders entries below SQL
    s.run("BEGIN; INSERT INTO work VALUES ('b')");
    assert_eq!(s.text("SELECT count(*) FROM audit.export() WHERE line LIKE '%\"INSERT\"%'"), "1");
    s.run("INSERT INTO work VALUES ('c')");
    assert!(s.holds("SELECT audit.line(chain, seq) LIKE '%\"mark\":\"c\"%' FROM audit.log ORDER BY id DESC LIMIT 1"));
    s.run("INSERT INTO work VALUES ('d')");
    assert_clean(&mut s);
    s.run("COMMIT");
    assert_clean(&mut other);
}

/// COPY and DDL do not pass through the executor.
#[test]
fn utility_statements_find_everything_in_the_table() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("BEGIN; INSERT INTO work VALUES ('a')");
    s.run("CREATE TABLE other AS SELECT 1; INSERT INTO work VALUES ('b')");
    // Rewrites the table: what waits after it must go to the new file.
    s.run("CLUSTER audit.log USING log_pkey; INSERT INTO work VALUES ('c'); REINDEX TABLE audit.log; COMMIT");
    assert_eq!(s.text(MARKS), "a b c");
    assert_clean(&mut s);
    let copied = database.psql("BEGIN; INSERT INTO work VALUES ('d'); COPY audit.log (key) TO STDOUT; COMMIT");
    assert!(copied.contains(r#"{"mark":"d"}"#), "{copied}");
}

/// A cursor keeps the view of the moment when it was opened; entries made later do not slip into it.
#[test]
fn a_cursor_opened_before_sees_no_later_entries() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("BEGIN; INSERT INTO work VALUES ('a')");
    s.run("DECLARE c CURSOR FOR SELECT key ->> 'mark' FROM audit.log WHERE op = 'INSERT' ORDER BY id");
    s.run("INSERT INTO work VALUES ('b')");
    assert_eq!(s.text(MARKS), "a b");
    assert_eq!(s.column("FETCH ALL FROM c"), ["a"]);
    s.run("COMMIT");
    // A statement does not see its own changes, nor their entries.
    let within =
        "WITH i AS (INSERT INTO work VALUES ('c') RETURNING 1) SELECT count(*) FROM audit.log, i WHERE op = 'INSERT'";
    assert_eq!(s.number(within), 2);
    assert_eq!(s.text(MARKS), "a b c");
}

/// What belongs to a block whose error was caught is gone; what waited before it is not, even where the block itself had to write it.
#[test]
fn a_rolled_back_block_takes_its_own_entries_and_no_others() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run(&format!(
        "CREATE FUNCTION marks() RETURNS text LANGUAGE sql VOLATILE AS $$ {MARKS} $$;
         CREATE FUNCTION blocks() RETURNS text LANGUAGE plpgsql AS $$
         DECLARE before text; within text; deeper text; after text;
         BEGIN
           INSERT INTO work VALUES ('a');
           BEGIN
             INSERT INTO work VALUES ('gone1');
             within := marks();
             BEGIN
               INSERT INTO work VALUES ('gone2');
               deeper := marks();
               RAISE EXCEPTION 'inner';
             EXCEPTION WHEN raise_exception THEN
               INSERT INTO work VALUES ('gone3');
             END;
             before := marks();
             RAISE EXCEPTION 'outer';
           EXCEPTION WHEN raise_exception THEN
             INSERT INTO work VALUES ('b');
           END;
           after := marks();
           BEGIN
             INSERT INTO work VALUES ('c');
             after := after || '|' || marks();
           EXCEPTION WHEN raise_exception THEN NULL;
           END;
           INSERT INTO work VALUES ('d');
           RETURN within || '|' || deeper || '|' || before || '|' || after;
         END $$"
    ));
    assert_eq!(s.text("SELECT blocks()"), "a gone1|a gone1 gone2|a gone1 gone3|a b|a b c");
    assert_eq!(s.text(MARKS), "a b c d");
    assert_clean(&mut s);
}

/// Beyond the limits of what waits, in the middle of blocks that are kept or not.
#[test]
fn more_than_can_wait_is_written_in_between() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("CREATE TABLE document (id int PRIMARY KEY, text text); SELECT audit.protect('document')");
    s.run(
        "DO $$
         BEGIN
           INSERT INTO work SELECT 'a' || i FROM generate_series(1, 300) AS i;
           FOR block IN 1..4 LOOP
             BEGIN
               INSERT INTO work SELECT 'b' || block || '.' || i FROM generate_series(1, 1000) AS i;
               IF block % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
             EXCEPTION WHEN raise_exception THEN NULL;
             END;
           END LOOP;
           INSERT INTO document VALUES (1, repeat('long', 300000)), (2, repeat('longer', 300000));
         END $$",
    );
    assert_eq!(s.number("SELECT count(*) FROM work"), 2300);
    assert_eq!(s.number("SELECT count(DISTINCT key ->> 'mark') FROM audit.log WHERE op = 'INSERT'"), 2300);
    assert_eq!(s.number("SELECT sum(length(new ->> 'text')) FROM audit.log WHERE table_name = 'document'"), 3_000_000);
    assert_clean(&mut s);
    s.run("BEGIN; INSERT INTO work SELECT 'c' || i FROM generate_series(1, 5000) AS i; ROLLBACK");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'INSERT'"), 2302);
    assert_clean(&mut s);
}

/// The last triggers of a transaction fire while it commits.
#[test]
fn what_deferred_triggers_write_at_commit_is_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run(
        "CREATE TABLE cause (id int PRIMARY KEY);
         CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO work VALUES ('echo ' || NEW.id); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER echo AFTER INSERT ON cause DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION echo()",
    );
    s.run("BEGIN; INSERT INTO work VALUES ('first'); INSERT INTO cause VALUES (1); COMMIT");
    s.run("BEGIN; INSERT INTO cause VALUES (2); PREPARE TRANSACTION 'pending_deferred'");
    s.run("COMMIT PREPARED 'pending_deferred'");
    s.run("CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$ BEGIN
             FOR i IN 3..5 LOOP INSERT INTO cause VALUES (i); IF i = 4 THEN ROLLBACK; ELSE COMMIT; END IF; END LOOP; END $$");
    s.run("CALL steps()");
    assert_eq!(s.text(MARKS), "first echo 1 echo 2 echo 3 echo 5");
    assert_clean(&mut s);
}

/// A held cursor is read to its end by the commit itself, and may write while it is.
#[test]
fn a_cursor_that_the_commit_runs_to_its_end_is_recorded_too() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("CREATE FUNCTION add(mark text) RETURNS text LANGUAGE sql VOLATILE AS 'INSERT INTO work VALUES (mark) RETURNING work.mark'");
    s.run("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT add('held ' || i) FROM generate_series(1, 3) AS i; COMMIT");
    assert_eq!(s.column("FETCH ALL FROM c"), ["held 1", "held 2", "held 3"]);
    assert_eq!(s.text(MARKS), "held 1 held 2 held 3");
    assert_clean(&mut s);
}

/// An entry that cannot be written takes its transaction with it, and the next one finds its way again.
#[test]
fn a_forged_successor_is_an_error_of_the_commit_and_of_nothing_after_it() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("INSERT INTO work VALUES ('a')");
    s.run("SET session_replication_role = replica; ALTER TABLE audit.log DISABLE TRIGGER ALL");
    s.run(
        "INSERT INTO audit.log SELECT (json_populate_record(l, json_build_object('seq', l.seq + 1, 'id', l.id + 1))).*
         FROM audit.log AS l ORDER BY id DESC LIMIT 1",
    );
    s.run("RESET session_replication_role");
    s.run("BEGIN; INSERT INTO work VALUES ('b')");
    assert_eq!(s.sqlstate("COMMIT"), "23505");
    assert_eq!(s.number("SELECT count(*) FROM work"), 1, "what could not be recorded did not happen");
    s.run("INSERT INTO work VALUES ('c')");
    assert_eq!(s.number("SELECT count(*) FROM work"), 2);
    assert!(s.number("SELECT count(*) FROM audit.findings() WHERE kind = 'content'") > 0, "the forged entry is told");
}

/// A backend remembers where its chain ended. Should that entry vanish meanwhile, the next one shows it.
#[test]
fn removing_the_end_of_a_chain_under_a_live_writer_shows_at_its_next_entry() {
    let database = database();
    let (mut s, mut thief) = (database.connect(), database.connect());
    s.run(WORK);
    s.run("INSERT INTO work VALUES ('a'), ('b'), ('c')");
    thief.run(
        "ALTER TABLE audit.log DISABLE TRIGGER ALL;
         DELETE FROM audit.log WHERE id = (SELECT max(id) FROM audit.log);
         ALTER TABLE audit.log ENABLE ALWAYS TRIGGER audit_guard_row; ALTER TABLE audit.log ENABLE ALWAYS TRIGGER audit_guard_statement",
    );
    s.run("INSERT INTO work VALUES ('d')");
    assert_eq!(s.number("SELECT count(*) FROM audit.findings(tables => false) WHERE kind = 'missing'"), 1);
}

fn random_block(rng: &mut Rng, name: &mut u32, depth: u32) -> (String, Vec<String>) {
    let (mut body, mut kept) = (String::new(), Vec::new());
    for _ in 0..=rng.below(4) {
        match rng.below(8) {
            0..=3 => {
                *name += 1;
                body.push_str(&format!("INSERT INTO work VALUES ('m{name}');\n"));
                kept.push(format!("m{name}"));
            }
            4 => body.push_str("PERFORM count(*) FROM audit.log;\n"),
            5 => {
                let rows = 200 + rng.below(600);
                let first = *name + 1;
                *name += rows as u32;
                body.push_str(&format!(
                    "INSERT INTO work SELECT 'm' || i FROM generate_series({first}, {name}) AS i;\n"
                ));
                kept.extend((first..=*name).map(|number| format!("m{number}")));
            }
            _ if depth < 4 => {
                let (inner, inner_kept) = random_block(rng, name, depth + 1);
                if rng.chance(50) {
                    body.push_str(&format!("BEGIN {inner} EXCEPTION WHEN raise_exception THEN NULL; END;\n"));
                    kept.extend(inner_kept);
                } else {
                    body.push_str(&format!(
                        "BEGIN {inner} RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END;\n"
                    ));
                }
            }
            _ => {}
        }
    }
    (body, kept)
}

fn entries(s: &mut Session) -> Vec<String> {
    s.column("SELECT key ->> 'mark' FROM audit.log WHERE op = 'INSERT' ORDER BY key ->> 'mark'")
}

#[test]
fn random_nested_blocks_keep_exactly_what_they_should() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    let mut rng = Rng::new(20_260_712);
    let (mut name, mut expected) = (0, Vec::new());
    for _ in 0..60 {
        let (body, kept) = random_block(&mut rng, &mut name, 0);
        s.run(&format!("DO $$ BEGIN {body} END $$"));
        expected.extend(kept);
    }
    expected.sort();
    assert!(expected.len() > 1000, "the blocks write a good deal");
    let mut found = entries(&mut s);
    found.sort();
    assert_eq!(found, expected);
    assert_clean(&mut s);
}

/// A DBA may make indexes of his own on the log; they are kept, whatever they are made of.
#[test]
fn indexes_of_others_on_the_log_are_kept() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("CREATE FUNCTION mark_of(json) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower($1 ->> 'mark') $$");
    s.run("CREATE FUNCTION loud(json) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN (SELECT upper($1 ->> 'mark')); END $$");
    s.run("CREATE INDEX ON audit.log (mark_of(key)); CREATE INDEX ON audit.log (loud(key)) WHERE op = 'INSERT'; CREATE INDEX ON audit.log (at)");
    s.run("INSERT INTO work VALUES ('One')");
    s.run("BEGIN; INSERT INTO work SELECT 'n' || i FROM generate_series(1, 1000) AS i; SAVEPOINT a; INSERT INTO work VALUES ('gone'); ROLLBACK TO a; UPDATE work SET v = 1; COMMIT");
    s.run("SET enable_seqscan = off; SET enable_bitmapscan = off; ANALYZE audit.log");
    let plan = s.column("EXPLAIN SELECT FROM audit.log WHERE mark_of(key) = 'one'").join(" ");
    assert!(plan.contains("Index Scan"), "{plan}");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE mark_of(key) = 'one'"), 2);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE mark_of(key) = 'gone'"), 0);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE loud(key) > 'N' AND op = 'INSERT'"), 1001);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE at > now() - interval '1 day'"), 2003);
    assert_clean(&mut s);
    // An index that cannot take an entry refuses the change with it.
    s.run("CREATE FUNCTION picky(json) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT 1 / length($1 ->> 'mark') $$; CREATE INDEX ON audit.log (picky(key))");
    assert_eq!(s.sqlstate("INSERT INTO work VALUES ('')"), "22012");
    assert_eq!(s.number("SELECT count(*) FROM work WHERE mark = ''"), 0);
    s.run("INSERT INTO work VALUES ('x')");
    assert_clean(&mut s);
}

/// The index over times is not shown the rows of page ranges that it has no summary of, and all the others: what it finds is what is there, also where rows came into a range after its summary was made.
#[test]
fn the_index_over_times_finds_what_was_written_after_its_summaries() {
    /// Rows that are written at once, by round.
    const MANY: [i64; 3] = [2, 30, 1500];
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("SET enable_seqscan = off");
    let (mut times, mut ids) = (vec![s.text("SELECT clock_timestamp()")], Vec::new());
    let write = |s: &mut Session, from: i64, rows: i64| {
        s.run(&format!("INSERT INTO work SELECT 'n' || i FROM generate_series({from}, {}) AS i", from + rows - 1));
    };
    // One row at a time and many at once, into ranges with a summary and without, across the ends of pages and of ranges.
    for round in 0..12 {
        let from = 10_000 * round as i64;
        write(&mut s, from, 1);
        write(&mut s, from + 1, MANY[round % 3]);
        if round % 2 == 1 {
            s.run("SELECT brin_summarize_new_values('audit.log_at_idx')");
        }
        write(&mut s, from + 5000, 3);
        times.push(s.text("SELECT clock_timestamp()"));
        ids.push(s.number("SELECT max(id) FROM audit.log"));
        let plan = s.column(&format!("EXPLAIN SELECT FROM audit.log WHERE id > {}", ids[0])).join(" ");
        assert!(plan.contains("log_at_idx"), "{plan}");
        for (place, time) in times.windows(2).enumerate() {
            let expected = 4 + MANY[place % 3];
            let in_time = format!(
                "SELECT count(*) FROM audit.log WHERE op = 'INSERT' AND at >= '{}' AND at < '{}'",
                time[0], time[1]
            );
            assert_eq!(s.number(&in_time), expected, "round {round}, span {place}");
        }
        for (place, id) in ids.iter().enumerate() {
            assert_eq!(
                s.number(&format!("SELECT count(*) FROM audit.log WHERE id = {id}")),
                1,
                "round {round}, id {place}"
            );
        }
    }
    assert_clean(&mut s);
}

/// The small tables need no indexes of others: one that cannot be kept is refused by name, and nothing is lost.
#[test]
fn special_indexes_on_other_tables_are_refused_when_they_would_have_to_be_kept() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("INSERT INTO work VALUES ('a'); CREATE INDEX special ON audit.seal ((number + 1)) WHERE number > 0");
    let refused = s.refused("SELECT audit.seal()");
    assert_eq!((refused.code().code(), refused.message()), ("55000", "cannot write to table \"audit.seal\""));
    s.run("CREATE INDEX special_too ON audit.registry ((relation::oid)); CREATE TABLE other (id int)");
    assert_eq!(s.sqlstate("SELECT audit.protect('other')"), "55000");
    assert_eq!(s.sqlstate("SELECT audit.unprotect('work', 'test')"), "55000");
    s.run("DROP INDEX audit.special, audit.special_too; SELECT audit.seal(); SELECT audit.protect('other')");
    assert_clean(&mut s);
}
