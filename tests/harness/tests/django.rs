//! A real application framework on protected tables: Django migrates, writes and migrates again as the owner of its tables, and notices nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use audit_tests::{Database, Session, assert_clean, database};

/// The owner of the application's tables, without any right on the ledger.
const OWNER: &str = "django_shop";

/// Where this repository is.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|part| String::from_utf8_lossy(part).into_owned()).concat()
}

/// The Python that has Django, installed where it is missing. Without it there is nothing to test, and that is a failure.
fn python() -> String {
    let output = Command::new(root().join("scripts/django")).output().expect("scripts/django can be run");
    assert!(output.status.success(), "there is no Django to test against:\n{}", said(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The project in tests/django, on a database.
struct Project<'a> {
    python: String,
    database: &'a Database<'a>,
}

impl Project<'_> {
    #[track_caller]
    fn run(&self, release: &str, args: &[&str]) -> String {
        let output = Command::new(&self.python)
            .arg("-B")
            .args(args)
            .current_dir(root().join("tests/django"))
            .env("SHOP_RELEASE", release)
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.database.cluster.port().to_string())
            .env("PGUSER", OWNER)
            .env("PGDATABASE", &self.database.name)
            .output()
            .expect("Python can be run");
        assert!(output.status.success(), "{args:?}:\n{}", said(&output));
        said(&output)
    }

    #[track_caller]
    fn migrate(&self, release: &str, target: &[&str]) {
        self.run(release, &[&["manage.py", "migrate", "--no-input"][..], target].concat());
    }
}

/// Protects the tables that the owner has and that are not protected yet; gives how many there were.
fn protect_all(s: &mut Session) -> i64 {
    s.number(&format!(
        "SELECT count(audit.protect(oid)) FROM pg_class
          WHERE relowner = '{OWNER}'::regrole AND relkind = 'r' AND oid NOT IN (SELECT relation FROM audit.protected)"
    ))
}

type Row = BTreeMap<String, Option<String>>;

/// The rows of a table as the log has them, from its last PROTECT entry on, by their keys.
fn replayed(s: &mut Session, oid: &str) -> Vec<Row> {
    let protect = s.text(&format!("SELECT max(id) FROM audit.log WHERE op = 'PROTECT' AND table_oid = {oid}"));
    let key: Vec<String> =
        s.column(&format!("SELECT json_array_elements_text(new -> 'key') FROM audit.log WHERE id = {protect}"));
    let mut rows: BTreeMap<Vec<Option<String>>, Row> = BTreeMap::new();
    let entries = s.rows(&format!(
        "SELECT l.id, l.op, c.side, c.name, c.value FROM audit.log l
           LEFT JOIN LATERAL (SELECT 'key', * FROM json_each_text(l.key) UNION ALL SELECT 'new', * FROM json_each_text(l.new))
                  AS c (side, name, value) ON true
          WHERE l.table_oid = {oid} AND l.id > {protect} AND l.op <> 'DDL' ORDER BY l.id"
    ));
    for entry in entries.chunk_by(|left, right| left[0] == right[0]) {
        let side = |side: &str| -> Row {
            let columns = entry.iter().filter(|column| column[2].as_deref() == Some(side));
            columns.map(|column| (column[3].clone().expect("a name"), column[4].clone())).collect()
        };
        let (before, after) = (side("key"), side("new"));
        let key_of = |row: &Row| key.iter().map(|name| row[name].clone()).collect::<Vec<_>>();
        match entry[0][1].as_deref().expect("each entry has an operation") {
            "BASELINE" | "INSERT" => assert!(rows.insert(key_of(&after), after).is_none(), "a row twice"),
            "DELETE" => assert!(rows.remove(&key_of(&before)).is_some(), "no row {before:?}"),
            "UPDATE" => {
                let mut row = rows.remove(&key_of(&before)).expect("the row that was changed");
                row.extend(after);
                rows.insert(key_of(&row), row);
            }
            "TRUNCATE" => rows.clear(),
            other => panic!("{other}"),
        }
    }
    rows.into_values().collect()
}

