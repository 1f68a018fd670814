//! Many writers, no queue, no fork: whatever transactions do and however they end, the chains stay whole, and what was
//! committed is in the log.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use audit_tests::{Cluster, Database, Rng, Session, assert_clean, database, guards_off, wait_until};
use postgres::Config;

/// A protected table whose rows say which piece of work wrote them.
const WORK: &str = "
    CREATE TABLE work (mark text PRIMARY KEY, v int NOT NULL DEFAULT 0);
    SELECT audit.protect('work');";

/// The marks of all INSERT entries of table work. Each must be there once.
#[track_caller]
fn recorded_marks(s: &mut Session) -> BTreeSet<String> {
    let marks = s.column("SELECT key ->> 'mark' FROM audit.log WHERE table_name = 'work' AND op = 'INSERT'");
    let set: BTreeSet<String> = marks.iter().cloned().collect();
    assert_eq!(set.len(), marks.len(), "a mark was recorded twice");
    set
}

/// One random transaction: writes, savepoints kept and rolled back, sometimes nested, then COMMIT or ROLLBACK.
/// Returns the marks that are committed when all has gone well.
fn random_transaction(s: &mut Session, rng: &mut Rng, name: &str) -> Result<Vec<String>, postgres::Error> {
    let mut kept: Vec<Vec<String>> = vec![Vec::new()];
    s.batch_execute("BEGIN")?;
    for step in 0..=rng.below(8) {
        match rng.below(10) {
            0..=4 => {
                let mark = format!("{name}.{step}");
                s.batch_execute(&format!("INSERT INTO work VALUES ('{mark}')"))?;
                kept.last_mut().expect("there is always the transaction itself").push(mark);
            }
            5 => s.batch_execute(&format!("UPDATE work SET v = v + 1 WHERE mark LIKE '{name}.%'"))?,
            6 | 7 => {
                s.batch_execute("SAVEPOINT a")?;
                kept.push(Vec::new());
            }
            8 if kept.len() > 1 => {
                s.batch_execute("ROLLBACK TO a; RELEASE a")?;
                kept.pop();
            }
            9 if kept.len() > 1 => {
                s.batch_execute("RELEASE a")?;
                let released = kept.pop().expect("checked above");
                kept.last_mut().expect("the transaction itself is never popped").extend(released);
            }
            _ => {}
        }
    }
    if rng.chance(25) {
        s.batch_execute("ROLLBACK")?;
        return Ok(Vec::new());
    }
    s.batch_execute("COMMIT")?;
    Ok(kept.concat())
}

