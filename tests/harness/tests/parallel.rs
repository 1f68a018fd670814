//! The log read by parallel workers: the verdict is that of one process, wherever a fault lies and whoever reads it.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use audit_tests::{Cluster, Database, Session, assert_clean, guards_off, wait_until};

/// Two seals over four chains, some entries that are not sealed, and some hundred blocks of the log, so that many pieces of it meet.
fn history() -> Database<'static> {
    static HISTORY: OnceLock<Database<'static>> = OnceLock::new();
    let original = HISTORY.get_or_init(|| {
        let database = Cluster::shared().database();
        let mut s = database.connect();
        s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
        s.run("INSERT INTO t SELECT g, 'a' FROM generate_series(1, 3000) g");
        let mut others: Vec<Session> = (0..3).map(|_| database.connect()).collect();
        for round in 0..20 {
            for (number, other) in others.iter_mut().enumerate() {
                let first = 10_000 * (number + 1) + 10 * round;
                other.run(&format!("INSERT INTO t SELECT g, 'b' FROM generate_series({first}, {first} + 9) g"));
            }
        }
        s.run("SELECT audit.seal(); UPDATE t SET v = 'c' WHERE id <= 500; SELECT audit.seal()");
        s.run("DELETE FROM t WHERE id <= 50");
        database
    });
    original.cluster.copy_of(original)
}

const WORKERS: &str =
    "SET min_parallel_table_scan_size = 0; SET max_parallel_workers_per_gather = 2; SET client_min_messages = debug1";
const ALONE: &str = "SET max_parallel_workers_per_gather = 0; SET client_min_messages = debug1";

/// What was said about how the log was read.
fn said(s: &mut Session, what: &str) -> bool {
    s.notices().iter().any(|notice| notice.contains(what))
}

/// All findings in the order of their places, and all rows of the verdict.
fn verdict(s: &mut Session) -> Vec<Vec<Option<String>>> {
    let mut all =
        s.rows("SELECT kind, relation, chain, seq, id, detail, hint FROM audit.findings() ORDER BY 3, 4, 1, 6");
    // How much was compared is the same as well. The order in which faults of tables are found is not looked at.
    all.extend(s.rows("SELECT * FROM audit.verify()"));
    all
}

/// Damages a copy of the history; workers and one process must say the same of it, and find these kinds of faults.
#[track_caller]
fn damaged(damage: &str, kinds: &[&str]) {
    let mut s = history().connect();
    guards_off(&mut s, "audit.log", damage);
    s.run(ALONE);
    s.notices();
    let alone = verdict(&mut s);
    assert!(!said(&mut s, "parallel workers"));
    s.run(WORKERS);
    s.notices();
    let together = verdict(&mut s);
    assert!(said(&mut s, "parallel workers"), "nobody else took part");
    assert_eq!(together, alone, "{damage}");
    let found = s.column("SELECT DISTINCT kind FROM audit.findings(tables => false) ORDER BY kind");
    assert!(kinds.iter().all(|kind| found.iter().any(|found| found == kind)), "{found:?}: {damage}");
}

/// The first entry of each block but every fifth, which lies behind the last of the block before in its chain: where two readers meet.
const AT_BOUNDARIES: &str = "(chain, seq) IN (SELECT chain, seq FROM (
    SELECT chain, seq, row_number() OVER (PARTITION BY (ctid::text::point)[0] ORDER BY ctid) AS place, (ctid::text::point)[0]::int AS block FROM audit.log WHERE seq > 1
  ) AS all_of_them WHERE place = 1 AND block % 5 = 0)";

const REHASH: &str = "DO $$ BEGIN UPDATE audit.log SET hash = sha256(convert_to(audit.line(chain, seq), 'UTF8')) WHERE hash <> sha256(convert_to(audit.line(chain, seq), 'UTF8')); END $$";

#[test]
fn a_whole_history_is_clean() {
    let mut s = history().connect();
    assert!(s.number("SELECT pg_relation_size('audit.log') / 8192") > 100);
    s.run(WORKERS);
    assert_clean(&mut s);
    assert!(said(&mut s, "parallel workers"));
    assert_clean(&mut s);
    assert!(!said(&mut s, "read again"), "a whole history is read once");
    s.run(ALONE);
    assert_clean(&mut s);
    assert!(!said(&mut s, "read again"));
}

