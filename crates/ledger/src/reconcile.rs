//! Whether the rows of a table are what the log says.
//!
//! The log is taken apart into elements: "there is a row with this key", "that row has this value in this column". Each change adds and takes away some. Live rows are taken apart
//! the same way, and taken away. When nothing remains, table and log agree. In [`RowSums`] nothing is kept but sums of keyed hashes, by bucket of rows, so memory does not
//! grow with the table, and neither entries nor rows need an order. [`Localizer`] is the second look, at the few buckets that do not add up.
//!
//! A row without a key is one element: its whole text.
//!
//! This module knows neither tables nor entries' other parts. The key of the hashes must be random and secret until the end of the run: who knows it can craft rows whose sums are equal.

use std::collections::BTreeMap;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::entry::Operation;
use crate::json::{self, JsonError, Members};

/// Whether an element is there (the log says so) or is taken away (the log says so, or a live row has it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// One more.
    Plus,
    /// One less.
    Minus,
}

impl Sign {
    fn factor(self) -> i64 {
        match self {
            Sign::Plus => 1,
            Sign::Minus => -1,
        }
    }
}

/// Takes an entry apart. Calls `emit` with sign, row and element: the row is the text of its key, or its whole text when it has no key; the element is `None` for
/// the row itself, else a column, its name unescaped, and its value as written. SQL NULL is no element.
///
/// Operations that do not tell of one row have no effects. On an error nothing was emitted.
///
/// A live row is taken apart by `effects(Operation::Delete, key, Some(row), None, ..)`: what is in the table must take away what is in the log.
pub fn effects(
    operation: Operation,
    key: Option<&str>,
    old: Option<&str>,
    new: Option<&str>,
    emit: &mut impl FnMut(Sign, &str, Option<(&str, &str)>),
) -> Result<(), JsonError> {
    if !operation.is_row_change() {
        return Ok(());
    }
    // Texts are checked before the first element goes out: a half-counted entry would be told as faults of a row.
    let key = key.map(Object::read).transpose()?;
    let old = old.map(Object::read).transpose()?;
    let new = new.map(Object::read).transpose()?;
    match (operation, &key, &new) {
        (Operation::Update, Some(before), Some(values)) => match changed_key(before, values) {
            None => {
                columns(Sign::Minus, before.text, old.as_ref(), emit);
                columns(Sign::Plus, before.text, new.as_ref(), emit);
            }
            Some(after) => {
                row(Sign::Minus, Some(before.text), old.as_ref(), emit);
                row(Sign::Plus, Some(&after), new.as_ref(), emit);
            }
        },
        _ => {
            let key = key.as_ref().map(|key| key.text);
            if matches!(operation, Operation::Update | Operation::Delete) {
                row(Sign::Minus, key, old.as_ref(), emit);
            }
            if operation != Operation::Delete {
                row(Sign::Plus, key, new.as_ref(), emit);
            }
        }
    }
    Ok(())
}

/// Sums of elements by bucket of rows: 32 bytes a bucket, whatever the number of rows.
pub struct RowSums {
    hasher: ElementHasher,
    buckets: Vec<Bucket>,
    rows: i64,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    sum: u128,
    weight: u64,
}

/// What has come together in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketTotal {
    /// Which one.
    pub place: usize,
    /// The sum of its elements.
    pub sum: u128,
    /// See [`RowSums::bucket_weights`].
    pub weight: u64,
}

impl RowSums {
    /// Empty sums. `key` must be random; `buckets` must be a power of two.
    ///
    /// # Panics
    ///
    /// When `buckets` is not a power of two.
    pub fn new(key: [u8; 16], buckets: usize) -> RowSums {
        RowSums { hasher: ElementHasher::new(key, buckets), buckets: vec![Bucket::default(); buckets], rows: 0 }
    }

