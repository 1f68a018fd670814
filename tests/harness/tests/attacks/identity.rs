//! Who did it, when, and what he says of himself.

use super::{APP, OWNER, SUPERUSER, Scene, run_all};

/// The names of an entry: login, session, user.
#[track_caller]
fn names(scene: &mut Scene) -> Vec<String> {
    scene.witness.column(
        "SELECT concat_ws(' ', login_name, session_name, user_name) FROM audit.log WHERE op IN ('INSERT', 'UPDATE', 'DELETE') ORDER BY id",
    )
}

#[test]
fn nobody_acts_in_the_name_of_another_without_its_showing() {
    let mut scene = Scene::account();
    scene.database.connect().run(
        "CREATE FUNCTION put() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_temp AS 'UPDATE public.account SET balance = balance + 1 WHERE id = 1';
         CREATE ROLE attacks_hat; GRANT attacks_hat TO attacks_app; GRANT ALL ON account TO attacks_hat",
    );
    scene
        .attack(
            APP,
            &[
                "UPDATE account SET balance = 1 WHERE id = 1",
                "SELECT put()",
                "SET ROLE attacks_hat",
                "UPDATE account SET balance = 5 WHERE id = 1",
            ],
        )
        .assert_recorded(&["UPDATE account"; 3]);
    scene
        .attack(SUPERUSER, &["SET SESSION AUTHORIZATION attacks_app", "UPDATE account SET balance = 3 WHERE id = 1"])
        .assert_recorded(&["UPDATE account"]);
    assert_eq!(
        names(&mut scene),
        [
            "attacks_app attacks_app attacks_app",
            "attacks_app attacks_app postgres",
            "attacks_app attacks_app attacks_hat",
            "postgres attacks_app attacks_app",
        ]
    );
}

/// What a client says of itself stands in columns of its own and in nobody's place.
#[test]
fn claims_of_a_client_stay_claims() {
    let mut scene = Scene::account();
    scene
        .attack(
            APP,
            &[
                "SET application_name = 'postgres'",
                r#"SET audit.context = '{"login":"postgres","user":"postgres","session":"postgres","op":"DELETE","at":"2001-01-01"}'"#,
                "UPDATE account SET balance = 1 WHERE id = 1",
            ],
        )
        .assert_recorded(&["UPDATE account"]);
    assert_eq!(names(&mut scene), ["attacks_app attacks_app attacks_app"]);
    assert_eq!(
        scene.witness.text("SELECT application_name || (context ->> 'user') FROM audit.log WHERE op = 'UPDATE'"),
        "postgrespostgres"
    );
}

#[test]
fn a_role_with_a_misleading_name_stays_one_name() {
    let mut scene = Scene::account();
    scene
        .database
        .connect()
        .run(r#"CREATE ROLE "ann"",""session"":""bob" LOGIN; GRANT ALL ON account TO "ann"",""session"":""bob""#);
    let mut s = scene.database.connect_as(r#"ann","session":"bob"#);
    run_all(&mut s, &["UPDATE account SET balance = 1 WHERE id = 1"]);
    let name = r#"ann","session":"bob"#;
    assert_eq!(names(&mut scene), [format!("{name} {name} {name}")]);
    scene.assert_clean();
}

/// An entry has the time of the change, not that of a transaction that was held open before it.
#[test]
fn a_transaction_held_open_does_not_date_a_change_back() {
    let mut scene = Scene::account();
    let mut s = scene.database.connect_as(APP);
    s.run("BEGIN");
    let begun = s.text("SELECT now()");
    s.run("SELECT pg_sleep(0.5); UPDATE account SET balance = 1 WHERE id = 1; COMMIT");
    assert!(
        scene.witness.holds(&format!(
            "SELECT at >= '{begun}'::timestamptz + interval '0.5 s' FROM audit.log WHERE op = 'UPDATE'"
        ))
    );
    scene.assert_clean();
}

/// Names are recorded, not numbers: a role that was dropped and made again under its name reads as the same one.
#[test]
fn a_role_made_again_under_its_name_reads_as_the_former_one() {
    let mut scene = Scene::account();
    let mut s = scene.database.connect();
    for balance in [1, 2] {
        s.run("CREATE ROLE attacks_again LOGIN; GRANT ALL ON account TO attacks_again");
        scene.database.connect_as("attacks_again").run(&format!("UPDATE account SET balance = {balance} WHERE id = 1"));
        // A session that has ended may take a moment to go.
        s.run("DROP OWNED BY attacks_again; DROP ROLE attacks_again");
    }
    assert_eq!(names(&mut scene), ["attacks_again attacks_again attacks_again"; 2]);
    // Its new name is not that of the entries before.
    s.run("CREATE ROLE attacks_before LOGIN; GRANT ALL ON account TO attacks_before");
    scene.database.connect_as("attacks_before").run("UPDATE account SET balance = 3 WHERE id = 1");
    s.run("ALTER ROLE attacks_before RENAME TO attacks_after");
    assert_eq!(names(&mut scene)[2], ["attacks_before"; 3].join(" "));
    scene.attack(OWNER, &["SELECT 1"]).assert_refused();
}