#[test]
fn sixty_four_writers_leave_whole_chains_with_every_commit_in_them() {
    let database = database();
    database.connect().run(WORK);
    let barrier = Barrier::new(64);
    let committed: BTreeSet<String> = thread::scope(|scope| {
        let writers: Vec<_> = (0..64)
            .map(|writer| {
                let (database, barrier) = (&database, &barrier);
                scope.spawn(move || {
                    let mut s = database.connect();
                    let mut rng = Rng::new(writer);
                    barrier.wait();
                    (0..25)
                        .flat_map(|round| {
                            random_transaction(&mut s, &mut rng, &format!("{writer}.{round}")).expect("nothing fails")
                        })
                        .collect::<Vec<String>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("no writer panics")).collect()
    });
    let mut s = database.connect();
    assert!(committed.len() > 1000, "{} marks make no load", committed.len());
    assert_eq!(recorded_marks(&mut s), committed);
    assert!(s.number("SELECT count(DISTINCT chain) FROM audit.log") > 32);
    assert_clean(&mut s);
}

#[test]
fn changes_of_one_row_are_numbered_in_the_order_they_happened() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE counter (id int PRIMARY KEY, n int); INSERT INTO counter VALUES (1, 0); SELECT audit.protect('counter')");
    thread::scope(|scope| {
        for writer in 0..8 {
            let database = &database;
            scope.spawn(move || {
                let mut s = database.connect();
                let mut rng = Rng::new(writer);
                for _ in 0..50 {
                    s.run("BEGIN; UPDATE counter SET n = n + 1; SAVEPOINT a; UPDATE counter SET n = n + 100; ROLLBACK TO a");
                    s.run(if rng.chance(20) { "ROLLBACK" } else { "COMMIT" });
                }
            });
        }
    });
    let values = s.column("SELECT new ->> 'n' FROM audit.log WHERE op = 'UPDATE' ORDER BY id");
    let expected: Vec<String> = (1..=values.len()).map(|n| n.to_string()).collect();
    assert_eq!(values, expected);
    assert_eq!(s.text("SELECT n FROM counter"), values.len().to_string());
    assert_clean(&mut s);
}

// ---- Savepoints ----

#[test]
fn rolled_back_savepoints_leave_neither_entries_nor_holes() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("BEGIN; INSERT INTO work VALUES ('1')");
    s.run(
        "SAVEPOINT a; INSERT INTO work VALUES ('gone 2'); SAVEPOINT b; INSERT INTO work VALUES ('gone 3'); RELEASE b",
    );
    s.run("ROLLBACK TO a; INSERT INTO work VALUES ('4')");
    s.run("SAVEPOINT c; INSERT INTO work VALUES ('5'); RELEASE c; INSERT INTO work VALUES ('6')");
    s.run("ROLLBACK TO a; INSERT INTO work VALUES ('7'); COMMIT");
    // The first write of a transaction inside a savepoint that is rolled back
    s.run(
        "BEGIN; SAVEPOINT a; INSERT INTO work VALUES ('gone 8'); ROLLBACK TO a; INSERT INTO work VALUES ('9'); COMMIT",
    );
    s.run("BEGIN; SAVEPOINT a; INSERT INTO work VALUES ('gone 10'); ROLLBACK TO a; COMMIT; INSERT INTO work VALUES ('11')");
    assert_eq!(recorded_marks(&mut s), ["1", "7", "9", "11"].map(str::to_owned).into());
    assert_clean(&mut s);
}

#[test]
fn exceptions_caught_in_plpgsql_leave_neither_entries_nor_holes() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run(
        "CREATE FUNCTION put(level int) RETURNS void LANGUAGE plpgsql AS $$
           BEGIN
             INSERT INTO work VALUES ('before ' || level);
             IF level > 0 THEN
               BEGIN
                 PERFORM put(level - 1);
                 INSERT INTO work VALUES ('after ' || level);
                 IF level % 2 = 0 THEN RAISE EXCEPTION 'level %', level; END IF;
               EXCEPTION WHEN raise_exception THEN
                 INSERT INTO work VALUES ('caught ' || level);
               END;
             END IF;
           END $$",
    );
    s.run("SELECT put(5)");
    // Level 5 calls 4, whose block fails as a whole: everything below 4 is undone.
    let expected = ["before 5", "before 4", "caught 4", "after 5"].map(str::to_owned);
    assert_eq!(recorded_marks(&mut s), expected.clone().into());
    assert_eq!(s.column("SELECT mark FROM work ORDER BY mark").into_iter().collect::<BTreeSet<_>>(), expected.into());
    // A unique violation in a loop, as ORMs do it
    s.run(
        "DO $$ BEGIN
           FOR i IN 1..20 LOOP
             BEGIN INSERT INTO work VALUES ('loop ' || i / 2); EXCEPTION WHEN unique_violation THEN NULL; END;
           END LOOP; END $$",
    );
    assert_clean(&mut s);
}

#[test]
fn savepoints_deep_and_many() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("BEGIN");
    for level in 0..200 {
        s.run(&format!("SAVEPOINT s{level}; INSERT INTO work VALUES ('{level}')"));
    }
    s.run("ROLLBACK TO s100; INSERT INTO work VALUES ('again'); COMMIT");
    assert_eq!(recorded_marks(&mut s).len(), 101);
    assert_clean(&mut s);
}

#[test]
fn a_failed_transaction_leaves_the_chain_as_it_was() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("INSERT INTO work VALUES ('1')");
    s.refused("BEGIN; INSERT INTO work VALUES ('2'); INSERT INTO work VALUES ('1'); COMMIT");
    s.run("ROLLBACK");
    s.refused("INSERT INTO work SELECT CASE WHEN g = 300 THEN '1' ELSE 'x' || g END FROM generate_series(1, 500) g");
    s.run("INSERT INTO work VALUES ('3')");
    assert_eq!(recorded_marks(&mut s), ["1", "3"].map(str::to_owned).into());
    assert_eq!(s.column("SELECT seq FROM audit.log ORDER BY seq"), ["1", "2", "3"]);
    assert_clean(&mut s);
}

/// The command of a transaction that is ended by COMMIT AND CHAIN, and a backend that goes on after an error.
#[test]
fn chained_transactions_and_implicit_blocks_are_whole() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("BEGIN");
    for round in 0..5 {
        s.run(&format!("INSERT INTO work VALUES ('{round}')"));
        s.run(if round % 2 == 0 { "COMMIT AND CHAIN" } else { "ROLLBACK AND CHAIN" });
    }
    s.run("ROLLBACK");
    assert_eq!(recorded_marks(&mut s), ["0", "2", "4"].map(str::to_owned).into());
    assert_clean(&mut s);
}

