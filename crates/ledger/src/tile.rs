//! Tiles: the hashes of the tree in blocks of 256, of which whole ones never change.
//!
//! The layout is c2sp.org/tlog-tiles: a tile of level l holds the roots of 256 neighbouring subtrees of 256^l leaves each. All other
//! nodes are computed from these, so a proof needs the tiles along a few paths and not the leaves of the tree. This module knows not
//! where tiles are stored.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::proof::HashReader;
use crate::text::decimal;
use crate::tree::{CompactRange, LeafHash, LeafIndex, NodeHash, NodeId, TreeError, TreeHead, TreeSize};

/// How many hashes a whole tile has.
pub const WIDTH: u16 = 256;

/// The highest level of a tile: with 2^63-1 leaves its subtrees have 2^56 leaves.
pub const MAX_LEVEL: u8 = 7;

/// The most bytes of a path: `tile/7/` with six groups of digits would be longer than any tile needs.
const MAX_PATH: usize = 64;

/// The place of a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    level: u8,
    index: u64,
}

impl TileId {
    /// Takes level 0 to 7, and an index that occurs in a tree of at most 2^63-1 leaves; else the error is [`TileError::NoTile`].
    pub fn new(level: u8, index: u64) -> Result<TileId, TileError> {
        let tile = TileId { level, index };
        if level <= MAX_LEVEL && tile.width(TreeSize::MAX) > 0 {
            Ok(tile)
        } else {
            Err(TileError::NoTile(level, index))
        }
    }

    /// The level: each hash of the tile is the root of 256^level leaves.
    pub fn level(self) -> u8 {
        self.level
    }

    /// How many tiles of the same level stand to its left.
    pub fn index(self) -> u64 {
        self.index
    }

    /// How many hashes the tile has in a tree of this size: 0 (it is not there) to 256 (it is whole).
    pub fn width(self, size: TreeSize) -> u16 {
        let hashes = size.get() >> (8 * self.level);
        let before = self.index.saturating_mul(u64::from(WIDTH));
        hashes.saturating_sub(before).min(u64::from(WIDTH)) as u16
    }
}

/// A tile and how many of its hashes, counted from the left: 256 of a whole tile, 1 to 255 of one at the right edge of a tree.
///
/// As text it is the path of tlog-tiles, `tile/1/x001/234.p/5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileSlice {
    id: TileId,
    width: u16,
}

impl TileSlice {
    /// Takes a width of 1 to 256, for which all leaves below are within [`TreeSize::MAX`]; else the error is [`TileError::Width`].
    pub fn new(id: TileId, width: u16) -> Result<TileSlice, TileError> {
        if width == 0 || width > id.width(TreeSize::MAX) {
            Err(TileError::Width(width))
        } else {
            Ok(TileSlice { id, width })
        }
    }

    /// Which tile.
    pub fn id(self) -> TileId {
        self.id
    }

    /// How many of its hashes, 1 to 256.
    pub fn width(self) -> u16 {
        self.width
    }

    /// Whether these are all hashes of the tile, so that they never change.
    pub fn is_whole(self) -> bool {
        self.width == WIDTH
    }
}

/// A tile is not possible, or not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// There is no such tile in any tree.
    #[error("there is no tile {1} of level {0}")]
    NoTile(u8, u64),
    /// The tile cannot have this width.
    #[error("a tile cannot have the width {0}")]
    Width(u16),
    /// The text is not the path of a tile.
    #[error("the text is not the path of a tile")]
    Path,
    /// The bytes are not the hashes of a tile.
    #[error("the hashes of a tile are 32 to 8192 bytes and a multiple of 32, not {0}")]
    Length(usize),
    /// The tiles that were read have another root than the tree.
    #[error("the tiles have the root {computed}, the tree has {expected}")]
    WrongRoot {
        /// Root computed from the tiles.
        computed: NodeHash,
        /// Root of the tree.
        expected: NodeHash,
    },
    /// The tree cannot grow.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl fmt::Display for TileSlice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.id.level)?;
        let mut groups = vec![self.id.index % 1000];
        let mut rest = self.id.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if self.is_whole() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl FromStr for TileSlice {
    type Err = TileError;

    /// Takes exactly what `Display` writes.
    fn from_str(path: &str) -> Result<TileSlice, TileError> {
        if path.len() > MAX_PATH {
            return Err(TileError::Path);
        }
        let slice = parse_path(path).ok_or(TileError::Path)?;
        // Ends groups without x, with x at the end, too few or too many digits, and zeros in front.
        if slice.to_string() == path { Ok(slice) } else { Err(TileError::Path) }
    }
}

