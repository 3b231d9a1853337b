//! Partitions that were offered to the pipeline, and where reading of them starts.

use std::collections::HashMap;
use std::time::Instant;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tracing::warn;

use super::super::calls;
use super::super::partition::Partition;
use super::{ASK_AGAIN_AFTER, Offer, OfferState, Reader};
use crate::failpoint::{self, Point};
use crate::position::TopicPartition;
use crate::source::{Event, Start};

impl Reader {
    /// Asks where to start, of each topic by itself: a table that does not answer holds up no other.
    pub(super) fn offer(&mut self, mut partitions: Vec<TopicPartition>) {
        partitions.sort_unstable();
        for partitions in partitions.chunk_by(|a, b| a.topic == b.topic) {
            let (start, answer) = oneshot::channel();
            self.outbox.push_back(Event::Assigned { partitions: partitions.to_vec(), start });
            let state = OfferState::Open(answer);
            self.offers.push(Offer { partitions: partitions.to_vec(), state });
        }
    }

    /// Starts partitions whose start is known now.
    pub(super) fn serve_offers(&mut self, now: Instant) {
        for offer in std::mem::take(&mut self.offers) {
            match offer.state {
                OfferState::Again(at) if at <= now => self.offer(offer.partitions),
                OfferState::Again(_) => self.offers.push(offer),
                OfferState::Open(mut answer) => match answer.try_recv() {
                    Err(oneshot::error::TryRecvError::Empty) => {
                        let state = OfferState::Open(answer);
                        self.offers.push(Offer { partitions: offer.partitions, state });
                    }
                    Ok(starts) => self.start(offer.partitions, &starts, now),
                    Err(oneshot::error::TryRecvError::Closed) => {
                        self.start(offer.partitions, &HashMap::new(), now);
                    }
                },
            }
        }
    }

    /// Starts reading at `starts`; partitions without one are offered again later.
    fn start(
        &mut self,
        partitions: Vec<TopicPartition>,
        starts: &HashMap<TopicPartition, Start>,
        now: Instant,
    ) {
        let mut later = Vec::new();
        let mut list = TopicPartitionList::new();
        let mut started = Vec::new();
        for id in partitions {
            let offset = match starts.get(&id) {
                None => None,
                Some(Start::Beginning) => Some(Offset::Beginning),
                Some(Start::At { position, .. }) => Some(Offset::Offset(*position)),
            };
            let split = starts.get(&id).and_then(|start| {
                let gate = now + calls::WATERMARKS_TIMEOUT;
                Partition::split(&self.client.consumer, &self.control, id.clone(), *start, gate)
            });
            let added = offset.zip(split).and_then(|(offset, partition)| {
                list.add_partition_offset(&id.topic, id.partition, offset).ok()?;
                Some(partition)
            });
            match added {
                Some(partition) => started.push(partition),
                None => later.push(id),
            }
        }
        if !started.is_empty() {
            failpoint::reach(Point::K12);
            match self.client.consumer.incremental_assign(&list) {
                Ok(()) => {
                    self.partitions.append(&mut started);
                }
                Err(error) => {
                    warn!(%error, "partitions cannot be read now");
                    later.extend(started.into_iter().map(|partition| partition.id));
                }
            }
            self.watermarks_due = now;
        }
        if !later.is_empty() {
            let state = OfferState::Again(now + ASK_AGAIN_AFTER);
            self.offers.push(Offer { partitions: later, state });
        }
    }

    /// Offers partitions again whose tables went back.
    pub(super) fn serve_read_again(&mut self) {
        let again = self.control.to_read_again();
        if again.is_empty() {
            return;
        }
        let taken = self.take_out(&again);
        self.control.release(&taken);
        let list = calls::list_at(taken.iter().map(|id| (id, Offset::Invalid)));
        if let Err(error) = list.and_then(|list| self.client.consumer.incremental_unassign(&list)) {
            warn!(%error, "partitions could not be started anew");
        }
        self.offer(taken);
    }
}
