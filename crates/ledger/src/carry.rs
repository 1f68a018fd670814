//! What a new baseline of a table must have taken over from before.
//!
//! Where the definition of a table changes, its rows are recorded anew, and what they say then is what later changes are held against. A value that was changed unrecorded before would be
//! washed clean by that; so the columns that the change has left as they were must say in the new baseline what the entries before it say.
//!
//! Both sides are taken apart into the elements of [`reconcile`](crate::reconcile), under the names that the columns had before.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::entry::Operation;
use crate::json::{self, JsonError};
use crate::reconcile::{Sign, effects};

/// Which columns a change of a table's definition has left as they were, and what told its rows apart before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carry {
    /// By its name afterwards, the name of each column before.
    former: HashMap<String, String>,
    /// The names before.
    kept: HashSet<String>,
    rows: Rows,
}

/// What a row is known by on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rows {
    /// The columns of the key before.
    ByKey(Vec<String>),
    /// There was no key: all that was kept of the row.
    ByContents,
    /// A column of the key was not kept. They can only be counted.
    Counted,
}

/// A row of which nothing is known.
const ANY: &str = "{}";

impl Carry {
    /// `kept` holds the name afterwards of each column by its name before; `key` is the key before, by names before, empty when there was none.
    pub fn new(kept: &BTreeMap<String, String>, key: &[String]) -> Carry {
        let rows = match key {
            [] => Rows::ByContents,
            _ if key.iter().all(|column| kept.contains_key(column)) => Rows::ByKey(key.to_vec()),
            _ => Rows::Counted,
        };
        Carry {
            former: kept.iter().map(|(before, after)| (after.clone(), before.clone())).collect(),
            kept: kept.keys().cloned().collect(),
            rows,
        }
    }

    /// Whether rows can be told apart: else they are only counted.
    pub fn tells_rows_apart(&self) -> bool {
        self.rows != Rows::Counted
    }

    /// Takes an entry from before the change apart, as [`effects`] does, without what was not kept.
    pub fn before(
        &self,
        operation: Operation,
        key: Option<&str>,
        old: Option<&str>,
        new: Option<&str>,
        emit: &mut impl FnMut(Sign, &str, Option<(&str, &str)>),
    ) -> Result<(), JsonError> {
        let mut result = Ok(());
        effects(operation, key, old, new, &mut |sign, row, value| match (&self.rows, value) {
            (Rows::ByKey(_), None) => emit(sign, row, None),
            (Rows::ByKey(_), Some((column, _))) if self.kept.contains(column) => emit(sign, row, value),
            (Rows::ByContents, None) => match self.contents(row) {
                Ok(contents) => emit(sign, &contents, None),
                Err(error) => result = Err(error),
            },
            (Rows::Counted, None) => emit(sign, ANY, None),
            (_, Some(_)) => {}
        })?;
        result
    }

    /// Takes a row of the new baseline apart: what it has taken over goes away.
    pub fn after(&self, row: &str, emit: &mut impl FnMut(Sign, &str, Option<(&str, &str)>)) -> Result<(), JsonError> {
        let values: Vec<(&str, &str)> =
            json::members(row)?.filter_map(|(name, value)| Some((self.former.get(&*name)?.as_str(), value))).collect();
        match &self.rows {
            Rows::ByKey(key) => {
                let value_of = |column: &String| values.iter().find(|(name, _)| name == column).copied();
                let key = object(key.iter().filter_map(value_of));
                emit(Sign::Minus, &key, None);
                values.iter().for_each(|value| emit(Sign::Minus, &key, Some(*value)));
            }
            Rows::ByContents => emit(Sign::Minus, &object(values.into_iter()), None),
            Rows::Counted => emit(Sign::Minus, ANY, None),
        }
        Ok(())
    }

    /// A row from before without what was not kept.
    fn contents(&self, row: &str) -> Result<String, JsonError> {
        let members: Vec<_> = json::members(row)?.filter(|(name, _)| self.kept.contains(&**name)).collect();
        Ok(object(members.iter().map(|(name, value)| (&**name, *value))))
    }
}

