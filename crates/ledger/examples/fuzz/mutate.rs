//! Makes inputs out of those that are known, at random but for the same seed always the same.

/// A source of numbers that look random (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    /// Begins with a seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}

/// What parsers here look for.
const TOKENS: &[&str] = &[
    "\n",
    "\n\n",
    "\r\n",
    " ",
    "+",
    "=",
    "==",
    "\u{2014} ",
    "\u{2014}",
    "0",
    "00",
    "-1",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "index ",
    "extra ",
    "c2sp.org/tlog-proof@v1\n",
    "tile/",
    ".p/",
    "x000/",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "1e9",
    "-0",
    "-----BEGIN ",
    "AAAA",
    "\0",
    "\u{a0}",
    "\u{fffd}",
    "é",
];

/// The most bytes of an input: enough for every limit but the largest, which have tests of their own.
const MAX_INPUT: usize = 20_000;

/// A new input: one of the corpus with some changes, or, now and then, nothing but noise.
pub(crate) fn input(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    if random.below(50) == 0 {
        let len = random.below(200);
        return (0..len).map(|_| random.below(256) as u8).collect();
    }
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        change(random, &mut input, corpus);
    }
    input.truncate(MAX_INPUT);
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    let end = (at + 1 + random.below(16)).min(input.len());
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.below(256) as u8,
        2 => input.insert(at, random.below(256) as u8),
        3 => drop(input.drain(at..end)),
        4 => {
            let token = TOKENS[random.below(TOKENS.len())];
            input.splice(at..at, token.bytes());
        }
        5 => {
            let token = TOKENS[random.below(TOKENS.len())];
            input.splice(at..end, token.bytes());
        }
        6 => {
            // A piece twice, or many times.
            let piece = input[at..end].repeat(if random.below(20) == 0 { 200 } else { 1 });
            input.splice(at..at, piece);
        }
        7 => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => input.truncate(at),
    }
}
