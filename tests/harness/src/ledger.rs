//! Short ways to read the log and the verdicts about it.

use std::fmt;

use crate::session::Session;

/// One row of audit.findings(), as a test wants to compare it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Kind of fault.
    pub kind: String,
    /// Table it is about.
    pub relation: Option<String>,
    /// Chain and seq of the entry it is about.
    pub place: Option<(i64, Option<i64>)>,
    /// What was expected and found.
    pub detail: String,
    /// What to do.
    pub hint: Option<String>,
}

/// The short form that tests compare: `content 1:7`, `table public.account`, `coverage`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        let about_a_table = matches!(self.kind.as_str(), "coverage" | "table" | "transaction");
        match (&self.place, &self.relation) {
            (_, Some(relation)) if about_a_table => write!(f, " {relation}"),
            (Some((chain, Some(seq))), _) => write!(f, " {chain}:{seq}"),
            (Some((chain, None)), _) => write!(f, " {chain}"),
            (None, Some(relation)) => write!(f, " {relation}"),
            (None, None) => Ok(()),
        }
    }
}

/// All that audit.findings() reports.
#[track_caller]
pub fn findings(session: &mut Session) -> Vec<Finding> {
    findings_of(session, "audit.findings()")
}

/// All that a call of audit.findings reports.
#[track_caller]
pub fn findings_of(session: &mut Session, call: &str) -> Vec<Finding> {
    session
        .rows(&format!("SELECT kind, relation, chain, seq, detail, hint FROM {call}"))
        .into_iter()
        .map(|row| {
            let [kind, relation, chain, seq, detail, hint] =
                <[Option<String>; 6]>::try_from(row).expect("six columns were asked for");
            let number = |text: String| text.parse::<i64>().expect("chain and seq are numbers");
            Finding {
                kind: kind.expect("a finding has a kind"),
                relation,
                place: chain.map(|chain| (number(chain), seq.map(number))),
                detail: detail.expect("a finding has a detail"),
                hint,
            }
        })
        .collect()
}

/// The aspects of audit.verify() that are not well, and each fault found: nothing when all is well.
#[track_caller]
pub fn verdict(session: &mut Session) -> Vec<String> {
    let mut verdict = Vec::new();
    for row in session.rows("SELECT what, ok, problems, detail FROM audit.verify()") {
        if row[1].as_deref() != Some("t") || row[2].as_deref() != Some("0") {
            verdict.push(row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" | "));
        }
    }
    for finding in findings(session) {
        verdict.push(format!("{finding}: {}", finding.detail));
    }
    verdict
}

/// Fails unless audit.verify() finds every aspect well and audit.findings() finds nothing.
#[track_caller]
pub fn assert_clean(session: &mut Session) {
    let verdict = verdict(session);
    assert!(verdict.is_empty(), "not clean:\n{}", verdict.join("\n"));
}

/// Fails unless there are findings of the one kind that the test is about, and of no other.
#[track_caller]
pub fn assert_clean_but_for(session: &mut Session, kind: &str) {
    let others: Vec<String> = findings(session)
        .into_iter()
        .filter(|finding| finding.kind != kind)
        .map(|finding| format!("{finding}: {}", finding.detail))
        .collect();
    assert!(others.is_empty(), "not clean:\n{}", others.join("\n"));
}

/// Fails unless the findings are exactly these, in any order; see [`Finding`] for their short form. audit.verify() must agree
/// with audit.findings() about how many there are of each kind.
#[track_caller]
pub fn assert_found(session: &mut Session, expected: &[&str]) {
    let findings = findings(session);
    let mut found: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    found.sort();
    expected.sort();
    let details = || findings.iter().map(|one| format!("{one}: {}", one.detail)).collect::<Vec<_>>().join("\n");
    assert_eq!(found, expected, "the findings are:\n{}", details());

    for row in session.rows("SELECT what, problems, ok FROM audit.verify()") {
        let (what, problems) = (row[0].as_deref().unwrap_or_default(), row[1].as_deref().unwrap_or_default());
        let count = findings.iter().filter(|finding| finding.kind == what).count();
        assert_eq!(problems, count.to_string(), "verify() and findings() disagree about {what}");
        let well = if count == 0 { "t" } else { "f" };
        assert_eq!(row[2].as_deref(), Some(well), "ok of {what} with {count} problems");
    }
}

/// The row changes of a table (by its bare name) in the log, in order: `UPDATE key={"id":1} old={"v":1} new={"v":2}`.
#[track_caller]
pub fn changes(session: &mut Session, table: &str) -> Vec<String> {
    changes_of(session, &format!("table_name = '{table}' AND op NOT IN ('PROTECT', 'UNPROTECT', 'BASELINE', 'DDL')"))
}

/// The entries of the log that meet a condition, in order.
#[track_caller]
pub fn changes_of(session: &mut Session, condition: &str) -> Vec<String> {
    session.column(&format!(
        "SELECT op || coalesce(' key=' || key::text, '') || coalesce(' old=' || old::text, '')
             || coalesce(' new=' || new::text, '')
           FROM audit.log WHERE {condition} ORDER BY id"
    ))
}

/// Does what a superuser can do to the log: switches the guards of an audit table off, runs the damage, and switches them
/// on again as they were, so that nothing but the damage is left to find.
#[track_caller]
pub fn guards_off(session: &mut Session, table: &str, damage: &str) {
    let guards = session.column(&format!(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND NOT tgisinternal AND tgenabled = 'A'"
    ));
    assert!(!guards.is_empty(), "{table} has no guards");
    session.run(&format!("BEGIN; ALTER TABLE {table} DISABLE TRIGGER ALL"));
    session.run(damage);
    for guard in guards {
        session.run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {guard}"));
    }
    session.run("COMMIT");
}
