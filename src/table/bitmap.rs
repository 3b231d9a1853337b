//! Deletion bitmaps as both formats store them.
//!
//! A Delta deletion vector and the blob of an Iceberg `deletion-vector-v1` Puffin are the same bytes:
//! `u32 BE length of magic and bitmap | D1 D3 39 64 | 64-bit roaring bitmap, portable | u32 BE CRC-32 of magic and bitmap`
//! (Delta protocol, "Deletion Vector Format"; Puffin specification, "deletion-vector-v1"). The files around them differ
//! and belong to the publishers.

use roaring::RoaringTreemap;

use crate::error::{Error, Result};

const MAGIC: [u8; 4] = [0xD1, 0xD3, 0x39, 0x64];

/// The blob of `bitmap`, run-optimised.
pub fn to_blob(bitmap: &RoaringTreemap) -> Result<Vec<u8>> {
    let mut bitmap = bitmap.clone();
    bitmap.optimize();
    let length = MAGIC.len() + bitmap.serialized_size();
    let prefix = u32::try_from(length).map_err(|_| {
        Error::internal(format!("a deletion bitmap of {length} bytes cannot be stored"))
    })?;
    let mut blob = Vec::with_capacity(length + 8);
    blob.extend_from_slice(&prefix.to_be_bytes());
    blob.extend_from_slice(&MAGIC);
    bitmap
        .serialize_into(&mut blob)
        .map_err(|e| Error::internal("cannot serialise a deletion bitmap").because(e))?;
    let crc = crc32fast::hash(blob.get(4..).unwrap_or_default());
    blob.extend_from_slice(&crc.to_be_bytes());
    Ok(blob)
}

/// The bitmap of a blob; length, magic number and checksum are checked.
pub fn from_blob(blob: &[u8]) -> Result<RoaringTreemap> {
    let (length, rest) = blob.split_first_chunk().ok_or_else(|| broken("it is cut short"))?;
    let (body, crc) = rest.split_last_chunk().ok_or_else(|| broken("it is cut short"))?;
    if usize::try_from(u32::from_be_bytes(*length)) != Ok(body.len()) {
        return Err(broken("its length is not the one it states"));
    }
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
        return Err(broken("its checksum does not match"));
    }
    let bitmap = body.strip_prefix(&MAGIC).ok_or_else(|| broken("its magic number is unknown"))?;
    RoaringTreemap::deserialize_from(bitmap)
        .map_err(|e| broken("its bitmap is malformed").because(e))
}

fn broken(why: &str) -> Error {
    Error::data(format!("cannot read a deletion bitmap: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn the_blob_of_an_empty_and_of_a_small_bitmap_is_as_specified() {
        let empty = to_blob(&RoaringTreemap::new()).unwrap();
        assert_eq!(empty[..16], [0, 0, 0, 12, 0xD1, 0xD3, 0x39, 0x64, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(empty.len(), 20);
        // One bitmap with high bits 0, the cookie without runs, one container with key 0, cardinality 1, offset, value.
        let one = to_blob(&[7].into_iter().collect()).unwrap();
        let bitmap = [
            1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3A, 0x30, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0,
            0, 7, 0,
        ];
        assert_eq!(one[8..one.len() - 4], bitmap);
    }

    #[test]
    fn a_run_is_stored_as_a_run() {
        assert!(to_blob(&(0..100_000).collect()).unwrap().len() < 60);
    }

    #[test]
    fn a_damaged_blob_is_refused() {
        let blob = to_blob(&[1, 5, 1 << 40].into_iter().collect()).unwrap();
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1;
            assert!(from_blob(&damaged).is_err(), "byte {at}");
            assert!(from_blob(&blob[..at]).is_err(), "length {at}");
        }
    }

    proptest! {
        #[test]
        fn a_bitmap_survives(positions: Vec<u32>, far: Vec<u64>, run in any::<u16>()) {
            let near = positions.into_iter().map(u64::from).chain(0..u64::from(run));
            let bitmap: RoaringTreemap = near.chain(far).collect();
            assert_eq!(from_blob(&to_blob(&bitmap).unwrap()).unwrap(), bitmap);
        }
    }
}
