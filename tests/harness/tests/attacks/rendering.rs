//! Texts that could mean two things, or hide that something changed.

use audit_tests::guards_off;

use super::{APP, OWNER, SUPERUSER, Scene, cluster};

fn document(columns: &str, row: &str) -> Scene {
    Scene::new(
        &format!(
            "CREATE TABLE doc (id int PRIMARY KEY, {columns}); INSERT INTO doc VALUES (1, {row});
             GRANT ALL ON doc TO attacks_app; SELECT audit.protect('doc')"
        ),
        &["public.doc"],
    )
}

/// The new values that were recorded, in order.
#[track_caller]
fn recorded(scene: &mut Scene) -> Vec<String> {
    scene.witness.column("SELECT new FROM audit.log WHERE op IN ('INSERT', 'UPDATE') ORDER BY id")
}

#[test]
fn a_float_that_changes_in_its_last_digit_is_recorded_whatever_the_session_shows() {
    let mut scene = document("f float8, g float4", "1234.56789, 1.5");
    scene
        .attack(
            APP,
            &[
                "SET extra_float_digits = -15",
                "UPDATE doc SET f = 1234.56788",
                "UPDATE doc SET f = 1234.567880000001, g = 1.5000001",
            ],
        )
        .assert_recorded(&["UPDATE doc", "UPDATE doc"]);
    assert_eq!(recorded(&mut scene), [r#"{"f":1234.56788}"#, r#"{"f":1234.567880000001,"g":1.5000001}"#]);
}

#[test]
fn a_change_inside_a_repeated_key_of_json_is_recorded() {
    let mut scene = document("j json", r#"'{"a": 1, "a": 2}'"#);
    scene
        .attack(APP, &[r#"UPDATE doc SET j = '{"a": 9, "a": 2}'"#, r#"UPDATE doc SET j = '{"a":9,"a":2}'"#])
        .assert_recorded(&["UPDATE doc", "UPDATE doc"]);
}

/// Valid as json, impossible as jsonb or text: the row must stay one that can be changed and removed.
#[test]
fn json_that_cannot_become_jsonb_poisons_no_row() {
    let mut scene = document("j json, v int", r#"'{"a": "\u0000"}', 1"#);
    scene
        .attack(
            APP,
            &[
                "UPDATE doc SET v = 2",
                r#"UPDATE doc SET j = '["\u0000", "\ud800", 1e400]'"#,
                r#"INSERT INTO doc VALUES (2, '"\u0000"', 3)"#,
                "DELETE FROM doc",
            ],
        )
        .assert_recorded(&["UPDATE doc", "UPDATE doc", "INSERT doc", "DELETE doc", "DELETE doc"]);
}

#[test]
fn null_and_empty_and_the_word_null_are_three_values() {
    let mut scene = document("a text, b text[], c int4range", "NULL, NULL, NULL");
    scene
        .attack(
            APP,
            &[
                "UPDATE doc SET a = '', b = '{}', c = 'empty'",
                "UPDATE doc SET a = 'null', b = '{NULL}', c = '(,)'",
                "UPDATE doc SET a = NULL, b = '{\"NULL\"}', c = '[,)'",
            ],
        )
        // The last change is none to the range: both spell the same value.
        .assert_recorded(&["UPDATE doc", "UPDATE doc", "UPDATE doc"]);
    assert_eq!(
        recorded(&mut scene),
        [
            r#"{"a":"","b":"{}","c":"empty"}"#,
            r#"{"a":"null","b":"{NULL}","c":"(,)"}"#,
            r#"{"a":null,"b":"{\"NULL\"}"}"#
        ]
    );
}

#[test]
fn scale_padding_and_negative_zero_are_told_apart() {
    let mut scene = document("n numeric, c char(4), f float8, i interval", "1.0, 'a', 0, '1 day'");
    scene
        .attack(
            APP,
            &[
                "UPDATE doc SET n = 1.00",
                "UPDATE doc SET c = 'a  '",
                "UPDATE doc SET f = '-0'",
                "UPDATE doc SET i = '24 hours'",
                "UPDATE doc SET n = 'NaN', f = '-Infinity'",
            ],
        )
        .assert_recorded(&["UPDATE doc"; 4]);
    assert_eq!(
        recorded(&mut scene),
        [r#"{"n":1.00}"#, r#"{"f":-0}"#, r#"{"i":"24:00:00"}"#, r#"{"n":"NaN","f":"-Infinity"}"#]
    );
}

/// An entry of another database, with a hash that is right there, is none here.
#[test]
fn an_entry_carried_over_from_another_database_is_reported() {
    let mut scene = Scene::account();
    let other = cluster().database();
    other.connect().run(
        "CREATE TABLE account (id int PRIMARY KEY); SELECT audit.protect('account'); INSERT INTO account VALUES (1)",
    );
    let file = cluster().file("entry");
    let path = file.display();
    // The server makes the file, so that it may read it again.
    other.connect().run(&format!("COPY (SELECT * FROM audit.log WHERE op = 'INSERT') TO '{path}'"));
    scene
        .attack_by(|database| {
            guards_off(&mut database.connect(), "audit.log", &format!("COPY audit.log FROM '{path}'"));
        })
        .assert_reported(&["missing"]);
}

/// Names of columns that a query would take for something else.
#[test]
fn columns_named_after_everything_capture_nothing() {
    let mut scene = Scene::new(
        r#"CREATE TABLE t (id int PRIMARY KEY, t text, old text, new text, key text, audit text, "row" text, ledger text, prev text, hash text, "a"".b" text);
           GRANT ALL ON t TO attacks_app; SELECT audit.protect('t')"#,
        &["public.t"],
    );
    scene
        .attack(
            APP,
            &[
                "INSERT INTO t VALUES (1, 'false', 'old', 'new', '{}', 'audit', 'row', 'ledger', 'prev', 'hash', 'x')",
                r#"UPDATE t SET t = 'true', "a"".b" = E'\\"\n'"#,
            ],
        )
        .assert_recorded(&["INSERT t", "UPDATE t"]);
    assert_eq!(recorded(&mut scene)[1], r#"{"t":"true","a\".b":"\\\"\n"}"#);
}

#[test]
fn text_that_looks_like_sql_or_format_stays_text() {
    let mut scene = Scene::new(
        r#"CREATE SCHEMA "S;'"; CREATE TABLE "S;'"."$$%s\""" ("""; --" int PRIMARY KEY, v text); GRANT ALL ON "S;'"."$$%s\""" TO attacks_app;
           GRANT USAGE ON SCHEMA "S;'" TO attacks_app; SELECT audit.protect($_$"S;'"."$$%s\"""$_$)"#,
        &[],
    );
    scene
        .attack(
            APP,
            &[
                "SET standard_conforming_strings = off",
                "SET backslash_quote = on",
                "SET quote_all_identifiers = on",
                r#"INSERT INTO "S;'"."$$%s\""" VALUES (1, E'\\''; DROP TABLE account; -- $$ %s %n \\u0041 {"}')"#,
            ],
        )
        .assert_recorded(&[r#"INSERT $$%s\""#]);
    assert_eq!(recorded(&mut scene), [r#"{"\"; --":1,"v":"\\'; DROP TABLE account; -- $$ %s %n \\u0041 {\"}"}"#]);
}

/// What was recorded is hashed as it is stored, so that it can be computed again to the last digit.
#[test]
fn every_hash_can_be_computed_again_from_what_is_stored() {
    let mut scene =
        document("at timestamptz, d date, b bytea", "'2026-01-01 00:00:00.123456+00', '0001-01-01 BC', '\\x00ff'");
    scene
        .attack(
            APP,
            &[
                "SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'German, DMY'; SET bytea_output = 'escape'; SET IntervalStyle = 'iso_8601'",
                "UPDATE doc SET at = at + interval '1 microsecond', d = d - 1, b = b || '\\x00'",
                "UPDATE doc SET at = 'infinity', d = '-infinity'",
            ],
        )
        .assert_recorded(&["UPDATE doc", "UPDATE doc"]);
    let differing = scene.witness.number(
        "SELECT count(*) FROM audit.log AS l WHERE sha256(convert_to(audit.line(l.chain, l.seq), 'UTF8')) <> l.hash",
    );
    assert_eq!(differing, 0);
}

#[test]
fn an_owner_cannot_make_two_columns_look_like_one() {
    let mut scene = Scene::new(
        r#"CREATE TABLE t (id int PRIMARY KEY, a text, "a"",""b" text); ALTER TABLE t OWNER TO attacks_owner; SELECT audit.protect('t')"#,
        &["public.t"],
    );
    scene
        .attack(OWNER, &[r#"INSERT INTO t VALUES (1, 'x","b":"y', NULL)"#, r#"UPDATE t SET a = 'x', "a"",""b" = 'y'"#])
        .assert_recorded(&["INSERT t", "UPDATE t"]);
    assert_eq!(recorded(&mut scene), [r#"{"id":1,"a":"x\",\"b\":\"y","a\",\"b":null}"#, r#"{"a":"x","a\",\"b":"y"}"#]);
    scene.attack(SUPERUSER, &["SELECT 1"]).assert_refused();
}
