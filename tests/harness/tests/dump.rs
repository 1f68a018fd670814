//! A ledger survives its database: dumped and restored in every usual way, it verifies and goes on.

use std::path::PathBuf;

use audit_tests::{Cluster, Database, Session, assert_clean, assert_seals, changes, guards_off, newer_bindir};

const SHOP: &str = "
    CREATE TABLE account (id int PRIMARY KEY, owner text, balance numeric(12, 2));
    CREATE TABLE note (body text);
    CREATE TABLE measure (id int, day int, v float8, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM (0) TO (10);
    CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20);
    SELECT audit.protect('account', exclude => '{owner}');
    SELECT audit.protect('note');
    SELECT audit.protect('measure');
    INSERT INTO account SELECT g, 'owner ' || g, g FROM generate_series(1, 50) g;
    UPDATE account SET balance = balance * 1.1 WHERE id % 2 = 0;
    DELETE FROM account WHERE id % 10 = 0;
    INSERT INTO note VALUES ('a'), ('b'), (NULL);
    INSERT INTO measure VALUES (1, 1, 0.1), (2, 15, 'NaN');";

/// A database with a ledger of several chains in it.
fn shop(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run(SHOP);
    s.run("SELECT audit.seal()");
    s.run("BEGIN; UPDATE account SET balance = 0 WHERE id = 1");
    other.run("UPDATE account SET balance = 0 WHERE id = 2");
    s.run("COMMIT; SELECT audit.seal(); UPDATE account SET balance = 3 WHERE id = 1");
    assert_clean(&mut s);
    database
}

/// A dump in a file.
fn dump(database: &Database<'_>, args: &[&str]) -> PathBuf {
    let file = database.cluster.file(&format!("{}.dump", database.name));
    let target = file.to_string_lossy().into_owned();
    database.cluster.program("pg_dump", [&["-d", &database.name, "-f", &target][..], args].concat());
    file
}

fn restore(cluster: &Cluster, name: &str, file: &std::path::Path, args: &[&str]) {
    let source = file.to_string_lossy().into_owned();
    cluster.program("pg_restore", [&["--exit-on-error", "-d", name, &source][..], args].concat());
}

fn lines(s: &mut Session) -> Vec<String> {
    s.column("SELECT line FROM audit.export() ORDER BY chain, seq")
}

/// What every restored ledger must be able to do: it verifies, it has every line it had, it goes on, and says where it does so.
#[track_caller]
fn assert_restored(original: &Database<'_>, restored: &mut Session) {
    let before = lines(&mut original.connect());
    assert_clean(restored);
    assert_eq!(lines(restored), before);
    assert_eq!(assert_seals(restored).seals, assert_seals(&mut original.connect()).seals);
    let incarnations = "SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'";
    let already = restored.number(incarnations);

    restored.run("INSERT INTO account VALUES (1000, 'new', 1); UPDATE account SET balance = 2 WHERE id = 1000");
    restored.run("DELETE FROM note WHERE body = 'a'; INSERT INTO measure VALUES (3, 2, 1); TRUNCATE measure_2");
    assert_clean(restored);
    assert_eq!(restored.number(incarnations), already + 1);
    let after = lines(restored);
    assert!(before.iter().all(|line| after.contains(line)));
    assert!(after.len() > before.len());
    restored.run("SELECT audit.seal()");
    assert_eq!(assert_seals(restored).unsealed, 0);
    // New ids come after all old ones.
    assert!(restored.holds(
        "SELECT min(id) FILTER (WHERE id >= i.first) > max(id) FILTER (WHERE id < i.first)
           FROM audit.log, (SELECT max(id) AS first FROM audit.log WHERE op = 'INCARNATION') i"
    ));
    assert_eq!(
        restored.column(
            "SELECT DISTINCT new ->> 'system_identifier' = (SELECT system_identifier::text FROM pg_control_system())
                           FROM audit.log WHERE id = (SELECT max(id) FROM audit.log WHERE op = 'INCARNATION')"
        ),
        ["t"]
    );
    // What is damaged now is found as before.
    guards_off(
        restored,
        "audit.log",
        "UPDATE audit.log SET user_name = 'x' WHERE id = (SELECT min(id) FROM audit.log)",
    );
    assert_eq!(restored.number("SELECT problems FROM audit.verify() WHERE what = 'content'"), 1);
}

