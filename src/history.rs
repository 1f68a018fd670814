//! What should be protected, read from the log itself: its PROTECT, UNPROTECT, TRUNCATE, DDL and INCARNATION entries.
//!
//! An emptied registry, a renamed or re-created table then is a finding, not "nothing to check".

use std::collections::HashMap;

use audit_ledger::{Carry, Operation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ddl::{Kept, Said};
use crate::protect::{Anchored, IncarnationDetails, ProtectDetails};

/// An entry about a table as a whole, or about the ledger.
pub(crate) struct Landmark {
    pub(crate) id: i64,
    pub(crate) ledger: Uuid,
    pub(crate) operation: Operation,
    pub(crate) table_oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) chain: i32,
    pub(crate) seq: i64,
    pub(crate) new: Option<String>,
}

/// A table that is protected, as the log says.
pub(crate) struct Protected {
    pub(crate) protect_id: i64,
    pub(crate) chain: i32,
    pub(crate) seq: i64,
    /// Its object id by the log: after a restore, until the first write, that of the former database.
    pub(crate) table_oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `None` when the details of its PROTECT entry cannot be read.
    pub(crate) details: Option<ProtectDetails>,
    /// Since when the transactions that write its rows are told by entries.
    pub(crate) anchor: Anchor,
    /// Schemas and names that it had before.
    pub(crate) former_names: Vec<(String, String)>,
    /// The DDL entry that says that it was dropped.
    pub(crate) dropped: Option<Place>,
}

/// An entry that took the rows of a table as they were: whoever wrote them before is known.
#[derive(Clone, Copy)]
pub(crate) struct Anchor {
    /// Full id of the next transaction then; `None` when the entry does not say it.
    pub(crate) next_xid: Option<u64>,
    /// The entries that count have greater ids.
    pub(crate) id: i64,
}

impl Anchor {
    fn of(id: i64, next_xid: Option<&str>) -> Anchor {
        Anchor { next_xid: next_xid.and_then(|xid| xid.parse().ok()), id }
    }
}

/// Where an entry stands.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) chain: i32,
    pub(crate) seq: i64,
    pub(crate) id: i64,
}

impl Protected {
    /// `schema.name`
    pub(crate) fn display(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    fn rename(&mut self, schema: &str, name: &str) {
        if (self.schema.as_str(), self.name.as_str()) != (schema, name) {
            let schema = std::mem::replace(&mut self.schema, schema.to_owned());
            self.former_names.push((schema, std::mem::replace(&mut self.name, name.to_owned())));
        }
    }
}

/// Entries of one object id, of a span of ids, that tell of the present rows of a table.
#[derive(Clone, Serialize, Deserialize)]
struct Span {
    after: i64,
    until: i64,
    table: usize,
}

/// Which entries tell of the present rows of which table, and of the rows at which seam. Seams are counted on behind the tables.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Spans {
    /// In the order of their ids, by object id; they do not overlap.
    rows: HashMap<u32, Vec<Span>>,
    /// Those of the baselines behind seams, likewise.
    baselines: HashMap<u32, Vec<Span>>,
}

impl Spans {
    /// The table of whose present rows an entry tells, or the seam before which it tells of rows.
    pub(crate) fn table_of(&self, table_oid: u32, id: i64) -> Option<usize> {
        at(&self.rows, table_oid, id)
    }

    /// The seam behind which an entry, if it is one of a baseline, tells of rows.
    pub(crate) fn seam_before(&self, table_oid: u32, id: i64) -> Option<usize> {
        at(&self.baselines, table_oid, id)
    }
}

fn at(spans: &HashMap<u32, Vec<Span>>, table_oid: u32, id: i64) -> Option<usize> {
    let spans = spans.get(&table_oid)?;
    let next = spans.partition_point(|span| span.after < id);
    spans[..next].last().filter(|span| id < span.until).map(|span| span.table)
}

/// Where a table that was protected got a new baseline, because its definition changed.
pub(crate) struct Seam {
    /// The table, by its place in the history.
    pub(crate) table: usize,
    /// The PROTECT entry before the new baseline.
    pub(crate) place: Place,
    /// What the new baseline must have taken over.
    pub(crate) carried: Carried,
}

