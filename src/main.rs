//! The binary: parse, run, print the error once, choose the exit code.

fn main() {}