#[test]
fn a_custom_dump_restores_into_the_same_server() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let file = dump(&original, &["-Fc"]);
    let target = cluster.bare_database();
    restore(cluster, &target.name, &file, &[]);
    assert_restored(&original, &mut target.connect());
    // The original knows nothing of it.
    original.connect().run("INSERT INTO account VALUES (1000, 'own', 1)");
    assert_clean(&mut original.connect());
    assert_eq!(original.connect().number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 0);
}

/// In one go `pg_restore -j` may make the trigger of a partitioned table, and its clones, before it loads the rows of a partition, which are then recorded once more.
/// In sections, rows come before triggers whatever the number of jobs.
#[test]
fn a_parallel_restore_in_sections_works() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let file = dump(&original, &["-Fc"]);
    let target = cluster.bare_database();
    for section in ["--section=pre-data", "--section=data", "--section=post-data"] {
        restore(cluster, &target.name, &file, &["-j", "4", section]);
    }
    assert_restored(&original, &mut target.connect());
}

#[test]
fn a_plain_dump_restores_into_another_server() {
    let original = shop(Cluster::shared());
    // OIDs of the other server differ.
    let other = Cluster::builder().start();
    let target = other.bare_database();
    target.connect().run("CREATE TABLE a (); CREATE TABLE b (); CREATE TABLE c (); CREATE TABLE d ()");
    for args in [&["-Fp"][..], &["-Fp", "--inserts"], &["-Fp", "--column-inserts", "--rows-per-insert=10"]] {
        let target = other.bare_database();
        let file = dump(&original, args);
        other.program("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &target.name, "-f", &file.to_string_lossy()]);
        assert_restored(&original, &mut target.connect());
    }
}

/// pg_dump --data-only writes no triggers, so the ones made by the schema are there when rows come: rows of protected tables are recorded as inserted, for that is
/// what happens. Rows of audit.log must come before that; so such a restore works only with --disable-triggers, or in the order below.
#[test]
fn schema_first_then_data_with_triggers_disabled() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let target = cluster.bare_database();
    let schema = dump(&original, &["-Fc", "--schema-only"]);
    restore(cluster, &target.name, &schema, &[]);
    let data = dump(&original, &["-Fc", "--data-only"]);
    restore(cluster, &target.name, &data, &["--disable-triggers"]);
    let mut s = target.connect();
    // pg_restore switches triggers off, and on again as ordinary ones: not as ours were. That is no silent loss, it is reported.
    let found = s.column("SELECT DISTINCT kind FROM audit.findings()");
    assert!(found.iter().all(|kind| kind == "coverage"), "{found:?}");
    for row in
        s.rows("SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgname LIKE 'audit\\_%' AND tgenabled <> 'A'")
    {
        let [table, trigger] = [0, 1].map(|column: usize| row[column].clone().expect("catalog names"));
        s.run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {trigger}"));
    }
    assert_restored(&original, &mut s);
}

#[test]
fn schema_first_then_data_as_it_comes() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let target = cluster.bare_database();
    let schema = dump(&original, &["-Fc", "--schema-only"]);
    restore(cluster, &target.name, &schema, &[]);
    let data = dump(&original, &["-Fc", "--data-only"]);
    let output = cluster
        .command("pg_restore")
        .args(["--exit-on-error", "-d", &target.name, "--single-transaction"])
        .arg(&data)
        .output()
        .expect("pg_restore can be started");
    let mut s = target.connect();
    if output.status.success() {
        // Rows that came through the triggers are recorded as inserted again; the log tells that truthfully.
        let problems = audit_tests::verdict(&mut s);
        println!("restored with triggers on: {problems:?}");
        assert!(problems.iter().all(|line| !line.starts_with("content") && !line.starts_with("link")), "{problems:?}");
    } else {
        // Refused as a whole: nothing half restored.
        println!("{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(s.number("SELECT count(*) FROM audit.log"), 0);
        assert_eq!(s.number("SELECT count(*) FROM account"), 0);
    }
}

