//! One small attack for each way in that the threat model lists, and what came of it.
//!
//! What came of an attack is told by looking at the database, never by the message that the attacker got: do others see something else in the table, is
//! there a new entry, is an old entry or seal gone or changed, does `audit.findings()` name a fault. An attack that fails for a slip of its own (a misspelt
//! name, wrong syntax) would look like one that was refused, so such errors fail the test.
//!
//! Modules follow the sections of the table in docs/threat-model.md; the ways in that other tests show are named there and not repeated here.

mod availability;
mod dml;
mod escalation;
mod identity;
mod log;
mod protection_off;
mod rendering;
mod seals;
mod verify;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use audit_tests::{Cluster, Database, Session, findings};

/// A role that may write the table.
const APP: &str = "attacks_app";
/// The role that owns the table.
const OWNER: &str = "attacks_owner";
/// May create databases and owns one.
const DATABASE_OWNER: &str = "attacks_database_owner";
/// A superuser who means harm.
const SUPERUSER: &str = "postgres";

/// The server of these attacks, with the roles that attack.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let cluster = Cluster::builder().start();
        cluster.connect("postgres").run(&format!(
            "CREATE ROLE {APP} LOGIN; CREATE ROLE {OWNER} LOGIN; CREATE ROLE {DATABASE_OWNER} LOGIN CREATEDB"
        ));
        cluster
    })
}

/// Somebody who attacks and does what a reader of the table cannot tell from what is right.
struct Scene {
    database: Database<'static>,
    witness: Session,
    watched: Vec<String>,
}

/// The table that most attacks are about: two rows, owned by [`OWNER`], written by [`APP`].
const ACCOUNT: &str = "
    CREATE TABLE account (id int PRIMARY KEY, owner text, balance int);
    ALTER TABLE account OWNER TO attacks_owner; GRANT ALL ON account TO attacks_app;
    INSERT INTO account VALUES (1, 'ann', 100), (2, 'bob', 50)";

impl Scene {
    /// A database with the table `account` under protection.
    #[track_caller]
    fn account() -> Scene {
        Scene::new(&format!("{ACCOUNT}; SELECT audit.protect('account')"), &["public.account"])
    }

    /// A database that `setup` was run in, by a superuser, and the tables whose readers are to see only what the log says.
    #[track_caller]
    fn new(setup: &str, watched: &[&str]) -> Scene {
        Scene::of(cluster().database(), setup, watched)
    }

    #[track_caller]
    fn of(database: Database<'static>, setup: &str, watched: &[&str]) -> Scene {
        let mut session = database.connect();
        session.run(&format!(
            r#"GRANT CREATE ON SCHEMA public TO {OWNER}, {APP};
               GRANT CREATE, TEMPORARY ON DATABASE "{}" TO {OWNER}, {APP}"#,
            database.name
        ));
        session.run(setup);
        let mut witness = database.connect();
        witness.run("SET search_path = pg_catalog");
        Scene { database, witness, watched: watched.iter().map(ToString::to_string).collect() }
    }

    /// Runs statements one after another as a role, whatever comes of each, and looks at what came of all.
    #[track_caller]
    fn attack(&mut self, role: &str, statements: &[&str]) -> Outcome {
        self.attack_by(|database| run_all(&mut database.connect_as(role), statements))
    }