    /// Adds or takes away one element, as [`effects`] emits it.
    pub fn add(&mut self, sign: Sign, row: &str, column_value: Option<(&str, &str)>) {
        if is_null(column_value) {
            return;
        }
        let (bucket, hash) = self.hasher.element(row, column_value);
        let bucket = &mut self.buckets[bucket];
        bucket.sum = match sign {
            Sign::Plus => bucket.sum.wrapping_add(hash),
            Sign::Minus => bucket.sum.wrapping_sub(hash),
        };
        bucket.weight = bucket.weight.saturating_add(weight(row, column_value) as u64);
        if column_value.is_none() {
            self.rows += sign.factor();
        }
    }

    /// What has come together so far, by bucket, those left out in which there is nothing: for [`RowSums::add_totals`] of another with the same key and number of buckets.
    pub fn totals(&self) -> impl Iterator<Item = BucketTotal> {
        let all = self.buckets.iter().enumerate().filter(|(_, bucket)| bucket.weight != 0);
        all.map(|(place, bucket)| BucketTotal { place, sum: bucket.sum, weight: bucket.weight })
    }

    /// Adds what another has come to; `rows` are its [`RowSums::rows`].
    ///
    /// # Panics
    ///
    /// When the other has more buckets.
    pub fn add_totals(&mut self, totals: impl IntoIterator<Item = BucketTotal>, rows: i64) {
        for BucketTotal { place, sum, weight } in totals {
            let bucket = &mut self.buckets[place];
            bucket.sum = bucket.sum.wrapping_add(sum);
            bucket.weight = bucket.weight.saturating_add(weight);
        }
        self.rows += rows;
    }

    /// Whether all that was added was taken away, but for a chance of about 2^-128.
    pub fn is_balanced(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.sum == 0)
    }

    /// The buckets that do not add up, in ascending order.
    pub fn faulty(&self) -> Vec<usize> {
        (0..self.buckets.len()).filter(|bucket| self.buckets[*bucket].sum != 0).collect()
    }

    /// Rows added less rows taken away.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// For each bucket, the most bytes that a [`Localizer`] needs for it, whatever the order of the elements.
    pub fn bucket_weights(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.weight).collect()
    }

    /// The faulty buckets, cut into batches that a [`Localizer`] can take on within `max_bytes` each. A bucket that is heavier alone is a batch of its own: watch
    /// [`Localizer::bytes`] all the same.
    pub fn batches(&self, max_bytes: u64) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut room = 0;
        for bucket in self.faulty() {
            let weight = self.buckets[bucket].weight;
            match batches.last_mut() {
                Some(batch) if weight <= room => {
                    batch.push(bucket);
                    room -= weight;
                }
                _ => {
                    batches.push(vec![bucket]);
                    room = max_bytes.saturating_sub(weight);
                }
            }
        }
        batches
    }
}

/// One fault of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The text of the key of the row, or its whole text when it has no key.
    pub row: String,
    /// How many times: more than 1 only for equal rows without a key.
    pub count: u64,
    /// What is wrong with it.
    pub what: DifferenceKind,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// The log has the row, the table has not.
    Missing,
    /// The table has the row, the log has not.
    Extra,
    /// Both have the row, with different values.
    Value {
        /// The column.
        column: String,
        /// What the log says, as written; empty for SQL NULL; more than one only when the log contradicts itself.
        expected: Vec<String>,
        /// What the table has, as written; empty for SQL NULL.
        found: Vec<String>,
    },
}

/// Finds the rows behind faulty buckets. Give it the same elements as the [`RowSums`] with the same key and number of buckets.
pub struct Localizer {
    hasher: ElementHasher,
    wanted: Vec<bool>,
    /// By keyed hash, so that elements that come and go cost no allocation to find.
    elements: BTreeMap<u128, Element>,
    bytes: usize,
}

struct Element {
    count: i64,
    row: Box<str>,
    column_value: Option<(Box<str>, Box<str>)>,
}

impl Localizer {
    /// A localizer for the `wanted` buckets; all other elements are passed over.
    ///
    /// # Panics
    ///
    /// When `buckets` is not a power of two or a wanted bucket is not below it.
    pub fn new(key: [u8; 16], buckets: usize, wanted: &[usize]) -> Localizer {
        let mut flags = vec![false; buckets];
        for bucket in wanted {
            flags[*bucket] = true;
        }
        Localizer { hasher: ElementHasher::new(key, buckets), wanted: flags, elements: BTreeMap::new(), bytes: 0 }
    }

