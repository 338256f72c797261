//! Keepwell: medical records sealed at rest.
fn main() {}
