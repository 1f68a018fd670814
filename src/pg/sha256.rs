//! SHA-256 of two texts at once, where the processor can do it.
//!
//! The SHA instructions of x86 have a latency of several cycles, and each round needs the result of the one before: hashing one text leaves the unit idle most of the time. Two texts that have nothing to do with
//! each other, their rounds in turn, take little longer than one.

use audit_ledger::hash;

/// Lets the ledger crate hash in pairs, once per process.
pub(crate) fn install() {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1") {
        hash::use_for_pairs(x86::compress_pair);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::*;

    /// The round constants (FIPS 180-4, 4.2.2).
    static K: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
        0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
        0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
        0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
        0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
        0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
        0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ];

    /// Takes as many blocks from both texts as the shorter one has.
    pub(super) fn compress_pair(states: &mut [[u32; 8]; 2], first: &[[u8; 64]], second: &[[u8; 64]]) {
        // SAFETY: `install` has looked whether the processor has the instructions.
        unsafe { rounds(states, first, second) }
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    unsafe fn rounds(states: &mut [[u32; 8]; 2], first: &[[u8; 64]], second: &[[u8; 64]]) {
        let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        // The instructions want the state as ABEF and CDGH.
        let mut abef = [_mm_setzero_si128(); 2];
        let mut cdgh = [_mm_setzero_si128(); 2];
        for lane in 0..2 {
            // SAFETY: eight words are two vectors.
            let (dcba, hgfe) = unsafe {
                let words = states[lane].as_ptr().cast::<__m128i>();
                (_mm_loadu_si128(words), _mm_loadu_si128(words.add(1)))
            };
            let (cdab, efgh) = (_mm_shuffle_epi32(dcba, 0xb1), _mm_shuffle_epi32(hgfe, 0x1b));
            abef[lane] = _mm_alignr_epi8(cdab, efgh, 8);
            cdgh[lane] = _mm_blend_epi16(efgh, cdab, 0xf0);
        }
        for blocks in first.iter().zip(second) {
            let (abef_before, cdgh_before) = (abef, cdgh);
            let mut w = [[_mm_setzero_si128(); 4]; 2];
            for (lane, block) in [blocks.0, blocks.1].into_iter().enumerate() {
                for (part, words) in w[lane].iter_mut().enumerate() {
                    // SAFETY: a block is four vectors.
                    let loaded = unsafe { _mm_loadu_si128(block.as_ptr().cast::<__m128i>().add(part)) };
                    *words = _mm_shuffle_epi8(loaded, big_endian);
                }
            }
            macro_rules! four_rounds {
                ($($round:literal)*) => { $(
                    // SAFETY: there are 16 times four constants.
                    let k = unsafe { _mm_loadu_si128(K.as_ptr().add(4 * $round).cast()) };
                    for lane in 0..2 {
                        let words = w[lane][$round % 4];
                        let wk = _mm_add_epi32(words, k);
                        cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], wk);
                        abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(wk, 0x0e));
                        if $round < 12 {
                            // These words are used up; in their place come those that are due four times four rounds later.
                            let (w1, w2, w3) =
                                (w[lane][($round + 1) % 4], w[lane][($round + 2) % 4], w[lane][($round + 3) % 4]);
                            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(words, w1), _mm_alignr_epi8(w3, w2, 4));
                            w[lane][$round % 4] = _mm_sha256msg2_epu32(sum, w3);
                        }
                    }
                )* };
            }
            four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            for lane in 0..2 {
                abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
                cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
            }
        }
        for lane in 0..2 {
            let (feba, dchg) = (_mm_shuffle_epi32(abef[lane], 0x1b), _mm_shuffle_epi32(cdgh[lane], 0xb1));
            let dcba = _mm_blend_epi16(feba, dchg, 0xf0);
            let hgfe = _mm_alignr_epi8(dchg, feba, 8);
            // SAFETY: eight words are two vectors.
            unsafe {
                let words = states[lane].as_mut_ptr().cast::<__m128i>();
                _mm_storeu_si128(words, dcba);
                _mm_storeu_si128(words.add(1), hgfe);
            }
        }
    }
}
