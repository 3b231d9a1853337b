//! What unit tests need of the machine: servers and engines that we did not write.

/// The address or place that `name` (`CDC_SINK_TEST_…`, as `tests/stack/stack env` prints them) tells. Without it a test
/// leaves itself out and says so; where everything must run (`CDC_SINK_TEST_ALL`, which `tests/run` sets) it fails.
pub(crate) fn needed(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        assert!(
            std::env::var_os("CDC_SINK_TEST_ALL").is_none(),
            "{name} is not set, and no test may be left out"
        );
        eprintln!("left out: {name} is not set");
    }
    value
}