// ---- Isolation levels ----

/// Runs transactions on rows that no two writers share; returns how many failed to serialize.
fn failures_on_disjoint_rows(database: &Database<'_>, table: &str, level: &str) -> u32 {
    let failures = AtomicU32::new(0);
    let barrier = Barrier::new(12);
    thread::scope(|scope| {
        for writer in 0..12 {
            let (failures, barrier) = (&failures, &barrier);
            scope.spawn(move || {
                let mut s = database.connect();
                // An index scan locks rows; a sequential scan would lock the table for predicates.
                s.run(&format!("SET default_transaction_isolation = '{level}'; SET enable_seqscan = off; SET enable_bitmapscan = off"));
                let table = table.replace('N', &writer.to_string());
                barrier.wait();
                for round in 1..=40 {
                    s.run(&format!("BEGIN; SELECT v FROM {table} WHERE id = {writer}"));
                    let result = s.batch_execute(&format!(
                        "UPDATE {table} SET v = {round} WHERE id = {writer}; UPDATE {table} SET v = -v WHERE id = {writer}; COMMIT"
                    ));
                    if let Err(error) = result {
                        assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error:?}");
                        failures.fetch_add(1, Ordering::Relaxed);
                        s.run("ROLLBACK");
                    }
                }
            });
        }
    });
    failures.into_inner()
}

#[test]
fn serializable_writers_of_different_tables_never_fail_because_of_the_log() {
    let database = database();
    let mut s = database.connect();
    for writer in 0..12 {
        s.run(&format!(
            "CREATE TABLE own_{writer} (id int PRIMARY KEY, v int); INSERT INTO own_{writer} VALUES ({writer}, 0);
             SELECT audit.protect('own_{writer}')"
        ));
    }
    assert_eq!(failures_on_disjoint_rows(&database, "own_N", "serializable"), 0);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'UPDATE'"), 12 * 40 * 2);
    assert_clean(&mut s);
}

#[test]
fn snapshot_isolated_writers_of_different_rows_fail_no_more_with_the_log_than_without() {
    let database = database();
    let mut s = database.connect();
    // The rows that are written lie on pages of their own, with room for many versions: so no version goes into the index, where
    // neighbours would conflict with or without a log.
    for table in ["plain", "audited"] {
        s.run(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, v int, filler text) WITH (fillfactor = 10);
             INSERT INTO {table}
               SELECT id, 0, filler
                 FROM generate_series(0, 11) w, LATERAL (VALUES (w, NULL), (w + 100, repeat('x', 780))) r(id, filler);
             ANALYZE {table}"
        ));
    }
    s.run("SELECT audit.protect('audited')");
    for level in ["repeatable read", "serializable"] {
        let (plain, audited) = (
            failures_on_disjoint_rows(&database, "plain", level),
            failures_on_disjoint_rows(&database, "audited", level),
        );
        println!("{level}: {audited} failures audited, {plain} unaudited");
        assert!(audited <= plain);
    }
    assert_clean(&mut s);
}

/// The head of a chain moves on after the snapshot of a transaction was taken; the transaction must not link to the old one.
#[test]
fn a_transaction_with_an_old_snapshot_links_to_the_newest_entry() {
    let database = database();
    for (number, level) in ["repeatable read", "serializable"].into_iter().enumerate() {
        let mut s = database.connect();
        if number == 0 {
            s.run(WORK);
        }
        let mut old = database.connect();
        old.run(&format!("SET audit.chains = 1; BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM pg_class"));
        s.run(&format!("SET audit.chains = 1; INSERT INTO work VALUES ('{level} 1'), ('{level} 2')"));
        old.run(&format!("INSERT INTO work VALUES ('{level} 3'); COMMIT"));
        assert_clean(&mut s);
        assert_clean(&mut old);
    }
}

#[test]
fn the_log_does_not_blind_serializable_to_write_skew() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE doctor (id int PRIMARY KEY, on_call bool); INSERT INTO doctor VALUES (1, true), (2, true)");
    s.run("SELECT audit.protect('doctor')");
    let mut other = database.connect();
    for (session, id) in [(&mut s, 1), (&mut other, 2)] {
        session.run("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM doctor WHERE on_call");
        session.run(&format!("UPDATE doctor SET on_call = false WHERE id = {id}"));
    }
    s.run("COMMIT");
    assert_eq!(other.sqlstate("COMMIT"), "40001");
    assert_clean(&mut s);
}

// ---- Two-phase commit ----

