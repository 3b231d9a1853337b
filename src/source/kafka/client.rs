//! A consumer with the threads that wait for brokers on its behalf: made, and given up within a bounded time.

use std::collections::HashSet;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::warn;

use super::KafkaOptions;
use super::calls::{self, Asked, Next, Watermarks};
use super::control::Control;
use super::group::Group;
use super::helper::Helper;
use super::plan::Plan;
use super::unowned::{self, Standing};
use crate::error::{Error, Result};
use crate::source::native::is_member;

/// How often is looked whether the group was left.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// One member of the group.
pub(super) struct Client {
    pub(super) consumer: Arc<BaseConsumer<Group>>,
    pub(super) watermarks: Helper<Vec<Asked>, Vec<Watermarks>>,
    /// Answers with the offsets that were not taken.
    pub(super) commits: Helper<Vec<Next>, Vec<Next>>,
    /// Answers with the topics that there are.
    pub(super) topics: Helper<(), Option<HashSet<String>>>,
    /// Answers with how the group stands. A static member asks it.
    pub(super) standing: Option<Helper<(), Option<Standing>>>,
    /// Disconnected when the consumer is gone.
    gone: mpsc::Receiver<()>,
}

impl Client {
    /// Makes a consumer; joins nothing and waits for nobody.
    pub(super) fn new(options: &KafkaOptions, control: &Arc<Control>, plan: &Plan) -> Result<Self> {
        let (group, gone) = Group::new();
        let consumer = plan.consumer(options).create_with_context(group);
        let mut consumer: BaseConsumer<Group> = consumer.map_err(|error| {
            Error::invalid("cannot make a Kafka consumer from the given properties").because(error)
        })?;
        let waker = Arc::clone(control);
        consumer.set_nonempty_callback(move || waker.wake());
        let consumer = Arc::new(consumer);
        let weak = || (Arc::downgrade(&consumer), Arc::clone(control));
        let (for_watermarks, for_commits) = (weak(), weak());
        let ask = |consumer: &_, asked: Vec<Asked>| calls::watermarks(consumer, &asked);
        let watermarks = Helper::start("kafka-watermarks", for_watermarks, ask)?;
        let commits = Helper::start("kafka-acknowledge", for_commits, calls::commit)?;
        let topics = Helper::start("kafka-topics", weak(), |consumer, ()| calls::topics(consumer))?;
        let standing = options.connection.member_name().map(|name| {
            let (options, name) = (options.clone(), name.to_owned());
            let call = move |consumer: &_, ()| unowned::standing(consumer, &options, &name);
            Helper::start("kafka-standing", weak(), call)
        });
        let standing = standing.transpose()?;
        Ok(Self { consumer, watermarks, commits, topics, standing, gone })
    }

    /// Gives the consumer up, on a thread of its own: its destructor has no deadline. No partition queue may be left.
    ///
    /// A static member stays in the group, for the one that comes back under its name (KIP-345). Others leave it: they must
    /// have unsubscribed.
    pub(super) fn discard(self, wait: Duration) {
        let Self { consumer, watermarks, commits, topics, standing, gone } = self;
        let until = Instant::now() + wait;
        let leaves = standing.is_none();
        drop((watermarks, commits, topics, standing));
        consumer.context().close();
        let end = move || {
            // Closed while partitions stop, librdkafka ends without leaving: the group would wait for a whole session.
            while leaves && is_member(consumer.client()) && Instant::now() < until {
                consumer.poll(LOOK_EVERY); // Partitions that are left are given back in it.
            }
            drop(consumer);
        };
        let dropping = thread::Builder::new().name("kafka-close".into()).spawn(end);
        // Nothing is ever sent: the other end goes when the consumer is gone.
        if dropping.is_err() || gone.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
            warn!("a Kafka consumer does not end; leaving it behind");
        }
    }
}
