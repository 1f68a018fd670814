//! Ids of entries: where the library is preloaded they are handed out from shared memory, in runs drawn from the sequence. They must be as if each had been
//! taken from the sequence itself.

use audit_tests::{Cluster, Database, Session, assert_clean};

const WORK: &str = "
    CREATE TABLE work (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int NOT NULL DEFAULT 0);
    CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL);
    INSERT INTO counter VALUES (1, 0);
    SELECT audit.protect('work'), audit.protect('counter');";

fn cluster() -> Cluster {
    Cluster::builder().conf("shared_preload_libraries = 'audit'").durable().start()
}

/// Each change of the one row of `counter` has a higher id than the one before.
fn assert_order(session: &mut Session) {
    assert_eq!(
        session.number(
            "SELECT count(*) FROM (SELECT (new ->> 'n')::int AS n, lag((new ->> 'n')::int) OVER (ORDER BY id) AS before
               FROM audit.log WHERE op = 'UPDATE' AND table_name = 'counter') AS c WHERE n <> before + 1"
        ),
        0
    );
    assert_eq!(session.number("SELECT count(*) - count(DISTINCT id) FROM audit.log"), 0);
}

fn write(database: &Database<'_>, clients: usize, rounds: usize) {
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut s = database.connect();
                for _ in 0..rounds {
                    s.run("INSERT INTO work DEFAULT VALUES; UPDATE counter SET n = n + 1; INSERT INTO work DEFAULT VALUES");
                }
            });
        }
    });
}

#[test]
fn ids_follow_the_order_of_the_changes() {
    let mut cluster = cluster();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(WORK);
    write(&database, 12, 60);
    assert_order(&mut s);
    assert_eq!(s.number("SELECT n FROM counter"), 720);
    // Hardly any id is wasted.
    assert!(s.number("SELECT max(id) - count(*) FROM audit.log") < 800);
    assert_clean(&mut s);
    drop(s);
    let name = database.name.clone();
    for kill in [false, true] {
        if kill {
            cluster.stop_immediately()
        } else {
            cluster.stop()
        }
        cluster.start();
        let mut s = cluster.connect(&name);
        let before = s.number("SELECT max(id) FROM audit.log");
        s.run("UPDATE counter SET n = n + 1");
        assert!(s.number("SELECT max(id) FROM audit.log") > before);
        assert_order(&mut s);
        assert_clean(&mut s);
    }
}

#[test]
fn a_sequence_that_was_set_back_is_moved_forward_again() {
    let cluster = cluster();
    let database = cluster.database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run(WORK);
    s.run("INSERT INTO work SELECT FROM generate_series(1, 1000)");
    other.run("INSERT INTO work DEFAULT VALUES");
    let highest = s.number("SELECT max(id) FROM audit.log");
    s.run("SELECT setval('audit.log_id_seq', 5)");
    // All that is used from here on is beyond what was used before, whichever chain it goes to.
    for session in [&mut s, &mut other] {
        session.run("UPDATE counter SET n = n + 1; INSERT INTO work SELECT FROM generate_series(1, 200); UPDATE counter SET n = n + 1");
    }
    assert_eq!(s.number(&format!("SELECT count(*) FROM audit.log WHERE id > {highest}")), 404);
    assert_order(&mut s);
    assert_clean(&mut s);
}

/// A value of the sequence stands for 64 ids, whatever comes before and after it.
#[test]
fn a_sequence_that_advances_otherwise_keeps_the_order_of_ids() {
    let cluster = cluster();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(WORK);
    for option in ["INCREMENT BY 3", "INCREMENT BY 1", "CACHE 10", "INCREMENT BY 1000 CACHE 1"] {
        std::thread::scope(|scope| {
            let writers = scope.spawn(|| write(&database, 4, 60));
            s.run(&format!("ALTER SEQUENCE audit.log_id_seq {option}"));
            writers.join().unwrap();
        });
        assert_order(&mut s);
        let (highest, drawn) =
            (s.number("SELECT max(id) FROM audit.log"), s.number("SELECT last_value FROM audit.log_id_seq"));
        assert!(highest <= 64 * drawn, "{highest} is beyond the run of {drawn}");
    }
    assert_eq!(s.number("SELECT n FROM counter"), 960);
    assert_clean(&mut s);
}