/// What of a table's definition a change has left as it was.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Carried {
    kept: Kept,
    /// The key before.
    key: Vec<String>,
}

impl Carried {
    pub(crate) fn carry(&self) -> Carry {
        Carry::new(&self.kept, &self.key)
    }
}

/// The ledger went on in another database, on another server or timeline, or from an earlier state of itself: an INCARNATION entry.
pub(crate) struct Resumption {
    pub(crate) chain: i32,
    pub(crate) seq: i64,
    /// `None` when its details cannot be read.
    pub(crate) details: Option<IncarnationDetails>,
}

/// The protected tables, and which entries tell of their present rows.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) tables: Vec<Protected>,
    /// In the order of their ids.
    pub(crate) resumptions: Vec<Resumption>,
    pub(crate) seams: Vec<Seam>,
    pub(crate) spans: Spans,
}

impl History {
    /// Follows the landmarks of a ledger in the order of their ids.
    pub(crate) fn of(ledger: Uuid, landmarks: &mut Vec<Landmark>) -> History {
        landmarks.retain(|landmark| landmark.ledger == ledger);
        landmarks.sort_by_key(|landmark| landmark.id);
        let mut history = History::default();
        let mut alive: Vec<bool> = Vec::new();
        // By present object id: the table, and since when its rows count under that object id.
        let mut current: HashMap<u32, (usize, i64)> = HashMap::new();
        // By present object id, what the last DDL entry says was kept.
        let mut kept: HashMap<u32, Option<Kept>> = HashMap::new();
        // Seams by the table before them; of each table that got a new baseline, what it was from then on.
        let mut seams: Vec<(usize, Seam)> = Vec::new();
        let mut next: HashMap<usize, usize> = HashMap::new();
        for landmark in landmarks.iter() {
            match landmark.operation {
                Operation::Protect => {
                    let oid = landmark.table_oid;
                    let table = history.tables.len();
                    let said: Option<Anchored> = landmark.new.as_deref().and_then(|new| serde_json::from_str(new).ok());
                    let (details, next_xid) = said.map(|said| (said.details, said.next_xid)).unzip();
                    let former = current.insert(oid, (table, landmark.id));
                    if let Some(last) = history.spans.baselines.get_mut(&oid).and_then(|spans| spans.last_mut()) {
                        last.until = last.until.min(landmark.id);
                    }
                    if let Some((former, after)) = former {
                        next.insert(former, table);
                        let span = Span { after, until: landmark.id, table: former };
                        history.spans.rows.entry(oid).or_default().push(span);
                        let kept = kept.remove(&oid).flatten();
                        let carried = carried(history.tables[former].details.as_ref(), details.as_ref(), kept);
                        if let Some(carried) = carried {
                            let Landmark { chain, seq, id, .. } = *landmark;
                            seams.push((former, Seam { table, place: Place { chain, seq, id }, carried }));
                            let span = Span { after: landmark.id, until: i64::MAX, table: former };
                            history.spans.baselines.entry(oid).or_default().push(span);
                        }
                    }
                    let former_names = former.map_or_else(Vec::new, |(former, _)| {
                        alive[former] = false;
                        history.tables[former].rename(&landmark.schema, &landmark.name);
                        std::mem::take(&mut history.tables[former].former_names)
                    });
                    alive.push(true);
                    history.tables.push(Protected {
                        protect_id: landmark.id,
                        chain: landmark.chain,
                        seq: landmark.seq,
                        table_oid: landmark.table_oid,
                        schema: landmark.schema.clone(),
                        name: landmark.name.clone(),
                        details,
                        anchor: Anchor::of(landmark.id, next_xid.flatten().as_deref()),
                        former_names,
                        dropped: None,
                    });
                }
                Operation::Ddl => {
                    let Some((table, _)) = current.get(&landmark.table_oid) else { continue };
                    let table = &mut history.tables[*table];
                    table.rename(&landmark.schema, &landmark.name);
                    let said = Said::of(landmark.new.as_deref());
                    if let Some(next_xid) = &said.next_xid {
                        table.anchor = Anchor::of(landmark.id, Some(next_xid));
                    }
                    kept.insert(landmark.table_oid, said.kept);
                    if said.is_drop {
                        let Landmark { chain, seq, id, .. } = *landmark;
                        table.dropped = Some(Place { chain, seq, id });
                    }
                }
                Operation::Unprotect => {
                    if let Some((table, _)) = current.remove(&landmark.table_oid) {
                        alive[table] = false;
                    }
                }
                Operation::Truncate => {
                    if let Some((table, after)) = current.get_mut(&landmark.table_oid) {
                        *after = landmark.id;
                        history.forget(*table);
                    }
                }
                Operation::Incarnation => {
                    let details: Option<IncarnationDetails> =
                        landmark.new.as_deref().and_then(|new| serde_json::from_str(new).ok());
                    let (chain, seq) = (landmark.chain, landmark.seq);
                    history.resumptions.push(Resumption { chain, seq, details: details.clone() });
                    let Some(details) = details else { continue };
                    kept.clear();
                    // Copied file by file, rows keep their transactions, and the server goes on behind them; restored from a dump, they were all written anew.
                    let anchor = details.why.is_none().then(|| Anchor::of(landmark.id, details.next_xid.as_deref()));
                    let mut present = HashMap::new();
                    for (oid, (table, after)) in current.drain() {
                        history.spans.rows.entry(oid).or_default().push(Span { after, until: landmark.id, table });
                        let oid = details.tables.get(&oid.to_string()).copied().unwrap_or(oid);
                        history.tables[table].table_oid = oid;
                        if let Some(anchor) = anchor {
                            history.tables[table].anchor = anchor;
                        }
                        present.insert(oid, (table, landmark.id));
                    }
                    current = present;
                }
                _ => {}
            }
        }
        for (oid, (table, after)) in current {
            history.spans.rows.entry(oid).or_default().push(Span { after, until: i64::MAX, table });
        }
        // What each table has become in the end: what comes next comes behind it.
        let mut last: Vec<usize> = (0..history.tables.len()).collect();
        for table in (0..last.len()).rev() {
            if let Some(next) = next.get(&table) {
                last[table] = last[*next];
            }
        }
        for (_, seam) in &mut seams {
            seam.table = last[seam.table];
        }
        history.keep(&alive, seams);
        history
    }