#[test]
fn prepared_transactions_survive_a_restart_and_hold_nobody_up() {
    let mut cluster = Cluster::builder().start();
    let name = cluster.database().name;
    let mut s = cluster.connect(&name);
    s.run(WORK);
    s.run("INSERT INTO work VALUES ('first')");
    s.run(
        "BEGIN; INSERT INTO work VALUES ('prepared 1'); SAVEPOINT a; INSERT INTO work VALUES ('gone'); ROLLBACK TO a",
    );
    s.run("INSERT INTO work VALUES ('prepared 2'); PREPARE TRANSACTION 'kept'");
    // The same backend, whose own chain is taken now
    s.run("SET lock_timeout = '5s'; INSERT INTO work VALUES ('meanwhile 1')");
    s.run("BEGIN; INSERT INTO work VALUES ('prepared 3'); PREPARE TRANSACTION 'dropped'");
    s.run("INSERT INTO work VALUES ('meanwhile 2')");
    assert_clean(&mut s);
    drop(s);

    cluster.restart();
    thread::scope(|scope| {
        for writer in 0..10 {
            let (cluster, name) = (&cluster, &name);
            scope.spawn(move || {
                let mut s = cluster.connect(name);
                s.run("SET lock_timeout = '5s'");
                for round in 0..20 {
                    s.run(&format!("INSERT INTO work VALUES ('{writer} {round}')"));
                }
            });
        }
    });
    let mut s = cluster.connect(&name);
    assert_clean(&mut s);
    s.run("COMMIT PREPARED 'kept'");
    s.run("ROLLBACK PREPARED 'dropped'");
    let marks = recorded_marks(&mut s);
    assert_eq!(marks.len(), 1 + 2 + 2 + 200);
    assert!(marks.contains("prepared 1") && marks.contains("prepared 2"));
    assert!(!marks.contains("prepared 3") && !marks.contains("gone"));
    assert_clean(&mut s);
    s.run("INSERT INTO work VALUES ('last')");
    assert_clean(&mut s);
    assert_eq!(s.column("SELECT mark FROM work").into_iter().collect::<BTreeSet<_>>(), recorded_marks(&mut s));
}

#[test]
fn prepared_transactions_survive_a_crash() {
    let mut cluster = Cluster::builder().durable().start();
    let name = cluster.database().name;
    let mut s = cluster.connect(&name);
    s.run(WORK);
    s.run("BEGIN; INSERT INTO work VALUES ('prepared'); PREPARE TRANSACTION 'kept'");
    cluster.stop_immediately();
    cluster.start();
    let mut s = cluster.connect(&name);
    s.run("INSERT INTO work VALUES ('meanwhile')");
    assert_clean(&mut s);
    s.run("COMMIT PREPARED 'kept'");
    assert_eq!(recorded_marks(&mut s).len(), 2);
    assert_clean(&mut s);
}

#[test]
fn many_backends_prepare_and_others_finish() {
    let database = database();
    database.connect().run(WORK);
    thread::scope(|scope| {
        for writer in 0..5 {
            let database = &database;
            scope.spawn(move || {
                let mut s = database.connect();
                for round in 0..10 {
                    let name = format!("{}.{writer}.{round}", database.name);
                    s.run(&format!("BEGIN; INSERT INTO work VALUES ('{name}'); PREPARE TRANSACTION '{name}'"));
                    let mut other = database.connect();
                    other.run(&format!("INSERT INTO work VALUES ('{name} other')"));
                    other.run(&format!("{} PREPARED '{name}'", if round % 3 == 0 { "ROLLBACK" } else { "COMMIT" }));
                    s.run(&format!("INSERT INTO work VALUES ('{name} after')"));
                }
            });
        }
    });
    let mut s = database.connect();
    assert_eq!(recorded_marks(&mut s).len(), 5 * (10 + 10 + 6));
    assert_clean(&mut s);
}

// ---- Fewer chains than writers ----

fn write_with_chains(database: &Database<'_>, chains: u32, clients: u32) {
    let mut s = database.connect();
    s.run(WORK);
    s.run(&format!(r#"ALTER DATABASE "{}" SET audit.chains = {chains}"#, database.name));
    let before = s.number("SELECT coalesce(max(id), 0) FROM audit.log");
    thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut s = database.connect();
                s.run("SET statement_timeout = '60s'");
                let mut rng = Rng::new(client.into());
                for round in 0..20 {
                    random_transaction(&mut s, &mut rng, &format!("{client}.{round}")).expect("nothing fails");
                }
            });
        }
    });
    let used = s.number(&format!("SELECT count(DISTINCT chain) FROM audit.log WHERE id > {before}"));
    assert!(used <= i64::from(chains), "{used} chains used, {chains} allowed");
    let rows: BTreeSet<String> = s.column("SELECT mark FROM work").into_iter().collect();
    assert_eq!(recorded_marks(&mut s), rows);
    assert_clean(&mut s);
}

