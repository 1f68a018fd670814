//! Sealing: every committed entry is counted once, in whatever way people write and whoever seals; and it costs what is new.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use audit_tests::{Cluster, Database, Rng, Session, assert_clean, assert_seals, database, guards_off};

const WORK: &str = "CREATE TABLE work (mark text PRIMARY KEY, v int NOT NULL DEFAULT 0); SELECT audit.protect('work')";

fn work() -> Database<'static> {
    let database = database();
    database.connect().run(WORK);
    database
}

/// Seals; the number of the seal, if there was anything new.
#[track_caller]
fn seal(s: &mut Session) -> Option<i64> {
    s.value("SELECT audit.seal()").map(|number| number.parse().expect("a number"))
}

// ---- What a seal counts ----

#[test]
fn nothing_new_makes_no_seal() {
    let database = database();
    let mut s = database.connect();
    assert_eq!(seal(&mut s), None);
    s.run(WORK);
    assert_eq!(seal(&mut s), Some(1));
    assert_eq!(seal(&mut s), None);
    assert_eq!(seal(&mut database.connect()), None);
    s.run("INSERT INTO work VALUES ('a')");
    assert_eq!(seal(&mut database.connect()), Some(2));
    assert_eq!(seal(&mut s), None);
    let seals = assert_seals(&mut s);
    assert_eq!((seals.seals.len(), seals.leaves.len(), seals.unsealed), (2, 2, 0));
    assert!(s.holds(
        "SELECT bool_and(system_identifier = (SELECT system_identifier FROM pg_control_system()) AND timeline = 1) FROM audit.seal"
    ));
    assert_clean(&mut s);
}