/// A table restored without the ledger, into a database without the extension, is an ordinary table once its triggers are left out.
#[test]
fn a_table_alone_can_be_restored_elsewhere() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let file = dump(&original, &["-Fc", "-t", "account"]);
    let target = cluster.bare_database();
    restore(cluster, &target.name, &file, &["--section=pre-data", "--section=data"]);
    assert_eq!(target.connect().number("SELECT count(*) FROM account"), 45);
}

#[test]
fn a_dump_that_was_changed_is_refused() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let file = dump(&original, &["-Fp"]);
    let text = std::fs::read_to_string(&file).expect("a plain dump is text");
    let forged = text.replacen("{\"id\":3,\"balance\":3.00}", "{\"id\":3,\"balance\":3000.00}", 1);
    assert_ne!(text, forged);
    let forged_file = cluster.file("forged.sql");
    std::fs::write(&forged_file, forged).expect("the server's directory can be written");
    let target = cluster.bare_database();
    let output = cluster
        .command("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &target.name, "-f"])
        .arg(&forged_file)
        .output()
        .expect("psql can be started");
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("does not fit its hash"), "{message}");
    assert_eq!(target.connect().number("SELECT count(*) FROM audit.log"), 0);
}

/// The door for restoring is open only in a database that has never written an entry itself, and only for superusers.
#[test]
fn rows_are_admitted_only_into_a_ledger_that_never_wrote() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let copy = |target: &Database<'_>, role: &str| -> Result<u64, postgres::Error> {
        let rows = original.psql("COPY audit.log TO stdout");
        let mut s = target.connect_as(role);
        let mut writer = s.copy_in("COPY audit.log FROM stdin")?;
        std::io::Write::write_all(&mut writer, rows.as_bytes()).expect("rows are buffered");
        writer.finish()
    };
    // It wrote: refused.
    let busy = cluster.database();
    busy.connect().run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    let error = copy(&busy, "postgres").expect_err("not a fresh ledger");
    assert_eq!(error.code().map(|code| code.code()), Some("42501"));
    assert_clean(&mut busy.connect());
    // An ordinary role: refused, whatever was granted to it.
    let fresh = cluster.database();
    fresh.connect().run("CREATE ROLE dump_writer LOGIN; GRANT pg_write_all_data, pg_read_all_data TO dump_writer");
    fresh.connect().run("GRANT USAGE ON SCHEMA audit TO dump_writer; GRANT ALL ON audit.log TO dump_writer");
    let error = copy(&fresh, "dump_writer").expect_err("not a superuser");
    assert_eq!(error.code().map(|code| code.code()), Some("42501"));
    assert_eq!(fresh.connect().number("SELECT count(*) FROM audit.log"), 0);
    // Not by UPDATE, and not twice
    let mut s = fresh.connect();
    assert_eq!(s.sqlstate("UPDATE audit.log SET id = 1"), "42501");
}

#[test]
fn a_second_dump_of_a_restored_ledger_restores_too() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let first = cluster.bare_database();
    restore(cluster, &first.name, &dump(&original, &["-Fc"]), &[]);
    first.connect().run("INSERT INTO account VALUES (500, 'between', 1)");
    let second = cluster.bare_database();
    restore(cluster, &second.name, &dump(&first, &["-Fc"]), &[]);
    let mut s = second.connect();
    s.run("INSERT INTO account VALUES (501, 'after', 1)");
    assert_clean(&mut s);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 2);
    let new = changes(&mut s, "account").into_iter().filter(|line| line.starts_with("INSERT key={\"id\":50"));
    // 50 itself, then one in each of the restored databases
    assert_eq!(new.count(), 3);
}

/// A new table in the restored database, and triggers on partitions made there, work as everywhere.
#[test]
fn a_restored_database_can_protect_more_and_make_partitions() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let target = cluster.bare_database();
    restore(cluster, &target.name, &dump(&original, &["-Fc"]), &[]);
    let mut s = target.connect();
    s.run(
        "CREATE TABLE measure_3 PARTITION OF measure FOR VALUES FROM (20) TO (30); INSERT INTO measure VALUES (9, 25, 1); TRUNCATE measure_3;
         CREATE TABLE more (id int PRIMARY KEY); SELECT audit.protect('more'); INSERT INTO more VALUES (1);
         SELECT audit.unprotect('note', 'not here')",
    );
    assert_clean(&mut s);
    assert_eq!(s.number("SELECT count(*) FROM audit.protected"), 6);
}