    /// Does something and looks at what came of it.
    #[track_caller]
    fn attack_by(&mut self, attack: impl FnOnce(&Database<'_>)) -> Outcome {
        let before = State::of(&mut self.witness, &self.watched);
        attack(&self.database);
        self.outcome(&before)
    }

    #[track_caller]
    fn outcome(&mut self, before: &State) -> Outcome {
        let after = State::of(&mut self.witness, &self.watched);
        let changed = before.tables != after.tables || before.protection != after.protection;
        let lost = before.kept.difference(&after.kept).count();
        let added: BTreeSet<&String> = after.entries.difference(&before.entries).collect();
        let entries: Vec<String> =
            added.iter().map(|entry| entry.split_once('\t').expect("written so").1.to_owned()).collect();
        let found = told(&mut self.witness);
        match (found.is_empty(), changed, lost > 0, entries.is_empty()) {
            (false, ..) => Outcome::Reported { changed: changed || lost > 0, entries, findings: found },
            (true, _, true, _) | (true, true, false, true) => Outcome::Escaped,
            (true, _, false, false) => Outcome::Recorded(entries),
            (true, false, false, true) => Outcome::Nothing,
        }
    }

    /// The whole history holds and says what the tables say.
    #[track_caller]
    fn assert_clean(&mut self) {
        audit_tests::assert_clean(&mut self.witness);
    }
}

/// What `audit.findings()` tells. Where it cannot verify any more, that is told as well: an error is no clean verdict.
#[track_caller]
fn told(witness: &mut Session) -> Vec<String> {
    if let Err(error) = witness.batch_execute("SELECT * FROM audit.findings()") {
        let error = error.as_db_error().unwrap_or_else(|| panic!("the connection broke: {error}"));
        return vec![format!("error: {}", error.message())];
    }
    findings(witness).iter().map(|finding| format!("{finding}: {}", finding.detail)).collect()
}

/// Runs each statement; errors of the server are what an attacker reckons with, slips of the test are not.
#[track_caller]
fn run_all(session: &mut Session, statements: &[&str]) {
    for statement in statements {
        if let Err(error) = session.batch_execute(statement) {
            let Some(error) = error.as_db_error() else { panic!("the connection broke: {error}\nin: {statement}") };
            let slips = ["42601", "42703", "42883", "42P01", "42704", "3F000", "42P02", "42P10"];
            assert!(!slips.contains(&error.code().code()), "{error}\nin: {statement}");
            println!("refused: {statement}: {error}");
        }
    }
}

/// Triggers, rules, policies, owners, rights, functions and members of the extension, as the catalogs have them.
const PROTECTION: &str = "
    WITH ours AS (SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'audit'::regnamespace
                   UNION SELECT r.relation::oid FROM audit.registry r)
    SELECT format('%s', t) FROM pg_trigger t WHERE tgrelid IN (TABLE ours) AND NOT tgisinternal
    UNION ALL SELECT format('%s', e) FROM pg_event_trigger e
    UNION ALL SELECT format('%s', r) FROM pg_rewrite r WHERE ev_class IN (TABLE ours)
    UNION ALL SELECT format('%s', p) FROM pg_policy p WHERE polrelid IN (TABLE ours)
    UNION ALL SELECT format('%s', i) FROM pg_inherits i WHERE inhparent IN (TABLE ours)
    UNION ALL SELECT format('%s %s %s %s %s %s %s %s %s', oid, relname, relnamespace, relowner, relkind, relpersistence, relacl, relrowsecurity,
                            relhastriggers) FROM pg_class WHERE oid IN (TABLE ours)
    UNION ALL SELECT format('%s %s %s %s', attrelid, attnum, attname, atttypid) FROM pg_attribute
      WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'audit'::regnamespace)
    UNION ALL SELECT format('%s', p) FROM pg_proc p WHERE pronamespace = 'audit'::regnamespace
    UNION ALL SELECT format('%s', n) FROM pg_namespace n WHERE nspname = 'audit'
    UNION ALL SELECT format('%s', x) FROM pg_extension x WHERE extname = 'audit'
    UNION ALL SELECT format('%s', d) FROM pg_depend d WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit')";

/// What readers see.
struct State {
    tables: Vec<String>,
    /// What the catalogs say of all that protects.
    protection: BTreeSet<String>,
    /// Rows of the extension's own tables that must never change.
    kept: BTreeSet<String>,
    /// The entries: id, what happened, to which table.
    entries: BTreeSet<String>,
}

impl State {
    #[track_caller]
    fn of(witness: &mut Session, watched: &[String]) -> State {
        let mut tables = Vec::new();
        for table in watched {
            tables.push(match witness.value(&format!("SELECT to_regclass('{table}')")) {
                None => "absent".to_owned(),
                // By output functions: a cast could be the attacker's.
                Some(_) => {
                    let rows = format!(r#"SELECT format('%s', "the whole row") FROM {table} AS "the whole row""#);
                    let mut rows = witness.column(&rows);
                    rows.sort();
                    rows.join("\n")
                }
            });
        }
        let mut kept = BTreeSet::new();
        for table in ["log", "seal", "seal_range", "tile", "ledger"] {
            let rows = witness.column(&format!(
                r#"SELECT '{table} ' || format('%s', "the whole row") FROM audit.{table} AS "the whole row""#
            ));
            kept.extend(rows);
        }
        let entries = witness
            .column("SELECT lpad(id::text, 20, '0') || E'\\t' || op || coalesce(' ' || table_name, '') FROM audit.log")
            .into_iter()
            .collect();
        let protection = witness.column(PROTECTION).into_iter().collect();
        State { tables, protection, kept, entries }
    }
}

/// What came of an attack.
#[derive(Debug)]
enum Outcome {
    /// Nothing changed, nothing was recorded, nothing is found.
    Nothing,
    /// There are new entries, and log and tables agree.
    Recorded(Vec<String>),
    /// `audit.findings()` names it; `changed` when readers see something else than before.
    Reported { changed: bool, entries: Vec<String>, findings: Vec<String> },
    /// Something changed that neither log nor findings tell of.
    Escaped,
}

impl Outcome {
    /// Nothing has come of it.
    #[track_caller]
    fn assert_refused(self) {
        assert!(matches!(self, Outcome::Nothing), "not refused: {self:#?}");
    }