/// The text of an object, as rows are written.
fn object<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = vec![b'{'];
    for (name, value) in members {
        if text.len() > 1 {
            text.push(b',');
        }
        json::push_string(&mut text, name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value.as_bytes());
    }
    text.push(b'}');
    String::from_utf8(text).expect("made of parts of UTF-8 texts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::{Difference, DifferenceKind, Localizer, RowSums};

    const SECRET: [u8; 16] = *b"not random: test";

    type Change<'a> = (Operation, Option<&'a str>, Option<&'a str>, Option<&'a str>);

    fn carry(kept: &[(&str, &str)], key: &[&str]) -> Carry {
        let kept = kept.iter().map(|(before, after)| ((*before).to_owned(), (*after).to_owned())).collect();
        Carry::new(&kept, &key.iter().map(|column| (*column).to_owned()).collect::<Vec<_>>())
    }

    /// What does not fit; sums and localizer must agree whether anything does not.
    fn differences(carry: &Carry, before: &[Change<'_>], after: &[&str]) -> Vec<Difference> {
        let (mut sums, mut localizer) = (RowSums::new(SECRET, 1), Localizer::new(SECRET, 1, &[0]));
        let mut add = |sign: Sign, row: &str, value: Option<(&str, &str)>| {
            sums.add(sign, row, value);
            localizer.add(sign, row, value);
        };
        for (operation, key, old, new) in before {
            carry.before(*operation, *key, *old, *new, &mut add).unwrap();
        }
        for row in after {
            carry.after(row, &mut add).unwrap();
        }
        let differences = localizer.finish();
        assert_eq!(sums.is_balanced(), differences.is_empty());
        differences
    }

    const HISTORY: [Change<'static>; 4] = [
        (Operation::Insert, Some(r#"{"id":1}"#), None, Some(r#"{"id":1,"v":10,"w":null}"#)),
        (Operation::Insert, Some(r#"{"id":2}"#), None, Some(r#"{"id":2,"v":20,"w":"b"}"#)),
        (Operation::Update, Some(r#"{"id":1}"#), Some(r#"{"v":10,"w":null}"#), Some(r#"{"v":11,"w":"a"}"#)),
        (Operation::Delete, Some(r#"{"id":2}"#), Some(r#"{"id":2,"v":20,"w":"b"}"#), None),
    ];

    #[test]
    fn what_was_taken_over_fits_under_each_change_of_columns() {
        for (kept, key, row) in [
            (&[("id", "id"), ("v", "v"), ("w", "w")][..], &["id"][..], r#"{"id":1,"v":11,"w":"a","x":5}"#),
            (&[("id", "id"), ("w", "w")], &["id"], r#"{"id":1,"w":"a"}"#),
            (&[("id", "nr"), ("v", "w"), ("w", "v")], &["id"], r#"{"nr":1,"w":11,"v":"a"}"#),
            (&[("id", "id"), ("w", "w")], &["id"], r#"{"id":1,"v":"11.0","w":"a"}"#),
            (&[("v", "v"), ("w", "w")], &["id"], r#"{"id":"1","v":11,"w":"a"}"#),
        ] {
            assert_eq!(differences(&carry(kept, key), &HISTORY, &[row]), [], "{row}");
        }
    }

    #[test]
    fn a_value_that_was_not_taken_over_is_told_under_its_former_name() {
        let carry = carry(&[("id", "nr"), ("v", "amount")], &["id"]);
        let differences = differences(&carry, &HISTORY, &[r#"{"nr":1,"amount":12,"w":null}"#]);
        let what = DifferenceKind::Value { column: "v".into(), expected: vec!["11".into()], found: vec!["12".into()] };
        assert_eq!(differences, [Difference { row: r#"{"id":1}"#.into(), count: 1, what }]);
    }

    #[test]
    fn rows_that_came_or_went_are_told() {
        let carry = carry(&[("id", "id"), ("v", "v")], &["id"]);
        let differences = differences(&carry, &HISTORY, &[r#"{"id":3,"v":11}"#]);
        let kinds: Vec<_> = differences.into_iter().map(|difference| (difference.row, difference.what)).collect();
        assert_eq!(
            kinds,
            [(r#"{"id":1}"#.into(), DifferenceKind::Missing), (r#"{"id":3}"#.into(), DifferenceKind::Extra),]
        );
    }

    #[test]
    fn without_a_key_rows_are_known_by_what_was_kept_of_them() {
        let history = [
            (Operation::Baseline, None, None, Some(r#"{"a":1,"b":"x"}"#)),
            (Operation::Insert, None, None, Some(r#"{"a":1,"b":"y"}"#)),
            (Operation::Update, None, Some(r#"{"a":1,"b":"y"}"#), Some(r#"{"a":2,"b":"y"}"#)),
        ];
        let kept = carry(&[("a", "c")], &[]);
        assert_eq!(differences(&kept, &history, &[r#"{"c":2,"b":"x"}"#, r#"{"c":1,"b":"z"}"#]), []);
        let found = differences(&kept, &history, &[r#"{"c":2}"#, r#"{"c":2}"#]);
        assert_eq!(
            found.iter().map(|one| (&*one.row, one.count)).collect::<Vec<_>>(),
            [(r#"{"a":1}"#, 1), (r#"{"a":2}"#, 1)]
        );
    }

    #[test]
    fn without_the_former_key_rows_are_counted() {
        let carry = carry(&[("v", "v")], &["id"]);
        assert!(!carry.tells_rows_apart());
        assert_eq!(differences(&carry, &HISTORY, &[r#"{"v":99}"#]), []);
        assert_eq!(differences(&carry, &HISTORY, &[]).len(), 1);
    }
}
