//! The benchmark: it runs, on a server of its own and on one that is there already, counts what every side has recorded, and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::{env, fs};

use audit_tests::{Cluster, Session, bindir, large, wait_until};

/// Where this repository is.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What a run has said, and how it has ended.
struct Run {
    code: Option<i32>,
    tables: String,
    progress: String,
}

impl Run {
    #[track_caller]
    fn succeeded(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.progress, self.tables);
        self
    }

    #[track_caller]
    fn failed(&self, because: &str) -> &Self {
        assert_eq!(self.code, Some(1), "{}\n{}", self.progress, self.tables);
        assert!(self.progress.contains(because), "{because:?} is not in:\n{}", self.progress);
        self
    }

    #[track_caller]
    fn has(&self, part: &str) -> &Self {
        assert!(self.tables.contains(part), "{part:?} is not in:\n{}", self.tables);
        self
    }
}

/// The smallest run of some cases. The directory is that of the repository, or a damaged copy of it.
fn bench(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(directory.join("bench/run"));
    command
        .args(["--quick", "--scale", "1", "--rounds", "1", "--seconds", "1", "--clients", "2"])
        .args(args)
        .env("AUDIT_BINDIR", bindir())
        .stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Run {
    let output = command.output().expect("bench/run can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run { code: output.status.code(), tables: text(&output.stdout), progress: text(&output.stderr) }
}

/// A server as a user has it. Its databases have fixed names while the benchmark runs, so the tests take turns.
fn given() -> (&'static Cluster, MutexGuard<'static, ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    (Cluster::shared(), turn)
}

fn dsn(cluster: &Cluster) -> String {
    format!("host=127.0.0.1 port={} user=postgres dbname=postgres", cluster.port())
}

/// All that is not in a database: the databases themselves, roles, and settings wherever they are kept.
fn outside(cluster: &Cluster) -> Vec<String> {
    let mut s: Session = cluster.connect("postgres");
    s.column(
        "SELECT 'database ' || oid || ' ' || datname || coalesce(' ' || datacl::text, '') FROM pg_database
          UNION ALL SELECT 'role ' || rolname FROM pg_roles
          UNION ALL SELECT 'setting ' || setdatabase || ' ' || setrole || ' ' || setconfig::text FROM pg_db_role_setting
          UNION ALL SELECT 'file ' || name || ' ' || setting FROM pg_file_settings
          UNION ALL SELECT 'object ' || oid FROM pg_class WHERE relnamespace = 'public'::regnamespace
          ORDER BY 1",
    )
}

/// A copy of the benchmark in which a file is not as it should be.
fn damaged(file: &str, change: impl Fn(String) -> String) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory can be made");
    let status =
        Command::new("cp").arg("-a").arg(root().join("bench")).arg(copy.path()).status().expect("cp can be started");
    assert!(status.success());
    let path = copy.path().join("bench").join(file);
    let before = fs::read_to_string(&path).expect("the file is there");
    let after = change(before.clone());
    assert_ne!(before, after, "{file} is as it was");
    fs::write(&path, after).expect("the file can be written");
    copy
}

/// Whether the servers under test are of the major that most of the work is done with: a minute of measuring there says as much as one on each.
fn is_first_major() -> bool {
    let version = Command::new(bindir().join("postgres")).arg("--version").output().expect("the server can be asked");
    String::from_utf8_lossy(&version.stdout).contains(" 15.")
}

#[test]
fn every_side_is_measured_and_has_recorded_every_change() {
    if !is_first_major() && !large() {
        return;
    }
    // Not everywhere is there a package of pgaudit. Where there is none, asking for it is refused.
    let pgaudit =
        Command::new(root().join("scripts/pgaudit")).arg(bindir()).output().expect("scripts/pgaudit can be run");
    let mut sides = "copy,chain,pghistory".to_owned();
    if pgaudit.status.success() {
        sides.push_str(",pgaudit");
    } else {
        run(bench(&root(), &["--cases", "insert", "--peers", "pgaudit"])).failed("pgaudit");
    }
    let done = run(bench(&root(), &["--cases", "connections,insert", "--peers", &sides]));
    done.succeeded();
    for side in ["plain", "audited"].into_iter().chain(sides.split(',')) {
        let is_of_side = |line: &&str| matches!(line.split(" | ").collect::<Vec<_>>()[..], [_, _, s, value, _, _, _] if s == side && !value.is_empty());
        let rows = done.tables.lines().filter(is_of_side).count();
        assert_eq!(rows, 2, "rows of {side} in:\n{}", done.tables);
    }
    for side in sides.split(',') {
        assert!(done.progress.contains(&format!("{side} has recorded all of ")), "{}", done.progress);
    }
}

/// Each side rests while the other works, a second at a time; what the rests hide would show as changes that were made and not recorded, or recorded and not counted.
#[test]
fn a_load_in_slices_is_counted_to_the_last_transaction() {
    if !is_first_major() && !large() {
        return;
    }
    let done = run(bench(&root(), &["--cases", "pair", "--seconds", "3", "--peers", "copy"]));
    done.succeeded().has("| one UPDATE, one INSERT | 2 |");
    assert!(done.progress.contains("copy has recorded all of "), "{}", done.progress);
    // One when the tables were put under protection, one of their rows, and one after each of three slices.
    let seals =
        done.tables.split_once(" seals), ").and_then(|(before, _)| before.rsplit('(').next()?.parse::<u32>().ok());
    assert!(seals.is_some_and(|seals| seals >= 5), "{}", done.tables);
}

#[test]
fn a_given_server_is_measured_and_left_as_it_was() {
    let (cluster, _turn) = given();
    let before = outside(cluster);
    let uri = format!("postgresql://postgres@127.0.0.1:{}/postgres?connect_timeout=30", cluster.port());
    let done = run(bench(&root(), &["--dsn", &uri, "--cases", "growth,bytes", "--grow-to", "40000"]));
    done.succeeded().has("| the pair at 8 clients |").has("| one UPDATE, one INSERT, stored |").has("fsync off");
    assert_eq!(outside(cluster), before);
}

#[test]
fn a_given_server_is_left_as_it_was_when_the_run_is_interrupted() {
    let (cluster, _turn) = given();
    let before = outside(cluster);
    // In "growth" as soon as the first side is there; in "pair" when both are, and one of them rests.
    for (case, sides) in [("growth", &["growth_plain"][..]), ("pair", &["plain", "audited"])] {
        let mut command = bench(&root(), &["--dsn", &dsn(cluster), "--cases", case, "--seconds", "600"]);
        let mut running =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bench/run can be started");
        let mut s = cluster.connect("postgres");
        wait_until("it is measuring", || {
            sides.iter().all(|side| {
                s.holds(&format!("SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'pgbench' AND datname = 'audit_bench_{side}' AND query <> ''"))
            })
        });
        // Not INT: who runs the tests in the background may have it ignored, and that is inherited.
        let interrupted = Command::new("kill").args(["-s", "TERM", &running.id().to_string()]).status();
        assert!(interrupted.expect("kill can be started").success());
        assert_eq!(running.wait().expect("it ends").code(), Some(128 + 15));
        assert_eq!(outside(cluster), before);
        assert_eq!(clients_of(cluster), Vec::<String>::new());
    }
}

/// The command lines of pgbench that lead to this server.
fn clients_of(cluster: &Cluster) -> Vec<String> {
    let port = format!("port={}", cluster.port());
    let command_lines = fs::read_dir("/proc").expect("/proc can be read").flatten().filter_map(|process| {
        let text = fs::read(process.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&text).replace('\0', " "))
    });
    command_lines.filter(|text| text.contains("pgbench ") && text.contains(&port)).collect()
}

