//! A checksum in the JSON files of a table's log: a digit that is wrong on a disk would move a position, and skip records.
//!
//! The JSON has an entry with room for the checksum of the whole file, in which the room counts as zeros. Readers
//! that do not know the entry pass over it. Files without it, as others write them, are taken as they are.

use memchr::memmem;

/// The entry's name.
pub(super) const NAME: &str = "cdc-sink.crc32";
/// What the entry holds before the file is sealed: eight digits.
pub(super) const ROOM: &str = "00000000";

/// Puts the checksum into the first entry with room for it.
pub(super) fn seal(json: &mut [u8]) {
    let sum = sum(json);
    if let Some(room) = room(json).and_then(|at| json.get_mut(at..at + ROOM.len())) {
        room.copy_from_slice(sum.as_bytes());
    }
}

/// False when the file is not what was sealed.
pub(super) fn is_whole(json: &[u8]) -> bool {
    room(json)
        .and_then(|at| json.get(at..at + ROOM.len()))
        .is_none_or(|told| told == sum(json).as_bytes())
}

/// Where the checksum is. Inside of a JSON string the quotes would be escaped.
fn room(json: &[u8]) -> Option<usize> {
    let entry = format!("\"{NAME}\":\"");
    Some(memmem::find(json, entry.as_bytes())? + entry.len())
}

/// The checksum of the file with zeros in the room.
fn sum(json: &[u8]) -> String {
    let (before, rest) =
        json.split_at_checked(room(json).unwrap_or(json.len())).unwrap_or_default();
    let after = rest.get(ROOM.len()..).unwrap_or_default();
    let mut sum = crc32fast::Hasher::new();
    [before, ROOM.as_bytes(), after].into_iter().for_each(|part| sum.update(part));
    format!("{:08x}", sum.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_can_be_wrong_but_in_the_name() {
        let mut json = format!(r#"{{"a":1,"{NAME}":"{ROOM}","b":"\"{NAME}\":\"x"}}"#).into_bytes();
        assert!(!is_whole(&json), "the room is empty");
        seal(&mut json);
        assert!(is_whole(&json));
        let name = 7..7 + NAME.len() + 4;
        for at in (0..json.len()).filter(|at| !name.contains(at)) {
            for bit in 0..8 {
                let mut damaged = json.clone();
                damaged[at] ^= 1 << bit;
                assert!(!is_whole(&damaged), "bit {bit} of {at}");
            }
        }
        assert!(is_whole(br#"{"a":1}"#), "others seal nothing");
    }
}