/// The rows of a table as they are, as the types print them; JSON has words for booleans.
fn live(s: &mut Session, oid: &str) -> Vec<Row> {
    let columns = s.rows(&format!(
        "SELECT attname, quote_ident(attname) || CASE WHEN atttypid = 'bool'::regtype THEN '::text' ELSE '' END
           FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    ));
    let part = |index: usize| columns.iter().map(move |column| column[index].clone().expect("not null"));
    let table = s.text(&format!("SELECT {oid}::regclass"));
    s.rows(&format!("SELECT {} FROM {table}", part(1).collect::<Vec<_>>().join(", ")))
        .into_iter()
        .map(|row| part(0).zip(row).collect())
        .collect()
}

/// The log verifies, and replayed by the simplest of means gives the tables.
#[track_caller]
fn assert_faithful(s: &mut Session) {
    assert_clean(s);
    s.run("SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET datestyle = 'ISO'; SET bytea_output = 'hex'");
    let mut rows = 0;
    for oid in s.column("SELECT relation::oid FROM audit.protected") {
        let (mut expected, mut found) = (replayed(s, &oid), live(s, &oid));
        expected.sort();
        found.sort();
        let table = s.text(&format!("SELECT {oid}::regclass"));
        assert_eq!(expected, found, "{table}");
        rows += found.len();
    }
    assert!(rows > 400, "only {rows} rows");
}

#[test]
fn django_migrates_and_writes_protected_tables() {
    let database = database();
    let mut s = database.connect();
    s.run(&format!("CREATE ROLE {OWNER} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {OWNER}"));
    let project = Project { python: python(), database: &database };

    // The first release, on tables that are protected once they are there.
    project.migrate("1", &["shop", "0001"]);
    for app in ["admin", "auth", "contenttypes", "sessions"] {
        project.migrate("1", &[app]);
    }
    assert!(protect_all(&mut s) >= 14);
    project.run("1", &["work.py", "1"]);
    assert_faithful(&mut s);
    for op in ["INSERT", "UPDATE", "DELETE"] {
        assert!(s.number(&format!("SELECT count(*) FROM audit.log WHERE op = '{op}'")) > 0, "{op}");
    }

    // The second release migrates what is protected.
    project.migrate("2", &[]);
    assert_faithful(&mut s);
    assert!(project.run("2", &["manage.py", "makemigrations", "--check", "--dry-run"]).contains("No changes detected"));
    let command = |s: &mut Session, text: &str| {
        s.number(&format!(
            "SELECT count(*) FROM audit.log WHERE op = 'DDL' AND user_name = '{OWNER}' AND new ->> 'statement' LIKE '{text}%'"
        ))
    };
    for text in [
        r#"ALTER TABLE "shop\_customer" ADD COLUMN "active" boolean"#,
        r#"ALTER TABLE "shop\_order" RENAME COLUMN "note" TO "remarks""#,
        r#"ALTER TABLE "shop\_orderline" RENAME TO "shop\_line""#,
        r#"ALTER TABLE "shop\_tag" RENAME TO "labels""#,
        r#"ALTER TABLE "shop\_document" ALTER COLUMN "score" TYPE text"#,
        r#"ALTER TABLE "shop\_product" DROP COLUMN "stock""#,
    ] {
        assert_eq!(command(&mut s, text), 1, "{text}");
    }
    assert_eq!(command(&mut s, "CREATE INDEX"), 0);

    // It writes, and what is new is protected when somebody says so.
    assert_eq!(protect_all(&mut s), 1);
    project.run("2", &["work.py", "2"]);
    assert_faithful(&mut s);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'INSERT' AND table_name = 'shop_invoice'"), 1);
    assert!(s.number("SELECT count(*) FROM audit.log WHERE op = 'UPDATE' AND table_name = 'labels'") > 0);
    // Back to where it was: migrations that go the other way.
    project.migrate("2", &["shop", "0004"]);
    project.migrate("2", &["shop"]);
    assert_faithful(&mut s);
}