#[test]
fn twelve_clients_share_three_chains() {
    write_with_chains(&database(), 3, 12);
}

#[test]
fn one_chain_is_one_order_for_all() {
    let database = database();
    write_with_chains(&database, 1, 8);
    let mut s = database.connect();
    // One chain: the order of the chain is the order of the ids, and no transaction is mixed with another.
    let runs = s.number(
        "SELECT count(*) FROM (SELECT xid, lag(xid) OVER (ORDER BY chain, seq) AS before FROM audit.log WHERE chain = 1) e
          WHERE xid IS DISTINCT FROM before",
    );
    assert_eq!(runs, s.number("SELECT count(DISTINCT xid) FROM audit.log WHERE chain = 1"));
}

#[test]
fn only_superusers_choose_the_number_of_chains() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE ROLE chains_ordinary LOGIN");
    s.run(WORK);
    s.run("GRANT INSERT ON work TO chains_ordinary");
    let mut role = database.connect_as("chains_ordinary");
    role.run("INSERT INTO work VALUES ('1')");
    assert_eq!(role.sqlstate("SET audit.chains = 1"), "42501");
    // Set before the library is loaded, it does not count either.
    let mut role = database.connect_as("chains_ordinary");
    if role.batch_execute("SET audit.chains = 1").is_ok() {
        role.run("INSERT INTO work VALUES ('2')");
        assert_eq!(role.text("SHOW audit.chains"), "0");
    }
    assert_eq!(s.sqlstate("SET audit.chains = -1"), "22023");
}

/// A lock taken inside a savepoint goes with the savepoint; the chain must not.
#[test]
fn a_chain_first_used_in_a_rolled_back_savepoint_stays_with_its_transaction() {
    let database = database();
    let (mut first, mut second) = (database.connect(), database.connect());
    first.run(WORK);
    first.run("SET audit.chains = 1; BEGIN; SAVEPOINT a; INSERT INTO work VALUES ('gone'); ROLLBACK TO a");
    first.run("INSERT INTO work VALUES ('1a')");
    second.run("SET audit.chains = 1; SET lock_timeout = '300ms'");
    assert_eq!(second.sqlstate("INSERT INTO work VALUES ('2a')"), "55P03");
    first.run("INSERT INTO work VALUES ('1b'); COMMIT");
    second.run("INSERT INTO work VALUES ('2b')");
    // And where nothing is left of the first use
    first.run("BEGIN; SAVEPOINT a; INSERT INTO work VALUES ('gone'); ROLLBACK TO a; RELEASE a");
    let _ = second.batch_execute("INSERT INTO work VALUES ('2c')");
    first.run("INSERT INTO work VALUES ('1c'); COMMIT");
    second.run("INSERT INTO work VALUES ('2d')");
    assert_clean(&mut first);
    // The same at prepared transactions
    first.run("RESET audit.chains; BEGIN; SAVEPOINT a; INSERT INTO work VALUES ('gone'); ROLLBACK TO a; INSERT INTO work VALUES ('p')");
    first.run("PREPARE TRANSACTION 'chains_savepoint'; INSERT INTO work VALUES ('1d')");
    second.run("COMMIT PREPARED 'chains_savepoint'");
    first.run("INSERT INTO work VALUES ('1e')");
    assert_clean(&mut first);
}

/// Deadlocks that would not be there without the log are the price of sharing chains; the server finds them.
#[test]
fn a_deadlock_over_shared_chains_is_found_by_the_server() {
    let database = database();
    let (mut first, mut second) = (database.connect(), database.connect());
    first.run(WORK);
    first.run("INSERT INTO work VALUES ('row')");
    first.run("SET audit.chains = 1; SET deadlock_timeout = '100ms'; SET statement_timeout = '20s'");
    second.run("SET audit.chains = 1; SET deadlock_timeout = '100ms'; SET statement_timeout = '20s'");
    first.run("BEGIN; INSERT INTO work VALUES ('1')");
    second.run("BEGIN; SELECT * FROM work WHERE mark = 'row' FOR UPDATE");
    thread::scope(|scope| {
        let other = scope.spawn(|| second.batch_execute("INSERT INTO work VALUES ('2'); COMMIT"));
        thread::sleep(Duration::from_millis(50));
        let own = first.batch_execute("UPDATE work SET v = 1 WHERE mark = 'row'; COMMIT");
        let codes: Vec<_> = [own, other.join().expect("no panic")]
            .into_iter()
            .filter_map(Result::err)
            .map(|error| error.code().map(|code| code.code().to_owned()))
            .collect();
        assert_eq!(codes, [Some("40P01".to_owned())]);
    });
    for session in [&mut first, &mut second] {
        session.run("ROLLBACK");
    }
    assert_clean(&mut first);
}