    /// Adds or takes away one element, as [`effects`] emits it.
    pub fn add(&mut self, sign: Sign, row: &str, column_value: Option<(&str, &str)>) {
        if is_null(column_value) || !self.wanted[self.hasher.bucket(row)] {
            return;
        }
        let (_, hash) = self.hasher.element(row, column_value);
        let element = self.elements.entry(hash).or_insert_with(|| {
            self.bytes += weight(row, column_value);
            Element {
                count: 0,
                row: row.into(),
                column_value: column_value.map(|(column, value)| (column.into(), value.into())),
            }
        });
        element.count += sign.factor();
        if element.count == 0 {
            self.elements.remove(&hash);
            self.bytes -= weight(row, column_value);
        }
    }

    /// About how many bytes the elements take that do not add up so far. The caller stops when they are too many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The faults, ordered by the text of the row, then by column. Of a row that is missing or extra its values are not told.
    pub fn finish(self) -> Vec<Difference> {
        #[derive(Default)]
        struct Row {
            count: i64,
            columns: BTreeMap<Box<str>, (Vec<String>, Vec<String>)>,
        }
        let mut rows: BTreeMap<Box<str>, Row> = BTreeMap::new();
        for element in self.elements.into_values() {
            let row = rows.entry(element.row).or_default();
            match element.column_value {
                None => row.count = element.count,
                Some((column, value)) => {
                    let (expected, found) = row.columns.entry(column).or_default();
                    let side = if element.count > 0 { expected } else { found };
                    side.push(value.into());
                }
            }
        }
        let mut differences = Vec::new();
        for (text, row) in rows {
            if row.count != 0 {
                differences.push(Difference {
                    row: text.into(),
                    count: row.count.unsigned_abs(),
                    what: if row.count > 0 { DifferenceKind::Missing } else { DifferenceKind::Extra },
                });
                continue;
            }
            for (column, (mut expected, mut found)) in row.columns {
                // The map is ordered by hashes with a random key; reports shall not be.
                expected.sort();
                found.sort();
                differences.push(Difference {
                    row: text.clone().into(),
                    count: 1,
                    what: DifferenceKind::Value { column: column.into(), expected, found },
                });
            }
        }
        differences
    }
}

/// An object of columns that was checked.
struct Object<'a> {
    text: &'a str,
    members: Members<'a>,
}

impl<'a> Object<'a> {
    fn read(text: &'a str) -> Result<Object<'a>, JsonError> {
        let members = json::members(text)?;
        Ok(Object { text, members })
    }
}

/// Emits a row: that it is there, and its values when it has a key.
fn row(
    sign: Sign,
    key: Option<&str>,
    values: Option<&Object<'_>>,
    emit: &mut impl FnMut(Sign, &str, Option<(&str, &str)>),
) {
    match (key, values) {
        (Some(key), values) => {
            emit(sign, key, None);
            columns(sign, key, values, emit);
        }
        (None, Some(values)) => emit(sign, values.text, None),
        (None, None) => {}
    }
}

/// Emits the values of a row.
fn columns(
    sign: Sign,
    key: &str,
    values: Option<&Object<'_>>,
    emit: &mut impl FnMut(Sign, &str, Option<(&str, &str)>),
) {
    for (column, value) in values.into_iter().flat_map(|values| values.members.clone()) {
        if value != NULL {
            emit(sign, key, Some((&column, value)));
        }
    }
}

/// The text of the key after an UPDATE with these new values; `None` when it stays as it is.
fn changed_key(key: &Object<'_>, new: &Object<'_>) -> Option<String> {
    let value_after = |name: &str| new.members.clone().find(|(column, _)| column == name);
    let stays = key.members.clone().all(|(name, before)| value_after(&name).is_none_or(|(_, after)| after == before));
    if stays {
        return None;
    }
    let mut text = Vec::with_capacity(key.text.len());
    for (name, before) in key.members.clone() {
        text.push(if text.is_empty() { b'{' } else { b',' });
        json::push_string(&mut text, name.as_bytes());
        text.push(b':');
        let after = value_after(&name).map_or(before, |(_, after)| after);
        text.extend_from_slice(after.as_bytes());
    }
    text.push(b'}');
    Some(String::from_utf8(text).expect("made of parts of UTF-8 texts"))
}

/// How SQL NULL is written. A json value `null` has a space before it.
const NULL: &str = "null";

fn is_null(column_value: Option<(&str, &str)>) -> bool {
    column_value.is_some_and(|(_, value)| value == NULL)
}

/// The bytes that an element takes in a [`Localizer`].
fn weight(row: &str, column_value: Option<(&str, &str)>) -> usize {
    // A map entry, its share of a B-tree node, and up to three allocations.
    const OVERHEAD: usize = 160;
    OVERHEAD + row.len() + column_value.map_or(0, |(column, value)| column.len() + value.len())
}

/// Keyed hashes of elements: SipHash-2-4 with 128 bits.
struct ElementHasher {
    key: [u8; 16],
    mask: usize,
    /// The elements of a row come one after the other, and keys may be long: the last row is not hashed again.
    row: String,
    row_hash: u128,
}

impl ElementHasher {
    fn new(key: [u8; 16], buckets: usize) -> ElementHasher {
        assert!(buckets.is_power_of_two(), "the number of buckets is a power of two");
        let mut hasher = ElementHasher { key, mask: buckets - 1, row: String::new(), row_hash: 0 };
        hasher.row_hash = hasher.hash_row("");
        hasher
    }

