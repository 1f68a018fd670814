//! Who wrote the rows: a change made and undone behind the triggers leaves rows whose transaction the log does not know, and nothing honest does.

use audit_tests::{Cluster, Database, Session, assert_clean, assert_found, database, findings, guards_off};

/// What verification says of the aspect: how many rows were looked at, and the detail.
fn aspect(s: &mut Session) -> (i64, String) {
    let row = s.rows("SELECT checked, detail FROM audit.verify() WHERE what = 'transaction'").remove(0);
    let [checked, detail] = <[Option<String>; 2]>::try_from(row).expect("two columns");
    (checked.expect("a number").parse().expect("a number"), detail.expect("there is always one"))
}

/// Fails unless the log knows the transaction of each row of its tables, and there are so many rows. Nothing is passed over, as no UPDATE was left out of the log.
#[track_caller]
fn assert_known(s: &mut Session, rows: i64) {
    s.run("SET audit.record_unchanged = on");
    assert_clean(s);
    let (checked, detail) = aspect(s);
    s.run("RESET audit.record_unchanged");
    assert_eq!(checked, rows, "{detail}");
    assert!(!detail.contains(';'), "{detail}");
}

/// The rows that are found, in order.
fn found(s: &mut Session) -> Vec<String> {
    s.run("SET audit.record_unchanged = on");
    let found = findings(s);
    s.run("RESET audit.record_unchanged");
    let mut found: Vec<String> = found.iter().map(|one| format!("{one}: {}", one.detail)).collect();
    found.sort();
    found
}

/// A table of five rows, each written by a transaction of its own.
fn account(database: &Database<'_>) -> Session {
    let mut s = database.connect();
    s.run("CREATE TABLE account (id int PRIMARY KEY, balance int); SELECT audit.protect('account')");
    for id in 1..=5 {
        s.run(&format!("INSERT INTO account VALUES ({id}, 100)"));
    }
    s
}

/// Runs statements while the trigger of a table is off.
fn behind_the_triggers(s: &mut Session, table: &str, statements: &[&str]) {
    s.run(&format!("ALTER TABLE {table} DISABLE TRIGGER audit_row"));
    for statement in statements {
        s.run(statement);
    }
    s.run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_row"));
}

const UP: &str = "UPDATE account SET balance = 1000000 WHERE id = 2";
const DOWN: &str = "UPDATE account SET balance = 100 WHERE id = 2";

fn xmin(s: &mut Session) -> String {
    s.text("SELECT xmin FROM account WHERE id = 2")
}

/// What is found of the second account, whatever the transaction.
fn stranger(xmin: &str) -> String {
    format!(
        "transaction public.account: row {{\"id\":2}} was written by transaction {xmin} (xmin), of which the log has no entry about the table"
    )
}

// ---- What is found ----

#[test]
fn a_change_made_and_undone_behind_the_triggers_is_found_by_its_transaction() {
    let mut s = account(&database());
    assert_known(&mut s, 5);
    behind_the_triggers(&mut s, "account", &[UP, DOWN]);
    let xmin = xmin(&mut s);
    s.run("SET audit.record_unchanged = on");
    assert_found(&mut s, &["transaction public.account"]);
    let hint = findings(&mut s)[0].hint.clone().expect("it says what to do");
    assert!(hint.contains("audit.record_unchanged") && hint.contains("audit.protect()"), "{hint}");
    s.run("RESET audit.record_unchanged");
    assert_eq!(found(&mut s), [stranger(&xmin)]);
    // Freezing takes nothing of it away.
    s.run("VACUUM (FREEZE) account");
    assert_eq!(found(&mut s), [stranger(&xmin)]);
    s.run("VACUUM (FULL, FREEZE) account");
    assert_eq!(found(&mut s), [stranger(&xmin)]);
    // An honest change of the row writes it anew; what was before is over, and cannot be seen any more.
    s.run("UPDATE account SET balance = 90 WHERE id = 2");
    assert_known(&mut s, 5);
}

