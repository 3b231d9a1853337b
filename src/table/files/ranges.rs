//! Byte ranges of a file, fetched with few requests, of which no more is kept than was asked for.
//!
//! A store far away answers a request for a little more sooner than two requests. So ranges that lie close together are
//! fetched as one span; what lies between them is dropped as it arrives, never held.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use parquet::errors::ParquetError;

use super::sums::{self, Sums};

/// Ranges with fewer bytes between them are fetched as one.
const GAP: u64 = 1024 * 1024;
/// Ranges are not fetched as one beyond this many bytes: a request has a deadline.
pub(super) const SPAN: u64 = 8 * 1024 * 1024;
/// Requests at once.
const REQUESTS: usize = 4;

type Result<T> = parquet::errors::Result<T>;

/// A stretch of the file that is wanted, and can be checked, as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    at: Range<u64>,
    /// The ranges that it is wanted for, with their numbers.
    wanted: Vec<(usize, Range<u64>)>,
}

/// A file in a store.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    /// The store reads many ranges as soon as one, as a disk does.
    pub(super) seeks: bool,
}

impl Stored {
    /// What is at `ranges`, checked against the file's checksums. `end` is the file's end from `from` on.
    pub(super) async fn read(
        &self,
        ranges: &[Range<u64>],
        sums: Option<&Sums>,
        end: &Bytes,
        from: u64,
    ) -> Result<Vec<Bytes>> {
        let mut found = vec![Bytes::new(); ranges.len()];
        let mut keep = |parts: Vec<(usize, Bytes)>| {
            for (number, bytes) in parts {
                if let Some(place) = found.get_mut(number) {
                    *place = bytes;
                }
            }
        };
        let mut missing = Vec::new();
        for piece in pieces(ranges, sums) {
            match part(end, from, &piece.at) {
                Some(known) => keep(piece.cut(&known, sums)?),
                None => missing.push(piece),
            }
        }
        if self.seeks && !missing.is_empty() {
            let places: Vec<Range<u64>> = missing.iter().map(|piece| piece.at.clone()).collect();
            let read = self.store.get_ranges(&self.path, &places).await.map_err(external)?;
            for (piece, bytes) in missing.iter().zip(read) {
                keep(piece.cut(&bytes, sums)?);
            }
            return Ok(found);
        }
        let spans = stream::iter(spans(missing)).map(|pieces| self.span(pieces, sums));
        let mut spans = spans.buffer_unordered(REQUESTS);
        while let Some(parts) = spans.try_next().await? {
            keep(parts);
        }
        Ok(found)
    }

    /// Bytes that [`Self::read`] asks the store for.
    pub(super) fn to_fetch(&self, ranges: &[Range<u64>], sums: Option<&Sums>, from: u64) -> u64 {
        let mut missing = pieces(ranges, sums);
        missing.retain(|piece| piece.at.start < from);
        let requests = match self.seeks {
            true => missing.into_iter().map(|piece| vec![piece]).collect(),
            false => spans(missing),
        };
        let bytes = requests.iter().filter_map(|request| {
            Some(request.last()?.at.end.saturating_sub(request.first()?.at.start))
        });
        bytes.sum()
    }

    /// Fetches pieces with one request.
    async fn span(&self, pieces: Vec<Piece>, sums: Option<&Sums>) -> Result<Vec<(usize, Bytes)>> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else {
            return Ok(Vec::new());
        };
        let range = Some(GetRange::Bounded(first.at.start..last.at.end));
        let options = GetOptions { range, ..GetOptions::default() };
        let answer = self.store.get_opts(&self.path, options).await.map_err(external)?;
        let (mut at, mut chunks) = (first.at.start, answer.into_stream());
        let (mut pieces, mut begun, mut found) = (pieces.iter().peekable(), Vec::new(), Vec::new());
        while let Some(chunk) = chunks.try_next().await.map_err(external)? {
            let end = at + u64::try_from(chunk.len()).unwrap_or_default();
            while let Some(piece) = pieces.peek() {
                let here = piece.at.start.max(at)..piece.at.end.min(end);
                let Some(bytes) = part(&chunk, at, &here) else { break };
                begun.extend_from_slice(&bytes);
                if here.end < piece.at.end {
                    break;
                }
                found.extend(piece.cut(&Bytes::from(std::mem::take(&mut begun)), sums)?);
                pieces.next();
            }
            at = end;
        }
        if pieces.peek().is_some() { Err(cut_short()) } else { Ok(found) }
    }
}

/// The pieces that `ranges` are in, in the order of the file.
fn pieces(ranges: &[Range<u64>], sums: Option<&Sums>) -> Vec<Piece> {
    let whole = |range: &Range<u64>| sums?.whole(range);
    let ranges = ranges.iter().enumerate().map(|(number, range)| Piece {
        at: whole(range).unwrap_or_else(|| range.clone()),
        wanted: vec![(number, range.clone())],
    });
    let mut ranges: Vec<Piece> = ranges.collect();
    ranges.sort_unstable_by_key(|piece| piece.at.start);
    let mut pieces: Vec<Piece> = Vec::new();
    for piece in ranges {
        match pieces.last_mut() {
            Some(last) if piece.at.start < last.at.end => {
                last.at.end = last.at.end.max(piece.at.end);
                last.wanted.extend(piece.wanted);
            }
            _ => pieces.push(piece),
        }
    }
    pieces
}

/// The pieces of each request.
fn spans(pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let mut spans: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces {
        let open = spans.last_mut().filter(|span| {
            span.first().zip(span.last()).is_some_and(|(first, last)| {
                piece.at.start.saturating_sub(last.at.end) < GAP
                    && piece.at.end.saturating_sub(first.at.start) <= SPAN
            })
        });
        match open {
            Some(span) => span.push(piece),
            None => spans.push(vec![piece]),
        }
    }
    spans
}

