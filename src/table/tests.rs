//! The physical table against a model: random batches, read back from the files minus the bitmaps.

mod model;
mod properties;