#[test]
fn while_unchanged_updates_are_not_recorded_such_rows_are_counted() {
    let mut s = account(&database());
    behind_the_triggers(&mut s, "account", &[UP, DOWN]);
    assert_clean(&mut s);
    let (checked, detail) = aspect(&mut s);
    assert_eq!(checked, 5);
    assert!(
        detail.contains("; of 1 the log does not know it") && detail.contains("audit.record_unchanged"),
        "{detail}"
    );
    // The same trace, by honest means: this is why.
    s.run("UPDATE account SET balance = balance WHERE id IN (3, 4)");
    assert!(aspect(&mut s).1.contains("; of 3 the log does not know it"));
    assert_eq!(found(&mut s).len(), 3);
}

#[test]
fn with_unchanged_updates_recorded_nothing_honest_is_found() {
    let mut s = account(&database());
    s.run("SET audit.record_unchanged = on; UPDATE account SET balance = balance; RESET audit.record_unchanged");
    assert_known(&mut s, 5);
}

#[test]
fn a_new_baseline_takes_the_rows_as_they_are() {
    let mut s = account(&database());
    s.run("UPDATE account SET balance = balance");
    assert_eq!(found(&mut s).len(), 5);
    s.run("SELECT audit.unprotect('account', 'to take a new baseline'); SELECT audit.protect('account')");
    assert_known(&mut s, 5);
    s.run("UPDATE account SET balance = balance WHERE id = 1");
    assert_eq!(found(&mut s).len(), 1);
    s.run("ALTER TABLE account ALTER balance TYPE bigint");
    assert_known(&mut s, 5);
    behind_the_triggers(&mut s, "account", &[UP, DOWN]);
    let xmin = xmin(&mut s);
    assert_eq!(found(&mut s), [stranger(&xmin)]);
}

#[test]
fn rows_that_the_log_contradicts_are_found_both_ways() {
    let mut s = account(&database());
    behind_the_triggers(
        &mut s,
        "account",
        &["UPDATE account SET balance = 7 WHERE id = 2", "INSERT INTO account VALUES (6, 1)"],
    );
    s.run("SET audit.record_unchanged = on");
    assert_found(
        &mut s,
        &["table public.account", "table public.account", "transaction public.account", "transaction public.account"],
    );
    s.run("SET audit.record_unchanged = off");
    assert_found(&mut s, &["table public.account", "table public.account"]);
}

#[test]
fn a_row_without_a_key_is_named_by_its_text() {
    let mut s = database().connect();
    s.run("CREATE TABLE account (id int, balance int); SELECT audit.protect('account'); INSERT INTO account VALUES (1, 5), (2, 100)");
    behind_the_triggers(&mut s, "account", &[UP, DOWN]);
    let xmin = xmin(&mut s);
    assert_eq!(found(&mut s), [stranger(&xmin).replace("{\"id\":2}", "{\"id\":2,\"balance\":100}")]);
}

