//! The physical table against a model: random batches, read back from the files minus the bitmaps.

mod cases;
mod model;
mod properties;
