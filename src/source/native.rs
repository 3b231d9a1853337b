//! What the C client tells and the client for Rust above it does not: the one place with unsafe code.

#![expect(unsafe_code, reason = "the safe client has no calls for these")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::slice;
use std::time::{Duration, Instant};

use rdkafka::bindings as c;
use rdkafka::client::{Client, ClientContext};
use rdkafka::metadata::MetadataBroker;

use crate::position::TopicId;

/// What the C client made and wants to have back.
struct Owned<T> {
    it: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// None for a null pointer.
    ///
    /// # Safety
    ///
    /// `it` is null, or what `destroy` destroys, and nobody else does.
    unsafe fn new(it: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self { it: NonNull::new(it)?, destroy })
    }

    fn get(&self) -> *mut T {
        self.it.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`; it is dropped once.
        unsafe { (self.destroy)(self.it.as_ptr()) }
    }
}

/// Asks the brokers for the ids of topics: Kafka gives a topic one when it is made, another to each of the same name. Those
/// are left out that are not there, that the user may not describe, or whose brokers are older than ids (Kafka 2.8). None
/// when nobody answers within `wait`, or there is no topic.
pub(super) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    topics: &[&str],
    wait: Duration,
) -> Option<HashMap<String, TopicId>> {
    let until = Instant::now() + wait;
    // A broker that is there: the C client would ask the controller, and wait for one that is not. Who answers a new client
    // is not known by its id.
    let metadata = client.fetch_metadata(Some(topics.first()?), wait).ok()?;
    let answered = metadata.orig_broker_id();
    let known = metadata.brokers().iter().map(MetadataBroker::id);
    let broker = known.max_by_key(|id| *id == answered)?;
    let texts: Vec<CString> = topics.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut texts_at: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let left = until.saturating_duration_since(Instant::now());
    let millis = c_int::try_from(left.as_millis()).unwrap_or(c_int::MAX).max(1);
    let kafka = client.native_ptr();
    // SAFETY: `kafka` lives as long as `client`. Each object is destroyed once, after those that were made from it: they are
    // dropped in the opposite order. The C client copies names and options before its call returns. An answer that comes
    // after the queue is gone is dropped by it.
    unsafe {
        let queue = Owned::new(c::rd_kafka_queue_new(kafka), c::rd_kafka_queue_destroy)?;
        let names = Owned::new(
            c::rd_kafka_TopicCollection_of_topic_names(texts_at.as_mut_ptr(), texts_at.len()),
            c::rd_kafka_TopicCollection_destroy,
        )?;
        let options = Owned::new(
            c::rd_kafka_AdminOptions_new(
                kafka,
                c::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            c::rd_kafka_AdminOptions_destroy,
        )?;
        // What is wrong with them would be told by words; the client has others.
        c::rd_kafka_AdminOptions_set_request_timeout(options.get(), millis, ptr::null_mut(), 0);
        c::rd_kafka_AdminOptions_set_broker(options.get(), broker, ptr::null_mut(), 0);
        c::rd_kafka_DescribeTopics(kafka, names.get(), options.get(), queue.get());
        let answer =
            Owned::new(c::rd_kafka_queue_poll(queue.get(), millis), c::rd_kafka_event_destroy)?;
        let result = c::rd_kafka_event_DescribeTopics_result(answer.get());
        if result.is_null()
            || c::rd_kafka_event_error(answer.get())
                != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return None;
        }
        let mut count = 0;
        let told = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if told.is_null() {
            return Some(HashMap::new());
        }
        Some(slice::from_raw_parts(told, count).iter().filter_map(|topic| named(*topic)).collect())
    }
}

/// A topic's name and id, when it has one.
///
/// # Safety
///
/// `topic` belongs to an answer that is not destroyed yet.
unsafe fn named(topic: *const c::rd_kafka_TopicDescription_t) -> Option<(String, TopicId)> {
    // SAFETY: by the contract of this function. What these calls give belongs to the answer and is copied here.
    unsafe {
        let name = NonNull::new(c::rd_kafka_TopicDescription_name(topic).cast_mut())?;
        let id = NonNull::new(c::rd_kafka_TopicDescription_topic_id(topic).cast_mut())?;
        let name = CStr::from_ptr(name.as_ptr()).to_str().ok()?.to_owned();
        let high = c::rd_kafka_Uuid_most_significant_bits(id.as_ptr());
        let low = c::rd_kafka_Uuid_least_significant_bits(id.as_ptr());
        Some((name, TopicId::new(high.cast_unsigned(), low.cast_unsigned())?))
    }
}

/// True while the client is a member of its group, as far as it knows.
pub(super) fn is_member<C: ClientContext>(client: &Client<C>) -> bool {
    let kafka = client.native_ptr();
    // SAFETY: `kafka` lives as long as `client`. The text is a copy, which is given back once.
    unsafe {
        let Some(id) = NonNull::new(c::rd_kafka_memberid(kafka)) else { return false };
        let is_member = !CStr::from_ptr(id.as_ptr()).is_empty();
        c::rd_kafka_mem_free(kafka, id.as_ptr().cast());
        is_member
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rdkafka::consumer::{BaseConsumer, Consumer};

    use super::*;
    use crate::source::mock::MockCluster;
    use crate::source::properties::Connection;
    use crate::source::quiet::Quiet;

    const WAIT: Duration = Duration::from_secs(10);

    fn consumer(brokers: &str) -> BaseConsumer<Quiet> {
        let connection = Connection::new(brokers, &BTreeMap::new(), |_| None).unwrap();
        connection.client().create_with_context(Quiet).unwrap()
    }

    #[test]
    fn topics_have_ids_of_their_own() {
        let cluster = MockCluster::start(1).unwrap();
        for topic in ["one", "two"] {
            cluster.create_topic(topic, 2).unwrap();
        }
        let consumer = consumer(cluster.servers());
        let topics = ["one", "two", "none", "a\0b"];
        let ids = topic_ids(consumer.client(), &topics, WAIT).unwrap();
        assert_eq!(ids.len(), 2);
        assert_ne!(ids["one"], ids["two"]);
        assert_eq!(topic_ids(consumer.client(), &["one"], WAIT).unwrap()["one"], ids["one"]);
        assert_eq!(topic_ids(consumer.client(), &[], WAIT), None);
    }

    #[test]
    fn silence_is_not_waited_for_longer_than_told() {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let consumer = consumer(&nobody.local_addr().unwrap().to_string());
        let begin = Instant::now();
        assert_eq!(topic_ids(consumer.client(), &["one"], Duration::from_millis(300)), None);
        assert!(begin.elapsed() < WAIT);
    }
}
