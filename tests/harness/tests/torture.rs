//! Everything at once: changes of all kinds, savepoints, prepared transactions, DDL, maintenance, seals and verdicts from many clients, while backends are cancelled, ended and killed
//! and the server is; then the log must hold exactly what was committed.
//!
//! What was committed is known without the extension: each statement notes the row changes it made in a plain table `journal`, in the same transaction, by what its RETURNING says.
//! Choices depend on AUDIT_TEST_SEED; AUDIT_TEST_SECONDS is how long the load lasts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use audit_tests::{Cluster, Rng, Session, assert_clean, assert_seals, wait_until};
use postgres::Config;

const CLIENTS: u64 = 10;
/// Rows of each client in each table, so that it meets its own often.
const OWN_ROWS: u64 = 30;

const TABLES: &str = "
    CREATE TABLE journal (seq bigserial PRIMARY KEY, op text, tab text, id int, v text);
    CREATE TABLE plain (id int PRIMARY KEY, k int, v text, n numeric DEFAULT 1.50, j json DEFAULT '{\"a\": 1}', b text);
    CREATE TABLE bag (id int, v text);
    CREATE TABLE hot (id int PRIMARY KEY, v text);
    CREATE TABLE part (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
    CREATE TABLE part_0 PARTITION OF part FOR VALUES IN (0); CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2);
    CREATE TABLE parent (id int PRIMARY KEY, v text);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, v text);
    SELECT audit.protect(t::regclass) FROM unnest('{plain, bag, hot, part, parent, child}'::text[]) AS t;
    CREATE TABLE extra (id int PRIMARY KEY, v text);
    INSERT INTO hot SELECT n, 'first' FROM generate_series(1, 4) AS n;
    INSERT INTO journal (op, tab, id, v) SELECT 'INSERT', 'hot', n, 'first' FROM generate_series(1, 4) AS n";

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

/// One client: what it wants to do next.
struct Client {
    number: u64,
    rng: Rng,
    steps: u64,
}

impl Client {
    fn own_id(&mut self) -> u64 {
        self.number * 1000 + self.rng.below(OWN_ROWS)
    }

