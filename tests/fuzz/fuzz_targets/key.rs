#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cdc_sink_fuzz::run("key", input));
