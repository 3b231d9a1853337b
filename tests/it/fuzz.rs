//! Captured records, damaged at random: whatever comes, the decoder answers, and the next good record is what it was.
//!
//! `tests/fuzz` sends its inputs, found by coverage, through the same targets.

pub(crate) mod targets;

use proptest::prelude::*;
use proptest::sample::Index;

use self::targets::{CORPUS, Part, TARGETS, check};

#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    CutOff(Index),
    /// A run of digits becomes another number.
    Number(Index, &'static str),
    /// A part of another record.
    Graft(Index, Index, Index, usize),
}

/// What is put into records on purpose.
const TOKENS: [&str; 16] = [
    "null", "true", "{}", "[]", "\"", "\\", "\\ud800", "[[[[[[[[", "{\"a\":", ",", ":", "}", "]",
    "1e999", "-0.0", "\u{0}",
];
const NUMBERS: [&str; 8] =
    ["0", "-1", "9223372036854775808", "-9223372036854775809", "1e308", "1E-400", "0.1", "00"];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>();
    prop_oneof![
        4 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (at.clone(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (at.clone(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        4 => (at.clone(), prop::sample::select(&TOKENS[..]))
            .prop_map(|(at, token)| Damage::Insert(at, token.as_bytes().to_vec())),
        2 => (at.clone(), 1..40_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (at.clone(), 1..40_usize, 1..400_usize)
            .prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        2 => at.clone().prop_map(Damage::CutOff),
        4 => (at.clone(), prop::sample::select(&NUMBERS[..]))
            .prop_map(|(at, number)| Damage::Number(at, number)),
        2 => (at, any::<Index>(), any::<Index>(), 1..200_usize)
            .prop_map(|(at, other, from, length)| Damage::Graft(at, other, from, length)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let end = bytes.len();
        let place = |at: &Index| at.index(end + 1);
        let up_to = |from: usize, length: usize| end.min(from + length);
        match self {
            Self::Set(at, byte) if end > 0 => bytes[at.index(end)] = *byte,
            Self::Flip(at, bit) if end > 0 => bytes[at.index(end)] ^= 1 << bit,
            Self::Set(..) | Self::Flip(..) => {}
            Self::Insert(at, inserted) => {
                bytes.splice(place(at)..place(at), inserted.iter().copied());
            }
            Self::Remove(at, length) => {
                bytes.drain(place(at)..up_to(place(at), *length));
            }
            Self::Repeat(at, length, times) => {
                let piece = bytes[place(at)..up_to(place(at), *length)].repeat(*times);
                bytes.splice(place(at)..place(at), piece);
            }
            Self::CutOff(at) => bytes.truncate(place(at)),
            Self::Number(at, number) => {
                let from = (place(at)..end).find(|at| bytes[*at].is_ascii_digit());
                let from = from.unwrap_or(end);
                let to = (from..end).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(end);
                bytes.splice(from..to, number.bytes());
            }
            Self::Graft(at, other, from, length) => {
                let other = CORPUS[other.index(CORPUS.len())].record().value.unwrap_or_default();
                let from = from.index(other.len() + 1);
                let piece = &other[from..other.len().min(from + length)];
                bytes.splice(place(at)..place(at), piece.iter().copied());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn damaged_records_are_answered_and_leave_no_trace(
        picked in any::<Index>(),
        part in prop_oneof![6 => Just(Part::Value), 2 => Just(Part::Key), 1 => Just(Part::Header)],
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let captured = &CORPUS[picked.index(CORPUS.len())];
        check(captured, part, |bytes| damages.iter().for_each(|damage| damage.apply(bytes)));
    }
}

/// The corpus that `tests/fuzz` starts from: each of a target's inputs as it is, cut off, and with a byte too many.
#[test]
fn every_target_takes_its_seeds() {
    for target in &TARGETS {
        let seeds = target.seeds();
        assert!(seeds.len() > 20, "{} has {} seeds", target.name, seeds.len());
        for seed in seeds {
            target.run(&seed);
            target.run(&seed[..seed.len() / 2]);
            target.run(&[&seed[..], b"}"].concat());
        }
    }
}
