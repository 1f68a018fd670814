//! audit.verify() and audit.findings() as an auditor meets them: on a standby, with a large log, cancelled, and against the other
//! implementations of the format.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use audit_tests::{Cluster, Database, Session, assert_clean, assert_found, database, guards_off, large};

const ASPECTS: [&str; 11] =
    ["content", "link", "missing", "order", "format", "seal", "tree", "checkpoint", "coverage", "table", "transaction"];

/// A log of about `entries` entries, in a few chains: rows inserted in bulk, then some of them changed.
fn fill(database: &Database<'_>, entries: u64) {
    let mut s = database.connect();
    s.run("CREATE TABLE big (id bigint PRIMARY KEY, name text, v int); SELECT audit.protect('big')");
    let inserts = entries * 9 / 10;
    let step = 1_000_000;
    for first in (0..inserts).step_by(step as usize) {
        let last = inserts.min(first + step) - 1;
        s.run(&format!("INSERT INTO big SELECT g, 'name ' || g, 0 FROM generate_series({first}, {last}) g"));
    }
    s.run(&format!("UPDATE big SET v = v + 1 WHERE id < {}", entries - inserts));
    let mut other = database.connect();
    other.run("INSERT INTO big VALUES (-1, 'another chain', 1)");
}

// ---- What comes back ----

#[test]
fn the_aspects_are_always_the_same_rows() {
    let database = database();
    let mut s = database.connect();
    let what = "SELECT what FROM audit.verify()";
    assert_eq!(s.column(what), ASPECTS);
    assert_clean(&mut s);
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1), (2)");
    assert_eq!(s.column(what), ASPECTS);
    assert_eq!(
        s.column("SELECT checked FROM audit.verify() WHERE what IN ('content', 'link', 'format')"),
        ["3", "3", "3"]
    );
    assert!(s.number("SELECT count(*) FROM audit.verify() WHERE detail IS NULL OR detail = ''") == 0);
    guards_off(&mut s, "audit.log", "DELETE FROM audit.log");
    assert_eq!(s.column(what), ASPECTS);
}

#[test]
fn arguments_that_cannot_be_meant_are_refused() {
    let database = database();
    let mut s = database.connect();
    for text in ["", "audit/x", "audit/x\n1\nno base64\n"] {
        let refused = s.refused(&format!("SELECT * FROM audit.verify(checkpoint => '{text}')"));
        assert_eq!(refused.code().code(), "22P02", "{refused}");
    }
    assert_eq!(s.sqlstate("SELECT * FROM audit.findings(checkpoint => '')"), "22P02");
    assert_eq!(s.sqlstate("SELECT * FROM audit.verify(since_seal => 1)"), "55000");
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); SELECT audit.seal()");
    for number in ["0", "-1", "2", "9223372036854775807"] {
        assert_eq!(s.sqlstate(&format!("SELECT * FROM audit.findings(since_seal => {number})")), "22023");
    }
    s.run("SELECT * FROM audit.verify(NULL, true, NULL); SELECT * FROM audit.findings(NULL, false, NULL)");
}

#[test]
fn a_verdict_can_be_part_of_any_query() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    assert!(s.holds("SELECT every(ok) FROM audit.verify()"));
    assert_eq!(s.number("SELECT count(*) FROM (SELECT * FROM audit.verify() LIMIT 1) v"), 1);
    assert_eq!(s.number("SELECT count(*) FROM generate_series(1, 3), LATERAL audit.verify() WHERE ok"), 33);
    s.run("BEGIN; DECLARE c CURSOR FOR SELECT * FROM audit.export(); FETCH 1 FROM c; CLOSE c; COMMIT");
    s.run("CREATE TABLE kept AS SELECT now() AS at, * FROM audit.verify()");
    s.run("DO $$ BEGIN PERFORM FROM audit.findings(); IF FOUND THEN RAISE EXCEPTION 'tampered'; END IF; END $$");
}

// ---- Where and when it runs ----