#[test]
fn concurrent_sealers_count_each_entry_of_concurrent_writers_once() {
    let database = work();
    let done = AtomicBool::new(false);
    let barrier = Barrier::new(19);
    thread::scope(|scope| {
        let sealers: Vec<_> = (0..3)
            .map(|sealer| {
                let (database, barrier, done) = (&database, &barrier, &done);
                scope.spawn(move || {
                    let mut s = database.connect();
                    if sealer == 2 {
                        s.run("SET default_transaction_isolation = 'serializable'");
                    }
                    barrier.wait();
                    let mut seals = 0;
                    while !done.load(Ordering::Relaxed) {
                        seals += usize::from(seal(&mut s).is_some());
                    }
                    seals
                })
            })
            .collect();
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let (database, barrier) = (&database, &barrier);
                scope.spawn(move || {
                    let mut s = database.connect();
                    let mut rng = Rng::new(writer);
                    barrier.wait();
                    for round in 0..150 {
                        let mark = format!("{writer}.{round}");
                        s.run(&format!(
                            "BEGIN; INSERT INTO work SELECT '{mark}.' || g FROM generate_series(0, {}) g",
                            rng.below(6)
                        ));
                        s.run(&format!("SAVEPOINT a; INSERT INTO work VALUES ('{mark}.a')"));
                        s.run(if rng.chance(50) { "ROLLBACK TO a" } else { "RELEASE a" });
                        s.run(&format!("INSERT INTO work VALUES ('{mark}.b')"));
                        s.run(if rng.chance(20) { "ROLLBACK" } else { "COMMIT" });
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("no writer panics");
        }
        done.store(true, Ordering::Relaxed);
        for sealer in sealers {
            assert!(sealer.join().expect("no sealer panics") > 10, "each sealer has had its turns");
        }
    });
    let mut s = database.connect();
    seal(&mut s);
    let seals = assert_seals(&mut s);
    assert_eq!(seals.unsealed, 0);
    assert!(seals.leaves.len() > 5000, "{} entries make no load", seals.leaves.len());
    assert_clean(&mut s);
}

#[test]
fn open_transactions_are_neither_waited_for_nor_counted() {
    let database = work();
    let (mut s, mut open) = (database.connect(), database.connect());
    open.run("BEGIN; INSERT INTO work VALUES ('open')");
    s.run("INSERT INTO work VALUES ('a'); SET lock_timeout = '5s'");
    assert_eq!(seal(&mut s), Some(1));
    assert_eq!(assert_seals(&mut s).leaves.len(), 2);
    open.run("INSERT INTO work VALUES ('open 2')");
    assert_eq!(seal(&mut s), None);
    open.run("COMMIT");
    assert_eq!(seal(&mut s), Some(2));
    let seals = assert_seals(&mut s);
    assert_eq!((seals.leaves.len(), seals.unsealed), (4, 0));
}

#[test]
fn prepared_transactions_are_counted_once_they_are_committed() {
    let database = work();
    let mut s = database.connect();
    s.run("BEGIN; INSERT INTO work VALUES ('kept'); PREPARE TRANSACTION 'seals_kept'");
    s.run("BEGIN; INSERT INTO work VALUES ('dropped'); PREPARE TRANSACTION 'seals_dropped'; INSERT INTO work VALUES ('a')");
    assert_eq!(seal(&mut s), Some(1));
    assert_eq!(assert_seals(&mut s).leaves.len(), 2);
    s.run("COMMIT PREPARED 'seals_kept'");
    s.run("ROLLBACK PREPARED 'seals_dropped'");
    assert_eq!(seal(&mut s), Some(2));
    let seals = assert_seals(&mut s);
    assert_eq!((seals.leaves.len(), seals.unsealed), (3, 0));
}

#[test]
fn a_transaction_that_has_sealed_cannot_be_prepared() {
    let database = work();
    let mut s = database.connect();
    for sql in
        ["SELECT audit.seal()", "SAVEPOINT a; SELECT audit.seal(); ROLLBACK TO a", "SELECT audit.seal(), audit.seal()"]
    {
        s.run(&format!("BEGIN; INSERT INTO work VALUES ('x'); {sql}"));
        let refusal = s.refused("PREPARE TRANSACTION 'seals_never'");
        assert_eq!(
            (refusal.code().code(), refusal.hint()),
            ("0A000", Some("Call audit.seal() in a transaction of its own."))
        );
    }
    // The next transaction may.
    s.run("BEGIN; INSERT INTO work VALUES ('x'); PREPARE TRANSACTION 'seals_fine'");
    s.run("ROLLBACK PREPARED 'seals_fine'");
    assert_eq!(seal(&mut s), Some(1));
    assert_eq!(assert_seals(&mut s).leaves.len(), 1);
}

#[test]
fn own_entries_are_sealed_and_rolled_back_with_their_transaction() {
    let database = work();
    let mut s = database.connect();
    assert_eq!(seal(&mut s), Some(1));
    s.run("BEGIN; INSERT INTO work VALUES ('a')");
    assert_eq!(seal(&mut s), Some(2));
    s.run("INSERT INTO work VALUES ('b')");
    assert_eq!(seal(&mut s), Some(3));
    assert_eq!(assert_seals(&mut database.connect()).seals.len(), 1);
    s.run("ROLLBACK");
    assert_eq!(seal(&mut s), None);
    s.run("BEGIN; INSERT INTO work VALUES ('c')");
    assert_eq!(seal(&mut s), Some(2));
    s.run("COMMIT; INSERT INTO work VALUES ('d')");
    assert_eq!(seal(&mut s), Some(3));
    let seals = assert_seals(&mut s);
    assert_eq!((seals.leaves.len(), seals.unsealed), (3, 0));
}

#[test]
fn savepoints_around_a_seal_take_it_back() {
    let database = work();
    let mut s = database.connect();
    s.run("INSERT INTO work SELECT g FROM generate_series(1, 300) g; BEGIN; SAVEPOINT a");
    assert_eq!(seal(&mut s), Some(1));
    s.run("ROLLBACK TO a");
    assert_eq!(s.number("SELECT count(*) FROM audit.seal"), 0);
    s.run("INSERT INTO work VALUES ('kept'); SAVEPOINT b; INSERT INTO work VALUES ('gone')");
    assert_eq!(seal(&mut s), Some(1));
    s.run("ROLLBACK TO b; INSERT INTO work VALUES ('kept 2')");
    assert_eq!(seal(&mut s), Some(1));
    s.run("SAVEPOINT c");
    assert_eq!(seal(&mut s), None);
    s.run("RELEASE c; INSERT INTO work VALUES ('kept 3')");
    assert_eq!(seal(&mut s), Some(2));
    s.run("COMMIT");
    let seals = assert_seals(&mut s);
    assert_eq!((seals.leaves.len(), seals.unsealed), (304, 0));
    // Caught errors are savepoints, too.
    s.run("INSERT INTO work VALUES ('last')");
    s.run("DO $$ BEGIN BEGIN PERFORM audit.seal(); RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END; END $$");
    assert_eq!(seal(&mut s), Some(3));
    assert_eq!(assert_seals(&mut s).unsealed, 0);
}

#[test]
fn old_snapshots_seal_what_is_new_and_go_on_from_the_newest_seal() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let database = work();
        let (mut s, mut other) = (database.connect(), database.connect());
        s.run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM work"));
        other.run("INSERT INTO work SELECT g FROM generate_series(1, 600) g");
        assert_eq!(seal(&mut other), Some(1));
        other.run("INSERT INTO work VALUES ('a')");
        assert_eq!(s.number("SELECT count(*) FROM audit.seal"), 0);
        assert_eq!(seal(&mut s), Some(2), "{level}");
        // Writers in SERIALIZABLE take no harm from it.
        other.run("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO work VALUES ('b'); COMMIT");
        s.run("COMMIT");
        assert_eq!(seal(&mut other), Some(3));
        let seals = assert_seals(&mut other);
        assert_eq!((seals.leaves.len(), seals.unsealed), (603, 0));
    }
}

