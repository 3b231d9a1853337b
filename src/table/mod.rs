//! The physical layer: data files, deleted positions and the primary-key index, in no format's terms.

pub mod bitmap;
mod difference;
pub mod files;
mod holes;
pub mod index;
pub mod keys;
pub mod notes;
pub mod partition;
pub mod physical;
pub mod plan;
mod refresh;
mod source_positions;
pub mod split;
#[cfg(test)]
mod tests;
mod transform;
mod unconfirmed;