#[test]
fn a_hot_standby_verifies() {
    let cluster = Cluster::builder().start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t'); INSERT INTO t VALUES (1, 'a'); UPDATE t SET v = 'b'");
    let standby = cluster.standby();
    s.run("INSERT INTO t SELECT g, 'x' FROM generate_series(2, 1000) g");
    cluster.wait_for(&standby);
    let mut reader = standby.connect(&database.name);
    assert!(reader.holds("SELECT pg_is_in_recovery()"));
    assert_clean(&mut reader);
    assert_eq!(reader.number("SELECT entries FROM audit.status()"), 1002);
    assert_eq!(reader.number("SELECT count(*) FROM audit.export()"), 1002);
    assert!(reader.holds("SELECT row_trigger = 'ok' FROM audit.protected"));
    assert_eq!(
        reader.text(
            "SELECT sha256(convert_to(audit.line(chain, seq), 'UTF8')) = hash FROM audit.log ORDER BY id LIMIT 1"
        ),
        "t"
    );

    guards_off(&mut s, "audit.log", "UPDATE audit.log SET user_name = 'x' WHERE id = (SELECT max(id) FROM audit.log)");
    cluster.wait_for(&standby);
    assert_eq!(reader.number("SELECT problems FROM audit.verify() WHERE what = 'content'"), 1);
}

#[test]
fn a_promoted_standby_goes_on_writing() {
    let cluster = Cluster::builder().start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    let standby = cluster.standby();
    cluster.wait_for(&standby);
    let mut promoted = standby.connect(&database.name);
    promoted.run("SELECT pg_promote()");
    promoted.run("INSERT INTO t VALUES (2)");
    assert_clean(&mut promoted);
    assert_eq!(promoted.number("SELECT count(*) FROM audit.log WHERE op = 'INSERT'"), 2);
}

#[test]
fn a_verdict_writes_nothing() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    s.run("BEGIN READ ONLY");
    assert_clean(&mut s);
    s.run("SELECT * FROM audit.export(); SELECT * FROM audit.status(); SELECT * FROM audit.protected");
    assert_eq!(s.value("SELECT pg_current_xact_id_if_assigned()"), None);
    s.run("COMMIT");
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "SERIALIZABLE READ ONLY DEFERRABLE"] {
        s.run(&format!("BEGIN ISOLATION LEVEL {level}"));
        assert_clean(&mut s);
        s.run("COMMIT");
    }
}

/// Log and tables are read as of the same moment, so writers raise no false alarm.
#[test]
fn verdicts_are_clean_while_others_write() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v int); SELECT audit.protect('t'); INSERT INTO t SELECT g, 0 FROM generate_series(1, 100) g");
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (database, stop) = (&database, &stop);
            scope.spawn(move || {
                let mut s = database.connect();
                let mut round = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    round += 1;
                    // Rows of its own: two that take out and put back the same one would get in each other's way.
                    let id = 1 + writer * 25 + round % 25;
                    s.run(&format!(
                        "BEGIN; UPDATE t SET v = v + 1 WHERE id = {id}; DELETE FROM t WHERE id = {id}; INSERT INTO t VALUES ({id}, {round}); COMMIT"
                    ));
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for level in ["READ COMMITTED", "REPEATABLE READ"] {
                let mut s = database.connect();
                for _ in 0..10 {
                    s.run(&format!("BEGIN ISOLATION LEVEL {level}"));
                    assert_clean(&mut s);
                    s.run("COMMIT");
                }
            }
        }));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_clean(&mut s);
}

/// An old snapshot sees an old, whole log.
#[test]
fn an_old_snapshot_is_verified_as_of_its_time() {
    let database = database();
    let (mut s, mut old) = (database.connect(), database.connect());
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    s.run("INSERT INTO t VALUES (2); DELETE FROM t WHERE id = 1; TRUNCATE t");
    s.run("CREATE TABLE later (id int PRIMARY KEY); SELECT audit.protect('later'); INSERT INTO later VALUES (1)");
    assert_eq!(old.number("SELECT checked FROM audit.verify() WHERE what = 'content'"), 2);
    let kinds = old.column("SELECT kind FROM audit.findings() WHERE kind NOT IN ('coverage', 'table')");
    assert!(kinds.is_empty(), "{kinds:?}");
    old.run("COMMIT");
    assert_clean(&mut old);
}

#[test]
fn indexes_that_lie_and_planner_switches_do_not_change_the_verdict() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t SELECT generate_series(1, 100)",
    );
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET user_name = 'x' WHERE key ->> 'id' = '50'");
    for switch in [
        "SET enable_seqscan = off",
        "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
        "SET work_mem = '64kB'",
        "SET row_security = off",
        "SET jit = on; SET jit_above_cost = 0",
        "SET max_parallel_workers_per_gather = 4; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0",
        "SET statement_timeout = '60s'; SET plan_cache_mode = force_generic_plan",
    ] {
        s.run(switch);
        assert_eq!(s.column("SELECT kind FROM audit.findings()"), ["content"], "{switch}");
    }
}

