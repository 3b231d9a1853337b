//! Kafka records as the source hands them over: many of one partition, their bytes in one arena.
//!
//! A batch keeps these chunks until it is committed, so a record's bytes are copied once, out of the Kafka
//! client, and never again before they become columns.

use std::ops::Range;
use std::sync::Arc;

use crate::position::TopicId;

/// Consecutive records of one partition. Offsets grow, with gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Records {
    topic: Arc<str>,
    topic_id: Option<TopicId>,
    partition: i32,
    from: i64,
    next: i64,
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
}

/// One record, borrowed from its chunk.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The topic's name.
    pub topic: &'a Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The record's place in the partition.
    pub offset: i64,
    /// Kafka's timestamp, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// The key's bytes.
    pub key: Option<&'a [u8]>,
    /// The value's bytes; none is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl Records {
    /// An empty chunk of `topic` and `partition`, starting at position `from`.
    pub fn new(topic: Arc<str>, partition: i32, from: i64) -> Self {
        let (arena, entries) = (Vec::new(), Vec::new());
        Self { topic, topic_id: None, partition, from, next: from, arena, entries }
    }

    /// The same of the topic with this id.
    pub fn of_topic(self, topic_id: Option<TopicId>) -> Self {
        Self { topic_id, ..self }
    }

    /// The topic's id, when it is known.
    pub fn topic_id(&self) -> Option<TopicId> {
        self.topic_id
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The position that the chunk starts at: below its first record where the log has a gap before it.
    pub fn from(&self) -> i64 {
        self.from
    }

    /// The position after the chunk.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.arena.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Gives unused memory back; for a chunk that is complete.
    pub fn shrink_to_fit(&mut self) {
        self.arena.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends a record; headers are name and value pairs in the record's order. False when the chunk is full
    /// (4 GiB) and the record was not taken.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        timestamp_ms: Option<i64>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> bool {
        let start = self.arena.len();
        let parts = (|| {
            let key = key.map_or(Some(None), |bytes| self.append(bytes).map(Some))?;
            let value = value.map_or(Some(None), |bytes| self.append(bytes).map(Some))?;
            let from = u32::try_from(self.arena.len()).ok()?;
            for (name, value) in headers {
                self.append_header(name, value)?;
            }
            Some((key, value, from..u32::try_from(self.arena.len()).ok()?))
        })();
        let Some((key, value, headers)) = parts else {
            self.arena.truncate(start);
            return false;
        };
        self.entries.push(Entry { offset, timestamp_ms, key, value, headers });
        self.next = offset + 1;
        true
    }

    /// Keeps the first `length` records; the position is then that of the first one left out.
    pub fn truncate(&mut self, length: usize) {
        if let Some(entry) = self.entries.get(length) {
            self.next = entry.offset;
            self.entries.truncate(length);
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Option<Range<u32>> {
        let from = u32::try_from(self.arena.len()).ok()?;
        self.arena.extend_from_slice(bytes);
        Some(from..u32::try_from(self.arena.len()).ok()?)
    }

    /// A header is: name length, name, value length (or `u32::MAX` for null), value; lengths little-endian.
    fn append_header(&mut self, name: &str, value: Option<&[u8]>) -> Option<()> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).ok().filter(|n| *n != u32::MAX);
        self.arena.extend_from_slice(&length(name.as_bytes())?.to_le_bytes());
        self.arena.extend_from_slice(name.as_bytes());
        let size = value.map_or(Some(u32::MAX), length)?;
        self.arena.extend_from_slice(&size.to_le_bytes());
        self.arena.extend_from_slice(value.unwrap_or_default());
        Some(())
    }

    /// The record at `index`, in order of arrival.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        let entry = self.entries.get(index)?;
        Some(Record {
            topic: &self.topic,
            partition: self.partition,
            offset: entry.offset,
            timestamp_ms: entry.timestamp_ms,
            key: entry.key.as_ref().and_then(|range| self.slice(range)),
            value: entry.value.as_ref().and_then(|range| self.slice(range)),
            headers: self.slice(&entry.headers).unwrap_or_default(),
        })
    }

    fn slice(&self, range: &Range<u32>) -> Option<&[u8]> {
        self.arena.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }

    /// Every record, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.entries.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Record<'a> {
    /// Headers as name and value pairs, in the record's order.
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.headers }
    }

    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> usize {
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        length(self.key) + length(self.value) + self.headers.len()
    }
}

/// Iterator over a record's headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.take_sized()??;
        let value = self.take_sized()?;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

impl<'a> Headers<'a> {
    fn take_sized(&mut self) -> Option<Option<&'a [u8]>> {
        let (size, rest) = self.rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size);
        if size == u32::MAX {
            self.rest = rest;
            return Some(None);
        }
        let (bytes, rest) = rest.split_at_checked(usize::try_from(size).ok()?)?;
        self.rest = rest;
        Some(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_pushed() {
        let mut records = Records::new("t".into(), 3, 10);
        let headers = [("a", Some(&b"1"[..])), ("b", None), ("", Some(&b""[..]))];
        assert!(records.push(12, Some(5), Some(b"k"), None, headers));
        assert!(records.push(15, None, None, Some(b"v"), []));
        let first = records.get(0).unwrap();
        assert_eq!((first.offset, first.key, first.value), (12, Some(&b"k"[..]), None));
        assert_eq!(first.headers().collect::<Vec<_>>(), headers);
        let second = records.get(1).unwrap();
        assert_eq!((second.key, second.value), (None, Some(&b"v"[..])));
        assert_eq!(second.headers().count(), 0);
        assert_eq!((records.len(), records.next()), (2, 16));
    }
}