    /// A table was emptied: what earlier spans say of it counts no more.
    fn forget(&mut self, table: usize) {
        for spans in self.spans.rows.values_mut() {
            spans.retain(|span| span.table != table);
        }
    }

    /// Drops the tables that are not protected any more, and takes the seams of the others, each with the table before it.
    fn keep(&mut self, alive: &[bool], seams: Vec<(usize, Seam)>) {
        let mut place = Vec::with_capacity(alive.len());
        let mut kept = 0;
        for alive in alive {
            place.push(alive.then_some(kept));
            kept += usize::from(*alive);
        }
        let mut index = 0;
        self.tables.retain(|_| {
            index += 1;
            alive[index - 1]
        });
        for (former, seam) in seams {
            if let Some(table) = place[seam.table] {
                place[former] = Some(kept + self.seams.len());
                self.seams.push(Seam { table, ..seam });
            }
        }
        for spans in self.spans.rows.values_mut().chain(self.spans.baselines.values_mut()) {
            spans.retain_mut(|span| match place[span.table] {
                Some(table) => {
                    span.table = table;
                    true
                }
                None => false,
            });
        }
    }
}

/// What a new baseline must have taken over, where both sides are known in full.
fn carried(before: Option<&ProtectDetails>, after: Option<&ProtectDetails>, kept: Option<Kept>) -> Option<Carried> {
    let (before, after) = (before?, after?);
    let are_rows = before.baseline && after.baseline && before.kind == 'r' && after.kind == 'r';
    are_rows.then_some(Carried { kept: kept?, key: before.shape.key.clone() })
}
