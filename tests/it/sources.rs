//! A scripted source of which a test decides how it goes.

use cdc_sink::pipeline::Partitions;
use cdc_sink::position::TopicPartition;
use cdc_sink::sink::Committed;
use cdc_sink::source::scripted::ScriptedSource;
use cdc_sink::source::{Event, Source};

/// Brokers that tell so many partitions of every topic.
pub(crate) fn partitions(count: usize) -> Partitions {
    Partitions::new(move |_| Box::pin(std::future::ready(Ok(count))))
}

/// What becomes of a source's events.
pub(crate) trait Course {
    /// True when no event comes any more.
    fn is_over(&mut self) -> bool {
        false
    }

    /// The event that is told in place of `event`, if any.
    fn pass(&mut self, event: Event) -> Option<Event>;
}

/// A scripted source, on its course.
pub(crate) struct Passed<C> {
    pub(crate) source: ScriptedSource,
    pub(crate) course: C,
}

impl<C: Course + Send> Source for Passed<C> {
    async fn next(&mut self) -> Event {
        loop {
            if self.course.is_over() {
                return std::future::pending().await;
            }
            let event = self.source.next().await;
            if let Some(event) = self.course.pass(event) {
                return event;
            }
        }
    }

    fn acknowledge(&mut self, topic: &str, committed: &Committed) {
        self.source.acknowledge(topic, committed);
    }

    fn hold(&mut self, partition: &TopicPartition, held: bool) {
        self.source.hold(partition, held);
    }

    fn read_again(&mut self, partitions: Vec<TopicPartition>) {
        self.source.read_again(partitions);
    }

    async fn close(self) {
        self.source.close().await;
    }
}