impl Piece {
    /// What is wanted of the piece, which is `bytes`, once they are what was written.
    fn cut(&self, bytes: &Bytes, sums: Option<&Sums>) -> Result<Vec<(usize, Bytes)>> {
        let sums = sums.filter(|sums| sums.whole(&self.at).is_some());
        if sums.is_some_and(|sums| !sums.match_in(&self.at, bytes)) {
            return Err(ParquetError::General(sums::MISMATCH.to_owned()));
        }
        let wanted = self.wanted.iter().map(|(number, range)| {
            let part = part(bytes, self.at.start, range).ok_or_else(cut_short)?;
            // A part keeps all the bytes that it is of, unless it is a copy.
            let little = part.len() < bytes.len() / 2;
            Ok((*number, if little { Bytes::copy_from_slice(&part) } else { part }))
        });
        wanted.collect()
    }
}

/// The bytes at `range`, when they are among `bytes`, which start at `from`.
pub(super) fn part(bytes: &Bytes, from: u64, range: &Range<u64>) -> Option<Bytes> {
    let at = |offset: u64| usize::try_from(offset.checked_sub(from)?).ok();
    let (start, end) = (at(range.start)?, at(range.end)?);
    (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
}

fn cut_short() -> ParquetError {
    ParquetError::EOF("the file is cut short".to_owned())
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::chunked::ChunkedStore;
    use object_store::memory::InMemory;
    use rstest::rstest;

    use super::*;

    const END: u64 = 1000;

    /// A file in a store that answers in chunks, with its bytes.
    async fn stored(bytes: usize, chunk: usize, seeks: bool) -> (Stored, Vec<u8>) {
        let mut random = fastrand::Rng::with_seed(7);
        let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(bytes).collect();
        let (store, path) = (InMemory::new(), Path::from("file"));
        store.put(&path, content.clone().into()).await.unwrap();
        let store = Arc::new(ChunkedStore::new(Arc::new(store), chunk));
        (Stored { store, path, seeks }, content)
    }

    async fn read(file: &Stored, content: &[u8], ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let from = content.len() - usize::try_from(END).unwrap();
        let end = Bytes::copy_from_slice(&content[from..]);
        file.read(ranges, None, &end, u64::try_from(from).unwrap()).await
    }

    #[rstest]
    #[tokio::test]
    async fn any_ranges_are_what_is_in_the_file(
        #[values(1000, 65_536, 1 << 24)] chunk: usize,
        #[values(true, false)] seeks: bool,
    ) {
        let (file, content) = stored(9_000_000, chunk, seeks).await;
        let mut random = fastrand::Rng::with_seed(u64::try_from(chunk).unwrap());
        let mut range = || {
            let from = random.usize(..content.len());
            let longest = [10, 10_000, 400_000][random.usize(..3)];
            from..content.len().min(from + 1 + random.usize(..longest))
        };
        let ranges: Vec<Range<usize>> = std::iter::repeat_with(&mut range).take(60).collect();
        let asked = |range: &Range<usize>| {
            u64::try_from(range.start).unwrap()..u64::try_from(range.end).unwrap()
        };
        let asked: Vec<Range<u64>> = ranges.iter().map(asked).collect();
        let found = read(&file, &content, &asked).await.unwrap();
        for (range, bytes) in ranges.into_iter().zip(found) {
            assert!(content[range.clone()] == bytes, "{range:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_cut_short_is_told() {
        let (file, content) = stored(5000, 100, false).await;
        file.store.put(&file.path, content[..3000].to_vec().into()).await.unwrap();
        let failed = read(&file, &content, &[2000..2500, 2600..3500]).await.unwrap_err();
        assert_eq!(failed.to_string(), cut_short().to_string());
    }

    #[rstest]
    #[case::one(&[(5, 9)], &[(5, 9)])]
    #[case::close(&[(5, 9), (11, 20), (GAP + 19, GAP + 30)], &[(5, GAP + 30)])]
    #[case::apart(&[(5, 9), (GAP + 9, GAP + 20)], &[(5, 9), (GAP + 9, GAP + 20)])]
    #[case::out_of_order_and_over_each_other(&[(90, 95), (5, 9), (7, 20)], &[(5, 95)])]
    #[case::too_long(&[(0, SPAN - 5), (SPAN - 5, SPAN), (SPAN, SPAN + 9)], &[(0, SPAN), (SPAN, SPAN + 9)])]
    #[case::one_that_is_too_long(&[(0, SPAN + 5), (SPAN + 5, SPAN + 6)], &[(0, SPAN + 5), (SPAN + 5, SPAN + 6)])]
    #[case::none(&[], &[])]
    fn what_is_close_is_one_request(
        #[case] ranges: &[(u64, u64)],
        #[case] requests: &[(u64, u64)],
    ) {
        let ranges: Vec<Range<u64>> = ranges.iter().map(|(from, to)| *from..*to).collect();
        let spans = spans(pieces(&ranges, None)).into_iter();
        let spans = spans.map(|span| (span[0].at.start, span[span.len() - 1].at.end));
        assert_eq!(spans.collect::<Vec<_>>(), requests);
    }

    #[test]
    fn a_part_does_not_keep_what_it_was_cut_from() {
        let piece = |range| Piece { at: 0..100, wanted: vec![(0, range)] };
        let bytes = Bytes::from(vec![1; 100]);
        let kept = |range| piece(range).cut(&bytes, None).unwrap()[0].1.as_ptr() == bytes.as_ptr();
        assert!(kept(0..60));
        assert!(!kept(0..40));
    }
}
