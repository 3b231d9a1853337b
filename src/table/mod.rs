//! The physical layer: data files, deleted positions and the primary-key index, in no format's terms.

pub mod bitmap;
pub mod index;
pub mod partition;
pub mod plan;
