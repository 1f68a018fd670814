//! Throw-away PostgreSQL servers.
//!
//! A server lives in a directory of its own under /tmp, with a port and a socket of its own, and never as root. It ends with the
//! test process, however that ends: a small shell waits at the other end of a pipe, and when the pipe closes (also because the
//! process was killed) it stops the server by its process id and removes the directory.

use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use postgres::Config;

use crate::session::Session;

/// Reads standard input until it closes, then stops the server of directory $1 and removes the directory.
/// The command line is compared before anything is killed: a process id may have been used again.
const KEEPER: &str = r#"
cat > /dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null)
if [ -n "$pid" ] && tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null | grep -q -F "$1/data"; then
    kill -QUIT "$pid"
    tries=0
    while kill -0 "$pid" 2> /dev/null && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
    kill -KILL "$pid" 2> /dev/null
fi
[ -n "$AUDIT_TEST_KEEP" ] || rm -rf "$1"
"#;

const PATIENCE: Duration = Duration::from_secs(60);

/// Where the programs of the server under test are: AUDIT_BINDIR.
pub fn bindir() -> PathBuf {
    let dir = env::var_os("AUDIT_BINDIR").expect(
        "AUDIT_BINDIR is not set: it names the bin directory of a PostgreSQL with the extension; see make test",
    );
    PathBuf::from(dir)
}

