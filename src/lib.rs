//! evows.