    fn bucket(&mut self, row: &str) -> usize {
        if self.row != row {
            self.row.clear();
            self.row.push_str(row);
            self.row_hash = self.hash_row(row);
        }
        // Truncation is meant: the lowest bits.
        self.row_hash as usize & self.mask
    }

    fn element(&mut self, row: &str, column_value: Option<(&str, &str)>) -> (usize, u128) {
        let bucket = self.bucket(row);
        let Some((column, value)) = column_value else {
            return (bucket, self.row_hash);
        };
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(b"v");
        hasher.write(&self.row_hash.to_le_bytes());
        // With its length in front a column cannot lend letters to its value.
        hasher.write(&(column.len() as u64).to_le_bytes());
        hasher.write(column.as_bytes());
        hasher.write(value.as_bytes());
        (bucket, hasher.finish128().as_u128())
    }

    fn hash_row(&self, row: &str) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(b"r");
        hasher.write(row.as_bytes());
        hasher.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 16] = *b"not random: test";
    const BUCKETS: usize = 8;

    type Change<'a> = (Operation, Option<&'a str>, Option<&'a str>, Option<&'a str>);
    type Effect = (Sign, String, Option<(String, String)>);

    fn emitted(change: Change<'_>) -> Vec<Effect> {
        let (operation, key, old, new) = change;
        let mut out = Vec::new();
        effects(operation, key, old, new, &mut |sign, row, column_value| {
            let column_value = column_value.map(|(column, value)| (column.to_owned(), value.to_owned()));
            out.push((sign, row.to_owned(), column_value));
        })
        .unwrap();
        out
    }

    fn plus(row: &str, column_value: Option<(&str, &str)>) -> Effect {
        let column_value = column_value.map(|(column, value)| (column.to_owned(), value.to_owned()));
        (Sign::Plus, row.to_owned(), column_value)
    }

    fn minus(row: &str, column_value: Option<(&str, &str)>) -> Effect {
        let (_, row, column_value) = plus(row, column_value);
        (Sign::Minus, row, column_value)
    }

    /// The faults of live rows (key, row) against a log.
    fn differences(log: &[Change<'_>], live: &[(Option<&str>, &str)]) -> Vec<Difference> {
        let live = live.iter().map(|(key, row)| (Operation::Delete, *key, Some(*row), None));
        let all: Vec<Effect> = log.iter().copied().chain(live).flat_map(emitted).collect();
        let mut sums = RowSums::new(KEY, BUCKETS);
        let mut parts = [RowSums::new(KEY, BUCKETS), RowSums::new(KEY, BUCKETS)];
        for (place, (sign, row, column_value)) in all.iter().enumerate() {
            let column_value = column_value.as_ref().map(|(column, value)| (&**column, &**value));
            sums.add(*sign, row, column_value);
            parts[place % 2].add(*sign, row, column_value);
        }
        let [mut put_together, other] = parts;
        put_together.add_totals(other.totals(), other.rows());
        assert!(put_together.totals().eq(sums.totals()));
        assert_eq!(put_together.rows(), sums.rows());
        let mut found = Vec::new();
        for batch in sums.batches(500) {
            let mut localizer = Localizer::new(KEY, BUCKETS, &batch);
            for (sign, row, column_value) in &all {
                let column_value = column_value.as_ref().map(|(column, value)| (&**column, &**value));
                localizer.add(*sign, row, column_value);
                let most: u64 = batch.iter().map(|bucket| sums.bucket_weights()[*bucket]).sum();
                assert!(localizer.bytes() as u64 <= most);
            }
            assert!(localizer.bytes() > 0);
            found.extend(localizer.finish());
        }
        assert_eq!(sums.is_balanced(), found.is_empty());
        found.sort_by(|a, b| a.row.cmp(&b.row));
        found
    }

    fn value(row: &str, column: &str, expected: &[&str], found: &[&str]) -> Difference {
        Difference {
            row: row.to_owned(),
            count: 1,
            what: DifferenceKind::Value {
                column: column.to_owned(),
                expected: expected.iter().map(|text| text.to_string()).collect(),
                found: found.iter().map(|text| text.to_string()).collect(),
            },
        }
    }

    fn whole(row: &str, count: u64, what: DifferenceKind) -> Difference {
        Difference { row: row.to_owned(), count, what }
    }

    const K1: Option<&str> = Some(r#"{"id":1}"#);
    const K2: Option<&str> = Some(r#"{"id":2}"#);

    #[test]
    fn changes_are_taken_apart() {
        use Operation::*;
        let k1 = K1.unwrap();
        let text = r#"{"id":1,"a":"x","b":null,"c": null}"#;
        let row = Some(text);
        let elements = |of: fn(&str, Option<(&str, &str)>) -> Effect| {
            [of(k1, None), of(k1, Some(("id", "1"))), of(k1, Some(("a", "\"x\""))), of(k1, Some(("c", " null")))]
        };
        assert_eq!(emitted((Insert, K1, None, row)), elements(plus));
        assert_eq!(emitted((Baseline, K1, None, row)), elements(plus));
        assert_eq!(emitted((Delete, K1, row, None)), elements(minus));
        assert_eq!(
            emitted((Update, K1, Some(r#"{"a":"x","b":null}"#), Some(r#"{"a":null,"b":2}"#))),
            [minus(k1, Some(("a", "\"x\""))), plus(k1, Some(("b", "2")))]
        );
        assert_eq!(emitted((Insert, None, None, row)), [plus(text, None)]);
        assert_eq!(emitted((Delete, None, row, None)), [minus(text, None)]);
        assert_eq!(emitted((Update, None, row, Some("{}"))), [minus(text, None), plus("{}", None)]);
        for operation in [Truncate, Protect, Unprotect, Incarnation, Key, Ddl] {
            assert_eq!(emitted((operation, None, None, Some("{\"reason\": \"x\"}"))), []);
        }
    }

    #[test]
    fn changed_key_moves_the_row() {
        let old = Some(r#"{"a\"":1,"n":null,"b":"x"}"#);
        let new = Some(r#"{"a\"":1,"n":5,"b":"y"}"#);
        let (before, after) = (r#"{"a\"":1,"b":"x"}"#, r#"{"a\"":1,"b":"y"}"#);
        let key = Some(before);
        assert_eq!(
            emitted((Operation::Update, key, old, new)),
            [
                minus(before, None),
                minus(before, Some(("a\"", "1"))),
                minus(before, Some(("b", "\"x\""))),
                plus(after, None),
                plus(after, Some(("a\"", "1"))),
                plus(after, Some(("n", "5"))),
                plus(after, Some(("b", "\"y\""))),
            ]
        );
        // Whole images do not mean that the key changed.
        let same = emitted((Operation::Update, key, old, old));
        assert!(same.iter().all(|(_, row, column)| row == before && column.is_some()));
    }

    #[test]
    fn nothing_is_emitted_on_an_error() {
        let mut none = |_: Sign, _: &str, _: Option<(&str, &str)>| panic!("emitted");
        for (key, old, new) in [
            (K1, Some("{}"), Some("{\"a\":}")),
            (K1, Some("{"), Some("{\"a\":1}")),
            (Some("1"), Some("{}"), Some("{\"a\":1}")),
        ] {
            assert!(effects(Operation::Update, key, old, new, &mut none).is_err());
        }
    }

    #[test]
    fn log_and_table_that_agree_have_no_differences() {
        use Operation::*;
        let log = [
            (Baseline, K1, None, Some(r#"{"id":1,"a":1}"#)),
            (Insert, K2, None, Some(r#"{"id":2,"a":null}"#)),
            (Update, K1, Some(r#"{"a":1}"#), Some(r#"{"a":7}"#)),
            (Update, K1, Some(r#"{"id":1,"a":7}"#), Some(r#"{"id":3,"a":7}"#)),
            (Delete, K2, Some(r#"{"id":2,"a":null}"#), None),
        ];
        let live = [(Some(r#"{"id":3}"#), r#"{"id":3,"a":7}"#)];
        assert_eq!(differences(&log, &live), []);
        // The order of entries does not matter.
        let mut reversed = log;
        reversed.reverse();
        assert_eq!(differences(&reversed, &live), []);
    }

    #[test]
    fn differences_of_rows_with_a_key_are_told() {
        use Operation::Insert;
        let log = [
            (Insert, K1, None, Some(r#"{"id":1,"a":1,"b":null,"c":"x"}"#)),
            (Insert, K2, None, Some(r#"{"id":2,"a":1}"#)),
        ];
        let live = [(K1, r#"{"id":1,"a":2,"b":"","c":null}"#), (Some(r#"{"id":3}"#), r#"{"id":3,"a":1}"#)];
        let k1 = K1.unwrap();
        assert_eq!(
            differences(&log, &live),
            [
                value(k1, "a", &["1"], &["2"]),
                value(k1, "b", &[], &["\"\""]),
                value(k1, "c", &["\"x\""], &[]),
                whole(K2.unwrap(), 1, DifferenceKind::Missing),
                whole(r#"{"id":3}"#, 1, DifferenceKind::Extra),
            ]
        );
    }

    #[test]
    fn equal_rows_without_a_key_are_counted() {
        use Operation::{Delete, Insert};
        let text = r#"{"a":1}"#;
        let row = Some(text);
        let log = [
            (Insert, None, None, row),
            (Insert, None, None, row),
            (Insert, None, None, row),
            (Delete, None, row, None),
        ];
        let live = |times: usize| vec![(None, text); times];
        assert_eq!(differences(&log, &live(2)), []);
        assert_eq!(differences(&log, &live(0)), [whole(text, 2, DifferenceKind::Missing)]);
        assert_eq!(differences(&log, &live(5)), [whole(text, 3, DifferenceKind::Extra)]);
    }

    #[test]
    fn elements_cannot_be_cut_anew() {
        let element = |row: &str, column_value: Option<(&str, &str)>| {
            let mut sums = RowSums::new(KEY, 1);
            sums.add(Sign::Plus, row, column_value);
            sums.buckets[0].sum
        };
        let elements = [
            element("r", None),
            element("r", Some(("", ""))),
            element("r", Some(("a", "b"))),
            element("r", Some(("ab", ""))),
            element("r", Some(("", "ab"))),
            element("ra", Some(("", "b"))),
            element("r", Some(("a", " null"))),
            element("r", Some(("a", "\"null\""))),
        ];
        for (i, a) in elements.iter().enumerate() {
            assert!(elements[..i].iter().all(|b| a != b), "{i}");
        }
        assert_eq!(element("r", Some(("a", "null"))), 0);
        let mut other = RowSums::new([0; 16], 1);
        other.add(Sign::Plus, "r", None);
        assert_ne!(other.buckets[0].sum, elements[0]);
    }

    #[test]
    fn rows_and_batches_are_counted() {
        let mut sums = RowSums::new(KEY, BUCKETS);
        assert!(sums.is_balanced());
        for row in 0..100 {
            sums.add(Sign::Plus, &row.to_string(), None);
            sums.add(Sign::Plus, &row.to_string(), Some(("a", "1")));
        }
        assert_eq!(sums.rows(), 100);
        assert_eq!(sums.faulty(), (0..BUCKETS).collect::<Vec<_>>());
        assert_eq!(sums.batches(u64::MAX), [sums.faulty()]);
        assert_eq!(sums.batches(0).len(), BUCKETS);
        let most = sums.bucket_weights().into_iter().max().unwrap() * 2;
        for batch in sums.batches(most) {
            assert!(batch.iter().map(|bucket| sums.bucket_weights()[*bucket]).sum::<u64>() <= most);
        }
    }

    #[test]
    #[should_panic(expected = "power of two")]
    fn buckets_are_a_power_of_two() {
        RowSums::new(KEY, 12);
    }

    proptest! {
        /// A random history of a table, its entries shuffled, against its true rows and against damaged ones.
        #[test]
        fn any_history_adds_up_and_any_damage_is_told(
            steps in prop::collection::vec((0_u8..6, 0_u8..6, prop::option::of(0_u8..4)), 0..40),
            seed: u64,
            damaged in 0_u8..6,
        ) {
            let key = |id: u8| format!("{{\"id\":{id}}}");
            let show = |value: Option<u8>| value.map_or("null".to_owned(), |value| value.to_string());
            let image = |id: u8, value: Option<u8>| format!("{{\"id\":{id},\"a\":{}}}", show(value));
            let mut table: BTreeMap<u8, Option<u8>> = BTreeMap::new();
            let mut log: Vec<(Operation, String, Option<String>, Option<String>)> = Vec::new();
            for (id, other, value) in steps {
                match table.get(&id).copied() {
                    None => {
                        table.insert(id, value);
                        log.push((Operation::Insert, key(id), None, Some(image(id, value))));
                    }
                    Some(before) if other == id => {
                        table.remove(&id);
                        log.push((Operation::Delete, key(id), Some(image(id, before)), None));
                    }
                    Some(before) if table.contains_key(&other) => {
                        table.insert(id, value);
                        let values = [before, value].map(|value| format!("{{\"a\":{}}}", show(value)));
                        let [old, new] = values;
                        log.push((Operation::Update, key(id), Some(old), Some(new)));
                    }
                    Some(before) => {
                        table.remove(&id);
                        table.insert(other, value);
                        log.push((Operation::Update, key(id), Some(image(id, before)), Some(image(other, value))));
                    }
                }
            }
            let length = log.len().max(1);
            log.rotate_left(seed as usize % length);
            let log: Vec<Change<'_>> = log
                .iter()
                .map(|(operation, key, old, new)| (*operation, Some(key.as_str()), old.as_deref(), new.as_deref()))
                .collect();
            let against = |table: &BTreeMap<u8, Option<u8>>| {
                let live: Vec<(String, String)> =
                    table.iter().map(|(id, value)| (key(*id), image(*id, *value))).collect();
                let live: Vec<(Option<&str>, &str)> =
                    live.iter().map(|(key, row)| (Some(key.as_str()), row.as_str())).collect();
                differences(&log, &live)
            };
            prop_assert_eq!(against(&table), vec![]);
            let row = key(damaged);
            if let Some(value_before) = table.get(&damaged).copied() {
                table.insert(damaged, Some(9));
                let expected: Vec<String> = value_before.iter().map(|value| value.to_string()).collect();
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                prop_assert_eq!(against(&table), vec![value(&row, "a", &expected, &["9"])]);
                table.remove(&damaged);
                prop_assert_eq!(against(&table), vec![whole(&row, 1, DifferenceKind::Missing)]);
            } else {
                table.insert(damaged, None);
                prop_assert_eq!(against(&table), vec![whole(&row, 1, DifferenceKind::Extra)]);
            }
        }
    }
}
