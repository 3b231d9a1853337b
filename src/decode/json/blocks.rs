//! Finding the ends of JSON's parts, many bytes a step.

use memchr::memchr2;
use wide::{u8x16, u8x64};

/// Steps of [`string_stop`] before it turns to the search that is made for long distances.
const SHORT: usize = 4;

/// Where the object or array ends whose bracket is at `start`: the place after its closing bracket. Brackets are
/// counted, not told apart.
pub(super) fn container_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    let mut depth = 0_u64;
    // All ones within a string; one when the next block's first byte is escaped.
    let (mut inside, mut escaped) = (0_u64, 0_u64);
    loop {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let block =
            rest.first_chunk::<64>().map_or_else(|| padded(rest), |block| u8x64::new(*block));
        let mark = |byte: u8| block.simd_eq(u8x64::splat(byte)).to_bitmask();
        let quotes = mark(b'"') & !escapes(mark(b'\\'), &mut escaped);
        let strings = prefix_xor(quotes) ^ inside;
        inside = 0_u64.wrapping_sub(strings >> 63);
        // A bracket and a brace differ in one bit, which is set in the brace.
        let folded = block | u8x64::splat(0x20);
        let opens = folded.simd_eq(u8x64::splat(b'{')).to_bitmask() & !strings;
        let mut closes = folded.simd_eq(u8x64::splat(b'}')).to_bitmask() & !strings;
        let closing = u64::from(closes.count_ones());
        if depth <= closing {
            let mut closed = 0;
            while closes != 0 {
                closed += 1;
                let place = closes.trailing_zeros();
                let opened = u64::from((opens & ((1 << place) - 1)).count_ones());
                if depth + opened <= closed {
                    return Some(at + usize::try_from(place).ok()? + 1);
                }
                closes &= closes - 1;
            }
        }
        depth = depth + u64::from(opens.count_ones()) - closing;
        at += 64;
    }
}

#[cold]
fn padded(rest: &[u8]) -> u8x64 {
    let mut block = [b' '; 64];
    for (to, from) in block.iter_mut().zip(rest) {
        *to = *from;
    }
    u8x64::new(block)
}

/// The bytes that a backslash before them takes the meaning from.
fn escapes(backslashes: u64, escaped: &mut u64) -> u64 {
    let mut found = *escaped;
    let mut backslashes = backslashes & !*escaped;
    *escaped = 0;
    while backslashes != 0 {
        let place = backslashes.trailing_zeros();
        if place == 63 {
            *escaped = 1;
            break;
        }
        found |= 1 << (place + 1);
        backslashes &= !(3 << place);
    }
    found
}

/// For each bit whether the bits up to it are odd in number.
fn prefix_xor(bits: u64) -> u64 {
    [1, 2, 4, 8, 16, 32].into_iter().fold(bits, |bits, shift| bits ^ (bits << shift))
}

/// Where the first quote or backslash is, from `at` on.
#[inline]
pub(super) fn string_stop(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    for _ in 0..SHORT {
        let Some(chunk) = bytes.get(at..)?.first_chunk::<16>() else { break };
        let chunk = u8x16::new(*chunk);
        let stops = chunk.simd_eq(u8x16::splat(b'"')) | chunk.simd_eq(u8x16::splat(b'\\'));
        let stops = stops.to_bitmask();
        if stops != 0 {
            return Some(at + usize::try_from(stops.trailing_zeros()).ok()?);
        }
        at += 16;
    }
    memchr2(b'"', b'\\', bytes.get(at..)?).map(|offset| at + offset)
}

/// Where a number or literal that starts at `at` ends.
#[inline]
pub(super) fn scalar_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) {
        let chunk = u8x16::new(*chunk);
        let stops = chunk.simd_lt(u8x16::splat(b'+'))
            | chunk.simd_eq(u8x16::splat(b','))
            | chunk.simd_eq(u8x16::splat(b']'))
            | chunk.simd_gt(u8x16::splat(b'z'));
        let stops = stops.to_bitmask();
        if stops != 0 {
            return at + usize::try_from(stops.trailing_zeros()).unwrap_or(0);
        }
        at += 16;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let stop = |byte: &u8| !(b'+'..=b'z').contains(byte) || matches!(byte, b',' | b']');
    at + rest.iter().position(stop).unwrap_or(rest.len())
}