#[test]
fn a_dump_restores_into_a_newer_major() {
    let Some(newer) = newer_bindir() else {
        println!("AUDIT_BINDIR_NEWER is not set: not tested");
        return;
    };
    let original = shop(Cluster::shared());
    let other = Cluster::builder().bindir(newer).start();
    let target = other.bare_database();
    // With the pg_dump of the old server: Debian's 15.20 keeps an option of its own, pg_attver, with each column, which only its own
    // pg_dump leaves out.
    let file = dump(&original, &["-Fc"]);
    restore(&other, &target.name, &file, &[]);
    let mut s = target.connect();
    assert!(s.major() > original.connect().major());
    assert_restored(&original, &mut s);
}

/// A copy of the files made by CREATE DATABASE ... TEMPLATE is a ledger that goes on in another database, too.
#[test]
fn a_database_copied_as_template_verifies_and_goes_on() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let copy = cluster.copy_of(&original);
    let mut s = copy.connect();
    assert_clean(&mut s);
    s.run("INSERT INTO account VALUES (1000, 'new', 1)");
    assert_clean(&mut s);
}

/// DDL may come before anything is written: the ledger goes on with it.
#[test]
fn ddl_between_the_restore_and_the_first_write_is_recorded() {
    let cluster = Cluster::shared();
    let original = shop(cluster);
    let file = dump(&original, &["-Fc"]);
    for (ddl, entries) in [
        ("ALTER TABLE account ADD COLUMN c int DEFAULT 7", 1),
        ("ALTER TABLE account DROP COLUMN balance", 1),
        ("ALTER TABLE account ALTER balance TYPE numeric(12, 2) USING balance + 1", 1),
        ("ALTER TABLE account RENAME TO accounts", 1),
        ("ALTER TABLE measure RENAME v TO w", 3),
    ] {
        let target = cluster.bare_database();
        restore(cluster, &target.name, &file, &[]);
        let mut s = target.connect();
        s.run(ddl);
        assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'DDL'"), entries, "{ddl}");
        assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 1, "{ddl}");
        assert_clean(&mut s);
        s.run("INSERT INTO note VALUES ('after'); INSERT INTO measure VALUES (4, 4, 4)");
        assert_clean(&mut s);
    }
}

/// A new baseline is held against the entries before it also where a restore lies between, before it or behind it.
#[test]
fn what_a_new_baseline_hides_shows_over_a_restore() {
    let cluster = Cluster::shared();
    let told = "SELECT count(*) FILTER (WHERE kind = 'table' AND relation = 'public.account'
                  AND detail LIKE '%column \"balance\" is 999.00 in the baseline after this entry%') || ' of ' || count(*) FROM audit.findings()";
    let behind = "UPDATE account SET balance = 999 WHERE id = (SELECT min(id) FROM account)";
    let ddl = "ALTER TABLE account ADD COLUMN c int DEFAULT 7";

    let original = shop(cluster);
    let mut s = original.connect();
    s.run("UPDATE account SET balance = 5 WHERE id = (SELECT min(id) FROM account)");
    let before = dump(&original, &["-Fc"]);
    let target = cluster.bare_database();
    restore(cluster, &target.name, &before, &[]);
    let mut restored = target.connect();
    restored.run("INSERT INTO note VALUES ('after')");
    guards_off(&mut restored, "account", behind);
    restored.run(ddl);
    assert_eq!(restored.text(told), "1 of 1");

    guards_off(&mut s, "account", behind);
    s.run(ddl);
    assert_eq!(s.text(told), "1 of 1");
    let after = dump(&original, &["-Fc"]);
    let target = cluster.bare_database();
    restore(cluster, &target.name, &after, &[]);
    let mut restored = target.connect();
    assert_eq!(restored.text(told), "1 of 1");
    restored.run("INSERT INTO note VALUES ('after')");
    assert_eq!(restored.text(told), "1 of 1");
}
