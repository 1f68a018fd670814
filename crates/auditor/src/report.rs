//! What is printed: findings as they come, then the sums.

use std::io::{self, Write};
use std::path::Path;

use audit_ledger::{Counts, Finding, Kind, Summary};

/// Where a finding was met: the file, if there are several, and the line.
pub(crate) type Place<'a> = Option<(Option<&'a Path>, u64)>;

/// Prints findings at once, and keeps the rest for the end.
pub(crate) struct Report<'a> {
    out: Box<dyn Write + 'a>,
    counts: Counts,
    /// How many were checked, of each aspect.
    checked: Vec<(Kind, u64)>,
    notes: Vec<String>,
    /// The first failure to print; kept because findings come through a function that cannot fail.
    failure: Option<io::Error>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(out: Box<dyn Write + 'a>) -> Report<'a> {
        Report { out, counts: Counts::new(), checked: Vec::new(), notes: Vec::new(), failure: None }
    }

    pub(crate) fn finding(&mut self, place: Place<'_>, finding: &Finding) {
        self.counts.add(finding.kind);
        if self.failure.is_none()
            && let Err(error) = self.print_finding(place, finding)
        {
            self.failure = Some(error);
        }
    }

    /// Tells of a line that begins as a seal does and is none.
    pub(crate) fn bad_seal(&mut self, place: Place<'_>, detail: String) {
        let finding = Finding {
            kind: Kind::Seal,
            relation: None,
            chain: None,
            seq: None,
            id: None,
            detail,
            hint: "The line is no seal as the extension writes it: it was changed, or written by something else."
                .to_owned(),
        };
        self.finding(place, &finding);
    }

    /// A sentence for the end.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The aspects that the entries show.
    pub(crate) fn entries(&mut self, summary: &Summary, with_hash: u64) {
        // A line without a hash has none that could be wrong.
        self.checked.push((Kind::Content, with_hash));
        for kind in [Kind::Link, Kind::Missing, Kind::Order, Kind::Format] {
            self.checked.push((kind, summary.entries));
        }
    }

    /// The aspects that seals and checkpoints show.
    pub(crate) fn seals(&mut self, seals: u64, sealed: u64, checkpoints: u64) {
        self.checked.extend([(Kind::Seal, seals), (Kind::Tree, sealed), (Kind::Checkpoint, checkpoints)]);
    }

    /// The first failure to print, if there was one.
    pub(crate) fn check(&mut self) -> io::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Prints the sums; says whether nothing is wrong.
    pub(crate) fn finish(mut self, summary: &Summary) -> io::Result<bool> {
        self.check()?;
        let width = self.checked.iter().map(|(kind, _)| kind.as_str().len().max(8)).max().unwrap_or(8);
        writeln!(self.out, "{:<width$} {:>12} {:>12}", "aspect", "checked", "problems")?;
        for (kind, checked) in &self.checked {
            writeln!(self.out, "{kind:<width$} {checked:>12} {:>12}", self.counts.get(*kind))?;
        }
        for head in &summary.heads {
            writeln!(
                self.out,
                "ledger {} chain {}: {} entries, head {} {}",
                head.ledger, head.chain, head.entries, head.seq, head.hash
            )?;
        }
        for note in &self.notes {
            writeln!(self.out, "{}", printable(note))?;
        }
        self.out.flush()?;
        Ok(self.counts.total() == 0)
    }

    fn print_finding(&mut self, place: Place<'_>, finding: &Finding) -> io::Result<()> {
        let mut parts = Vec::new();
        if let Some((file, line)) = place {
            parts.extend(file.map(|file| printable(&file.display().to_string())));
            parts.push(format!("line {line}"));
        }
        parts.extend(finding.chain.map(|chain| format!("chain {chain}")));
        parts.extend(finding.seq.map(|seq| format!("seq {seq}")));
        parts.extend(finding.id.map(|id| format!("id {id}")));
        parts.extend(finding.relation.as_deref().map(printable));
        let place = if parts.is_empty() { String::new() } else { format!("{}: ", parts.join(" ")) };
        writeln!(self.out, "{}: {place}{}", finding.kind, printable(&finding.detail))?;
        writeln!(self.out, "  {}", finding.hint)
    }
}

/// The text without what a terminal obeys: names come from the log, and whoever made one up shall not write the report.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // The second kind sets the direction of writing.
        if character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}