/// A superuser can set the sequence back. A chain that has entries moves it on again, because ids grow along a chain; one that has none
/// cannot know.
#[test]
fn a_sequence_of_ids_that_was_set_back_moves_forward_again() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("INSERT INTO work SELECT 'mark ' || g FROM generate_series(1, 100) g");
    for value in 1..=3 {
        s.run(&format!("SELECT setval('audit.log_id_seq', 5); UPDATE work SET v = {value} WHERE mark = 'mark 1'"));
    }
    assert_eq!(s.column("SELECT new ->> 'v' FROM audit.log WHERE op = 'UPDATE' ORDER BY id"), ["1", "2", "3"]);
    assert_eq!(s.number("SELECT count(*) - count(DISTINCT id) FROM audit.log"), 0);
    assert_clean(&mut s);
}

/// Each writer appends in the middle of the primary key, behind its own chain. The server fills pages there only where keys are short (docs/design/0010-key-of-the-log.md).
#[test]
fn the_key_of_the_log_is_dense_though_each_chain_grows_in_the_middle_of_it() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    // Chain 1, below the chain of PROTECT, which is one of those that belong to one writer.
    s.run("SET audit.chains = 1; INSERT INTO work SELECT g FROM generate_series(1, 20000) g");
    assert_eq!(s.column("SELECT DISTINCT chain > 1000000 FROM audit.log ORDER BY 1"), ["f", "t"]);
    let bytes = s.number("SELECT pg_relation_size('audit.log_pkey') / count(*) FROM audit.log");
    assert!(bytes < 36, "{bytes} bytes an entry");
}

