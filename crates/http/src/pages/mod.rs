//! The web pages.
pub mod assets;
pub mod backend;
pub mod chart;
pub mod plot;
pub mod read;
pub mod view;