#[test]
fn a_removed_entry_leaves_a_row_whose_transaction_nobody_tells() {
    let mut s = account(&database());
    guards_off(&mut s, "audit.log", r#"DELETE FROM audit.log WHERE op = 'INSERT' AND key ->> 'id' = '3'"#);
    let kinds: Vec<String> =
        found(&mut s).iter().map(|one| one.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(kinds, ["missing", "table", "transaction"]);
}

/// Entries about another table, or of it before its anchor, vouch for nothing.
#[test]
fn a_transaction_is_known_only_for_the_tables_that_its_entries_are_about() {
    let mut s = account(&database());
    s.run("CREATE TABLE other (id int); SELECT audit.protect('other')");
    s.run("ALTER TABLE account DISABLE TRIGGER audit_row");
    s.run(&format!("BEGIN; {UP}; {DOWN}; INSERT INTO other VALUES (1); COMMIT"));
    s.run("ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row");
    let xmin = xmin(&mut s);
    assert_eq!(found(&mut s), [stranger(&xmin)]);
}

/// The limit of the aspect: it knows transactions, not rows.
#[test]
fn a_transaction_that_has_also_changed_honestly_vouches_for_its_rows() {
    let mut s = account(&database());
    s.run("ALTER TABLE account DISABLE TRIGGER audit_row");
    s.run(UP);
    s.run(&format!(
        "BEGIN; {DOWN}; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; UPDATE account SET balance = 101 WHERE id = 1; COMMIT"
    ));
    assert_known(&mut s, 5);
    // That the trigger was off is in the log all the same.
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'DDL'"), 2);
    // A savepoint of its own does not share in it.
    s.run("ALTER TABLE account DISABLE TRIGGER audit_row");
    s.run(&format!(
        "BEGIN; SAVEPOINT a; {UP}; {DOWN}; RELEASE a; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; UPDATE account SET balance = 102 WHERE id = 1; COMMIT"
    ));
    let xmin = xmin(&mut s);
    assert_eq!(found(&mut s), [stranger(&xmin)]);
}

#[test]
fn very_many_rows_of_one_table_are_counted_in_the_end() {
    let mut s = database().connect();
    s.run("CREATE TABLE account (id int PRIMARY KEY, balance int); SELECT audit.protect('account'); INSERT INTO account SELECT g, g FROM generate_series(1, 1500) g");
    behind_the_triggers(
        &mut s,
        "account",
        &["UPDATE account SET balance = -balance", "UPDATE account SET balance = -balance"],
    );
    let found = found(&mut s);
    assert_eq!(found.len(), 1001);
    let last = "transaction public.account: 500 more rows were written by transactions of which the log knows nothing";
    assert_eq!(found.iter().filter(|one| *one == last).count(), 1, "{found:?}");
}

// ---- What is not ----

/// Each entry names the transaction that stands in the row that it has written.
#[track_caller]
fn assert_entries_name_their_rows(s: &mut Session, table: &str) {
    let differ = s.column(&format!(
        "SELECT t.id || ': ' || t.xmin || ' ' || e.xid || ' ' || coalesce(e.subxid::text, '-')
           FROM {table} t JOIN LATERAL (
             SELECT * FROM audit.log WHERE table_oid = t.tableoid AND coalesce(new ->> 'id', key ->> 'id') = t.id::text ORDER BY id DESC LIMIT 1) e ON true
          WHERE t.xmin::text::bigint <> coalesce(e.subxid, e.xid)::text::bigint % (2::bigint ^ 32)::bigint"
    ));
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn rows_written_inside_savepoints_are_known() {
    let mut s = account(&database());
    s.run(
        "BEGIN; SAVEPOINT a; UPDATE account SET balance = 1 WHERE id = 1; SAVEPOINT b; UPDATE account SET balance = 2 WHERE id = 2;
         RELEASE b; UPDATE account SET balance = 3 WHERE id = 3; RELEASE a; UPDATE account SET balance = 4 WHERE id = 4; COMMIT",
    );
    // The last of them was made outside again.
    assert_eq!(
        s.column("SELECT key ->> 'id' || ' ' || (subxid IS NULL) FROM audit.log WHERE op = 'UPDATE' ORDER BY id"),
        ["1 false", "2 false", "3 false", "4 true"]
    );
    s.run(
        "BEGIN; INSERT INTO account VALUES (6, 1); SAVEPOINT a; UPDATE account SET balance = 11 WHERE id = 1; ROLLBACK TO a;
         SAVEPOINT b; UPDATE account SET balance = 12 WHERE id = 1; DELETE FROM account WHERE id = 5; COMMIT",
    );
    s.run(
        "CREATE FUNCTION put(i int, b int) RETURNS void LANGUAGE plpgsql AS $$
           BEGIN
             BEGIN INSERT INTO account VALUES (i, b); EXCEPTION WHEN unique_violation THEN UPDATE account SET balance = b WHERE id = i; END;
             BEGIN UPDATE account SET balance = b + 1 WHERE id = i; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
           END $$",
    );
    s.run("SELECT put(1, 100); SELECT put(100, 1)");
    s.run("BEGIN; SAVEPOINT a; SELECT put(g, g + 1000) FROM generate_series(1, 30) g; RELEASE a; COMMIT");
    assert_entries_name_their_rows(&mut s, "account");
    let rows = s.number("SELECT count(*) FROM account");
    assert_known(&mut s, rows);
    // Only what a subtransaction has written names one, and that comes after the transaction.
    assert!(s.holds("SELECT bool_and(subxid > xid) AND count(*) > 30 FROM audit.log WHERE subxid IS NOT NULL"));
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE subxid IS NOT NULL AND op = 'DELETE'"), 1);
    assert!(s.holds("SELECT bool_and(position('\"subxid\":\"' || subxid || '\"' IN audit.line(chain, seq)) > 0) FROM audit.log WHERE subxid IS NOT NULL"));
}

#[test]
fn a_prepared_transaction_and_what_is_rolled_back_are_no_alarm() {
    let mut s = account(&database());
    s.run("BEGIN; UPDATE account SET balance = 1 WHERE id = 1; SAVEPOINT a; UPDATE account SET balance = 2 WHERE id = 2; PREPARE TRANSACTION 'transactions_a'");
    assert_known(&mut s, 5);
    s.run("COMMIT PREPARED 'transactions_a'");
    assert_known(&mut s, 5);
    s.run("BEGIN; UPDATE account SET balance = 7; PREPARE TRANSACTION 'transactions_b'");
    s.run("ROLLBACK PREPARED 'transactions_b'");
    s.run("BEGIN; UPDATE account SET balance = 8; ROLLBACK");
    assert_known(&mut s, 5);
    // Inside of the transaction itself as well.
    s.run("BEGIN; UPDATE account SET balance = 9; SAVEPOINT a; INSERT INTO account VALUES (6, 6)");
    assert_known(&mut s, 6);
    s.run("ROLLBACK TO a");
    assert_known(&mut s, 5);
    s.run("COMMIT");
    assert_known(&mut s, 5);
}

#[test]
fn every_way_to_write_a_row_is_known() {
    let mut s = database().connect();
    s.run(
        "CREATE TABLE customer (id int PRIMARY KEY, name text);
         CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customer ON UPDATE CASCADE ON DELETE SET NULL, total int, twice int GENERATED ALWAYS AS (total * 2) STORED);
         CREATE TABLE part (id int, day int, v int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
         CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20);
         SELECT audit.protect('customer'); SELECT audit.protect('orders'); SELECT audit.protect('part')",
    );
    let copy = |s: &mut Session, statement: &str, data: &str| {
        let mut writer = s.copy_in(statement).expect("COPY begins");
        std::io::Write::write_all(&mut writer, data.as_bytes()).expect("it takes the rows");
        writer.finish().expect("COPY ends");
    };
    copy(&mut s, "COPY customer FROM STDIN", "1\ta\n2\tb\n3\tc\n4\td\n");
    s.run("BEGIN; CREATE TABLE frozen (id int PRIMARY KEY); SELECT audit.protect('frozen'); TRUNCATE frozen");
    copy(&mut s, "COPY frozen FROM STDIN WITH (FREEZE)", "1\n2\n3\n");
    s.run("COMMIT");
    s.run("BEGIN; TRUNCATE frozen; SAVEPOINT a; TRUNCATE frozen");
    copy(&mut s, "COPY frozen FROM STDIN WITH (FREEZE)", "1\n2\n3\n4\n");
    s.run("COMMIT");
    s.run("INSERT INTO orders SELECT g, g % 4 + 1, g FROM generate_series(1, 20) g");
    s.run("UPDATE customer SET id = 40 WHERE id = 4; DELETE FROM customer WHERE id = 3");
    s.run("INSERT INTO customer VALUES (1, 'x'), (5, 'e') ON CONFLICT (id) DO UPDATE SET name = excluded.name || '!'");
    s.run("INSERT INTO customer VALUES (1, 'y'), (6, 'f') ON CONFLICT DO NOTHING");
    s.run(
        "MERGE INTO customer c USING (VALUES (1, 'm'), (2, 'del'), (7, 'g')) AS v (id, name) ON c.id = v.id
           WHEN MATCHED AND v.name = 'del' THEN DELETE WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.name)",
    );
    s.run(
        "INSERT INTO part SELECT g, g, g FROM generate_series(1, 8) g; UPDATE part SET day = day + 9 WHERE id % 2 = 0",
    );
    s.run("WITH moved AS (DELETE FROM part WHERE id = 1 RETURNING *) INSERT INTO part SELECT id, 19, v FROM moved");
    s.run("BEGIN; DECLARE c CURSOR FOR SELECT * FROM orders FOR UPDATE; FETCH 3 FROM c; UPDATE orders SET total = -1 WHERE CURRENT OF c; COMMIT");
    s.run("BEGIN; SELECT * FROM orders WHERE id < 9 FOR NO KEY UPDATE; SAVEPOINT a; SELECT * FROM orders FOR SHARE; COMMIT");
    s.run(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF pg_trigger_depth() < 2 THEN UPDATE orders SET total = total + 1 WHERE id = new.id; END IF; RETURN NULL; END $$;
         CREATE TRIGGER a_again AFTER UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION again()",
    );
    s.run("UPDATE orders SET total = 5 WHERE id < 4; DROP TRIGGER a_again ON orders");
    s.run("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE orders SET total = 66 WHERE id = 6; COMMIT");
    s.run("DO $$ BEGIN FOR i IN 1..3 LOOP UPDATE orders SET total = total + 10 WHERE id = i; COMMIT; END LOOP; END $$");
    let rows = s.number("SELECT (SELECT count(*) FROM customer) + (SELECT count(*) FROM orders) + (SELECT count(*) FROM part) + (SELECT count(*) FROM frozen)");
    assert_known(&mut s, rows);
}

#[test]
fn maintenance_and_ddl_leave_every_row_known() {
    let mut s = account(&database());
    s.run("UPDATE account SET balance = balance + id WHERE id > 1");
    for command in [
        "VACUUM account",
        "VACUUM (FREEZE) account",
        "UPDATE account SET balance = balance - 1 WHERE id = 3",
        "VACUUM (FULL) account",
        "CLUSTER account USING account_pkey",
        "REINDEX TABLE account",
        "ANALYZE account",
        "ALTER TABLE account ADD c text DEFAULT 'x'",
        "ALTER TABLE account ADD d float8 DEFAULT random()",
        "ALTER TABLE account ALTER balance TYPE numeric",
        "ALTER TABLE account ALTER c TYPE varchar(10)",
        "ALTER TABLE account SET (fillfactor = 50)",
        "ALTER TABLE account DROP c",
        "ALTER TABLE account SET TABLESPACE pg_default",
        "ALTER TABLE account SET UNLOGGED; ALTER TABLE account SET LOGGED",
        "BEGIN; SAVEPOINT a; ALTER TABLE account SET UNLOGGED; ALTER TABLE account SET LOGGED; UPDATE account SET balance = 77 WHERE id = 4; COMMIT",
        "BEGIN; SAVEPOINT a; ALTER TABLE account ALTER balance TYPE bigint; SAVEPOINT b; UPDATE account SET balance = 1 WHERE id = 1; COMMIT",
        "BEGIN; UPDATE account SET balance = 2 WHERE id = 2; SAVEPOINT a; ALTER TABLE account ADD e int DEFAULT 1; COMMIT",
        "BEGIN; DELETE FROM account; TRUNCATE account; INSERT INTO account (id, balance) SELECT g, 0 FROM generate_series(1, 5) g; COMMIT",
        "ALTER TABLE account RENAME TO konto; ALTER TABLE konto RENAME TO account",
    ] {
        println!("{command}");
        for command in command.split("; ") {
            s.run(command);
        }
        assert_known(&mut s, 5);
    }
}

/// The transaction that protects may have its id long before others that it finds the rows of: its own id is no anchor.
#[test]
fn rows_of_transactions_that_began_after_the_protecting_one_are_known() {
    let database = database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run("CREATE TABLE account (id int PRIMARY KEY, balance int)");
    s.run("BEGIN; SELECT pg_current_xact_id()");
    other.run("INSERT INTO account VALUES (1, 1); BEGIN; SAVEPOINT a; INSERT INTO account VALUES (2, 2); COMMIT");
    s.run("SAVEPOINT a; INSERT INTO account VALUES (3, 3); RELEASE a; SELECT audit.protect('account'); SAVEPOINT b; INSERT INTO account VALUES (4, 4); COMMIT");
    assert_known(&mut s, 4);
    s.run("BEGIN; SELECT pg_current_xact_id()");
    other.run("UPDATE account SET balance = 11 WHERE id = 1");
    s.run("ALTER TABLE account ALTER balance TYPE bigint; COMMIT");
    assert_known(&mut s, 4);
}

#[test]
fn partitions_that_come_and_go_leave_every_row_known() {
    let mut s = database().connect();
    s.run(
        "CREATE TABLE part (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10); SELECT audit.protect('part'); INSERT INTO part VALUES (1, 1), (2, 2);
         CREATE TABLE part_2 (id int NOT NULL, day int NOT NULL, PRIMARY KEY (id, day)); INSERT INTO part_2 VALUES (11, 11);
         ALTER TABLE part ATTACH PARTITION part_2 FOR VALUES FROM (10) TO (20); UPDATE part SET day = 12 WHERE id = 1;
         ALTER TABLE part DETACH PARTITION part_1; INSERT INTO part_1 VALUES (3, 3); CREATE TABLE part_3 PARTITION OF part DEFAULT; INSERT INTO part VALUES (99, 99)",
    );
    assert_known(&mut s, 5);
}

// ---- Other servers ----

#[test]
fn a_dump_is_known_before_and_after_the_first_write() {
    let cluster = Cluster::shared();
    let original = cluster.database();
    let mut s = account(&original);
    s.run("BEGIN; SAVEPOINT a; UPDATE account SET balance = 1 WHERE id = 1; COMMIT");
    let dump = cluster.program("pg_dump", ["-d", &*original.name]);
    // A server whose transactions have come further, and one where they have not come as far.
    s.run("DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    let fresh = Cluster::builder().start();
    for target in [cluster.bare_database(), fresh.bare_database()] {
        target.psql(&dump);
        let mut s = target.connect();
        s.run("SET audit.record_unchanged = on");
        assert_clean(&mut s);
        let (checked, detail) = aspect(&mut s);
        assert_eq!(checked, 0);
        assert!(
            detail.contains("public.account not asked, as the database was restored and has not written yet"),
            "{detail}"
        );
        s.run("BEGIN; SAVEPOINT a; UPDATE account SET balance = 2 WHERE id = 2; COMMIT");
        assert_known(&mut s, 5);
        behind_the_triggers(
            &mut s,
            "account",
            &["UPDATE account SET balance = 0 WHERE id = 3", "UPDATE account SET balance = 100 WHERE id = 3"],
        );
        assert_eq!(found(&mut s).len(), 1);
    }
}

#[test]
fn a_standby_says_what_its_primary_says_also_when_it_takes_over() {
    let mut primary = Cluster::builder().start();
    let standby = primary.standby();
    let name = {
        let database = primary.database();
        let mut s = account(&database);
        s.run("VACUUM (FREEZE) account");
        s.run("SELECT audit.seal(); UPDATE account SET balance = 4 WHERE id = 4");
        primary.wait_for(&standby);
        let mut there = standby.connect(&database.name);
        assert_known(&mut there, 5);
        behind_the_triggers(&mut s, "account", &[UP, DOWN]);
        primary.wait_for(&standby);
        let xmin = xmin(&mut s);
        assert_eq!(found(&mut there), [stranger(&xmin)]);
        database.name.clone()
    };
    primary.stop_immediately();
    let mut there = standby.connect(&name);
    there.run("SELECT pg_promote()");
    there.run("SELECT audit.seal(); INSERT INTO account VALUES (6, 6)");
    assert_eq!(there.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 1);
    let xmin = xmin(&mut there);
    assert_eq!(found(&mut there), [stranger(&xmin)]);
    there.run("DELETE FROM account WHERE id = 2");
    assert_known(&mut there, 5);
}

#[test]
fn a_crash_leaves_every_row_known() {
    let mut cluster = Cluster::builder().durable().start();
    let name = {
        let database = cluster.database();
        let mut s = account(&database);
        let mut open = database.connect();
        open.run("BEGIN; UPDATE account SET balance = 0 WHERE id = 1");
        s.run("BEGIN; SAVEPOINT a; UPDATE account SET balance = 2 WHERE id = 2; COMMIT");
        database.name.clone()
    };
    cluster.stop_immediately();
    cluster.start();
    let mut s = cluster.connect(&name);
    s.run("UPDATE account SET balance = 3 WHERE id = 3");
    assert_known(&mut s, 5);
}

#[test]
fn a_copied_database_goes_on_knowing() {
    let cluster = Cluster::shared();
    let original = cluster.database();
    drop(account(&original));
    let mut s = cluster.copy_of(&original).connect();
    s.run("SELECT audit.seal(); UPDATE account SET balance = 1 WHERE id = 1");
    assert_known(&mut s, 5);
}

#[test]
fn what_logical_replication_applies_is_known() {
    let cluster = Cluster::builder().conf("wal_level = logical").start();
    let (publisher, subscriber) = (cluster.bare_database(), cluster.database());
    let (mut p, mut s) = (publisher.connect(), subscriber.connect());
    p.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'copied'), (2, 'copied'); CREATE PUBLICATION p FOR TABLE t");
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    p.run("SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    let host = cluster.data().parent().expect("data is inside").display().to_string();
    s.run(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={host} port={} user=postgres dbname={}' PUBLICATION p WITH (create_slot = false, streaming = on)",
        cluster.port(),
        publisher.name,
    ));
    audit_tests::wait_until("the rows are copied", || s.number("SELECT count(*) FROM t") == 2);
    p.run("BEGIN; INSERT INTO t VALUES (3, 'c'); SAVEPOINT a; UPDATE t SET v = 'b' WHERE id = 2; COMMIT");
    audit_tests::wait_until("the changes are applied", || {
        s.number("SELECT count(*) FROM t WHERE v IN ('b', 'c')") == 2
    });
    assert_known(&mut s, 3);
    s.run("ALTER SUBSCRIPTION s DISABLE");
    s.run("DROP SUBSCRIPTION s");
}

/// By the program itself, from a server of this major to another one of it: it takes the same path.
#[test]
fn an_upgraded_server_knows_every_row() {
    let (mut old, mut new) = (Cluster::builder().start(), Cluster::builder().start());
    let name = {
        let database = old.database();
        let mut s = account(&database);
        s.run("BEGIN; SAVEPOINT a; UPDATE account SET balance = 1 WHERE id = 1; COMMIT; SELECT audit.seal()");
        s.run("DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
        s.run("INSERT INTO account VALUES (6, 6)");
        database.name.clone()
    };
    old.stop();
    new.stop();
    new.upgrade_from(&old);
    new.start();
    let mut s = new.connect(&name);
    assert_known(&mut s, 6);
    s.run("SELECT audit.seal(); UPDATE account SET balance = 5 WHERE id = 5");
    assert_known(&mut s, 6);
    behind_the_triggers(&mut s, "account", &[UP, DOWN]);
    let xmin = xmin(&mut s);
    assert_eq!(found(&mut s), [stranger(&xmin)]);
}

/// Four billion transactions later, and across the end of the 32 bits.
#[test]
fn rows_are_told_apart_across_a_wraparound() {
    let mut cluster = Cluster::builder().conf("autovacuum = off").start();
    let name = {
        let database = cluster.database();
        let mut s = account(&database);
        behind_the_triggers(&mut s, "account", &[UP, DOWN]);
        s.run("BEGIN; SAVEPOINT a; UPDATE account SET balance = 3 WHERE id = 3; COMMIT");
        let xmin = xmin(&mut s);
        assert_eq!(found(&mut s), [stranger(&xmin)]);
        database.name.clone()
    };
    cluster.connect("postgres").run("UPDATE pg_database SET datallowconn = true");
    cluster.program("vacuumdb", ["--all", "--freeze"]);
    cluster.stop();
    cluster.go_to_transaction(4_294_967_000);
    cluster.start();
    let mut s = cluster.connect(&name);
    let next =
        |s: &mut Session| s.text("SELECT pg_snapshot_xmax(pg_current_snapshot())").parse::<u64>().expect("a number");
    assert!((4_294_967_000..4_294_967_290).contains(&next(&mut s)));
    // Else the server would take what it freezes from here on for damaged.
    s.run("VACUUM (FREEZE) account");
    let xmin_before = xmin(&mut s);
    assert_eq!(found(&mut s), [stranger(&xmin_before)]);
    s.run("UPDATE account SET balance = 1 WHERE id = 1; UPDATE account SET balance = 2 WHERE id = 2");
    assert_known(&mut s, 5);
    // A transaction before the end of the round, with subtransactions behind it.
    s.run("BEGIN; UPDATE account SET balance = 11 WHERE id = 1");
    let mut other = cluster.connect(&name);
    other.run("DO $$ BEGIN FOR i IN 1..400 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$");
    assert!(next(&mut other) > 1 << 32);
    s.run("SAVEPOINT a; UPDATE account SET balance = 12 WHERE id = 2; COMMIT; UPDATE account SET balance = 13 WHERE id = 3");
    assert!(s.holds("SELECT xid < '4294967296'::xid8 AND subxid > '4294967296'::xid8 FROM audit.log WHERE subxid IS NOT NULL ORDER BY id DESC LIMIT 1"));
    assert_known(&mut s, 5);
    behind_the_triggers(&mut s, "account", &[UP, "UPDATE account SET balance = 12 WHERE id = 2"]);
    let xmin = xmin(&mut s);
    assert!(xmin.parse::<u64>().expect("a number") < 10_000);
    assert_eq!(found(&mut s), [stranger(&xmin)]);
    // Frozen, it may be as old as the table before its baseline, and is not held against anybody any more.
    s.run("VACUUM (FREEZE) account");
    assert!(s.holds("SELECT (SELECT xmin FROM account WHERE id = 2)::text::bigint < (new ->> 'next_xid')::bigint FROM audit.log WHERE op = 'PROTECT'"));
    assert_known(&mut s, 5);
}

// ---- Who asks, and how ----

#[test]
fn who_may_not_read_a_table_learns_nothing_of_its_transactions() {
    let database = database();
    let mut s = account(&database);
    behind_the_triggers(&mut s, "account", &[UP, DOWN]);
    s.run("CREATE TABLE other (id int PRIMARY KEY); SELECT audit.protect('other'); INSERT INTO other VALUES (1)");
    s.run("DROP ROLE IF EXISTS transactions_auditor; CREATE ROLE transactions_auditor LOGIN");
    s.run("SELECT audit.grant_auditor('transactions_auditor'); GRANT SELECT ON other TO transactions_auditor");
    s.run(&format!("ALTER DATABASE \"{}\" SET audit.record_unchanged = on", database.name));
    let mut auditor = database.connect_as("transactions_auditor");
    let details: Vec<String> = findings(&mut auditor).iter().map(|one| one.detail.clone()).collect();
    assert!(details.is_empty(), "{details:?}");
    assert_eq!(aspect(&mut auditor).0, 1);
    s.run("GRANT SELECT ON account TO transactions_auditor");
    assert_found(&mut auditor, &["transaction public.account"]);
    s.run("DROP OWNED BY transactions_auditor; DROP ROLE transactions_auditor");
}

#[test]
fn it_is_said_when_nobody_asked() {
    let mut s = account(&database());
    s.run("SELECT audit.seal()");
    for (call, says) in
        [("tables => false", "not asked for"), ("since_seal => 1", "not asked for: since_seal verifies what is new")]
    {
        let row = s.rows(&format!("SELECT ok, checked, detail FROM audit.verify({call}) WHERE what = 'transaction'"));
        let row: Vec<_> = row[0].iter().map(|value| value.as_deref().unwrap_or_default()).collect();
        assert_eq!(row, ["t", "0", says]);
    }
    s.run("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1); SELECT audit.protect('late', baseline => false)");
    assert_eq!(aspect(&mut s).0, 5);
}

#[test]
fn parallel_workers_gather_the_same_transactions() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE account (id int PRIMARY KEY, balance int); SELECT audit.protect('account')");
    s.run("CREATE TABLE other (id int PRIMARY KEY); SELECT audit.protect('other')");
    s.run("DO $$ BEGIN FOR i IN 1..3000 LOOP INSERT INTO account VALUES (i, 100); IF i % 3 = 0 THEN INSERT INTO other VALUES (i); END IF; COMMIT; END LOOP; END $$");
    s.run("SET min_parallel_table_scan_size = 0; SET client_min_messages = debug1");
    for (workers, together) in [(0, false), (2, true)] {
        s.run(&format!("SET max_parallel_workers_per_gather = {workers}"));
        s.notices();
        assert_known(&mut s, 4000);
        assert_eq!(s.notices().iter().any(|notice| notice.contains("parallel workers")), together);
    }
    behind_the_triggers(&mut s, "account", &[UP, DOWN]);
    let together = found(&mut s);
    s.run("SET max_parallel_workers_per_gather = 0");
    let xmin = xmin(&mut s);
    assert_eq!(together, [stranger(&xmin)]);
    assert_eq!(found(&mut s), together);
}