#[test]
fn databases_of_others_are_refused_and_kept() {
    let (cluster, _turn) = given();
    let mut s = cluster.connect("postgres");
    s.run("CREATE DATABASE audit_bench_copy");
    let before = outside(cluster);
    let refused = run(bench(&root(), &["--dsn", &dsn(cluster), "--cases", "insert"]));
    refused.failed("there are databases already with names that this run uses or might use: audit_bench_copy");
    assert_eq!(outside(cluster), before);
    s.run("DROP DATABASE audit_bench_copy");

    s.run("CREATE ROLE bench_user LOGIN CREATEDB");
    let user = dsn(cluster).replace("user=postgres", "user=bench_user");
    run(bench(&root(), &["--dsn", &user, "--cases", "insert"])).failed("is not a superuser");
    s.run("DROP ROLE bench_user");
}

#[test]
fn checkpoints_of_the_benchmark_do_not_reach_those_of_the_server() {
    let cluster = Cluster::builder().conf("shared_preload_libraries = 'audit'").start();
    cluster.set("audit.checkpoint_command", "false");
    run(bench(&root(), &["--dsn", &dsn(&cluster), "--cases", "insert"])).failed(
        "the sealer of that server would give checkpoints of the bench's databases to audit.checkpoint_command",
    );
    cluster.set("audit.seal_databases", "postgres");
    run(bench(&root(), &["--dsn", &dsn(&cluster), "--cases", "growth", "--grow-to", "1000"])).succeeded();
}

#[test]
fn a_side_that_loses_a_change_fails_the_run() {
    if !is_first_major() && !large() {
        return;
    }
    let (cluster, _turn) = given();
    let before = outside(cluster);
    let lossy = damaged("copy.sql", |sql| {
        sql + "CREATE RULE lose AS ON INSERT TO history.change WHERE (NEW.new ->> 'id')::bigint = 4711 DO INSTEAD NOTHING;\n"
    });
    let target = dsn(cluster);
    run(bench(lossy.path(), &["--dsn", &target, "--cases", "copy", "--peers", "copy"]))
        .failed("the side copy has recorded 99,999 changes, expected 100,000");
    assert_eq!(outside(cluster), before);

    // An UPDATE that changes nothing is not recorded by us: to the benchmark it is one that is lost.
    let nothing = damaged("pair.sql", |sql| {
        sql.replace(
            "SET status = 'changed', amount = :amount / 100.0, items = items + 1, updated_at = now()",
            "SET items = items",
        )
    });
    run(bench(nothing.path(), &["--dsn", &target, "--cases", "growth", "--grow-to", "1000"])).failed("the log holds ");
    assert_eq!(outside(cluster), before);
}

#[test]
fn bytes_are_compared_with_those_of_the_same_facts() {
    let (cluster, _turn) = given();
    let padded = damaged("facts.sql", |sql| sql.replace("facts.changed(after, before)", "after"));
    run(bench(padded.path(), &["--dsn", &dsn(cluster), "--cases", "bytes"]))
        .failed("the ordinary table does not hold what the log does");
}