#[test]
fn a_changed_value_at_a_boundary_is_found() {
    damaged(&format!("UPDATE audit.log SET user_name = 'x' WHERE {AT_BOUNDARIES}"), &["content"]);
}

#[test]
fn a_changed_hash_at_a_boundary_is_found() {
    damaged(&format!("UPDATE audit.log SET hash = sha256('x') WHERE {AT_BOUNDARIES}"), &["content", "link", "tree"]);
}

#[test]
fn a_changed_link_at_a_boundary_is_found() {
    damaged(&format!("UPDATE audit.log SET prev = sha256('x') WHERE {AT_BOUNDARIES}; {REHASH}"), &["link", "tree"]);
}

#[test]
fn a_number_that_goes_back_at_a_boundary_is_found() {
    damaged(&format!("UPDATE audit.log SET id = -id WHERE {AT_BOUNDARIES}"), &["content"]);
    damaged(&format!("UPDATE audit.log SET id = 1 WHERE {AT_BOUNDARIES}; {REHASH}"), &["link", "order", "tree"]);
}

#[test]
fn a_time_that_goes_back_at_a_boundary_is_found() {
    let damage = format!("UPDATE audit.log SET at = at - interval '1 hour' WHERE {AT_BOUNDARIES}; {REHASH}");
    damaged(&damage, &["link", "order", "tree"]);
}

#[test]
fn a_missing_entry_at_a_boundary_is_found() {
    damaged(&format!("DELETE FROM audit.log WHERE {AT_BOUNDARIES}"), &["missing"]);
}

#[test]
fn a_wrong_form_at_a_boundary_is_found() {
    let damage = format!("UPDATE audit.log SET op = 'UPSERT' WHERE {AT_BOUNDARIES}; {REHASH}");
    damaged(&damage, &["format", "link", "tree"]);
}

#[test]
fn a_value_that_cannot_be_at_a_boundary_is_found() {
    damaged(&format!("UPDATE audit.log SET at = 'infinity' WHERE {AT_BOUNDARIES}"), &["content"]);
    damaged(&format!("UPDATE audit.log SET chain = -chain WHERE {AT_BOUNDARIES}"), &["content", "missing"]);
}

#[test]
fn an_entry_that_stands_twice_is_found_whoever_reads_it() {
    let damage = format!(
        "ALTER TABLE audit.log DROP CONSTRAINT log_pkey;
         INSERT INTO audit.log SELECT * FROM audit.log WHERE {AT_BOUNDARIES}"
    );
    damaged(&damage, &["coverage", "order"]);
}

#[test]
fn more_faults_than_can_be_held_are_found() {
    let mut s = history().connect();
    guards_off(
        &mut s,
        "audit.log",
        "INSERT INTO audit.log SELECT (made).* FROM (
           SELECT jsonb_populate_record(l, jsonb_build_object('seq', l.seq + 10000 * n, 'id', l.id + 10000 * n)) AS made
             FROM audit.log AS l, generate_series(1, 4) AS n WHERE l.seq > 1) AS entries",
    );
    s.run(ALONE);
    let alone = verdict(&mut s);
    assert!(alone.len() > 10_000, "{}", alone.len());
    s.run(WORKERS);
    s.notices();
    assert!(verdict(&mut s) == alone);
    assert!(said(&mut s, "read again"));
}

// ---- Tiles ----

