//! Randomness that does not depend on the order in which things are asked for: each decision has its own, drawn from the
//! seed and from what the decision is about.

use std::sync::Mutex;

use cdc_sink::sink::storage::Names;
use fastrand::Rng;

/// The randomness of the decision `about` in the history of `seed`.
pub(super) fn chance(seed: u64, about: &[&str]) -> Rng {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for part in about {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash = (hash ^ hash >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    Rng::with_seed(hash ^ hash >> 32)
}

/// True so many times in a thousand.
pub(super) fn one_in(rng: &mut Rng, per_mille: u32) -> bool {
    rng.u32(..1000) < per_mille
}

/// Names for files of the one who is called `whose`.
pub(super) fn names(seed: u64, whose: &str) -> Names {
    let rng = Mutex::new(chance(seed, &["names", whose]));
    Names::from_fn(move || {
        let mut rng = rng.lock().unwrap();
        uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid()
    })
}

/// One of `choices`, each with its weight.
pub(super) fn choose<T: Copy>(rng: &mut Rng, choices: &[(T, u32)]) -> T {
    let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
    let mut place = rng.u32(..total);
    for (choice, weight) in choices {
        match place.checked_sub(*weight) {
            Some(rest) => place = rest,
            None => return *choice,
        }
    }
    choices[0].0
}