fn parse_path(path: &str) -> Option<TileSlice> {
    let (level, path) = path.strip_prefix("tile/")?.split_once('/')?;
    let (groups, width) = match path.split_once(".p/") {
        None => (path, u64::from(WIDTH)),
        Some((groups, width)) => (groups, decimal(width).filter(|width| *width < u64::from(WIDTH))?),
    };
    let mut index: u64 = 0;
    for group in groups.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    let level = decimal(level).and_then(|level| u8::try_from(level).ok())?;
    TileSlice::new(TileId::new(level, index).ok()?, u16::try_from(width).ok()?).ok()
}

/// The hashes of a tile as bytes, 32 for each, from left to right.
pub fn encode_hashes(hashes: &[NodeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// Reads what [`encode_hashes`] writes, of 1 to 256 hashes.
pub fn decode_hashes(bytes: &[u8]) -> Result<Vec<NodeHash>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.is_empty() || hashes.len() > usize::from(WIDTH) || !rest.is_empty() {
        return Err(TileError::Length(bytes.len()));
    }
    Ok(hashes.iter().map(|hash| NodeHash::from(*hash)).collect())
}

/// The tiles that become whole when a tree grows from `old` to `new` leaves, level by level, each from left to right. There are none when
/// `new` is not above `old`.
pub fn completed_tiles(old: TreeSize, new: TreeSize) -> impl Iterator<Item = TileId> {
    (0..=MAX_LEVEL).flat_map(move |level| {
        let whole = |size: TreeSize| size.get().checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
        (whole(old)..whole(new)).map(move |index| TileId { level, index })
    })
}

/// The tiles at the right edge of a tree, one for each level at most, that are there and not whole.
pub fn partial_tiles(size: TreeSize) -> impl Iterator<Item = TileSlice> {
    (0..=MAX_LEVEL).filter_map(move |level| {
        let hashes = size.get() >> (8 * level);
        let width = (hashes % u64::from(WIDTH)) as u16;
        (width > 0).then_some(TileSlice { id: TileId { level, index: hashes / u64::from(WIDTH) }, width })
    })
}

/// Where tiles are read from: whole ones from where they are stored; the others, level 0 from the leaves, and those above from the roots
/// of the whole tiles below.
pub trait TileSource {
    /// Why tiles could not be read.
    type Error;

    /// Reads hashes of tiles, as many as each slice says, in the order asked for.
    fn read_tiles(&mut self, tiles: &[TileSlice]) -> Result<Vec<Vec<NodeHash>>, Self::Error>;
}

/// Hashes could not be read from tiles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError<E> {
    /// The source failed.
    #[error("could not read tiles")]
    Source(#[source] E),
    /// The source gave more or fewer tiles than it was asked for.
    #[error("asked for {expected} tiles, got {found}")]
    Count {
        /// How many were asked for.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// The source gave a tile with more or fewer hashes than it was asked for.
    #[error("{tile} has {found} hashes, not {width}", width = tile.width)]
    Width {
        /// Tile that was asked for.
        tile: TileSlice,
        /// How many hashes were given.
        found: usize,
    },
    /// A subtree is not within the tree.
    #[error("subtree {index} of level {level} is not in a tree of {size} leaves", index = node.index(), level = node.level())]
    Outside {
        /// The subtree.
        node: NodeId,
        /// Size of the tree.
        size: TreeSize,
    },
    /// The tiles do not make the tree.
    #[error(transparent)]
    Tile(#[from] TileError),
}

/// Reads the subtrees of a tree of a given size from its tiles, each tile once in a call.
#[derive(Debug)]
pub struct TileReader<'a, S> {
    size: TreeSize,
    source: &'a mut S,
}

impl<'a, S: TileSource> TileReader<'a, S> {
    /// A reader for the tree of the first `size` leaves.
    pub fn new(size: TreeSize, source: &'a mut S) -> TileReader<'a, S> {
        TileReader { size, source }
    }

    fn read_slices(&mut self, slices: &[TileSlice]) -> Result<Vec<Vec<NodeHash>>, ReadError<S::Error>> {
        let tiles = self.source.read_tiles(slices).map_err(ReadError::Source)?;
        if tiles.len() != slices.len() {
            return Err(ReadError::Count { expected: slices.len(), found: tiles.len() });
        }
        for (tile, hashes) in slices.iter().zip(&tiles) {
            if hashes.len() != usize::from(tile.width) {
                return Err(ReadError::Width { tile: *tile, found: hashes.len() });
            }
        }
        Ok(tiles)
    }
}

impl<S: TileSource> HashReader for TileReader<'_, S> {
    type Error = ReadError<S::Error>;

    fn read_hashes(&mut self, nodes: &[NodeId]) -> Result<Vec<NodeHash>, Self::Error> {
        let mut places: BTreeMap<TileId, usize> = BTreeMap::new();
        for node in nodes {
            if node.end() > self.size {
                return Err(ReadError::Outside { node: *node, size: self.size });
            }
            places.insert(tile_of(*node).0, 0);
        }
        let mut slices = Vec::with_capacity(places.len());
        for (id, place) in &mut places {
            *place = slices.len();
            slices.push(TileSlice { id: *id, width: id.width(self.size) });
        }
        let tiles = self.read_slices(&slices)?;
        Ok(nodes
            .iter()
            .map(|node| {
                let (id, start, count) = tile_of(*node);
                perfect_root(&tiles[places[&id]][start..start + count])
            })
            .collect())
    }
}

/// The tile from which a subtree is computed, and which of its hashes: the first, and how many.
fn tile_of(node: NodeId) -> (TileId, usize, usize) {
    let height = node.level() % 8;
    let first = node.index() << height;
    let id = TileId { level: node.level() / 8, index: first / u64::from(WIDTH) };
    (id, (first % u64::from(WIDTH)) as usize, 1 << height)
}

/// The root over neighbouring subtrees of the same height; their number must be a power of two.
fn perfect_root(hashes: &[NodeHash]) -> NodeHash {
    let mut nodes = hashes.to_vec();
    while nodes.len() > 2 {
        let half = nodes.len() / 2;
        for place in (0..half).step_by(2) {
            let below = 2 * place;
            let [first, second] =
                NodeHash::of_two_pairs([&nodes[below], &nodes[below + 1]], [&nodes[below + 2], &nodes[below + 3]]);
            (nodes[place], nodes[place + 1]) = (first, second);
        }
        nodes.truncate(half);
    }
    match &nodes[..] {
        [left, right] => NodeHash::of_children(left, right),
        _ => nodes[0],
    }
}

/// A tile that became whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeTile {
    /// Which tile.
    pub id: TileId,
    /// Its 256 hashes.
    pub hashes: Vec<NodeHash>,
    /// The root over them: a hash of the tile above. Stored beside the tile, it spares reading the whole tile for it.
    pub root: NodeHash,
}

impl WholeTile {
    /// Makes a tile of its 256 hashes, and computes its root. Any other number is [`TileError::Length`], in bytes.
    pub fn new(id: TileId, hashes: Vec<NodeHash>) -> Result<WholeTile, TileError> {
        if hashes.len() != usize::from(WIDTH) {
            return Err(TileError::Length(32 * hashes.len()));
        }
        let root = perfect_root(&hashes);
        Ok(WholeTile { id, hashes, root })
    }
}

/// Appends leaves to a tree and gives out the tiles that become whole. Holds at most 255 hashes of each level.
#[derive(Clone, Debug)]
pub struct TileWriter {
    range: CompactRange,
    /// The hashes of the tile at the right edge, for each level.
    edge: [Vec<NodeHash>; MAX_LEVEL as usize + 1],
}

impl Default for TileWriter {
    fn default() -> TileWriter {
        TileWriter::new()
    }
}

impl TileWriter {
    /// Begins with the tree without leaves.
    pub fn new() -> TileWriter {
        TileWriter { range: CompactRange::new(), edge: Default::default() }
    }

    /// Goes on with a tree. Reads the tiles at its right edge, and refuses them when they do not have the root of the head.
    pub fn resume<S: TileSource>(head: &TreeHead, source: &mut S) -> Result<TileWriter, ReadError<S::Error>> {
        let slices: Vec<TileSlice> = partial_tiles(head.size).collect();
        let mut writer = TileWriter::new();
        if !slices.is_empty() {
            let tiles = TileReader::new(head.size, source).read_slices(&slices)?;
            for (slice, hashes) in slices.iter().zip(tiles) {
                writer.edge[usize::from(slice.id.level)] = hashes;
            }
        }
        let peaks = head.size.subtrees().map(|node| {
            let (id, start, count) = tile_of(node);
            perfect_root(&writer.edge[usize::from(id.level)][start..start + count])
        });
        let range = CompactRange::from_hashes(head.size, peaks.collect()).expect("there is one for each subtree");
        let computed = range.head().root;
        if computed != head.root {
            return Err(TileError::WrongRoot { computed, expected: head.root }.into());
        }
        Ok(TileWriter { range, ..writer })
    }

    /// Appends a leaf, and gives its index. `whole` gets the tiles that are now whole, from level 0 upwards.
    pub fn append(&mut self, leaf: LeafHash, mut whole: impl FnMut(WholeTile)) -> Result<LeafIndex, TreeError> {
        let TileWriter { range, edge } = self;
        range.append_with(leaf, |node, hash| {
            if !node.level().is_multiple_of(8) {
                return;
            }
            let level = usize::from(node.level() / 8);
            // A subtree of this height is the root of a tile of the level below.
            if level > 0 {
                let hashes = std::mem::take(&mut edge[level - 1]);
                whole(WholeTile {
                    id: TileId { level: node.level() / 8 - 1, index: node.index() },
                    hashes,
                    root: *hash,
                });
            }
            edge[level].push(*hash);
        })
    }

    /// As 256 times [`TileWriter::append`], and quicker. The size must be a multiple of 256.
    pub fn append_tile(&mut self, leaves: Vec<NodeHash>, mut whole: impl FnMut(WholeTile)) -> Result<(), TileError> {
        let id = TileId { level: 0, index: self.range.size().get() / u64::from(WIDTH) };
        let tile = WholeTile::new(id, leaves)?;
        let root = tile.root;
        // Told before the tiles above it, as by one leaf after the other.
        let TileWriter { range, edge } = self;
        let mut tile = Some(tile);
        range.append_subtree_with(8, root, |node, hash| {
            if let Some(tile) = tile.take() {
                whole(tile);
            } else if node.level().is_multiple_of(8) {
                let level = usize::from(node.level() / 8) - 1;
                let hashes = std::mem::take(&mut edge[level]);
                let id = TileId { level: node.level() / 8 - 1, index: node.index() };
                whole(WholeTile { id, hashes, root: *hash });
            }
            if node.level().is_multiple_of(8) {
                edge[usize::from(node.level() / 8)].push(*hash);
            }
        })?;
        Ok(())
    }

    /// The head of the tree.
    pub fn head(&self) -> TreeHead {
        self.range.head()
    }

    /// The right edge of the tree.
    pub fn range(&self) -> &CompactRange {
        &self.range
    }

    /// The tiles at the right edge and their hashes: what [`partial_tiles`] says for the size.
    pub fn edge(&self) -> impl Iterator<Item = (TileSlice, &[NodeHash])> {
        partial_tiles(self.range.size()).map(|slice| (slice, self.edge[usize::from(slice.id.level)].as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::proof::{build_consistency_proof, build_inclusion_proof, verify_consistency, verify_inclusion};

    /// Tiles in memory, of which whole ones are stored once.
    #[derive(Default)]
    struct Store {
        leaves: Vec<LeafHash>,
        whole: BTreeMap<TileId, WholeTile>,
        read: usize,
    }

    impl TileSource for Store {
        type Error = Infallible;

        fn read_tiles(&mut self, tiles: &[TileSlice]) -> Result<Vec<Vec<NodeHash>>, Infallible> {
            self.read += tiles.len();
            Ok(tiles
                .iter()
                .map(|tile| {
                    let first = tile.id.index * 256;
                    let places = first..first + u64::from(tile.width);
                    match self.whole.get(&tile.id) {
                        Some(whole) => whole.hashes[..usize::from(tile.width)].to_vec(),
                        None if tile.id.level == 0 => places.map(|i| self.leaves[i as usize].into()).collect(),
                        None => {
                            places.map(|index| self.whole[&TileId { level: tile.id.level - 1, index }].root).collect()
                        }
                    }
                })
                .collect())
        }
    }

    fn leaf(i: u64) -> LeafHash {
        LeafHash::of_data(&i.to_be_bytes())
    }

    fn grow(writer: &mut TileWriter, store: &mut Store, size: u64) {
        let old = writer.range().size();
        let mut told = Vec::new();
        for i in old.get()..size {
            store.leaves.push(leaf(i));
            writer
                .append(leaf(i), |tile| {
                    told.push(tile.id);
                    assert!(store.whole.insert(tile.id, tile).is_none());
                })
                .unwrap();
        }
        told.sort();
        let expected: Vec<TileId> = completed_tiles(old, writer.range().size()).collect();
        assert_eq!(told, expected);
    }

    fn size(n: u64) -> TreeSize {
        TreeSize::new(n).unwrap()
    }

    #[test]
    fn a_tile_at_once_is_as_its_leaves_one_by_one() {
        let leaf = |number: u64| LeafHash::of_data(&number.to_be_bytes());
        let (mut one, mut other) = (TileWriter::new(), TileWriter::new());
        let (mut whole, mut other_whole) = (Vec::new(), Vec::new());
        for tile in 0..300_u64 {
            let leaves = || (256 * tile..256 * (tile + 1)).map(leaf);
            for leaf in leaves() {
                one.append(leaf, |tile| whole.push(tile)).unwrap();
            }
            other.append_tile(leaves().map(NodeHash::from).collect(), |tile| other_whole.push(tile)).unwrap();
            assert_eq!(other.head(), one.head());
        }
        assert_eq!(other_whole, whole);
        assert!(other.edge().eq(one.edge()));
        assert_eq!(other.append_tile(vec![leaf(0).into()], |_| ()), Err(TileError::Length(32)));
        one.append(leaf(0), |_| ()).unwrap();
        let leaves = (0..256).map(|number| leaf(number).into()).collect();
        assert!(matches!(one.append_tile(leaves, |_| ()), Err(TileError::Tree(TreeError::Unaligned { .. }))));
    }

    #[test]
    fn examples_of_the_standard_have_their_tiles() {
        let paths = |n| partial_tiles(size(n)).map(|tile| tile.to_string()).collect::<Vec<_>>();
        assert_eq!(paths(70_000), ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
        let whole: Vec<u8> = completed_tiles(TreeSize::ZERO, size(70_000)).map(TileId::level).collect();
        assert_eq!(whole, [[0; 273].as_slice(), &[1]].concat());
        assert_eq!(paths(256), ["tile/1/000.p/1"]);
        assert_eq!(paths(0), Vec::<String>::new());
        assert_eq!(completed_tiles(size(256), size(256)).count(), 0);
        assert_eq!(completed_tiles(size(256), size(0)).count(), 0);
        assert_eq!(paths(i64::MAX as u64).len(), 8);
    }

    #[test]
    fn paths_are_read_and_written() {
        for (path, level, index, width) in [
            ("tile/0/000", 0, 0, 256),
            ("tile/0/000.p/1", 0, 0, 1),
            ("tile/1/x001/x234/067", 1, 1_234_067, 256),
            ("tile/3/x001/000.p/255", 3, 1000, 255),
            ("tile/7/000.p/127", 7, 0, 127),
            ("tile/0/x036/x028/x797/x018/x963/967.p/255", 0, (1 << 55) - 1, 255),
        ] {
            let slice = TileSlice::new(TileId::new(level, index).unwrap(), width).unwrap();
            assert_eq!(slice.to_string(), path);
            assert_eq!(path.parse(), Ok(slice));
        }
        for bad in [
            "",
            "tile/0/",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x000",
            "tile/0/x000/001",
            "tile/0/001/001",
            "tile/0/x001/x001",
            "tile/00/000",
            "tile/8/000",
            "tile/7/000",
            "tile/7/000.p/128",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/01",
            "tile/0/000.p/",
            "tile/0/000.p/1.p/1",
            "tile/-1/000",
            "tile/0/+01",
            "tile/entries/000",
            "/tile/0/000",
            "tile/0/x036/x028/x797/x018/x963/967",
            "tile/0/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(bad.parse::<TileSlice>(), Err(TileError::Path), "{bad}");
        }
        assert_eq!("0".repeat(MAX_PATH + 1).parse::<TileSlice>(), Err(TileError::Path));
    }

    #[test]
    fn hashes_of_tiles_round_trip() {
        let hashes = vec![NodeHash::of_empty_tree(); 256];
        assert_eq!(decode_hashes(&encode_hashes(&hashes)), Ok(hashes));
        for bad in [0, 31, 33, 8193, 8224] {
            assert_eq!(decode_hashes(&vec![0; bad]), Err(TileError::Length(bad)));
        }
    }

    #[test]
    fn whole_tiles_are_given_once_and_the_writer_resumes_at_any_size() {
        let (mut writer, mut store) = (TileWriter::new(), Store::default());
        for step in [0, 1, 2, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 70_000] {
            grow(&mut writer, &mut store, step);
            let resumed = TileWriter::resume(&writer.head(), &mut store).unwrap();
            assert_eq!(resumed.range(), writer.range(), "{step}");
            assert!(resumed.edge().eq(writer.edge()), "{step}");
            writer = resumed;
        }
        for tile in store.whole.values() {
            assert_eq!(WholeTile::new(tile.id, tile.hashes.clone()).as_ref(), Ok(tile));
            assert_eq!(WholeTile::new(tile.id, tile.hashes[1..].to_vec()), Err(TileError::Length(255 * 32)));
        }
        let wrong = TreeHead { root: NodeHash::of_empty_tree(), ..writer.head() };
        let refused = TileWriter::resume(&wrong, &mut store);
        assert!(matches!(refused, Err(ReadError::Tile(TileError::WrongRoot { .. }))));
    }

    #[test]
    fn proofs_from_tiles_hold_and_read_few_tiles() {
        let (mut writer, mut store) = (TileWriter::new(), Store::default());
        let mut heads = Vec::new();
        for step in [1, 200, 256, 300, 4096, 65_536, 66_000, 70_000] {
            grow(&mut writer, &mut store, step);
            heads.push(writer.head());
        }
        for head in &heads {
            for index in (0..head.size.get()).step_by(997).chain([head.size.get() - 1]) {
                store.read = 0;
                let mut reader = TileReader::new(head.size, &mut store);
                let proof = build_inclusion_proof(LeafIndex::new(index).unwrap(), head.size, &mut reader).unwrap();
                assert_eq!(verify_inclusion(&proof, &leaf(index), head), Ok(()), "{index} of {}", head.size);
                assert!(store.read <= 6, "{} tiles", store.read);
            }
            for old in heads.iter().filter(|old| old.size <= head.size) {
                store.read = 0;
                let mut reader = TileReader::new(head.size, &mut store);
                let proof = build_consistency_proof(old.size, head.size, &mut reader).unwrap();
                assert_eq!(verify_consistency(&proof, old, head), Ok(()));
                assert!(store.read <= 6, "{} tiles", store.read);
            }
        }
    }

    /// Damages what it is given by a source.
    struct Damaged(Store, fn(&mut Vec<Vec<NodeHash>>));

    impl TileSource for Damaged {
        type Error = Infallible;

        fn read_tiles(&mut self, tiles: &[TileSlice]) -> Result<Vec<Vec<NodeHash>>, Infallible> {
            let mut read = self.0.read_tiles(tiles)?;
            (self.1)(&mut read);
            Ok(read)
        }
    }

    #[test]
    fn source_that_miscounts_is_refused() {
        let (mut writer, mut store) = (TileWriter::new(), Store::default());
        grow(&mut writer, &mut store, 600);
        let nodes = [NodeId::new(0, 599).unwrap(), NodeId::new(8, 0).unwrap()];
        let mut damaged = Damaged(store, |tiles| tiles.truncate(1));
        let read = TileReader::new(size(600), &mut damaged).read_hashes(&nodes);
        assert_eq!(read, Err(ReadError::Count { expected: 2, found: 1 }));
        damaged.1 = |tiles| {
            tiles[0].pop();
        };
        let read = TileReader::new(size(600), &mut damaged).read_hashes(&nodes);
        let tile = "tile/0/002.p/88".parse().unwrap();
        assert_eq!(read, Err(ReadError::Width { tile, found: 87 }));
        let node = NodeId::new(0, 600).unwrap();
        let read = TileReader::new(size(600), &mut damaged).read_hashes(&[node]);
        assert_eq!(read, Err(ReadError::Outside { node, size: size(600) }));
    }

    #[test]
    fn each_hash_of_a_tile_has_its_place_in_the_tree() {
        for (level, index, offset) in [(0, 0, 0), (0, 5, 255), (3, 7, 1), (7, 0, 126)] {
            let node = NodeId::new(8 * level, index * 256 + offset).unwrap();
            assert_eq!(tile_of(node), (TileId::new(level, index).unwrap(), offset as usize, 1));
        }
    }
}