// ---- A large log ----

#[test]
fn a_large_log_is_verified_in_bounded_memory_with_progress_and_can_be_cancelled() {
    let entries: u64 = if large() { 5_000_000 } else { 300_000 };
    // Little shared memory, because it counts as the memory of whoever touches it.
    let cluster = Cluster::builder().conf("shared_buffers = '16MB'").conf("max_wal_size = '4GB'").start();
    let (small, big) = (cluster.database(), cluster.database());
    fill(&small, 10_000);
    fill(&big, entries);

    let small_peak = peak_of_verdict(&small);
    let begun = Instant::now();
    let big_peak = peak_of_verdict(&big);
    let took = begun.elapsed();
    println!(
        "{entries} entries: verified in {:.1} s ({:.0} a second), peak {big_peak} kB; 10000 entries: peak {small_peak} kB",
        took.as_secs_f64(),
        entries as f64 / took.as_secs_f64()
    );
    assert!(big_peak < small_peak + 64 * 1024, "{big_peak} kB for {entries} entries, {small_peak} kB for 10000");

    // Progress: the backend sleeps long enough for the interval to pass, wherever it is.
    let mut s = big.connect();
    let pid = s.backend_pid();
    s.run("SET audit.progress_interval = 1");
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            cluster.signal("STOP", pid);
            thread::sleep(Duration::from_millis(1500));
            cluster.signal("CONT", pid);
        });
        assert_clean_once(&mut s);
    });
    let notices = s.notices();
    assert!(!notices.is_empty(), "no progress");
    println!("progress: {}", notices[0]);
    s.run("SET audit.progress_interval = 0");
    assert_clean_once(&mut s);
    assert!(s.notices().is_empty());

    // Cancellation
    for call in ["verify()", "findings()", "export()"] {
        let token = s.cancel_token();
        let refused = thread::scope(|scope| {
            let canceller = scope.spawn(move || {
                thread::sleep(Duration::from_millis(100));
                let sent = Instant::now();
                token.cancel_query(postgres::NoTls).expect("the server takes the request");
                sent
            });
            let error = s.refused(&format!("SELECT count(*) FROM audit.{call}"));
            let waited = canceller.join().expect("cancelling does not panic").elapsed();
            assert!(waited < Duration::from_secs(2), "{call} ended {waited:?} after it was cancelled");
            error
        });
        assert_eq!(refused.code().code(), "57014", "{call}");
    }
    // Nothing is left behind by that.
    s.run("UPDATE big SET v = 7 WHERE id = 1");

    // A few faults among many entries are found, each with its place.
    guards_off(
        &mut s,
        "audit.log",
        "UPDATE audit.log SET user_name = 'x' WHERE key ->> 'id' IN ('10', '20000') AND op = 'INSERT';
         DELETE FROM audit.log WHERE key ->> 'id' = '30000' AND op = 'INSERT'",
    );
    s.run("ALTER TABLE big DISABLE TRIGGER USER; UPDATE big SET name = 'forged' WHERE id = 40000; ALTER TABLE big ENABLE ALWAYS TRIGGER audit_row");
    s.run("ALTER TABLE big ENABLE ALWAYS TRIGGER audit_truncate");
    let found = s.column("SELECT kind FROM audit.findings() ORDER BY kind");
    assert_eq!(found, ["content", "content", "missing", "table", "table"]);
}

/// Wherever it is interrupted, an interrupted verdict is no verdict.
#[test]
fn a_verdict_out_of_time_is_an_error_not_a_finding() {
    let database = database();
    fill(&database, 30_000);
    let mut s = database.connect();
    let begun = Instant::now();
    assert_clean_once(&mut s);
    let whole = begun.elapsed().as_millis().max(20);
    let mut interrupted = 0;
    for step in 1..20 {
        s.run(&format!("SET statement_timeout = {}", (whole * step / 20).max(1)));
        match s.simple_query("SELECT count(*) AS n FROM audit.verify() WHERE NOT ok") {
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error:?}");
                interrupted += 1;
            }
            Ok(messages) => {
                let found = messages.iter().find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                assert_eq!(found.as_deref(), Some("0"));
            }
        }
    }
    assert!(interrupted > 5, "{interrupted} of 19 were interrupted");
    s.run("RESET statement_timeout; UPDATE big SET v = 9 WHERE id = 7");
    assert_clean(&mut s);
}