#[test]
fn a_second_sealer_waits_for_the_first() {
    let database = work();
    let (mut first, mut second) = (database.connect(), database.connect());
    first.run("BEGIN");
    assert_eq!(seal(&mut first), Some(1));
    second.run("INSERT INTO work VALUES ('a'); SET lock_timeout = '100ms'");
    assert_eq!(second.sqlstate("SELECT audit.seal()"), "55P03");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            second.run("SET lock_timeout = 0");
            seal(&mut second)
        });
        thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        first.run("ROLLBACK");
        assert_eq!(waiting.join().expect("no panic"), Some(1));
    });
    // Writers never wait for a sealer.
    first.run("BEGIN; INSERT INTO work VALUES ('b')");
    assert_eq!(seal(&mut first), Some(2));
    second.run("SET lock_timeout = '5s'; INSERT INTO work VALUES ('c')");
    first.run("COMMIT");
    assert_eq!(seal(&mut second), Some(3));
    assert_eq!(assert_seals(&mut first).unsealed, 0);
}

#[test]
fn a_tree_of_many_tiles_grows_by_seals_of_all_sizes() {
    let database = work();
    let (mut a, mut b) = (database.connect(), database.connect());
    let mut made = 0;
    // Two sealers by turns: one remembers the edge, the other reads it from the tiles.
    for (round, count) in [1, 254, 1, 1, 255, 256, 257, 1000, 3, 60_000, 4_000, 1, 700].into_iter().enumerate() {
        let (writer, sealer) = if round % 3 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        writer.run(&format!("INSERT INTO work SELECT 'r{round}.' || g FROM generate_series(1, {count}) g"));
        assert_eq!(seal(sealer), Some(round as i64 + 1));
        made += count;
    }
    let seals = assert_seals(&mut a);
    assert_eq!((seals.leaves.len(), seals.unsealed), (made + 1, 0));
    assert_eq!(a.number("SELECT count(*) FROM audit.tile WHERE level = 1"), 1);
    // Hashes are stored as they are, and out of line.
    assert!(a.holds("SELECT bool_and(pg_column_size(hashes) = 8192) FROM audit.tile"));
    assert!(a.holds("SELECT pg_relation_size('audit.tile') < 8192 * 40"));
}