/// Where the programs of a newer major are, when there is one: AUDIT_BINDIR_NEWER.
pub fn newer_bindir() -> Option<PathBuf> {
    env::var_os("AUDIT_BINDIR_NEWER").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// What a server is to be like.
pub struct Builder {
    bindir: PathBuf,
    conf: String,
}

impl Builder {
    /// Adds a line to postgresql.conf. Later lines win.
    pub fn conf(mut self, line: &str) -> Self {
        self.conf.push_str(line);
        self.conf.push('\n');
        self
    }

    /// Makes commits durable, as crash tests need it.
    pub fn durable(self) -> Self {
        self.conf("fsync = on").conf("full_page_writes = on")
    }

    /// Takes the programs from somewhere else than AUDIT_BINDIR.
    pub fn bindir(mut self, dir: PathBuf) -> Self {
        self.bindir = dir;
        self
    }

    /// Makes the server and starts it.
    pub fn start(self) -> Cluster {
        let mut cluster = Cluster::empty(self.bindir);
        let template = template(&cluster.bindir);
        succeed(Command::new("cp").arg("-a").arg(&template).arg(cluster.data()));
        let mut conf = fs::OpenOptions::new()
            .append(true)
            .open(cluster.data().join("postgresql.conf"))
            .expect("initdb has written postgresql.conf");
        conf.write_all(self.conf.as_bytes()).expect("postgresql.conf can be written");
        cluster.start();
        cluster
    }
}

/// A server. Dropping it stops it and removes its files.
pub struct Cluster {
    bindir: PathBuf,
    dir: PathBuf,
    port: u16,
    keeper: Child,
    databases: AtomicU32,
}

impl Cluster {
    /// A server that trades durability for speed.
    pub fn builder() -> Builder {
        Builder { bindir: bindir(), conf: String::new() }
            .conf("fsync = off")
            .conf("full_page_writes = off")
            .conf("max_connections = 120")
            .conf("max_prepared_transactions = 20")
            .conf("timezone = 'UTC'")
            .conf("lc_messages = 'C'")
            .conf("log_line_prefix = '%m [%p] %q%d '")
    }

    /// The server that the tests of one file share. It stops with the test process.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::builder().start())
    }

    fn empty(bindir: PathBuf) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("audit-test-")
            .tempdir_in("/tmp")
            .expect("a directory under /tmp can be made")
            .keep();
        give_to_server(&dir);
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C ends the tests, and then it is the keeper's turn.
            .process_group(0)
            .spawn()
            .expect("sh can be started");
        Self { bindir, dir, port: 0, keeper, databases: AtomicU32::new(0) }
    }

    /// The directory of data files.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A name for a file that goes away with the server.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file that belongs to the user of the server, with this mode.
    pub fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("the mode can be set");
        give_to_server(&path);
        path
    }

    /// Makes an Ed25519 key and puts it where only the server can read it.
    pub fn signing_key(&self, name: &str) -> PathBuf {
        let output = succeed(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]));
        self.write(name, &String::from_utf8(output.stdout).expect("PEM is ASCII"), 0o600)
    }

    /// Changes a setting of the server, and waits until new sessions have it; an empty value resets it. The library must be preloaded.
    #[track_caller]
    pub fn set(&self, setting: &str, value: &str) {
        let mut session = self.connect("postgres");
        session.run(&format!("ALTER SYSTEM SET {setting} = '{}'", value.replace('\'', "''")));
        session.run("SELECT pg_reload_conf()");
        let wanted = session.text(&format!(
            "SELECT setting FROM pg_file_settings WHERE name = '{setting}' AND sourcefile LIKE '%auto.conf'"
        ));
        wait_until("the setting has changed", || {
            let now = format!(
                "SELECT current_setting('{setting}') = '{wanted}' OR setting = '{wanted}' FROM pg_settings WHERE name = '{setting}'"
            );
            self.connect("postgres").holds(&now)
        });
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the programs of this server are.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// Starts the server after [`Cluster::stop`], [`Cluster::stop_immediately`] or [`Cluster::kill_postmaster`].
    #[track_caller]
    pub fn start(&mut self) {
        let begun = Instant::now();
        loop {
            // Another program may take the port between our look and the server's bind, and the shared memory of a
            // killed server is in use until its last backend has noticed: both pass.
            self.port = free_port();
            let options = format!("-p {} -k {} -c listen_addresses=127.0.0.1", self.port, self.dir.display());
            let output = as_server(&self.bindir.join("pg_ctl"))
                .args(["start", "--wait", "--silent", "--options", &options, "--pgdata"])
                .arg(self.data())
                .arg("--log")
                .arg(self.log_file())
                .output()
                .expect("pg_ctl can be started");
            if output.status.success() {
                return;
            }
            if begun.elapsed() > PATIENCE {
                panic!("the server did not start:\n{}", self.server_log());
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Stops the server cleanly.
    pub fn stop(&mut self) {
        self.pg_ctl(&["stop", "--mode", "fast"]);
    }

    /// Stops the server without a checkpoint: the next start recovers from the write-ahead log.
    pub fn stop_immediately(&mut self) {
        self.pg_ctl(&["stop", "--mode", "immediate"]);
    }

    /// Stops the server cleanly and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Kills the first process of the server, without warning. Its backends end by themselves when they notice.
    pub fn kill_postmaster(&mut self) {
        self.signal("KILL", self.postmaster());
    }

    /// Makes a standby server of this one, and waits until it answers.
    pub fn standby(&self) -> Cluster {
        let mut standby = Cluster::empty(self.bindir.clone());
        succeed(
            as_server(&self.bindir.join("pg_basebackup"))
                .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--username=postgres", "--host"])
                .arg(&self.dir)
                .arg("--port")
                .arg(self.port.to_string())
                .arg("--pgdata")
                .arg(standby.data()),
        );
        standby.start();
        standby
    }

    /// Waits until `standby` has all that is committed here.
    pub fn wait_for(&self, standby: &Cluster) {
        let lsn = self.connect("postgres").text("SELECT pg_current_wal_flush_lsn()");
        let mut session = standby.connect("postgres");
        wait_until("the standby has caught up", || {
            session.holds(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'"))
        });
    }

    /// A database named after the running test, with the extension in it.
    pub fn database(&self) -> Database<'_> {
        let database = self.bare_database();
        database.connect().run("CREATE EXTENSION audit");
        database
    }

    /// A database named after the running test, without the extension.
    pub fn bare_database(&self) -> Database<'_> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let thread = thread::current();
        let test = thread.name().unwrap_or("test").rsplit("::").next().unwrap_or("test").to_owned();
        let name = format!("{number}_{test}").chars().take(60).collect::<String>();
        self.connect("postgres").run(&format!(r#"CREATE DATABASE "{name}""#));
        Database { cluster: self, name }
    }

    /// A copy of a database, file by file. Nobody may be connected to it.
    pub fn copy_of(&self, database: &Database<'_>) -> Database<'_> {
        let name = format!("copy_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.connect("postgres").run(&format!(r#"CREATE DATABASE "{name}" TEMPLATE "{}""#, database.name));
        Database { cluster: self, name }
    }

    /// How to reach a database as a role, over the Unix socket.
    pub fn config(&self, database: &str, role: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.dir).port(self.port).user(role).dbname(database).connect_timeout(PATIENCE);
        config
    }

    /// A session as superuser.
    #[track_caller]
    pub fn connect(&self, database: &str) -> Session {
        self.connect_as(database, "postgres")
    }

    /// A session as a role.
    #[track_caller]
    pub fn connect_as(&self, database: &str, role: &str) -> Session {
        match Session::try_connect(self.config(database, role)) {
            Ok(session) => session,
            Err(error) => panic!("cannot connect to {database} as {role}: {}", crate::session::explain(&error)),
        }
    }

    /// A program of the server's, told how to connect.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bindir.join(program));
        command
            .env("PGHOST", &self.dir)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGOPTIONS", "")
            .env("PGCLIENTENCODING", "UTF8");
        command
    }

    /// Runs a program of the server's that must succeed, and returns what it printed.
    #[track_caller]
    pub fn program<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> String {
        let output = succeed(self.command(program).args(args));
        String::from_utf8(output.stdout).expect("programs print UTF-8")
    }

    /// Gives the stopped server commands in single-user mode, one a line, and returns what it printed.
    #[track_caller]
    pub fn single_user(&self, database: &str, commands: &str) -> String {
        let mut command = as_server(&self.bindir.join("postgres"));
        command.arg("--single").arg("-D").arg(self.data()).arg(database);
        let output = feed(&mut command, commands.as_bytes());
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "postgres --single: {said}");
        said
    }

    /// Takes over all databases of another server by `pg_upgrade`. Both are stopped, and this one has none of its own.
    #[track_caller]
    pub fn upgrade_from(&self, old: &Cluster) {
        let mut command = as_server(&self.bindir.join("pg_upgrade"));
        // It writes its logs and scripts there.
        command.current_dir(&self.dir).arg("-b").arg(&old.bindir).arg("-B").arg(&self.bindir);
        command.arg("-d").arg(old.data()).arg("-D").arg(self.data()).arg("-s").arg(&self.dir);
        succeed(command.args(["-p", &free_port().to_string(), "-P", &free_port().to_string()]));
    }

    /// Lets the stopped server go on with this transaction, as if it had run all those before it. Everything must be frozen.
    #[track_caller]
    pub fn go_to_transaction(&self, id: u32) {
        succeed(as_server(&self.bindir.join("pg_resetwal")).arg("-x").arg(id.to_string()).arg("-D").arg(self.data()));
        // The states of 2^20 transactions are in a segment of 2 bits each, which the server would have made on its way there.
        let segment = self.data().join(format!("pg_xact/{:04X}", id >> 20));
        fs::write(&segment, vec![0; 1 << 18]).expect("a segment can be written");
        give_to_server(&segment);
    }

    /// Sets the soft limit of a resource of a process of this server and of those that it starts from then on, as `fsize` or `as`; "unlimited" takes it away.
    #[track_caller]
    pub fn limit(&self, pid: u32, resource: &str, value: &str) {
        // Without the right to change limits of others, which root in a container may lack, only the same user can.
        succeed(as_server(Path::new("prlimit")).args(["--pid", &pid.to_string(), &format!("--{resource}={value}:")]));
    }

    /// The first process of the server.
    pub fn postmaster(&self) -> u32 {
        let pid_file = fs::read_to_string(self.data().join("postmaster.pid")).expect("the server is running");
        pid_file.lines().next().and_then(|line| line.parse().ok()).expect("the first line is its id")
    }

    /// Sends a signal to a process of this server.
    pub fn signal(&self, signal: &str, pid: u32) {
        succeed(Command::new("kill").args(["-s", signal, &pid.to_string()]));
    }

    /// What the server has logged.
    pub fn server_log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn pg_ctl(&self, args: &[&str]) {
        succeed(as_server(&self.bindir.join("pg_ctl")).args(args).args(["--wait", "--silent", "-D"]).arg(self.data()));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Nothing can be done about a keeper that fails, and a panic here would hide the test's own.
        let _ = self.keeper.wait();
    }
}

/// A database of a server.
pub struct Database<'a> {
    /// The server it is in.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl Database<'_> {
    /// A session as superuser.
    #[track_caller]
    pub fn connect(&self) -> Session {
        self.cluster.connect(&self.name)
    }

    /// A session as a role.
    #[track_caller]
    pub fn connect_as(&self, role: &str) -> Session {
        self.cluster.connect_as(&self.name, role)
    }

    /// Gives psql a script, which must run without an error, and returns what it printed: bare values.
    #[track_caller]
    pub fn psql(&self, script: &str) -> String {
        self.psql_with(script.as_bytes(), &[])
    }

    /// [`Database::psql`] for scripts that are not UTF-8, with environment variables.
    #[track_caller]
    pub fn psql_with(&self, script: &[u8], environment: &[(&str, &str)]) -> String {
        let mut command = self.cluster.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.name]);
        command.envs(environment.iter().copied());
        let output = feed(&mut command, script);
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Runs a program with something to read.
fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    // From a thread, since the program may print more than a pipe holds before it has read everything. A program
    // that ends early closes the pipe; its status says so better than this error would.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("the program was started");
    writer.join().expect("the writer does not panic");
    output
}

/// Waits until something is so, and fails the test when it takes too long.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// An empty data directory, made once in each test process and copied for each server.
fn template(bindir: &Path) -> PathBuf {
    use std::collections::HashMap;
    use std::sync::Mutex;
    // The cluster is never started: it lends its directory, and its keeper removes that in the end.
    static TEMPLATES: OnceLock<Mutex<HashMap<PathBuf, Cluster>>> = OnceLock::new();
    let mut templates = TEMPLATES.get_or_init(Mutex::default).lock().expect("initdb does not panic");
    let template = templates.entry(bindir.to_owned()).or_insert_with(|| {
        let cluster = Cluster::empty(bindir.to_owned());
        succeed(
            as_server(&bindir.join("initdb"))
                .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"])
                .arg("--pgdata")
                .arg(cluster.data()),
        );
        cluster
    });
    template.data()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// PostgreSQL refuses to run as root.
fn as_server(program: &Path) -> Command {
    let mut command;
    if is_root() {
        command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
    } else {
        command = Command::new(program);
    }
    // The directory of the tests need not be open to the server's user.
    command.current_dir("/");
    // An error is to look as it does to users, whatever shell the tests were started from.
    command.env_remove("RUST_BACKTRACE");
    command
}

fn give_to_server(dir: &Path) {
    if is_root() {
        succeed(Command::new("chown").arg("postgres").arg(dir));
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Runs a program that must succeed.
#[track_caller]
fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        panic!("{command:?}: {}\n{out}{err}", output.status);
    }
    output
}