    /// A change, with its notes in the journal.
    fn change(&mut self) -> String {
        self.steps += 1;
        let mark = format!("c{}.{}", self.number, self.steps);
        let id = self.own_id();
        let noted = |change: String, op: &str, table: &str, v: &str| {
            format!(
                "WITH c AS ({change} RETURNING id) INSERT INTO journal (op, tab, id, v) SELECT '{op}', '{table}', id, '{v}' FROM c"
            )
        };
        let k = self.rng.below(3);
        match self.rng.below(21) {
            0 | 1 => noted(format!("INSERT INTO plain (id, k, v) VALUES ({id}, {k}, '{mark}') ON CONFLICT (id) DO NOTHING"), "INSERT", "plain", &mark),
            2 | 3 => noted(format!("UPDATE plain SET v = '{mark}', n = n * 1.0 WHERE id BETWEEN {id} AND {}", id + 3 - id % 4), "UPDATE", "plain", &mark),
            4 => noted(format!("UPDATE plain SET v = '{mark}', b = repeat('{mark}', 5000) WHERE id = {id}"), "UPDATE", "plain", &mark),
            5 => noted(format!("DELETE FROM plain WHERE id BETWEEN {id} AND {}", id + 1 - id % 2), "DELETE", "plain", ""),
            6 => noted(format!("INSERT INTO bag SELECT {id}, '{mark}' FROM generate_series(1, 3)"), "INSERT", "bag", &mark),
            7 => noted(format!("UPDATE bag SET v = '{mark}' WHERE id = {id}"), "UPDATE", "bag", &mark),
            8 => noted(format!("DELETE FROM bag WHERE id = {id}"), "DELETE", "bag", ""),
            9 | 10 => noted(format!("UPDATE hot SET v = '{mark}' WHERE id = {}", 1 + self.rng.below(4)), "UPDATE", "hot", &mark),
            11 | 12 => noted(
                format!("INSERT INTO part SELECT {id}, {k}, '{mark}' WHERE NOT EXISTS (SELECT FROM part WHERE id = {id})"),
                "INSERT",
                &format!("part_{k}"),
                &mark,
            ),
            // From one partition to another it is gone there and new here.
            13 | 14 => format!(
                "WITH o AS (SELECT id, k FROM part WHERE id = {id}), c AS (UPDATE part SET v = '{mark}', k = {k} WHERE id = {id} RETURNING id)
                 INSERT INTO journal (op, tab, id, v) SELECT CASE WHEN o.k = {k} THEN 'UPDATE' ELSE 'INSERT' END, 'part_{k}', c.id, '{mark}' FROM o JOIN c USING (id)
                 UNION ALL SELECT 'DELETE', 'part_' || o.k, c.id, '' FROM o JOIN c USING (id) WHERE o.k <> {k}"
            ),
            15 => noted(format!("DELETE FROM part_{k} WHERE id = {id}"), "DELETE", &format!("part_{k}"), ""),
            16 => format!(
                "{}; {}",
                noted(format!("INSERT INTO parent VALUES ({id}, '{mark}') ON CONFLICT DO NOTHING"), "INSERT", "parent", &mark),
                noted(format!("INSERT INTO child SELECT {id} * 10 + n, {id}, '{mark}' FROM generate_series(0, 4) AS n ON CONFLICT DO NOTHING"), "INSERT", "child", &mark)
            ),
            // Locked first: a prepared transaction may be about to take the same rows away, or to add some, and which of them go with the parent is known when it has ended.
            17 => format!(
                "SELECT FROM parent WHERE id = {id} FOR UPDATE;
                 INSERT INTO journal (op, tab, id, v) SELECT 'DELETE', 'child', id, '' FROM child WHERE parent = {id}; {}",
                noted(format!("DELETE FROM parent WHERE id = {id}"), "DELETE", "parent", "")
            ),
            18 => format!("UPDATE extra SET v = '{mark}' WHERE id = {id}; INSERT INTO extra VALUES ({id}, '{mark}') ON CONFLICT DO NOTHING"),
            19 => {
                let inner = noted(format!("UPDATE hot SET v = 'gone {mark}' WHERE id = {}", 1 + self.rng.below(4)), "UPDATE", "hot", "gone");
                format!("DO $$ BEGIN {inner}; RAISE EXCEPTION 'taken back'; EXCEPTION WHEN raise_exception THEN NULL; END $$")
            }
            _ if self.rng.chance(10) => {
                let table = if self.rng.chance(50) { "bag".to_owned() } else { format!("part_{k}") };
                format!("TRUNCATE {table}; INSERT INTO journal (op, tab, id, v) VALUES ('TRUNCATE', '{table}', 0, '')")
            }
            // More than waits in memory.
            _ => noted(format!("INSERT INTO bag SELECT {id}, '{mark}' FROM generate_series(1, 700)"), "INSERT", "bag", &mark),
        }
    }