/// The most memory, in kB, that a new backend ever had while it verified a database.
fn peak_of_verdict(database: &Database<'_>) -> u64 {
    let mut s = database.connect();
    let pid = s.backend_pid();
    assert_clean_once(&mut s);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the backend is alive");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells the peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

/// [`assert_clean`] without the second pass of audit.findings().
fn assert_clean_once(s: &mut Session) {
    assert_eq!(s.number("SELECT count(*) FROM audit.verify() WHERE NOT ok"), 0);
}

/// Many findings do not fill the memory either, and each is reported.
#[test]
fn many_findings_are_all_reported() {
    let database = database();
    fill(&database, 20_000);
    let mut s = database.connect();
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET application_name = 'x' WHERE op = 'UPDATE'");
    assert_eq!(s.number("SELECT count(*) FROM audit.findings() WHERE kind = 'content'"), 2_000);
    assert_eq!(s.number("SELECT problems FROM audit.verify() WHERE what = 'content'"), 2_000);
    s.run("ALTER TABLE big DISABLE TRIGGER USER; UPDATE big SET name = 'forged'; ALTER TABLE big ENABLE ALWAYS TRIGGER audit_row");
    s.run("ALTER TABLE big ENABLE ALWAYS TRIGGER audit_truncate");
    assert_eq!(s.number("SELECT problems FROM audit.verify() WHERE what = 'table'"), 18_001);
}

// ---- Against the other implementations ----

/// A log with everything in it that a line can hold.
fn varied(database: &Database<'_>) {
    database.psql(
        r#"CREATE TABLE "it's" (id int PRIMARY KEY, t text, j json, n numeric, f float8, b bool, e text[], at timestamptz DEFAULT now());
           SELECT audit.protect('"it''s"');
           SET audit.context = '{"user": "añn", "dup": 1, "dup": 1e400}';
           INSERT INTO "it's" VALUES (1, E'q"\\\t\n\x01\x7f\u2028é😀', E'{"a":1,"a":\n2,"x":"\\u0000"}', 1e30, '-0', true, '{a,NULL}');
           INSERT INTO "it's" VALUES (2, NULL, 'null', 'NaN', 'Infinity', false, '{}'), (3, '', '1e400', 1.10, 5e-324, NULL, NULL);
           UPDATE "it's" SET j = '[1]', t = 'x';
           UPDATE "it's" SET id = id + 10;
           RESET audit.context;
           DELETE FROM "it's" WHERE id = 12;
           CREATE TABLE keyless (j json, d date);
           INSERT INTO keyless VALUES ('{}', '0044-03-15 BC');
           SELECT audit.protect('keyless', images => 'full', exclude => '{d}');
           TRUNCATE keyless;
           SELECT audit.unprotect('keyless', E'a "reason"\nof two lines');"#,
    );
    let port = database.cluster.port().to_string();
    database.psql_with(br#"DELETE FROM "it's""#, &[("PGHOST", "127.0.0.1"), ("PGPORT", &port)]);
}

#[test]
fn the_line_of_each_entry_has_its_hash() {
    let database = database();
    varied(&database);
    let mut s = database.connect();
    assert_eq!(
        s.number("SELECT count(*) FROM audit.log WHERE encode(sha256(convert_to(audit.line(chain, seq), 'UTF8')), 'hex') <> encode(hash, 'hex')"),
        0
    );
    assert_eq!(
        s.number(
            "SELECT count(*) FROM audit.log l FULL JOIN audit.export() e USING (chain, seq)
              WHERE e.hash IS DISTINCT FROM encode(l.hash, 'hex') OR e.line IS DISTINCT FROM audit.line(chain, seq)"
        ),
        0
    );
    assert_eq!(s.number("SELECT count(*) FROM audit.export()"), s.number("SELECT count(*) FROM audit.log"));
    // Each stored JSON text stands in the line as it is stored.
    assert_eq!(
        s.number(
            "SELECT count(*) FROM audit.log
              WHERE position(coalesce(new::text, '') in audit.line(chain, seq)) = 0 AND new IS NOT NULL
                 OR position(coalesce(key::text, '') in audit.line(chain, seq)) = 0 AND key IS NOT NULL
                 OR position(coalesce(context::text, '') in audit.line(chain, seq)) = 0 AND context IS NOT NULL"
        ),
        0
    );
    assert_eq!(s.value("SELECT audit.line(1, 1000000)"), None);
    assert_eq!(s.sqlstate("SELECT audit.line(NULL, 1)"), "22004");
    assert_clean(&mut s);
}

#[test]
fn an_export_is_in_order_and_can_be_continued() {
    let database = database();
    varied(&database);
    let mut s = database.connect();
    assert!(s.holds("SELECT array_agg((chain, seq)) = array_agg((chain, seq) ORDER BY chain, seq) FROM (SELECT chain, seq FROM audit.export()) e"));
    let middle = s.number("SELECT id FROM audit.log ORDER BY id OFFSET 5 LIMIT 1");
    let all = s.number("SELECT count(*) FROM audit.log");
    assert_eq!(s.number(&format!("SELECT count(*) FROM audit.export({middle})")), all - 6);
    assert_eq!(s.number(&format!("SELECT count(*) FROM audit.export(since_id => {})", i64::MAX)), 0);
}

/// An export in a file, one entry a line: hash, space, line.
fn export(database: &Database<'_>) -> PathBuf {
    let file = database.cluster.file(&format!("{}.export", database.name));
    let text = database.psql("\\pset format unaligned\nSELECT hash || ' ' || line FROM audit.export()");
    fs::write(&file, text).expect("the server's directory can be written");
    file
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// Runs a verifier on an export; returns whether it was content, and what it said.
fn judge(mut verifier: Command, file: &Path) -> (bool, String) {
    let output = verifier.arg(file).output().expect("the verifier can be started");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.arg(repository().join("tests/python/ledger.py"));
    command
}

/// The program for auditors, built once.
fn program() -> Command {
    static PROGRAM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let path = PROGRAM.get_or_init(|| {
        let output = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--message-format=json", "--bin", "audit-verify", "-p", "audit-auditor"])
            .current_dir(repository())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo can be started");
        assert!(output.status.success(), "audit-verify does not build");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
            .expect("cargo names the program")
    });
    Command::new(path)
}

#[test]
fn the_other_implementations_agree_with_an_export() {
    let database = database();
    varied(&database);
    let honest = export(&database);
    for (name, verifier) in [("python", python as fn() -> Command), ("audit-verify", program)] {
        let (content, text) = judge(verifier(), &honest);
        assert!(content, "{name}: {text}");
    }

    // And they find what is wrong.
    let text = fs::read_to_string(&honest).expect("it was just written");
    let lines: Vec<&str> = text.lines().collect();
    let forged = database.cluster.file("forged.export");
    for (fault, changed) in [
        ("content", text.replacen(r#""op":"UPDATE""#, r#""op":"DELETE""#, 1)),
        ("missing", [&lines[..2], &lines[3..]].concat().join("\n") + "\n"),
    ] {
        assert_ne!(changed, text);
        fs::write(&forged, changed).expect("the server's directory can be written");
        for (name, verifier) in [("python", python as fn() -> Command), ("audit-verify", program)] {
            let (content, text) = judge(verifier(), &forged);
            assert!(!content && text.contains(fault), "{name} about {fault}: {text}");
        }
    }
}

/// With the seals in the file, and a checkpoint kept elsewhere.
#[test]
fn the_other_implementations_agree_with_an_export_of_seals() {
    let database = database();
    varied(&database);
    let mut s = database.connect();
    s.run("SELECT audit.seal()");
    let kept = database.cluster.file("kept.checkpoint");
    fs::write(&kept, s.text("SELECT audit.checkpoint()")).expect("the server's directory can be written");
    s.run("CREATE TABLE more (id int PRIMARY KEY); SELECT audit.protect('more'); INSERT INTO more SELECT generate_series(1, 600)");
    s.run("SELECT audit.seal()");
    s.run("INSERT INTO more VALUES (0)");
    assert!(s.holds("SELECT bool_and(hash = encode(sha256(convert_to(line, 'UTF8')), 'hex')) AND array_agg(seal) = '{1,2}' FROM audit.export_seals()"));
    assert_eq!(
        s.column("SELECT line FROM audit.export_seals(1)"),
        s.column("SELECT line FROM audit.export_seals() WHERE seal = 2")
    );
    assert_eq!(s.number("SELECT count(*) FROM audit.export_seals(2)"), 0);
    let seals = database.psql("\\pset format unaligned\nSELECT hash || ' ' || line FROM audit.export_seals()");
    let file = export(&database);
    let text = fs::read_to_string(&file).expect("it was just written") + &seals;
    let with_checkpoint = || {
        let mut command = program();
        command.arg("--checkpoint").arg(&kept);
        command
    };
    let verifiers: [(&str, &dyn Fn() -> Command); 3] =
        [("python", &python), ("audit-verify", &program), ("audit-verify with checkpoint", &with_checkpoint)];
    fs::write(&file, &text).expect("the server's directory can be written");
    for (name, verifier) in verifiers {
        let (content, said) = judge(verifier(), &file);
        assert!(content, "{name}: {said}");
    }
    // The end cut off before a seal, and a seal changed
    let lines: Vec<&str> = text.lines().collect();
    let entry = lines.iter().rposition(|line| line.contains(r#""seq":"600""#)).expect("an entry that is sealed");
    for changed in [
        [&lines[..entry], &lines[entry + 1..]].concat().join("\n") + "\n",
        text.replacen(r#""seal":"2""#, r#""seal":"3""#, 1),
    ] {
        assert_ne!(changed, text);
        fs::write(&file, &changed).expect("the server's directory can be written");
        for (name, verifier) in verifiers {
            let (content, said) = judge(verifier(), &file);
            assert!(!content, "{name}: {said}");
        }
    }
    // A history that fits itself, but not the checkpoint: that of another database
    let other = audit_tests::database();
    varied(&other);
    other.connect().run("SELECT audit.seal()");
    let file = export(&other);
    let seals = other.psql("\\pset format unaligned\nSELECT hash || ' ' || line FROM audit.export_seals()");
    fs::write(&file, fs::read_to_string(&file).expect("it was just written") + &seals)
        .expect("the server's directory can be written");
    assert!(judge(program(), &file).0);
    let (content, said) = judge(with_checkpoint(), &file);
    assert!(!content && said.contains("checkpoint"), "{said}");
}

#[test]
fn sha256sum_agrees_with_a_line() {
    let database = database();
    varied(&database);
    let mut s = database.connect();
    for row in s.rows("SELECT hash, line FROM audit.export() LIMIT 3") {
        let (hash, line) = (row[0].clone().expect("a hash"), row[1].clone().expect("a line"));
        let file = database.cluster.file(&format!("{}.line", database.name));
        fs::write(&file, &line).expect("the server's directory can be written");
        let output = Command::new("sha256sum")
            .stdin(Stdio::from(File::open(&file).expect("just written")))
            .output()
            .expect("sha256sum");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(&hash));
    }
}

#[test]
fn status_tells_the_state_in_one_row() {
    let database = database();
    let mut s = database.connect();
    assert_eq!(
        s.rows("SELECT entries, chains, protected, last_entry FROM audit.status()"),
        [[Some("0"), Some("0"), Some("0"), None].map(|value| value.map(str::to_owned)).to_vec()]
    );
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    assert_eq!(s.number("SELECT entries FROM audit.status()"), 2);
    assert_eq!(s.number("SELECT protected FROM audit.status()"), 1);
    assert!(s.holds("SELECT last_entry = (SELECT max(at) FROM audit.log) AND ledger = (SELECT id FROM audit.ledger) FROM audit.status()"));
}

/// Vacuum, freezing, rewriting and rebuilding change nothing that an auditor sees.
#[test]
fn maintenance_raises_no_alarm() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t'); INSERT INTO t SELECT g, 'x' FROM generate_series(1, 500) g");
    s.run("UPDATE t SET v = 'y' WHERE id % 2 = 0; DELETE FROM t WHERE id % 3 = 0");
    for statement in [
        "VACUUM (FREEZE, ANALYZE) t",
        "VACUUM (FREEZE, ANALYZE) audit.log",
        "VACUUM FULL t",
        "VACUUM FULL audit.log",
        "CLUSTER audit.log USING log_pkey",
        "REINDEX SCHEMA audit",
        "REINDEX TABLE t",
        "CHECKPOINT",
    ] {
        s.run(statement);
        assert_clean(&mut s);
        s.run("UPDATE t SET v = v || 'z' WHERE id = 1");
    }
    assert_found(&mut s, &[]);
}