/// Where there are no more ids nothing can be recorded, and so nothing changed.
#[test]
fn a_sequence_without_ids_refuses_changes() {
    let without = Cluster::builder().durable().start();
    for cluster in [cluster(), without] {
        let database = cluster.database();
        let mut s = database.connect();
        s.run(WORK);
        for (value, message) in [
            (i64::MAX / 64, "there are no more ids for entries"),
            (i64::MAX, "nextval: reached maximum value of sequence \"log_id_seq\" (9223372036854775807)"),
        ] {
            // In a session of its own, so that the last run is used up by it.
            let mut other = database.connect();
            other.run("INSERT INTO work SELECT FROM generate_series(1, 100)");
            other.run(&format!("SELECT setval('audit.log_id_seq', {value})"));
            let refused = other.refused("INSERT INTO work SELECT FROM generate_series(1, 100)");
            assert_eq!((refused.code().code(), refused.message()), ("2200H", message));
            other.run("SELECT setval('audit.log_id_seq', 1)");
        }
        assert_eq!(s.number("SELECT count(*) FROM work"), 200);
        s.run("INSERT INTO work SELECT FROM generate_series(1, 100)");
        assert_clean(&mut s);
    }
}

/// Without shared memory there is nowhere to keep what is left of a run.
#[test]
fn without_preloading_each_entry_takes_a_value_of_the_sequence() {
    let cluster = Cluster::builder().durable().start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(WORK);
    write(&database, 4, 30);
    assert_order(&mut s);
    assert_eq!(
        s.number("SELECT max(id) FROM audit.log"),
        s.number("SELECT 64 * last_value - 63 FROM audit.log_id_seq")
    );
    assert_clean(&mut s);
}

/// A sequence made anew has ids of its own, and so has that of another database.
#[test]
fn ids_of_another_ledger_begin_anew() {
    let cluster = cluster();
    let (first, second) = (cluster.database(), cluster.database());
    for database in [&first, &second] {
        let mut s = database.connect();
        s.run(WORK);
        assert_eq!(s.number("SELECT min(id) FROM audit.log"), 1);
    }
    let mut s = first.connect();
    s.run("BEGIN; SELECT audit.maintenance('a ledger made anew'); DROP TABLE work, counter; DROP EXTENSION audit CASCADE; COMMIT");
    s.run("CREATE EXTENSION audit");
    s.run(WORK);
    assert_eq!(s.number("SELECT min(id) FROM audit.log"), 1);
    assert_clean(&mut s);
}

/// Whoever holds the sequence holds up those who need a new run, and these can be cancelled.
#[test]
fn waiting_for_the_sequence_can_be_cancelled() {
    let cluster = cluster();
    let database = cluster.database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run(WORK);
    s.run("BEGIN; ALTER SEQUENCE audit.log_id_seq CACHE 1");
    other.run("SET statement_timeout = '1s'");
    let refused = other.refused("INSERT INTO work SELECT FROM generate_series(1, 200)");
    assert_eq!(refused.code().code(), "57014");
    s.run("ROLLBACK");
    other.run("RESET statement_timeout; INSERT INTO work SELECT FROM generate_series(1, 200)");
    assert_clean(&mut other);
}

/// The server waits for the sequence in the name of the transaction, not of the statement: a cancel finds it so, with a table open that is being read.
#[test]
fn cancelled_while_waiting_for_the_sequence_a_baseline_leaves_nothing_behind() {
    let cluster = cluster();
    let database = cluster.database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run(WORK);
    other.run("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late SELECT generate_series(1, 300)");
    s.run("BEGIN; ALTER SEQUENCE audit.log_id_seq CACHE 1");
    other.run("SET statement_timeout = '1s'");
    assert_eq!(other.sqlstate("SELECT audit.protect('late')"), "57014");
    s.run("ROLLBACK");
    other.run("RESET statement_timeout; SELECT audit.protect('late')");
    assert_eq!(other.number("SELECT count(*) FROM audit.log WHERE op = 'BASELINE' AND table_name = 'late'"), 300);
    assert_clean(&mut other);
    assert!(!cluster.server_log().contains("terminated by signal"));
}
