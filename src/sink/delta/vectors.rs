//! Deletion vectors: where Delta stores deletion bitmaps (Delta protocol, "Deletion Vectors").
//!
//! All vectors of a commit go into one file at the table's root, `deletion_vector_<uuid>.bin`: a version byte, then
//! blobs, each found by its offset and size. Vectors in the log itself (`i`) are only read: Trino refuses them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use roaring::RoaringTreemap;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::sink::storage::{self, Location};
use crate::table::bitmap::{from_blob, to_blob};

/// Version of the file format, its first byte.
const VERSION: u8 = 1;
/// Bytes of a blob around what `sizeInBytes` counts: the length before it, the checksum after it.
const FRAME: u64 = 8;
/// Files read at a time.
const READS: usize = 16;

const Z85: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// The name of the file `id`, below the table's root.
fn file_name(id: Uuid) -> String {
    format!("deletion_vector_{id}.bin")
}

/// Writes `bitmaps` into the new file `id`; the descriptors are in the same order.
pub(super) async fn write(
    location: &Location,
    id: Uuid,
    bitmaps: &[&RoaringTreemap],
) -> Result<Vec<DeletionVectorDescriptor>> {
    let (bytes, descriptors) = pack(id, bitmaps)?;
    let name = file_name(id);
    location
        .store()
        .put(&location.file(&name), bytes.into())
        .await
        .map_err(|e| storage::failed(format!("cannot write {}", location.file_url(&name)), e))?;
    Ok(descriptors)
}

fn pack(id: Uuid, bitmaps: &[&RoaringTreemap]) -> Result<(Vec<u8>, Vec<DeletionVectorDescriptor>)> {
    let too_large = |_| Error::internal("the deletion vectors of one commit take more than 2 GiB");
    let path: String = z85(id.as_bytes()).into_iter().collect();
    let mut bytes = vec![VERSION];
    let mut descriptors = Vec::with_capacity(bitmaps.len());
    for bitmap in bitmaps {
        let blob = to_blob(bitmap)?;
        let size = u64::try_from(blob.len()).unwrap_or(u64::MAX).saturating_sub(FRAME);
        descriptors.push(DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: path.clone(),
            offset: Some(i32::try_from(bytes.len()).map_err(too_large)?),
            size_in_bytes: i32::try_from(size).map_err(too_large)?,
            cardinality: i64::try_from(bitmap.len()).map_err(too_large)?,
        });
        bytes.extend_from_slice(&blob);
    }
    Ok((bytes, descriptors))
}

/// Reads the bitmaps of `descriptors`, each file once; the bitmaps are in the same order.
pub(super) async fn read(
    location: &Location,
    descriptors: &[DeletionVectorDescriptor],
) -> Result<Vec<Arc<RoaringTreemap>>> {
    let mut bitmaps: BTreeMap<usize, Arc<RoaringTreemap>> = BTreeMap::new();
    let mut files: BTreeMap<String, Vec<(usize, Range<u64>)>> = BTreeMap::new();
    for (index, descriptor) in descriptors.iter().enumerate() {
        match place(descriptor)? {
            Place::Inline(blob) => {
                bitmaps.insert(index, checked(&blob, descriptor)?);
            }
            Place::File(path, range) => files.entry(path).or_default().push((index, range)),
        }
    }
    let reads = stream::iter(files).map(|(path, wanted)| async move {
        let ranges: Vec<Range<u64>> = wanted.iter().map(|(_, range)| range.clone()).collect();
        let blobs =
            location.store().get_ranges(&location.file(&path), &ranges).await.map_err(|e| {
                storage::failed(format!("cannot read {}", location.file_url(&path)), e)
            })?;
        Ok::<_, Error>(wanted.into_iter().map(|(index, _)| index).zip(blobs).collect::<Vec<_>>())
    });
    let read: Vec<Vec<_>> = reads.buffer_unordered(READS).try_collect().await?;
    for (index, blob) in read.into_iter().flatten() {
        if let Some(descriptor) = descriptors.get(index) {
            bitmaps.insert(index, checked(&blob, descriptor)?);
        }
    }
    Ok(bitmaps.into_values().collect())
}

fn checked(blob: &[u8], descriptor: &DeletionVectorDescriptor) -> Result<Arc<RoaringTreemap>> {
    let bitmap = from_blob(blob)?;
    if i64::try_from(bitmap.len()) != Ok(descriptor.cardinality) {
        return Err(Error::data(format!(
            "a deletion vector has {} rows and the table's log says {}",
            bitmap.len(),
            descriptor.cardinality
        )));
    }
    Ok(Arc::new(bitmap))
}

/// Where a vector's blob is.
enum Place {
    /// Made up from the log.
    Inline(Vec<u8>),
    /// Below the table's root.
    File(String, Range<u64>),
}

