//! Checksums of a Parquet file's bytes, in the file itself: a bit that is wrong on a disk is told, not taken for a key.
//!
//! The writer of the `parquet` crate leaves out the checksums that pages may have. These are CRC-32 of blocks of the file,
//! in a section between the row groups and the footer, where readers that do not know it see nothing. An entry of the
//! footer says where. Files without it, as others write them, are read unchecked.
//!
//! ```text
//! row groups (blocks of 4 KiB) | section | page index | footer
//!                                magic, start of the footer, CRC of page index, of footer, of each block, of the section
//! ```

use std::ops::Range;

use memchr::memmem;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};

/// The entry of the footer: the section's place, in 20 digits.
const KEY: &str = "cdc-sink.checksums";
const DIGITS: usize = 20;
const MAGIC: &[u8; 8] = b"cdcsums2";
/// Bytes of a block; what is read is read in whole ones.
const BLOCK: u64 = 4 * 1024;
/// Magic number, start of the footer, two checksums.
const HEAD: usize = 24;
const SUM: usize = 4;

/// The checksums of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sums {
    blocks: Vec<u32>,
    /// Bytes that the blocks are of.
    data: u64,
    index: Range<u64>,
    index_sum: u32,
}

impl Sums {
    /// Reads the section at `place`; `end` is the file's end from `from` on, with the whole footer, which is checked here.
    pub(super) fn read(
        place: &Range<u64>,
        section: &[u8],
        end: &[u8],
        from: u64,
    ) -> Result<Self, &'static str> {
        let cut = "its checksums are cut short";
        let (told, sum) = section.split_last_chunk::<SUM>().ok_or(cut)?;
        if crc32fast::hash(told) != u32::from_le_bytes(*sum) {
            return Err("its checksums do not match their own");
        }
        let told = told.strip_prefix(MAGIC).ok_or("its checksums are not where its footer says")?;
        let (footer, told) = told.split_first_chunk().ok_or(cut)?;
        let footer = u64::from_le_bytes(*footer);
        let (sums, rest) = told.as_chunks::<SUM>();
        let sums: Vec<u32> = sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        let ([index_sum, footer_sum], []) = (sums.get(..2).unwrap_or_default(), rest) else {
            return Err(cut);
        };
        let at = footer.checked_sub(from).and_then(|at| usize::try_from(at).ok());
        let bytes = at.and_then(|at| end.get(at..)).ok_or("its footer is not where it was")?;
        if crc32fast::hash(bytes) != *footer_sum {
            return Err("the checksum of its footer does not match");
        }
        Ok(Self {
            blocks: sums.get(2..).unwrap_or_default().to_vec(),
            data: place.start,
            index: place.end..footer,
            index_sum: *index_sum,
        })
    }

    /// What has to be read to check `range`; none when nothing is told of it.
    pub(super) fn whole(&self, range: &Range<u64>) -> Option<Range<u64>> {
        if range.end <= self.data {
            let end = range.end.div_ceil(BLOCK).saturating_mul(BLOCK).min(self.data);
            return Some(range.start / BLOCK * BLOCK..end);
        }
        let of_index = self.index.start <= range.start && range.end <= self.index.end;
        of_index.then(|| self.index.clone())
    }

    /// True when `bytes` are what was written at `whole`, a range that [`Self::whole`] gave.
    pub(super) fn match_in(&self, whole: &Range<u64>, bytes: &[u8]) -> bool {
        if *whole == self.index {
            return crc32fast::hash(bytes) == self.index_sum;
        }
        let first = usize::try_from(whole.start / BLOCK).unwrap_or(usize::MAX);
        let blocks = bytes.chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX));
        let told = self.blocks.get(first..).unwrap_or_default();
        blocks.len() <= told.len()
            && blocks.zip(told).all(|(block, sum)| crc32fast::hash(block) == *sum)
    }
}

/// Where a footer says that the section is; none when it does not. `end` is the end of a file, with the whole footer.
pub(super) fn place(end: &[u8]) -> Option<Range<u64>> {
    let at = memmem::rfind(end, KEY.as_bytes())? + KEY.len();
    // Before a text are its field's number and its length, a byte each.
    let digits = end.get(at + 2..at + 2 + DIGITS)?;
    let from: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let fixed = u64::try_from(HEAD + SUM).ok()?;
    let sums = from.div_ceil(BLOCK).checked_mul(u64::try_from(SUM).ok()?)?;
    Some(from..from.checked_add(fixed)?.checked_add(sums)?)
}

/// Bytes of the footer with what is behind it, as a file's end says.
pub(super) fn footer_bytes(end: &[u8]) -> Option<u64> {
    let (rest, _magic) = end.split_last_chunk::<4>()?;
    let (_, length) = rest.split_last_chunk()?;
    Some(u64::from(u32::from_le_bytes(*length)) + 8)
}