    /// The statements of one transaction, sent one by one.
    fn transaction(&mut self) -> Vec<String> {
        let level = ["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][self.rng.below(4) as usize];
        let mut statements = vec![format!("BEGIN ISOLATION LEVEL {level}")];
        let mut depth = 0;
        for _ in 0..=self.rng.below(6) {
            match self.rng.below(10) {
                0 | 1 => {
                    depth += 1;
                    statements.push(format!("SAVEPOINT s{depth}"));
                }
                2 if depth > 0 => {
                    statements.push(format!("ROLLBACK TO s{}", 1 + self.rng.below(depth)));
                    // Which are left is not worth to be followed.
                    depth = 0;
                }
                3 if depth > 0 => {
                    statements.push(format!("RELEASE s{depth}"));
                    depth -= 1;
                }
                4 => statements.push(r#"SET LOCAL audit.context = '{"torture": true}'"#.to_owned()),
                _ => statements.push(self.change()),
            }
        }
        let name = format!("c{}.{}", self.number, self.steps);
        statements.push(match self.rng.below(20) {
            0..=2 => "ROLLBACK".to_owned(),
            3 | 4 => format!("PREPARE TRANSACTION '{name}'"),
            _ => "COMMIT".to_owned(),
        });
        statements
    }

    /// What is done outside of a block, now and then.
    fn besides(&mut self, s: &mut Session) -> Result<(), postgres::Error> {
        match self.rng.below(30) {
            0 => s.batch_execute("SELECT audit.seal()"),
            1 => s.batch_execute("SELECT count(*) FROM audit.export(0) LIMIT 1"),
            2 => s.batch_execute("BEGIN; SELECT audit.seal(); ROLLBACK"),
            3..=8 => {
                // Anybody finishes what anybody has prepared.
                let Ok(prepared) = s.simple_query("SELECT gid FROM pg_prepared_xacts ORDER BY random() LIMIT 1") else {
                    return Ok(());
                };
                let gid = prepared.iter().find_map(|message| match message {
                    postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                let how = if self.rng.chance(70) { "COMMIT" } else { "ROLLBACK" };
                gid.map_or(Ok(()), |gid| s.batch_execute(&format!("{how} PREPARED '{gid}'")))
            }
            _ => Ok(()),
        }
    }
}

fn connect(config: &Config) -> Option<Session> {
    let mut s = Session::try_connect(config.clone()).ok()?;
    s.batch_execute("SET statement_timeout = '4s'; SET lock_timeout = '1s'; SET deadlock_timeout = '100ms'; SET application_name = 'torture'").ok()?;
    Some(s)
}

/// Works until told to stop, over as many connections as it takes; gives the number of acknowledged commits.
fn work(mut client: Client, config: &Config, stop: &AtomicBool) -> u64 {
    let (mut session, mut commits) = (None, 0);
    while !stop.load(Ordering::Relaxed) {
        let Some(s) = session.as_mut() else {
            session = connect(config);
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let mut outcome = Ok(());
        for statement in client.transaction() {
            outcome = s.batch_execute(&statement);
            if outcome.is_err() {
                break;
            }
            commits += u64::from(statement == "COMMIT");
        }
        if outcome.is_err() {
            outcome = s.batch_execute("ROLLBACK");
        }
        if outcome.is_ok() {
            // Errors of these are those of the disasters.
            let _ = client.besides(s);
            outcome = s.batch_execute("ROLLBACK");
        }
        if outcome.is_err() {
            session = None;
        }
    }
    commits
}

/// What an owner and his maintenance do meanwhile.
fn administer(mut rng: Rng, config: &Config, stop: &AtomicBool) {
    let mut session = None;
    let mut added = 0;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(40));
        let Some(s) = session.as_mut() else {
            session = connect(config);
            continue;
        };
        added += 1;
        let statement = match rng.below(14) {
            0 => format!("ALTER TABLE plain ADD COLUMN x{added} int DEFAULT {added}"),
            1 => "DO $$ DECLARE name text; BEGIN
                    SELECT attname INTO name FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attname LIKE 'x%' AND NOT attisdropped LIMIT 1;
                    IF FOUND THEN EXECUTE format('ALTER TABLE plain DROP COLUMN %I', name); END IF; END $$"
                .to_owned(),
            2 => "ALTER TABLE plain ALTER COLUMN n TYPE numeric(30, 10)".to_owned(),
            3 => "ALTER TABLE plain ALTER COLUMN n TYPE numeric".to_owned(),
            4 => "CREATE INDEX ON plain (v); REINDEX TABLE plain".to_owned(),
            5 => format!("CREATE TABLE part_{added}_more PARTITION OF part FOR VALUES IN ({})", 1000 + added),
            6 => format!("CREATE TABLE new_{added} (id int NOT NULL, k int NOT NULL, v text, PRIMARY KEY (id, k)); INSERT INTO new_{added} VALUES (1, {k}, 'attached');
                          ALTER TABLE part ATTACH PARTITION new_{added} FOR VALUES IN ({k})", k = 100_000 + added),
            7 => "VACUUM plain, hot, audit.log".to_owned(),
            8 => "VACUUM FULL plain".to_owned(),
            9 => "VACUUM (FREEZE) hot".to_owned(),
            10 => "SELECT audit.protect('extra')".to_owned(),
            11 => "SELECT audit.unprotect('extra', 'torture')".to_owned(),
            12 => "BEGIN; ALTER TABLE bag ADD COLUMN gone text; SAVEPOINT a; ALTER TABLE bag DROP COLUMN v; ROLLBACK".to_owned(),
            _ => "CLUSTER plain USING plain_pkey; ANALYZE".to_owned(),
        };
        if s.batch_execute(&statement).is_err() && s.batch_execute("ROLLBACK").is_err() {
            session = None;
        }
    }
}

/// Cancels, ends and, once, kills the backends of others.
fn disturb(mut rng: Rng, cluster: &Cluster, config: &Config, stop: &AtomicBool) {
    let begun = Instant::now();
    let (mut session, mut killed) = (None, false);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20 + rng.below(60)));
        let Some(s) = session.as_mut() else {
            session = Session::try_connect(config.clone()).ok();
            continue;
        };
        let victim = "FROM (SELECT pid FROM pg_stat_activity WHERE application_name = 'torture' ORDER BY random() LIMIT 1) AS victim";
        let how = if rng.chance(80) { "pg_cancel_backend" } else { "pg_terminate_backend" };
        let answer = s.batch_execute(&format!("SELECT {how}(pid) {victim}"));
        if begun.elapsed() > Duration::from_secs(2) && !killed {
            killed = true;
            if let Ok(row) = s.query_one(&format!("SELECT pid {victim}"), &[]) {
                cluster.signal("KILL", row.get::<_, i32>(0) as u32);
            }
        }
        if answer.is_err() {
            session = None;
        }
    }
}

/// Verdicts in the middle of it all are clean. An alarm about the rows of a table may pass: TRUNCATE and DDL that rewrites a table, committed between the snapshot of a
/// verdict and its lock on the table, take rows away that the snapshot should see, as they do for every reader (documentation of PostgreSQL, caveats of MVCC).
fn judge(config: &Config, stop: &AtomicBool, verdicts: &AtomicU64) {
    let mut session: Option<Session> = None;
    let mut alarms = 0;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100));
        let Some(s) = session.as_mut() else {
            session = Session::try_connect(config.clone()).ok();
            // A prepared transaction that has emptied a table holds its lock, also against those who read, until the next round.
            if let Some(s) = &mut session {
                s.simple_query("SET lock_timeout = '2s'").ok();
            }
            continue;
        };
        match s.simple_query("SELECT kind, relation, chain, seq, detail FROM audit.findings()") {
            Err(error) => {
                println!("no verdict: {}", error.as_db_error().map_or(error.to_string(), |error| error.to_string()));
                session = None;
            }
            Ok(rows) => {
                let found: Vec<String> = rows
                    .iter()
                    .filter_map(|message| match message {
                        postgres::SimpleQueryMessage::Row(row) => {
                            Some((0..row.len()).filter_map(|at| row.get(at)).collect::<Vec<_>>().join(" "))
                        }
                        _ => None,
                    })
                    .collect();
                alarms = if found.is_empty() { 0 } else { alarms + 1 };
                if alarms > 0 {
                    println!("alarm {alarms}: {} findings, the first: {}", found.len(), found[0]);
                }
                let may_pass = found.iter().all(|found| found.starts_with("table public."));
                assert!(alarms < 6 && may_pass, "found in the middle: {found:#?}");
                verdicts.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The log holds exactly what the journal says.
#[track_caller]
fn assert_the_log_is_what_was_noted(s: &mut Session) {
    const LOGGED: &str = "SELECT op, table_name, coalesce(key ->> 'id', new ->> 'id', old ->> 'id', '0')::int, coalesce(new ->> 'v', '') FROM audit.log
        WHERE op IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE') AND table_name <> 'extra'";
    const NOTED: &str = "SELECT op, tab, id, v FROM journal";
    let missing = s.rows(&format!("{NOTED} EXCEPT ALL {LOGGED} LIMIT 20"));
    assert!(missing.is_empty(), "committed, but not in the log: {missing:?}");
    let unheard = s.rows(&format!("{LOGGED} EXCEPT ALL {NOTED} LIMIT 20"));
    assert!(unheard.is_empty(), "in the log, but never committed: {unheard:?}");
}

/// Log and tables hold exactly what the journal says, and all is well in the eyes of the extension.
#[track_caller]
fn assert_nothing_is_missing(s: &mut Session) {
    assert_the_log_is_what_was_noted(s);
    for table in ["plain", "hot", "part_0", "part_1", "part_2", "parent", "child"] {
        let live = format!("SELECT id, v FROM {table}");
        let noted = format!(
            "SELECT id, v FROM (SELECT DISTINCT ON (id) id, v, op, seq FROM journal WHERE tab = '{table}' ORDER BY id, seq DESC) AS last
              WHERE op NOT IN ('DELETE', 'TRUNCATE') AND seq > (SELECT coalesce(max(seq), 0) FROM journal WHERE tab = '{table}' AND op = 'TRUNCATE')"
        );
        let differing = s.rows(&format!("({live} EXCEPT ALL {noted}) UNION ALL ({noted} EXCEPT ALL {live}) LIMIT 20"));
        assert!(differing.is_empty(), "{table} is not what was committed: {differing:?}");
    }
    assert_clean(s);
    assert_seals(s);
}

/// Waits until the server takes sessions again.
fn patient(cluster: &Cluster, database: &str) -> Session {
    let mut session = None;
    wait_until("the server answers", || {
        session = Session::try_connect(cluster.config(database, "postgres")).ok();
        session.is_some()
    });
    session.expect("it was waited for")
}

#[test]
fn after_any_disaster_the_log_holds_exactly_what_was_committed() {
    let seconds = number("AUDIT_TEST_SECONDS", 21);
    let seed = number("AUDIT_TEST_SEED", 4);
    println!("AUDIT_TEST_SECONDS={seconds} AUDIT_TEST_SEED={seed}");
    let mut cluster = Cluster::builder()
        .conf("shared_preload_libraries = 'audit'")
        .conf("audit.seal_interval = '150ms'")
        .conf("max_prepared_transactions = 60")
        .conf("log_checkpoints = off")
        .conf("autovacuum_naptime = 1")
        .start();
    let name = cluster.database().name;
    cluster.connect(&name).run(TABLES);
    let verdicts = AtomicU64::new(0);
    let (mut commits, mut round) = (0, 0);
    let mut loaded = Duration::ZERO;
    while loaded < Duration::from_secs(seconds) {
        round += 1;
        let config = cluster.config(&name, "postgres");
        let (stop, quiet) = (AtomicBool::new(false), AtomicBool::new(false));
        let length = Duration::from_secs(7).min(Duration::from_secs(seconds) - loaded);
        let seed_of = |number: u64| seed * 1_000_003 + round * 1009 + number;
        commits += thread::scope(|scope| {
            let clients: Vec<_> = (1..=CLIENTS)
                .map(|number| {
                    // No two clients of any round use the same marks.
                    let client = Client { number, rng: Rng::new(seed_of(number)), steps: round * 1_000_000 };
                    let (config, stop) = (&config, &stop);
                    scope.spawn(move || work(client, config, stop))
                })
                .collect();
            scope.spawn(|| administer(Rng::new(seed_of(500)), &config, &stop));
            scope.spawn(|| judge(&config, &stop, &verdicts));
            let disturbing = scope.spawn(|| disturb(Rng::new(seed_of(600)), &cluster, &config, &quiet));
            thread::sleep(length);
            quiet.store(true, Ordering::Relaxed);
            disturbing.join().expect("it does not panic");
            // The last disaster comes while all are at work.
            let postmaster = cluster.postmaster();
            match round % 3 {
                0 => cluster.signal("TERM", postmaster),
                1 => cluster.signal("KILL", postmaster),
                _ => cluster.signal("QUIT", postmaster),
            }
            thread::sleep(Duration::from_millis(200));
            stop.store(true, Ordering::Relaxed);
            clients.into_iter().map(|client| client.join().expect("no client panics")).sum::<u64>()
        });
        loaded += length;
        if round % 3 == 0 {
            // A smart shutdown waits for nobody any more.
            wait_until("the server has stopped", || !cluster.data().join("postmaster.pid").exists());
        }
        cluster.start();
        let mut s = patient(&cluster, &name);
        // What was prepared may still hold a lock on a table, but none on log and journal.
        assert_the_log_is_what_was_noted(&mut s);
        let mut rng = Rng::new(seed_of(700));
        for gid in s.column("SELECT gid FROM pg_prepared_xacts") {
            let how = if rng.chance(50) { "COMMIT" } else { "ROLLBACK" };
            s.run(&format!("{how} PREPARED '{gid}'"));
        }
        assert_nothing_is_missing(&mut s);
        let sums = s.rows("SELECT count(*), count(DISTINCT chain), count(DISTINCT xid), count(*) FILTER (WHERE op = 'BASELINE') FROM audit.log");
        println!(
            "round {round}: {commits} commits, {} verdicts; entries, chains, transactions, baseline: {sums:?}",
            verdicts.load(Ordering::Relaxed)
        );
    }
    let log = cluster.server_log();
    let crashes = log.lines().filter(|line| line.contains("was terminated by signal")).collect::<Vec<_>>();
    assert!(crashes.iter().all(|line| line.contains("signal 9")), "{crashes:#?}");
    for word in ["PANIC", "panicked at", "XX000"] {
        let line = log.lines().find(|line| line.contains(word));
        assert!(line.is_none(), "{line:?}");
    }
    assert!(
        commits > 200 && verdicts.load(Ordering::Relaxed) > 0,
        "{commits} commits and {verdicts:?} verdicts make no torture"
    );
}