// ---- Where sealing is refused ----

#[test]
fn sealing_is_refused_on_a_standby_and_in_read_only_transactions() {
    let cluster = Cluster::builder().start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(WORK);
    let standby = cluster.standby();
    cluster.wait_for(&standby);
    let mut reader = standby.connect(&database.name);
    let refusal = reader.refused("SELECT audit.seal()");
    assert_eq!((refusal.code().code(), refusal.message()), ("25006", "cannot seal on a standby server"));
    assert!(refusal.hint().is_some());
    let refusal = s.refused("BEGIN READ ONLY; SELECT audit.seal()");
    assert_eq!((refusal.code().code(), refusal.message()), ("25006", "cannot seal in a read-only transaction"));
    s.run("ROLLBACK");
    // Seals reach the standby, and it goes on with them once it is promoted, on a timeline of its own.
    assert_eq!(seal(&mut s), Some(1));
    cluster.wait_for(&standby);
    assert_eq!(assert_seals(&mut reader).seals.len(), 1);
    reader.run("SELECT pg_promote()");
    reader.run("INSERT INTO work VALUES ('promoted')");
    assert_eq!(seal(&mut reader), Some(2));
    let seals = assert_seals(&mut reader);
    assert_eq!(seals.unsealed, 0);
    assert_eq!(seals.seals.iter().map(|(seal, _)| seal.timeline).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn nobody_may_seal_or_read_seals_unless_it_was_granted() {
    let database = work();
    let mut s = database.connect();
    s.run("INSERT INTO work SELECT g FROM generate_series(1, 300) g");
    assert_eq!(seal(&mut s), Some(1));
    s.run("CREATE ROLE seals_nobody LOGIN; CREATE ROLE seals_sealer LOGIN; CREATE ROLE seals_writer LOGIN");
    s.run("GRANT USAGE ON SCHEMA audit TO seals_nobody, seals_sealer, seals_writer; GRANT EXECUTE ON FUNCTION audit.seal() TO seals_sealer");
    let mut nobody = database.connect_as("seals_nobody");
    for sql in [
        "SELECT audit.seal()",
        "SELECT * FROM audit.seal",
        "SELECT * FROM audit.seal_range",
        "SELECT * FROM audit.tile",
        "INSERT INTO audit.seal (number) VALUES (1)",
        "TRUNCATE audit.tile",
    ] {
        assert_eq!(nobody.sqlstate(sql), "42501", "{sql}");
    }
    // Sealing takes no right but this one.
    s.run("INSERT INTO work VALUES ('a')");
    assert_eq!(seal(&mut database.connect_as("seals_sealer")), Some(2));
    // Rights on the tables do not help against the guards.
    s.run("GRANT ALL ON audit.seal, audit.seal_range, audit.tile TO seals_writer");
    let mut writer = database.connect_as("seals_writer");
    for table in ["seal", "seal_range", "tile"] {
        assert_eq!(writer.sqlstate(&format!("DELETE FROM audit.{table}")), "42501");
        assert_eq!(writer.sqlstate(&format!("INSERT INTO audit.{table} SELECT * FROM audit.{table}")), "42501");
    }
    assert_eq!(assert_seals(&mut s).unsealed, 0);
}

#[test]
fn seals_ranges_and_tiles_are_append_only() {
    let database = work();
    let mut s = database.connect();
    s.run("INSERT INTO work SELECT g FROM generate_series(1, 300) g");
    assert_eq!(seal(&mut s), Some(1));
    for role in ["origin", "replica", "local"] {
        s.run(&format!("SET session_replication_role = {role}"));
        for (table, column) in [("seal", "root"), ("seal_range", "head"), ("tile", "hashes")] {
            for sql in [
                format!("UPDATE audit.{table} SET {column} = {column}"),
                format!("UPDATE audit.{table} SET {column} = {column} WHERE false"),
                format!("DELETE FROM audit.{table}"),
                format!("DELETE FROM audit.{table} WHERE false"),
                format!("TRUNCATE audit.{table}"),
                format!("INSERT INTO audit.{table} SELECT * FROM audit.{table}"),
            ] {
                assert_eq!(s.sqlstate(&sql), "42501", "{sql} as {role}");
            }
        }
    }
    assert_eq!(assert_seals(&mut s).unsealed, 0);
    assert_clean(&mut s);
    // A guard that is gone, or a key, is a finding.
    for (change, undo, relation) in [
        (
            "ALTER TABLE audit.tile DISABLE TRIGGER audit_guard_row",
            "ALTER TABLE audit.tile ENABLE ALWAYS TRIGGER audit_guard_row",
            "audit.tile",
        ),
        (
            "ALTER TABLE audit.seal_range DISABLE TRIGGER audit_guard_statement",
            "ALTER TABLE audit.seal_range ENABLE ALWAYS TRIGGER audit_guard_statement",
            "audit.seal_range",
        ),
        (
            "ALTER TABLE audit.seal DROP CONSTRAINT seal_pkey",
            "ALTER TABLE audit.seal ADD PRIMARY KEY (ledger, number)",
            "audit.seal",
        ),
    ] {
        s.run(change);
        let found = s.column("SELECT relation FROM audit.findings() WHERE kind = 'coverage'");
        assert_eq!(found, [relation], "{change}");
        s.run(undo);
    }
    assert_clean(&mut s);
}

// ---- Damage ----

#[test]
fn an_entry_that_is_missing_stops_its_chain_and_no_other() {
    let database = database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run(WORK);
    // Two chains: the second transaction is open while the first commits.
    s.run("INSERT INTO work SELECT g FROM generate_series(1, 5) g; BEGIN; INSERT INTO work VALUES ('a')");
    other.run("INSERT INTO work VALUES ('b'), ('c')");
    s.run("COMMIT");
    let chain = s.number("SELECT chain FROM audit.log WHERE op = 'INSERT' ORDER BY id LIMIT 1");
    let cut = format!("DELETE FROM audit.log WHERE chain = {chain} AND seq = 4");
    guards_off(&mut s, "audit.log", &cut);
    s.notices();
    assert_eq!(seal(&mut s), Some(1));
    let notices = s.notices();
    assert_eq!(notices, [format!("could not seal chain {chain} beyond entry 3: entry 4 is missing or has no hash")]);
    let seals = assert_seals(&mut s);
    assert!(seals.unsealed >= 3, "{}", seals.unsealed);
    assert!(seals.leaves.iter().any(|(other, _, _)| i64::from(*other) != chain));
    other.run("INSERT INTO work VALUES ('d')");
    assert_eq!(seal(&mut s), Some(2));
}

#[test]
fn a_tree_that_was_changed_is_not_continued() {
    for damage in [
        "UPDATE audit.seal SET root = sha256('x')",
        "UPDATE audit.seal SET tree_size = tree_size - 1",
        "UPDATE audit.seal SET tree_size = tree_size + 1",
        "UPDATE audit.seal SET root = '\\x00'",
        "UPDATE audit.seal SET system_identifier = -1.5",
        "UPDATE audit.seal_range SET first_leaf = first_leaf + 1",
        "UPDATE audit.seal_range SET first_seq = first_seq + 1",
        "DELETE FROM audit.seal_range",
        "DELETE FROM audit.tile",
        "UPDATE audit.tile SET root = sha256('x')",
        "UPDATE audit.log SET hash = sha256('x') WHERE seq = 300",
        "DELETE FROM audit.log WHERE seq = 300",
    ] {
        let database = database();
        let mut s = database.connect();
        s.run(WORK);
        s.run("INSERT INTO work SELECT g FROM generate_series(1, 300) g");
        assert_eq!(seal(&mut s), Some(1));
        let table = damage.split(' ').find(|word| word.starts_with("audit.")).expect("it names one");
        guards_off(&mut s, table, damage);
        s.run("INSERT INTO work VALUES ('a')");
        // Another session: this one still holds the edge in memory, which is sound.
        let refusal = database.connect().refused("SELECT audit.seal()");
        assert_eq!(refusal.code().code(), "XX001", "{damage}");
        assert!(refusal.message().starts_with("the tree of sealed entries is damaged: "), "{}", refusal.message());
    }
}

// ---- Crashes ----

/// Lets a sealer and writers work until `crash` is over, and gives the last seal that the sealer knows to be committed.
fn crash_while_sealing(cluster: &mut Cluster, name: &str, round: usize, crash: fn(&mut Cluster, u32)) -> i64 {
    let config = cluster.config(name, "postgres");
    let last = AtomicI64::new(0);
    let mut sealer = cluster.connect(name);
    // The sealing commit must be on disk all the same.
    sealer.run("SET synchronous_commit = off");
    let pid = sealer.backend_pid();
    thread::scope(|scope| {
        for writer in 0..4 {
            let config = config.clone();
            scope.spawn(move || {
                let Ok(mut s) = Session::try_connect(config) else { return };
                for step in 0.. {
                    let sql = format!("SET synchronous_commit = off; INSERT INTO work SELECT '{round}.{writer}.{step}.' || g FROM generate_series(1, 50) g");
                    if s.batch_execute(&sql).is_err() {
                        return;
                    }
                }
            });
        }
        scope.spawn(|| {
            while let Ok(rows) = sealer.simple_query("SELECT audit.seal()") {
                for row in rows {
                    if let postgres::SimpleQueryMessage::Row(row) = row
                        && let Some(number) = row.get(0)
                    {
                        last.store(number.parse().expect("a number"), Ordering::Relaxed);
                    }
                }
            }
        });
        thread::sleep(Duration::from_millis(1500));
        crash(cluster, pid);
    });
    last.into_inner()
}

fn assert_survived(cluster: &Cluster, name: &str, last: i64) {
    let begun = std::time::Instant::now();
    let mut s = loop {
        match Session::try_connect(cluster.config(name, "postgres")) {
            Ok(session) => break session,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    let seals = assert_seals(&mut s);
    assert!(last > 5, "{last} seals make no load");
    assert!(seals.seals.len() as i64 >= last, "seal {last} was lost");
    seal(&mut s);
    assert_eq!(assert_seals(&mut s).unsealed, 0);
    assert_clean(&mut s);
}

#[test]
fn a_sealer_that_is_killed_leaves_whole_seals() {
    let mut cluster = Cluster::builder().durable().start();
    let name = cluster.database().name;
    cluster.connect(&name).run(WORK);
    for round in 0..2 {
        let last = crash_while_sealing(&mut cluster, &name, round, |cluster, sealer| cluster.signal("KILL", sealer));
        assert_survived(&cluster, &name, last);
    }
}

#[test]
fn a_server_that_is_stopped_at_once_leaves_whole_seals() {
    let mut cluster = Cluster::builder().durable().start();
    let name = cluster.database().name;
    cluster.connect(&name).run(WORK);
    let last = crash_while_sealing(&mut cluster, &name, 0, |cluster, _| cluster.stop_immediately());
    cluster.start();
    assert_survived(&cluster, &name, last);
    let last = crash_while_sealing(&mut cluster, &name, 1, |cluster, _| cluster.kill_postmaster());
    cluster.start();
    assert_survived(&cluster, &name, last);
}

#[test]
fn a_cancelled_seal_leaves_nothing_behind() {
    let database = work();
    let mut s = database.connect();
    s.run("INSERT INTO work SELECT g FROM generate_series(1, 100000) g");
    s.run("SET statement_timeout = '40ms'");
    assert_eq!(s.sqlstate("SELECT audit.seal()"), "57014");
    s.run("RESET statement_timeout");
    assert_eq!(s.number("SELECT count(*) FROM audit.tile"), 0);
    assert_eq!(seal(&mut s), Some(1));
    assert_eq!(assert_seals(&mut s).unsealed, 0);
}

// ---- Restoring ----

#[test]
fn seals_are_dumped_and_restored_and_sealing_goes_on() {
    let database = work();
    let cluster = database.cluster;
    let mut s = database.connect();
    for round in 0..3 {
        s.run(&format!("INSERT INTO work SELECT '{round}.' || g FROM generate_series(1, 400) g"));
        assert_eq!(seal(&mut s), Some(round + 1));
    }
    s.run("INSERT INTO work VALUES ('not sealed')");
    let before = assert_seals(&mut s);
    assert_eq!(before.unsealed, 1);
    let file = cluster.file("seals.dump");
    cluster.program("pg_dump", ["-Fc", "-d", &database.name, "-f", &file.to_string_lossy()]);
    for write_first in [false, true] {
        let target = cluster.bare_database();
        cluster.program("pg_restore", ["--exit-on-error", "-d", &target.name, &file.to_string_lossy()]);
        let mut restored = target.connect();
        let after = assert_seals(&mut restored);
        assert_eq!((&after.seals, &after.leaves, after.unsealed), (&before.seals, &before.leaves, 1));
        if write_first {
            restored.run("INSERT INTO work VALUES ('restored')");
        }
        // The door of the restore closes with the first seal as well, and the ledger says that it goes on elsewhere.
        assert_eq!(seal(&mut restored), Some(4));
        assert_eq!(restored.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 1);
        let after = assert_seals(&mut restored);
        assert_eq!(after.seals[..3], before.seals[..]);
        assert_eq!(after.leaves[..before.leaves.len()], before.leaves[..]);
        assert_eq!(after.unsealed, 0);
        assert_eq!(restored.sqlstate("INSERT INTO audit.seal SELECT * FROM audit.seal"), "42501");
        assert_clean(&mut restored);
    }
}

#[test]
fn a_dump_with_changed_seals_is_refused() {
    let database = database();
    let cluster = database.cluster;
    let mut s = database.connect();
    // In one session, so that there is one chain.
    s.run(WORK);
    s.run("INSERT INTO work SELECT g FROM generate_series(1, 300) g");
    assert_eq!(seal(&mut s), Some(1));
    let root = s.text("SELECT encode(root, 'hex') FROM audit.tile");
    let tile = s.text("SELECT left(encode(hashes, 'hex'), 64) FROM audit.tile");
    let head = s.text("SELECT encode(head, 'hex') FROM audit.seal_range ORDER BY first_leaf LIMIT 1");
    let seal_root = s.text("SELECT encode(root, 'hex') FROM audit.seal");
    let zeros = "0".repeat(64);
    let file = cluster.file("seals_changed.sql");
    cluster.program("pg_dump", ["-Fp", "-d", &database.name, "-f", &file.to_string_lossy()]);
    let dump = std::fs::read_to_string(&file).expect("a plain dump is text");
    for (from, to, message) in [
        (format!("\\\\x{root}"), format!("\\\\x{}", "0".repeat(64)), "tile 0 of level 0 is not as it was written"),
        (format!("\\\\x{tile}"), format!("\\\\x{}", "0".repeat(64)), "tile 0 of level 0 is not as it was written"),
        (format!("\\\\x{head}\n"), "\\\\x00\n".to_owned(), "a range of a seal is not as it was written"),
        (format!("\\\\x{seal_root}"), "\\\\x00".to_owned(), "a seal is not as it was written"),
        (format!("\\\\x{zeros}\t\\\\x"), format!("\\\\x{root}\t\\\\x"), "seal 1 is not as it was written"),
    ] {
        // In the rows of audit.seal and behind: entries have zeros, too.
        let at = dump.find("COPY audit.seal ").expect("seals are dumped");
        let changed = format!("{}{}", &dump[..at], dump[at..].replacen(&from, &to, 1));
        assert_ne!(changed, dump, "{message}");
        std::fs::write(&file, &changed).expect("the server's directory can be written");
        let target = cluster.bare_database();
        let output = cluster
            .command("psql")
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &target.name, "-f"])
            .arg(&file)
            .output()
            .expect("psql can be started");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(message), "{message}: {error}");
    }
}

// ---- Cost ----

const SEAL: &str = "SELECT audit.seal()";

#[test]
fn a_seal_does_not_look_at_what_is_not_committed() {
    let database = work();
    let (mut s, mut open, mut prepared) = (database.connect(), database.connect(), database.connect());
    // Seen from the chain of a transaction that has committed before, from a new chain, and behind entries that are new and committed
    open.run("INSERT INTO work VALUES ('before')");
    seal(&mut s);
    open.run("INSERT INTO work SELECT 'new ' || g FROM generate_series(1, 70) g");
    open.run("BEGIN; INSERT INTO work SELECT 'open ' || g FROM generate_series(1, 50000) g");
    prepared.run("BEGIN; INSERT INTO work SELECT 'prepared ' || g FROM generate_series(1, 50000) g; PREPARE TRANSACTION 'seals_bulk'");
    s.run("INSERT INTO work VALUES ('mine'); SELECT 1 FROM audit.seal");
    let touched = s.buffers(SEAL);
    println!("beside 100000 entries that are not committed a seal touches {touched} buffers");
    assert!(touched < 500, "{touched} buffers");
    let seals = assert_seals(&mut s);
    assert_eq!((seals.leaves.len(), seals.unsealed), (73, 0));
    assert!(s.buffers(SEAL) < 100);
    open.run("COMMIT");
    s.run("COMMIT PREPARED 'seals_bulk'");
    seal(&mut s);
    let seals = assert_seals(&mut s);
    assert_eq!((seals.leaves.len(), seals.unsealed), (100_073, 0));
}

/// A seal of a thousand entries in a log of thousands and in one of millions.
#[test]
fn a_seal_costs_what_is_new_and_not_what_is_old() {
    let (small, big) = if audit_tests::large() { (10_000, 10_000_000) } else { (2_000, 200_000) };
    let database = work();
    let mut s = database.connect();
    let mut made = 0;
    let mut costs = Vec::new();
    for size in [small, big] {
        while made < size {
            let step = (size - made).min(500_000);
            s.run(&format!("INSERT INTO work SELECT g FROM generate_series({made} + 1, {made} + {step}) g"));
            made += step;
        }
        seal(&mut s);
        let mut measure = |s: &mut Session| {
            s.run(&format!("INSERT INTO work SELECT 'm' || g FROM generate_series({made} + 1, {made} + 1000) g"));
            made += 1000;
            s.buffers(SEAL)
        };
        let remembered = measure(&mut s);
        let from_tiles = measure(&mut database.connect());
        // The other session has sealed since: the first call finds the edge again.
        seal(&mut s);
        let idle = s.buffers(SEAL);
        println!(
            "{size} entries: a seal of 1000 touches {remembered} buffers, {from_tiles} in a new session; nothing new: {idle}"
        );
        costs.push([remembered, from_tiles, idle]);
    }
    for (small, big) in costs[0].iter().zip(&costs[1]) {
        // Indexes get a level higher, and tiles begin where they begin.
        assert!(*big < small + small / 4 + 200, "{costs:?}");
    }
    assert!(costs[1][2] < 100, "{costs:?}");
}