    /// There are entries of it, these and no others, in the order of their ids, and log and tables agree.
    #[track_caller]
    fn assert_recorded(self, expected: &[&str]) {
        let Outcome::Recorded(entries) = self else { panic!("not recorded: {self:#?}") };
        assert_eq!(entries, expected);
    }

    /// It is found, and each finding is about one of these: the begin of its short form, as in `table public.account`.
    #[track_caller]
    fn assert_reported(self, expected: &[&str]) {
        let Outcome::Reported { findings, .. } = self else { panic!("not reported: {self:#?}") };
        for one in expected {
            assert!(findings.iter().any(|found| found.starts_with(one)), "no finding {one}: {findings:#?}");
        }
        for found in &findings {
            assert!(expected.iter().any(|one| found.starts_with(one)), "unexpected: {findings:#?}");
        }
    }

    /// Nothing has come of it but these entries, if any; what is found, and was so before, is that somebody was given such rights.
    #[track_caller]
    fn assert_rights_reported(self, recorded: &[&str], tables: &[&str], role: &str) {
        let Outcome::Reported { changed, entries, .. } = &self else { panic!("not reported: {self:#?}") };
        assert_eq!(
            (*changed, &entries[..]),
            (!recorded.is_empty(), &recorded.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
        );
        let rights: Vec<String> =
            tables.iter().map(|table| format!("coverage audit.{table}: role \"{role}\" may ")).collect();
        self.assert_reported(&rights.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// It is found, by a fault of this kind among others that follow from it.
    #[track_caller]
    fn assert_reported_as(self, kind: &str) {
        let Outcome::Reported { findings, .. } = self else { panic!("not reported: {self:#?}") };
        assert!(findings.iter().any(|found| found.starts_with(kind)), "no finding {kind}: {findings:#?}");
    }

    /// It works, and nothing inside the database can tell: the threat model says why.
    #[track_caller]
    fn assert_out_of_reach(self) {
        assert!(matches!(self, Outcome::Escaped), "told after all: {self:#?}");
    }

    /// Refused, recorded or reported, as the guards of the server at hand have it.
    #[track_caller]
    fn does_not_escape(self) {
        assert!(!matches!(self, Outcome::Escaped), "escapes");
    }

    /// It works today and leaves no trace: the threat model says why.
    #[track_caller]
    fn escapes_today(self) {
        assert!(matches!(self, Outcome::Escaped), "does not escape any more, say so in the threat model: {self:#?}");
    }
}

/// The words for outcomes are not words alone: each is told from the others.
#[test]
fn outcomes_are_told_by_the_state_of_the_database() {
    let mut scene = Scene::account();
    scene.attack(APP, &["UPDATE account SET balance = balance WHERE id = 3"]).assert_refused();
    scene.attack(APP, &["UPDATE account SET balance = 1 WHERE id = 1"]).assert_recorded(&["UPDATE account"]);
    scene.attack(APP, &["BEGIN", "UPDATE account SET balance = 2 WHERE id = 1", "ROLLBACK"]).assert_refused();
    let Outcome::Reported { changed: true, .. } = scene.attack(
        SUPERUSER,
        &[
            "ALTER TABLE account DISABLE TRIGGER audit_row",
            "UPDATE account SET balance = 3 WHERE id = 1",
            "ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
        ],
    ) else {
        panic!("a change behind the triggers is reported")
    };

    let mut scene = Scene::new("CREATE TABLE loose (id int PRIMARY KEY)", &["public.loose"]);
    scene.attack(SUPERUSER, &["INSERT INTO loose VALUES (1)"]).escapes_today();
}