/// The key of the log has 32 bits of the ledger. Entries of another ledger with the same ones, behind those of our own, are in nobody's way; one at the place of another is refused.
#[test]
fn ledgers_that_share_a_prefix_are_told_apart() {
    const OTHER: &str = "overlay(ledger::text PLACING 'ffffffffffff' FROM 25)::uuid";
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("SET audit.chains = 1; INSERT INTO work VALUES ('a'), ('b')");
    let forged = |seq: &str| {
        format!(
            "CREATE TEMP TABLE forged AS SELECT * FROM audit.log WHERE chain = 1; UPDATE forged SET ledger = {OTHER}, seq = {seq};
             INSERT INTO audit.log SELECT * FROM forged; DROP TABLE forged"
        )
    };
    guards_off(&mut s, "audit.log", &forged("seq + 100"));
    s.run("INSERT INTO work VALUES ('c')");
    let own =
        s.column("SELECT seq FROM audit.log WHERE chain = 1 AND ledger = (SELECT id FROM audit.ledger) ORDER BY seq");
    assert_eq!(own, ["1", "2", "3"]);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE chain = 1"), 5);
    assert!(s.text("SELECT audit.line(1, 3)").contains(r#"{"mark":"c"}"#));
    assert_eq!(s.value("SELECT audit.line(1, 101)"), None);
    // Now at places that are taken.
    s.run("ALTER TABLE audit.log DISABLE TRIGGER ALL");
    assert_eq!(s.sqlstate(&forged("seq")), "23505");
}

#[test]
fn sessions_of_a_pool_carry_nothing_over() {
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    for round in 0..3 {
        s.run(&format!("SET audit.context = '{{\"round\":{round}}}'; INSERT INTO work VALUES ('{round}')"));
        s.run("DISCARD ALL");
        s.run(&format!("INSERT INTO work VALUES ('{round} after')"));
    }
    assert_eq!(
        s.column(
            "SELECT (key ->> 'mark') || coalesce(context::text, '') FROM audit.log WHERE op = 'INSERT' ORDER BY id"
        ),
        [r#"0{"round":0}"#, "0 after", r#"1{"round":1}"#, "1 after", r#"2{"round":2}"#, "2 after"]
    );
    assert_clean(&mut s);
}

// ---- One request, two connections ----

#[test]
fn one_thread_with_two_open_transactions_does_not_wait_for_itself() {
    let database = database();
    let (mut first, mut second) = (database.connect(), database.connect());
    first.run(WORK);
    for session in [&mut first, &mut second] {
        session.run("SET lock_timeout = '5s'; SET statement_timeout = '10s'");
    }
    first.run("BEGIN; INSERT INTO work VALUES ('1a')");
    second.run("BEGIN; INSERT INTO work VALUES ('2a')");
    first.run("INSERT INTO work VALUES ('1b')");
    second.run("INSERT INTO work VALUES ('2b'); COMMIT");
    second.run("INSERT INTO work VALUES ('2c')");
    first.run("INSERT INTO work VALUES ('1c'); COMMIT");
    assert_eq!(recorded_marks(&mut first).len(), 6);
    assert_clean(&mut first);
}

/// With one global chain it has to wait, and the usual timeouts end that.
#[test]
fn with_one_chain_the_second_transaction_waits_until_its_timeout() {
    let database = database();
    let (mut first, mut second) = (database.connect(), database.connect());
    first.run(WORK);
    first.run("SET audit.chains = 1; BEGIN; INSERT INTO work VALUES ('1a')");
    second.run("SET audit.chains = 1; SET lock_timeout = '300ms'");
    assert_eq!(second.sqlstate("INSERT INTO work VALUES ('2a')"), "55P03");
    first.run("INSERT INTO work VALUES ('1b'); COMMIT");
    second.run("INSERT INTO work VALUES ('2b')");
    assert_eq!(recorded_marks(&mut first), ["1a", "1b", "2b"].map(str::to_owned).into());
    assert_clean(&mut first);
}

/// `pg_advisory_unlock_all` is everybody's; it must not give the chain away.
#[test]
fn no_unlocking_of_a_user_gives_a_chain_away() {
    let database = database();
    let (mut first, mut second) = (database.connect(), database.connect());
    first.run(WORK);
    first.run("SET audit.chains = 1; BEGIN; INSERT INTO work VALUES ('1a'); SELECT pg_advisory_unlock_all()");
    second.run("SET audit.chains = 1; SET lock_timeout = '300ms'");
    assert_eq!(second.sqlstate("INSERT INTO work VALUES ('2a')"), "55P03");
    first.run("INSERT INTO work VALUES ('1b'); COMMIT");
    second.run("INSERT INTO work VALUES ('2b')");
    assert_clean(&mut first);
}

#[test]
fn no_advisory_lock_of_a_user_stops_writers() {
    let database = database();
    let (mut s, mut thief) = (database.connect(), database.connect());
    s.run(WORK);
    s.run("BEGIN; INSERT INTO work VALUES ('1')");
    // Whatever the writer holds, taken as an advisory lock by somebody who read pg_locks
    let held = s.rows(
        "SELECT classid, objid FROM pg_locks WHERE pid = pg_backend_pid() AND locktype NOT IN ('relation', 'virtualxid', 'transactionid')
          AND classid IS NOT NULL AND objid IS NOT NULL",
    );
    s.run("COMMIT");
    for lock in held {
        let number = |text: &Option<String>| {
            text.clone().unwrap_or_default().parse::<u32>().expect("lock fields are numbers").cast_signed()
        };
        let (class, object) = (number(&lock[0]), number(&lock[1]));
        thief.run(&format!("SELECT pg_advisory_lock({class}, {object})"));
        thief.run(&format!("SELECT pg_advisory_lock(({class}::bigint << 32) | {object})"));
    }
    s.run("SET lock_timeout = '2s'; SET audit.chains = 1; INSERT INTO work VALUES ('2'); RESET audit.chains; INSERT INTO work VALUES ('3')");
    assert_clean(&mut s);
}

// ---- Crashes ----

/// What a writer knows to be committed, and what may or may not be: the COMMIT whose answer never came.
#[derive(Default)]
struct Memory {
    committed: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

impl Memory {
    fn add(&mut self, other: Memory) {
        self.committed.extend(other.committed);
        self.unknown.extend(other.unknown);
    }
}

/// Writes until told to stop, over as many connections as it takes.
fn write_until(config: &Config, name: &str, stop: &AtomicBool) -> Memory {
    let mut memory = Memory::default();
    let mut session: Option<Session> = None;
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Some(s) = session.as_mut() else {
            session = Session::try_connect(config.clone()).ok();
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let marks = [format!("{name}.{round}.a"), format!("{name}.{round}.b")];
        let work = format!(
            "BEGIN; INSERT INTO work VALUES ('{}'), ('{}'); UPDATE work SET v = v + 1 WHERE mark = '{}'",
            marks[0], marks[1], marks[0]
        );
        if s.batch_execute(&work).is_err() {
            session = None;
        } else if s.batch_execute("COMMIT").is_err() {
            memory.unknown.extend(marks);
            session = None;
        } else {
            memory.committed.extend(marks);
        }
    }
    memory
}

/// Has eight writers write while a disaster happens, and returns what they remember. `name` tells this load from others.
fn under_load(config: &Config, name: &str, disaster: impl FnOnce()) -> Memory {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let stop = &stop;
                scope.spawn(move || write_until(config, &format!("{name}.{writer}"), stop))
            })
            .collect();
        thread::sleep(Duration::from_millis(700));
        disaster();
        stop.store(true, Ordering::Relaxed);
        let mut memory = Memory::default();
        for writer in writers {
            memory.add(writer.join().expect("no writer panics"));
        }
        memory
    })
}