fn place(descriptor: &DeletionVectorDescriptor) -> Result<Place> {
    let broken = || Error::data("a deletion vector's descriptor in the table's log is malformed");
    let size = u64::try_from(descriptor.size_in_bytes).map_err(|_| broken())?;
    match descriptor.storage_type {
        StorageType::Inline => {
            let mut body = unz85(&descriptor.path_or_inline_dv).ok_or_else(broken)?;
            body.truncate(usize::try_from(size).map_err(|_| broken())?);
            let length = u32::try_from(body.len()).map_err(|_| broken())?;
            let checksum = crc32fast::hash(&body);
            Ok(Place::Inline(
                [&length.to_be_bytes(), body.as_slice(), &checksum.to_be_bytes()].concat(),
            ))
        }
        StorageType::UuidRelativePath => {
            let path = relative(&descriptor.path_or_inline_dv).ok_or_else(broken)?;
            let offset = u64::try_from(descriptor.offset.unwrap_or(1)).map_err(|_| broken())?;
            Ok(Place::File(path, offset..offset + size + FRAME))
        }
        StorageType::AbsolutePath => Err(Error::refused(format!(
            "a deletion vector of the table lies at an absolute path: {}",
            descriptor.path_or_inline_dv
        ))
        .hint("OPTIMIZE or REORG … APPLY (PURGE) the table")),
    }
}

/// The path, below the table's root, of the file that a descriptor of storage type `u` names so.
pub(super) fn relative(text: &str) -> Option<String> {
    let (prefix, id) = text.split_at_checked(text.len().checked_sub(20)?)?;
    let name = file_name(Uuid::from_slice(&unz85(id)?).ok()?);
    Some(if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
}

/// Z85 (rfc.zeromq.org/spec/32) of bytes, a multiple of four.
fn z85(bytes: &[u8]) -> Vec<char> {
    let (words, _) = bytes.as_chunks::<4>();
    let digit = |word: u32, power: u32| {
        let digit = usize::try_from(word / 85_u32.pow(power) % 85).unwrap_or_default();
        Z85.get(digit).map_or('0', |byte| char::from(*byte))
    };
    words
        .iter()
        .map(|word| u32::from_be_bytes(*word))
        .flat_map(|word| [4, 3, 2, 1, 0].map(|power| digit(word, power)))
        .collect()
}

/// The bytes of Z85 text; none when it is not Z85.
fn unz85(text: &str) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_bytes().as_chunks::<5>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(groups.len() * 4);
    for group in groups {
        let word = group.iter().try_fold(0_u32, |word, byte| {
            let digit = u32::try_from(Z85.iter().position(|known| known == byte)?).ok()?;
            word.checked_mul(85)?.checked_add(digit)
        })?;
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z85_is_that_of_its_specification() {
        let hello = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B];
        assert_eq!(z85(&hello).into_iter().collect::<String>(), "HelloWorld");
        assert_eq!(unz85("HelloWorld").unwrap(), hello);
        assert_eq!(unz85("Hello~orld"), None);
        assert_eq!(unz85("#####"), None);
    }

    /// The example of the Delta protocol, "Deletion Vector Descriptor Schema".
    #[test]
    fn a_descriptor_leads_where_the_protocol_says() {
        let relative = DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: "ab^-aqEH.-t@S}K{vb[*k^".into(),
            offset: Some(4),
            size_in_bytes: 40,
            cardinality: 6,
        };
        let Place::File(path, range) = place(&relative).unwrap() else { panic!("not a file") };
        assert_eq!(path, "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin");
        assert_eq!(range, 4..52);
    }

    /// Spark pads what it encodes with zeros to a multiple of four; the size is that before.
    #[test]
    fn a_vector_in_the_log_itself_is_read() {
        let bitmap: RoaringTreemap = [3, 4, 7, 11, 18, 29, 90].into_iter().collect();
        let blob = to_blob(&bitmap).unwrap();
        let mut body = blob[4..blob.len() - 4].to_vec();
        let size = body.len();
        body.resize(size.next_multiple_of(4), 0);
        assert_ne!(body.len(), size);
        let inline = DeletionVectorDescriptor {
            storage_type: StorageType::Inline,
            path_or_inline_dv: z85(&body).into_iter().collect(),
            offset: None,
            size_in_bytes: i32::try_from(size).unwrap(),
            cardinality: 7,
        };
        let Place::Inline(read) = place(&inline).unwrap() else { panic!("not inline") };
        assert_eq!(read, blob);
        assert_eq!(*checked(&read, &inline).unwrap(), bitmap);
        let wrong = DeletionVectorDescriptor { cardinality: 5, ..inline };
        assert!(checked(&read, &wrong).is_err());
    }
}