/// The leaves come from the stored tiles as long as these agree with the log; else the entries are read, and it is as if there were no short cut.
#[test]
fn tiles_that_are_not_those_of_the_log_are_found() {
    let swap = "UPDATE audit.tile SET hashes = substr(hashes, 33, 32) || substr(hashes, 1, 32) || substr(hashes, 65) WHERE level = 0 AND index = 3";
    for (table, damage, expected) in [
        ("audit.tile", swap, vec!["tree"]),
        ("audit.tile", "DELETE FROM audit.tile WHERE level = 0 AND index = 2", vec!["tree"]),
        (
            "audit.tile",
            "UPDATE audit.tile SET hashes = overlay(hashes placing sha256('x') from 33) WHERE index = 1",
            vec!["tree"],
        ),
        ("audit.tile", "UPDATE audit.tile SET root = sha256('x') WHERE index = 1", vec!["tree"]),
        ("audit.log", "UPDATE audit.log SET hash = sha256('x') WHERE seq = 300", vec!["content", "link", "tree"]),
        (
            "audit.log",
            "ALTER TABLE audit.log DROP CONSTRAINT log_pkey;
             UPDATE audit.log SET seq = 601 - seq WHERE seq IN (300, 301) AND op = 'INSERT';
             ALTER TABLE audit.log ADD CONSTRAINT log_pkey PRIMARY KEY (chain, ledger_prefix, seq)",
            vec!["content", "link", "order", "tree"],
        ),
        // The newest entries lie in no whole tile.
        (
            "audit.log",
            "UPDATE audit.log SET hash = sha256('x') WHERE (chain, seq) = (SELECT chain, last_seq FROM audit.seal_range ORDER BY first_leaf DESC LIMIT 1)",
            vec!["content", "link", "seal", "tree"],
        ),
    ] {
        for how in [ALONE, WORKERS] {
            let mut s = history().connect();
            guards_off(&mut s, table, damage);
            s.run(how);
            s.notices();
            let found = s.column(
                "SELECT DISTINCT kind FROM audit.findings(tables => false) WHERE kind <> 'coverage' ORDER BY kind",
            );
            assert_eq!(found, expected, "{damage}");
            assert!(said(&mut s, "sealed entries are read one by one"), "{damage}");
        }
    }
}

// ---- Where and when ----

#[test]
fn a_small_log_is_read_alone() {
    let mut s = history().connect();
    s.run("SET client_min_messages = debug1");
    assert_clean(&mut s);
    assert!(!said(&mut s, "parallel workers"));
}

#[test]
fn without_workers_one_process_does_it_all() {
    let cluster = Cluster::builder().conf("max_parallel_workers = 0").conf("min_parallel_table_scan_size = 0").start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t SELECT generate_series(1, 5000)",
    );
    s.run("SELECT audit.seal(); SET client_min_messages = debug1");
    assert_clean(&mut s);
    assert!(!said(&mut s, "parallel workers"));
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET user_name = 'x' WHERE seq = 100");
    assert_eq!(s.column("SELECT kind || seq FROM audit.findings()"), ["content100"]);
}

#[test]
fn what_the_transaction_itself_wrote_is_verified() {
    let mut s = history().connect();
    s.run(WORKERS);
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        s.notices();
        s.run(&format!(
            "BEGIN ISOLATION LEVEL {isolation}; INSERT INTO t SELECT g, 'own' FROM generate_series(50001, 50400) g;
             SAVEPOINT a; UPDATE t SET v = 'own again' WHERE id > 50000; SAVEPOINT b; DELETE FROM t WHERE id > 50300"
        ));
        let before = s.number("SELECT checked FROM audit.verify(tables => false) WHERE what = 'content'");
        assert_clean(&mut s);
        assert!(said(&mut s, "parallel workers"));
        s.run("ROLLBACK TO b");
        assert_clean(&mut s);
        let after = s.number("SELECT checked FROM audit.verify(tables => false) WHERE what = 'content'");
        assert_eq!(before - after, 100);
        s.run("ALTER TABLE audit.log DISABLE TRIGGER ALL");
        s.run("UPDATE audit.log SET user_name = 'x' WHERE new ->> 'id' = '50001' AND op = 'INSERT'");
        assert_eq!(s.column("SELECT kind FROM audit.findings() WHERE kind <> 'coverage'"), ["content"]);
        s.run("ROLLBACK");
        assert_clean(&mut s);
    }
    s.run("BEGIN READ ONLY");
    assert_clean(&mut s);
    s.run("COMMIT");
}

