//! The hashes of the entries of a log, to be read in the order in which the seals count them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use audit_ledger::{Hash, SealedHash, SealedLog, StoredTile, TileId, Uuid};

/// The hashes of one ledger, by chain: 40 bytes an entry.
#[derive(Debug, Default)]
pub(crate) struct Hashes(BTreeMap<u32, Vec<(u64, Hash)>>);

/// Takes the hash of an entry, if the line is one.
pub(crate) fn collect(ledgers: &mut BTreeMap<Uuid, Hashes>, line: &[u8], hash: Option<Hash>) {
    if let Some((ledger, chain, seq)) = place(line) {
        let hash = hash.unwrap_or_else(|| Hash::of(line));
        ledgers.entry(ledger).or_default().0.entry(chain).or_default().push((seq, hash));
    }
}

/// Ledger, chain and seq of an entry, read from the beginning of its line. Whether the rest is an entry was judged before.
fn place(line: &[u8]) -> Option<(Uuid, u32, u64)> {
    let rest = line.strip_prefix(b"{\"v\":1,\"ledger\":\"")?;
    let (ledger, rest) = rest.split_at_checked(36)?;
    let (chain, rest) = number(rest.strip_prefix(b"\",\"chain\":")?)?;
    let (seq, rest) = number(rest.strip_prefix(b",\"seq\":\"")?)?;
    rest.starts_with(b"\"").then_some((str::from_utf8(ledger).ok()?.parse().ok()?, chain.try_into().ok()?, seq))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    Some((str::from_utf8(number).ok()?.parse().ok()?, rest))
}

impl Hashes {
    /// Brings them in order. Of entries that stand twice the first stays in front.
    pub(crate) fn sort(&mut self) {
        for entries in self.0.values_mut() {
            if !entries.is_sorted_by_key(|(seq, _)| *seq) {
                entries.sort_by_key(|(seq, _)| *seq);
            }
        }
    }
}

impl SealedLog for Hashes {
    type Error = Infallible;

    fn entries(
        &mut self,
        chain: u32,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(u64, SealedHash) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let Some(entries) = self.0.get(&chain) else { return Ok(()) };
        let start = entries.partition_point(|(seq, _)| *seq < first);
        for (seq, hash) in entries[start..].iter().take_while(|(seq, _)| *seq <= last) {
            if each(*seq, SealedHash::Entry(*hash)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn has_tiles(&self) -> bool {
        false
    }

    fn tile(&mut self, _: TileId) -> Result<Option<StoredTile>, Infallible> {
        Ok(None)
    }

    fn tile_from(&mut self, _: u8, _: u64) -> Result<Option<u64>, Infallible> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = "0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11";

    #[test]
    fn place_is_read_from_entries_alone() {
        let line = |rest: &str| format!("{{\"v\":1,\"ledger\":\"{LEDGER}\",{rest}");
        let good = line("\"chain\":3,\"seq\":\"12\",\"prev\":");
        assert_eq!(place(good.as_bytes()), Some((LEDGER.parse().unwrap(), 3, 12)));
        for bad in [
            "\"seal\":\"3\",",
            "\"chain\":,\"seq\":\"1\"",
            "\"chain\":4294967296,\"seq\":\"1\"",
            "\"chain\":1,\"seq\":\"1",
        ] {
            assert_eq!(place(line(bad).as_bytes()), None, "{bad}");
        }
        assert_eq!(place(b""), None);
    }

    #[test]
    fn hashes_come_in_order_within_bounds() {
        let mut ledgers = BTreeMap::new();
        for seq in [3, 1, 2, 5, 2] {
            let line = format!("{{\"v\":1,\"ledger\":\"{LEDGER}\",\"chain\":1,\"seq\":\"{seq}\"");
            collect(&mut ledgers, line.as_bytes(), None);
        }
        let mut hashes = ledgers.remove(&LEDGER.parse().unwrap()).unwrap();
        hashes.sort();
        let mut read = |chain, first, last| {
            let mut found = Vec::new();
            let Ok(()) = hashes.entries(chain, first, last, &mut |seq, _| {
                found.push(seq);
                if seq == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            found
        };
        assert_eq!(read(1, 1, 9), [1, 2, 2, 3]);
        assert_eq!(read(1, 4, 9), [5]);
        assert_eq!(read(1, 2, 2), [2, 2]);
        assert_eq!(read(2, 1, 9), [0; 0]);
    }
}