/// Ends a file: its bytes, with checksums.
pub(crate) fn finish(
    mut writer: ArrowWriter<Vec<u8>>,
) -> Result<(Vec<u8>, ParquetMetaData), ParquetError> {
    writer.flush()?;
    writer.sync()?;
    let from = writer.inner().len();
    let mut section = vec![0; HEAD];
    for block in writer.inner().chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX)) {
        section.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
    }
    section.extend_from_slice(&[0; SUM]);
    writer.write_all(&section)?;
    writer.append_key_value_metadata(KeyValue::new(KEY.to_owned(), format!("{from:0DIGITS$}")));
    let metadata = writer.finish()?;
    let mut bytes = std::mem::take(writer.inner_mut());
    fill_in(&mut bytes, from..from + section.len())
        .ok_or_else(|| ParquetError::General("a file without an end was written".to_owned()))?;
    Ok((bytes, metadata))
}

/// Writes into the section what can be told only now: the checksums of what comes after it, and its own.
fn fill_in(bytes: &mut [u8], section: Range<usize>) -> Option<()> {
    let footer = bytes.len().checked_sub(usize::try_from(footer_bytes(bytes)?).ok()?)?;
    let index_sum = crc32fast::hash(bytes.get(section.end..footer)?);
    let footer_sum = crc32fast::hash(bytes.get(footer..)?);
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&u64::try_from(footer).ok()?.to_le_bytes());
    head.extend_from_slice(&index_sum.to_le_bytes());
    head.extend_from_slice(&footer_sum.to_le_bytes());
    bytes.get_mut(section.start..section.start + HEAD)?.copy_from_slice(&head);
    let sum = crc32fast::hash(bytes.get(section.start..section.end - SUM)?);
    bytes.get_mut(section.end - SUM..section.end)?.copy_from_slice(&sum.to_le_bytes());
    Some(())
}

/// Checks a whole file; why it is damaged, if it is. One without checksums is not.
pub(crate) fn check(file: &[u8]) -> Result<(), &'static str> {
    let Some(place) = place(file) else { return Ok(()) };
    let whole = |range: &Range<u64>| {
        let (from, to) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
        file.get(from..to)
    };
    let section = whole(&place).ok_or("its checksums are not where its footer says")?;
    let sums = Sums::read(&place, section, file, 0)?;
    let parts = [0..sums.data, sums.index.clone()];
    let matches = |part: &Range<u64>| whole(part).is_some_and(|bytes| sums.match_in(part, bytes));
    if parts.iter().all(matches) { Ok(()) } else { Err(MISMATCH) }
}

/// What is said of bytes that are others than were written.
pub(super) const MISMATCH: &str = "the checksum of its content does not match";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use rstest::rstest;

    use super::*;

    fn file(rows: i64) -> Vec<u8> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let values = Int64Array::from_iter_values((0..rows).map(|n| n.wrapping_mul(0x9E37_79B9)));
        let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(values)]).unwrap();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
        writer.write(&rows).unwrap();
        finish(writer).unwrap().0
    }

    #[rstest]
    #[case::empty(0, 1)]
    #[case::within_a_block(50, 1)]
    #[case::several_blocks(20_000, 977)]
    fn no_bit_can_be_wrong(#[case] rows: i64, #[case] step: usize) {
        let bytes = file(rows);
        check(&bytes).unwrap();
        let section = place(&bytes).unwrap();
        let (mut blind, key) = (Vec::new(), memmem::rfind(&bytes, KEY.as_bytes()).unwrap());
        for at in (0..bytes.len()).step_by(step) {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if check(&damaged).is_ok() {
                    blind.push(at);
                }
            }
        }
        // Without its name the section is not found; nothing else is wrong then.
        let name = key..key + KEY.len() + 2 + DIGITS;
        assert!(blind.iter().all(|at| name.contains(at)), "{blind:?} of {section:?}");
    }

    #[test]
    fn what_is_read_is_widened_to_what_can_be_checked() {
        let bytes = file(20_000);
        let at = place(&bytes).unwrap();
        let section = &bytes[usize::try_from(at.start).unwrap()..usize::try_from(at.end).unwrap()];
        let sums = Sums::read(&at, section, &bytes, 0).unwrap();
        assert_eq!(sums.whole(&(5..6)), Some(0..BLOCK));
        assert_eq!(sums.whole(&(BLOCK - 1..BLOCK + 1)), Some(0..2 * BLOCK));
        let last = at.start / BLOCK * BLOCK..at.start;
        assert_eq!(sums.whole(&(at.start - 1..at.start)), Some(last));
        assert_eq!(sums.whole(&(at.start - 1..at.start + 1)), None);
        assert_eq!(sums.whole(&(at.end + 1..at.end + 2)), Some(sums.index));
    }
}