/// Nothing acknowledged is missing, nothing unheard of is there, rows and entries agree, and the chains are whole.
#[track_caller]
fn assert_remembered(s: &mut Session, memory: &Memory) {
    assert!(memory.committed.len() > 20, "{} commits make no load", memory.committed.len());
    let recorded = recorded_marks(s);
    let missing: Vec<_> = memory.committed.difference(&recorded).collect();
    assert!(missing.is_empty(), "committed, but not in the log: {missing:?}");
    let unheard: Vec<_> =
        recorded.iter().filter(|mark| !memory.committed.contains(*mark) && !memory.unknown.contains(*mark)).collect();
    assert!(unheard.is_empty(), "in the log, but never committed: {unheard:?}");
    assert_eq!(recorded, s.column("SELECT mark FROM work").into_iter().collect());
    assert_clean(s);
}

#[test]
fn a_backend_killed_in_the_middle_leaves_whole_chains() {
    let cluster = Cluster::builder().durable().start();
    let name = cluster.database().name;
    cluster.connect(&name).run(WORK);
    let config = cluster.config(&name, "postgres");
    let memory = under_load(&config, "load", || {
        let mut victim = cluster.connect(&name);
        let pid = victim.backend_pid();
        victim.run("BEGIN; INSERT INTO work SELECT 'victim ' || g FROM generate_series(1, 100) g");
        cluster.signal("KILL", pid);
        // The server ends all backends, recovers, and takes the writers back.
        thread::sleep(Duration::from_millis(1500));
    });
    let begun = Instant::now();
    let mut s = loop {
        match Session::try_connect(config.clone()) {
            Ok(session) => break session,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    assert!(cluster.server_log().contains("was terminated by signal 9"));
    assert_remembered(&mut s, &memory);
}

#[test]
fn an_immediate_stop_under_load_leaves_whole_chains() {
    crash_twice(Cluster::stop_immediately);
}

#[test]
fn a_killed_postmaster_under_load_leaves_whole_chains() {
    crash_twice(Cluster::kill_postmaster);
}

/// VACUUM looks at times whether the postmaster is still there, and else ends the process where it stands: the transaction is rolled back when the C library has already taken things away.
#[test]
fn a_vacuum_that_finds_the_postmaster_gone_ends_without_a_fault() {
    let cluster = Cluster::builder().start();
    let name = cluster.database().name;
    let mut s = cluster.connect(&name);
    s.run(WORK);
    s.run("INSERT INTO work SELECT i::text FROM generate_series(1, 20000) AS i; SET vacuum_cost_delay = 50; SET vacuum_cost_limit = 1");
    let pid = s.backend_pid();
    let mut other = cluster.connect(&name);
    thread::scope(|scope| {
        let vacuum = scope.spawn(move || s.simple_query("VACUUM (FREEZE) work").is_err());
        wait_until("the vacuum sleeps", || {
            other.holds(&format!(
                "SELECT wait_event IS NOT DISTINCT FROM 'VacuumDelay' FROM pg_stat_activity WHERE pid = {pid}"
            ))
        });
        cluster.signal("KILL", cluster.postmaster());
        assert!(vacuum.join().expect("it does not panic"), "VACUUM went on");
    });
    let log = cluster.server_log();
    let last_words: Vec<_> =
        log.lines().filter(|line| line.contains(&format!("[{pid}]")) && line.contains("FATAL")).collect();
    assert!(last_words.is_empty(), "{last_words:?}");
}

fn crash_twice(crash: fn(&mut Cluster)) {
    let mut cluster = Cluster::builder().durable().start();
    let name = cluster.database().name;
    cluster.connect(&name).run(WORK);
    let mut memory = Memory::default();
    for round in ["first", "second"] {
        let config = cluster.config(&name, "postgres");
        memory.add(under_load(&config, round, || crash(&mut cluster)));
        cluster.start();
        assert_remembered(&mut cluster.connect(&name), &memory);
    }
}