#[test]
fn a_hot_standby_has_workers_too() {
    let cluster = Cluster::builder().conf("min_parallel_table_scan_size = 0").start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t SELECT generate_series(1, 5000)",
    );
    s.run("SELECT audit.seal()");
    let standby = cluster.standby();
    cluster.wait_for(&standby);
    let mut reader = standby.connect(&database.name);
    reader.run("SET client_min_messages = debug1");
    assert_clean(&mut reader);
    assert!(said(&mut reader, "parallel workers"));
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET user_name = 'x' WHERE seq = 100");
    cluster.wait_for(&standby);
    assert_eq!(reader.column("SELECT kind || seq FROM audit.findings()"), ["content100"]);
}

#[test]
fn an_auditor_who_may_only_read_has_workers_too() {
    let database = history();
    let mut s = database.connect();
    s.run("DROP ROLE IF EXISTS parallel_auditor; CREATE ROLE parallel_auditor LOGIN");
    s.run(
        "GRANT USAGE ON SCHEMA audit TO parallel_auditor; GRANT SELECT ON ALL TABLES IN SCHEMA audit TO parallel_auditor;
         GRANT EXECUTE ON FUNCTION audit.verify, audit.findings TO parallel_auditor; GRANT SELECT ON t TO parallel_auditor",
    );
    let mut auditor = database.connect_as("parallel_auditor");
    auditor.run(WORKERS);
    assert_clean(&mut auditor);
    assert!(said(&mut auditor, "parallel workers"));
    s.run("DROP OWNED BY parallel_auditor; DROP ROLE parallel_auditor");
}

/// Wherever it is cancelled, no worker goes on, and the session can go on.
#[test]
fn a_cancelled_verdict_leaves_no_worker_behind() {
    let cluster = Cluster::builder().conf("min_parallel_table_scan_size = 0").start();
    let database = cluster.database();
    let (mut s, mut watcher) = (database.connect(), database.connect());
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t SELECT generate_series(1, 200000)");
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'";
    let mut cancelled = 0;
    for attempt in 0..20_u64 {
        let token = s.cancel_token();
        thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                for _ in 0..500 {
                    if watcher.number(workers) > 0 {
                        thread::sleep(Duration::from_millis(3 * attempt));
                        token.cancel_query(postgres::NoTls).expect("the server takes the request");
                        return true;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                false
            });
            let result = s.simple_query("SELECT count(*) FROM audit.verify()");
            let seen = canceller.join().expect("cancelling does not panic");
            if let Err(error) = result {
                assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error:?}");
                assert!(seen);
                cancelled += 1;
            }
        });
        wait_until("the workers have ended", || watcher.number(workers) == 0);
        // Also when the request came after the end.
        let _ = s.simple_query("SELECT 1");
        s.run("INSERT INTO t SELECT max(id) + 1 FROM t");
    }
    assert!(cancelled > 3, "{cancelled} of 20 were cancelled while workers were at work");
    assert_clean(&mut s);
}

/// An error of the server, whoever meets it, is an error of the statement: here the file of the large values is empty.
#[test]
fn an_error_of_a_worker_is_an_error_of_the_statement() {
    let mut cluster = Cluster::builder().conf("min_parallel_table_scan_size = 0").start();
    let (name, file) = {
        let database = cluster.database();
        let mut s = database.connect();
        s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
        s.run(
            "INSERT INTO t SELECT g, (SELECT string_agg(md5(g::text || n), '') FROM generate_series(1, 300) AS n)
               FROM generate_series(1, 400) AS g",
        );
        s.run("CHECKPOINT");
        assert_clean(&mut s);
        let file = "SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = 'audit.log'::regclass";
        (database.name.clone(), s.text(file))
    };
    cluster.stop();
    std::fs::write(cluster.data().join(file), "").expect("the file of the large values can be emptied");
    cluster.start();
    let mut s = cluster.connect(&name);
    s.run("SET client_min_messages = debug1");
    let error = s.refused("SELECT count(*) FROM audit.verify(tables => false)");
    assert!(error.message().contains("could not read block"), "{}", error.message());
    assert!(said(&mut s, "parallel workers"));
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'parallel worker'";
    wait_until("the workers have ended", || s.number(workers) == 0);
    s.run("CREATE TABLE still_works ()");
}
