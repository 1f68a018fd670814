//! Memory of a backend does not grow with what it has recorded: neither in one statement nor over its life.

use audit_tests::{Session, assert_clean, database, large};

/// Memory that the process has for itself, in kB.
fn rss_anon(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the backend is alive");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

/// The highest that is seen while a statement runs.
fn peak_during(s: &mut Session, statement: &str) -> u64 {
    use std::sync::atomic::{AtomicBool, Ordering};
    let pid = s.backend_pid();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(rss_anon(pid));
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            peak
        });
        s.run(statement);
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the backend lives")
    })
}

/// The server itself keeps a note of each row until its triggers fire; beside that of a trigger that does nothing, ours needs no more.
#[test]
fn one_statement_over_many_rows_needs_no_memory_for_each() {
    let rows = if large() { 10_000_000 } else { 300_000 };
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE plain (id int PRIMARY KEY, v text); CREATE TABLE audited (id int PRIMARY KEY, v text); SELECT audit.protect('audited');
         CREATE TRIGGER nothing AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
         DROP TRIGGER nothing ON plain; CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER nothing AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION nothing()",
    );
    drop(s);
    for change in [
        format!("INSERT INTO {{}} SELECT n, 'value ' || n FROM generate_series(1, {rows}) AS n"),
        "UPDATE {} SET v = v || '.'".to_owned(),
        "DELETE FROM {}".to_owned(),
    ] {
        let mut peaks = Vec::new();
        for table in ["plain", "audited"] {
            let mut s = database.connect();
            // What is loaded once is loaded.
            s.run(&format!("INSERT INTO {table} SELECT n, '' FROM generate_series(-1000, -1) AS n; DELETE FROM {table} WHERE id < 0"));
            peaks.push(peak_during(&mut s, &change.replace("{}", table)));
        }
        println!("{change}: {} kB with a trigger that does nothing, {} kB with ours", peaks[0], peaks[1]);
        assert!(peaks[1] < peaks[0] + 16 * 1024, "{change}: {peaks:?} kB");
    }
    let mut s = database.connect();
    assert_eq!(
        s.number("SELECT count(*) FROM audit.log WHERE op IN ('INSERT', 'UPDATE') AND (key ->> 'id')::int > 0"),
        2 * rows
    );
    if !large() {
        assert_clean(&mut s);
    }
}

#[test]
fn many_transactions_in_one_backend_leave_no_memory_behind() {
    let (batches, size) = if large() { (1000, 1000) } else { (50, 1000) };
    let database = database();
    let mut s = database.connect();
    let pid = s.backend_pid();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v int, w text) WITH (fillfactor = 50); SELECT audit.protect('t'); INSERT INTO t SELECT n, 0 FROM generate_series(1, 100) AS n;
         CREATE TABLE u (id int PRIMARY KEY, v int) PARTITION BY HASH (id); CREATE TABLE u_0 PARTITION OF u FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE u_1 PARTITION OF u FOR VALUES WITH (MODULUS 2, REMAINDER 1); SELECT audit.protect('u'); INSERT INTO u SELECT n, 0 FROM generate_series(1, 100) AS n",
    );
    // Committed, rolled back, with savepoints and with caught errors, in turn.
    let batch = |number: u32| {
        format!(
            "DO $$ BEGIN FOR i IN 1..{size} LOOP
               UPDATE t SET v = i + {number} WHERE id = 1 + i % 100;
               IF i % 5 = 0 THEN UPDATE u SET v = i + {number} WHERE id = 1 + i % 100; END IF;
               IF i % 7 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
               IF i % 11 = 0 THEN
                 BEGIN UPDATE t SET v = 1 / (i - i) WHERE id = 2; EXCEPTION WHEN division_by_zero THEN NULL; END;
                 BEGIN UPDATE t SET w = repeat('x', i * 10) WHERE id = 3; RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN NULL; END;
               END IF;
             END LOOP; END $$"
        )
    };
    for number in 0..5 {
        s.run(&batch(number));
    }
    let before = rss_anon(pid);
    for number in 5..batches {
        s.run(&batch(number));
    }
    let after = rss_anon(pid);
    println!("{before} kB after {} transactions, {after} kB after {}", 5 * size, batches * size);
    assert!(after < before + 4 * 1024, "{before} kB grew to {after} kB");
    assert_eq!(s.backend_pid(), pid);
    if !large() {
        assert_clean(&mut s);
    }
}

/// Also where every statement is a message of the client's, with tables that come and go.
#[test]
fn many_tables_in_one_backend_leave_no_memory_behind() {
    let rounds = if large() { 2000 } else { 120 };
    let database = database();
    let mut s = database.connect();
    let pid = s.backend_pid();
    let round = |s: &mut Session| {
        s.run("CREATE TABLE passing (id int PRIMARY KEY, v text); SELECT audit.protect('passing'); INSERT INTO passing VALUES (1, 'x')");
        s.run("UPDATE passing SET v = 'y'; SELECT audit.unprotect('passing', 'over'); DROP TABLE passing");
    };
    for _ in 0..rounds / 4 {
        round(&mut s);
    }
    let before = rss_anon(pid);
    for _ in 0..rounds {
        round(&mut s);
    }
    let after = rss_anon(pid);
    println!("{before} kB, {after} kB after {rounds} more");
    assert!(after < before + 3 * 1024, "{before} kB grew to {after} kB");
    assert_clean(&mut s);
}
