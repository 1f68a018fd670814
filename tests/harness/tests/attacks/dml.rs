//! Ordinary changes in forms that are easily recorded wrongly, or not at all.

use super::{APP, OWNER, SUPERUSER, Scene};

#[test]
fn rows_copied_in_frozen_are_recorded() {
    let mut scene = Scene::account();
    scene
        .attack_by(|database| {
            database.psql(
                "BEGIN; TRUNCATE account;\nCOPY account FROM STDIN WITH (FREEZE);\n7\teve\t1000000\n8\teve\t1\n\\.\nCOMMIT;",
            );
        })
        .assert_recorded(&["TRUNCATE account", "INSERT account", "INSERT account"]);
}

#[test]
fn gaps_of_what_was_rolled_back_hide_nothing_and_alarm_nobody() {
    let mut scene = Scene::account();
    scene
        .attack(
            APP,
            &[
                "BEGIN",
                "UPDATE account SET balance = 0",
                "ROLLBACK",
                "INSERT INTO account SELECT 1 FROM generate_series(1, 3)",
            ],
        )
        .assert_refused();
    scene.attack(APP, &["DELETE FROM account WHERE id = 2"]).assert_recorded(&["DELETE account"]);
}

#[test]
fn deferring_constraints_does_not_put_off_the_recording() {
    let mut scene = Scene::account();
    let mut s = scene.database.connect();
    s.run("BEGIN; SET CONSTRAINTS ALL DEFERRED");
    s.run("UPDATE account SET balance = 1 WHERE id = 1");
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'UPDATE'"), 1, "not recorded at once");
    s.run("ROLLBACK");
    scene
        .attack(
            APP,
            &["BEGIN", "SET CONSTRAINTS ALL DEFERRED", "UPDATE account SET balance = 1 WHERE id = 1", "COMMIT"],
        )
        .assert_recorded(&["UPDATE account"]);
}

/// Text of 1 GB cannot be recorded and so not be written; the row that is there stays as it is. Short of that everything goes.
#[test]
fn null_bitmaps_and_wide_rows_lose_no_column() {
    let columns: Vec<String> = (1..=450).map(|number| format!("c{number} text")).collect();
    let mut scene = Scene::new(
        &format!(
            "CREATE TABLE wide (id int PRIMARY KEY, {}); GRANT ALL ON wide TO attacks_app;
             INSERT INTO wide (id, c450) VALUES (1, 'last'); SELECT audit.protect('wide')",
            columns.join(", ")
        ),
        &["public.wide"],
    );
    scene
        .attack(
            APP,
            &["UPDATE wide SET c449 = 'x'", "UPDATE wide SET c449 = NULL, c1 = ''", "UPDATE wide SET c450 = NULL"],
        )
        .assert_recorded(&["UPDATE wide", "UPDATE wide", "UPDATE wide"]);
    assert_eq!(
        scene.witness.column("SELECT concat_ws(' ', old, new) FROM audit.log WHERE op = 'UPDATE' ORDER BY id"),
        [
            r#"{"c449":null} {"c449":"x"}"#,
            r#"{"c1":null,"c449":"x"} {"c1":"","c449":null}"#,
            r#"{"c450":"last"} {"c450":null}"#
        ]
    );
}

/// The column holds a number; what it stands for lies in a catalog that has no triggers.
#[test]
fn contents_of_large_objects_are_out_of_reach() {
    let mut scene = Scene::new(
        "CREATE TABLE doc (id int PRIMARY KEY, body oid);
         INSERT INTO doc VALUES (1, lo_from_bytea(0, 'signed')); SELECT audit.protect('doc');
         CREATE VIEW reading AS SELECT id, lo_get(body) FROM doc",
        &["public.doc", "public.reading"],
    );
    scene.attack(SUPERUSER, &["SELECT lo_put(body, 0, 'forged') FROM doc"]).assert_out_of_reach();
    scene.attack(SUPERUSER, &["UPDATE doc SET body = lo_from_bytea(0, 'other')"]).assert_recorded(&["UPDATE doc"]);
}

#[test]
fn what_can_change_elsewhere_is_never_taken_for_protected() {
    let mut scene = Scene::new(
        "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;
         CREATE TABLE part (id int, v int) PARTITION BY LIST (id); CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
         CREATE TABLE parent (id int); SELECT audit.protect('part'); SELECT audit.protect('parent');
         CREATE FOREIGN TABLE far (id int, v int) SERVER elsewhere;
         CREATE VIEW view AS SELECT 1 AS id; CREATE MATERIALIZED VIEW stored AS SELECT 1 AS id; CREATE SEQUENCE numbers;
         CREATE UNLOGGED TABLE fleeting (id int, v int)",
        &[],
    );
    let attempts = [
        "SELECT audit.protect('far')",
        "SELECT audit.protect('view')",
        "SELECT audit.protect('stored')",
        "SELECT audit.protect('numbers')",
        "SELECT audit.protect('fleeting')",
        "CREATE FOREIGN TABLE part_2 PARTITION OF part FOR VALUES IN (2) SERVER elsewhere",
        "ALTER TABLE part ATTACH PARTITION far FOR VALUES IN (2)",
        "ALTER TABLE part ATTACH PARTITION fleeting FOR VALUES IN (3)",
        "CREATE UNLOGGED TABLE part_3 PARTITION OF part FOR VALUES IN (3)",
        "CREATE TEMPORARY TABLE child () INHERITS (parent)",
        "CREATE FOREIGN TABLE child () INHERITS (parent) SERVER elsewhere",
        "CREATE UNLOGGED TABLE child () INHERITS (parent)",
        "ALTER TABLE far INHERIT parent",
    ];
    scene.attack(SUPERUSER, &attempts).assert_refused();
}

/// A partition is written directly, moved away from, and emptied by itself.
#[test]
fn no_side_door_of_a_partition_is_open() {
    let mut scene = Scene::new(
        "CREATE TABLE p (id int, k text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
         CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b');
         INSERT INTO p VALUES (1, 'a'), (2, 'b'); ALTER TABLE p OWNER TO attacks_owner; ALTER TABLE p_a OWNER TO attacks_owner;
         ALTER TABLE p_b OWNER TO attacks_owner; SELECT audit.protect('p')",
        &["public.p"],
    );
    scene.attack(OWNER, &["INSERT INTO p_a VALUES (3, 'a')"]).assert_recorded(&["INSERT p_a"]);
    scene.attack(OWNER, &["UPDATE p SET k = 'b' WHERE id = 3"]).assert_recorded(&["DELETE p_a", "INSERT p_b"]);
    scene.attack(OWNER, &["TRUNCATE p_b"]).assert_recorded(&["TRUNCATE p_b"]);
    scene.attack(OWNER, &["TRUNCATE ONLY p", "TRUNCATE p_a, p_b"]).assert_recorded(&["TRUNCATE p_a", "TRUNCATE p_b"]);
    scene
        .attack(
            OWNER,
            &["CREATE TABLE p_c PARTITION OF p FOR VALUES IN ('c')", "INSERT INTO p_c VALUES (4, 'c')", "TRUNCATE p_c"],
        )
        .assert_recorded(&["PROTECT p_c", "INSERT p_c", "TRUNCATE p_c"]);
}
